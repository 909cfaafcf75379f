"""Training: set-up, loop, checkpoint, evaluation, and one run from request to record."""
