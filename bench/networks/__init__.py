"""Read and edit a network, without data sets, runs or files.

- Reading: `summary` (layers, parameters, multiply-adds), `memory_traffic` (bytes moved), `graph`
  (the network as a diagram), `blocks` (find residual blocks, and leave out or swap them for a
  while).
- Training signals: `gradient_norms` (by block), `gradient_correlation` (at nearby inputs),
  `directions` (random directions in weight space, scaled to each filter).
- Growing: `nesting` (can the larger network compute all that the smaller one can?), `widen` (copy
  channels, and take the weights over), `same_function` (verify that both compute the same).
"""
