"""Measurements of networks: their blocks, their gradients, and the loss around their weights."""
