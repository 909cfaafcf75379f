"""What results say.

- `statistics`: means, paired differences, intervals, tests, power.
- `answer`: a row per variant, and the sentences that answer a study's question.
- `agreement`: trained networks compared on the same test images.
- `time_to_accuracy`: training time to a validation accuracy.
- `fastest`: the fastest measured configuration, and whether int8 pays.
- `choice`: which measured network to ship.
"""
