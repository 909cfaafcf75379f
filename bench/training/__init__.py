"""Training: recipe, loop, checkpoint, evaluation, and one run from request to record."""
