"""Rows for terminals, Markdown and LaTeX."""
