"""What results say.

- `statistics`: means, paired differences, intervals, tests.
- `power`: the power of these tests, and the seeds that a difference needs.
- `looks`: the significance level that is left at a look at a study's results.
- `summaries`: a study's results, a row per variant and per contrast.
- `answer`: the sentences that answer a study's question.
- `wording`: words that several findings share.
- `comparisons`: the differences as a table.
- `agreement`: trained networks compared on the same test images.
- `time_to_accuracy`: training time to a validation accuracy.
- `fastest`: how measured configurations are named, the fastest one, and whether int8 pays.
- `history`: speed over commits and versions, and where it changed.
- `choice`: which measured network to ship.
"""
