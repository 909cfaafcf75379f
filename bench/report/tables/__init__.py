"""Tables as text.

- `text_table`: the type, and its layout for Markdown and LaTeX; `terminal`: that for terminals.
- `study`: variants, the paper's figures, what was tuned, runs, networks on the same test images.
- `throughput`, `cold_start`, `history`: measured speeds, cold starts, speeds over time.
- `durations`: durations as text.
"""
