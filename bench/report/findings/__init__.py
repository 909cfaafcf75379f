"""What results say.

- `statistics`: means, paired differences, intervals, tests, power.
- `answer`: a row per variant, and the sentences that answer a study's question.
- `comparisons`: the differences as a table.
- `agreement`: trained networks compared on the same test images.
- `time_to_accuracy`: training time to a validation accuracy.
- `fastest`: how measured configurations are named, the fastest one, and whether int8 pays.
- `history`: speed over commits and versions, and where it changed.
- `choice`: which measured network to ship.
"""
