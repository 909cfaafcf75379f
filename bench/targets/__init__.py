"""From what a person names (a model, run, study or file) to a network, for every command."""
