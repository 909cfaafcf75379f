"""Where the time goes, layer by layer."""
