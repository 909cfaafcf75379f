"""Reading and editing a network: summary, blocks, architecture, gradients, widening, deepening."""
