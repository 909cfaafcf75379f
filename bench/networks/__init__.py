"""Reading and editing a network: summary, blocks, graph, gradients, widening and deepening."""
