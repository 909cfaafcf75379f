"""From what a person names (a model, run, study or file) to a network, for every command.

`find` resolves names, and is the only code that does; `network` has the two types it leads to: a
`NamedNetwork`, of which nothing is loaded yet, and the `LoadedNetwork` with its weights and images.
`trained_run` loads a finished run's network, `classify` runs one on image files.
"""
