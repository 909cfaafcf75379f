"""Tables as text.

- `text_table`: the type, and its layout for terminals, Markdown and LaTeX.
- `study`: variants, the paper's figures, what was tuned, runs, networks on the same test images.
- `throughput`: measured speeds.
- `durations`: durations as text.
"""
