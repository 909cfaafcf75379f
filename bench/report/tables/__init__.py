"""Tables as text.

- `text_table`: the type, and its layout for terminals, Markdown and LaTeX.
- `study`: variants, runs, networks on the same test images.
- `published`: the paper's figures beside a study's.
- `tuned`: what was tried for each variant.
- `throughput`: measured speeds.
"""
