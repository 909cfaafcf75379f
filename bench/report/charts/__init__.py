"""Charts: their data, and two renderers.

`chart` is the model: a `Chart` with axes and series, which also decides colours, symbols and error
bars. `draw_plotly` and `draw_matplotlib` only render it. The other modules make charts from
tables and records: `training` (curves, accuracies, differences), `cost` (accuracy against cost,
latency), `roofline`, `layers` (time by block), `sensitivity` (int8 by layer), `blocks` (lesions and
gradients), `landscape`, `throughput` (of one measurement), `history` (of repeated ones);
`confusion` makes confusion matrices.
"""
