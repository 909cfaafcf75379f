"""What a trained network does: its blocks, its gradients, and the loss around its weights."""
