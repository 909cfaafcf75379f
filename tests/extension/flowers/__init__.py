"""A user's own package, that bench knows nothing of."""
