"""A study as one self-contained HTML page that requests nothing from any network."""

from __future__ import annotations

from bench.report.page.render import render_page, write_page

__all__ = ["render_page", "write_page"]
