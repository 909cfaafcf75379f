"""A study as one self-contained HTML page that requests nothing from any network."""

from __future__ import annotations

from bench.report.pages.render import render_page, write_page
from bench.report.pages.sections import save_figures
from bench.report.pages.server import PageServer

__all__ = ["PageServer", "render_page", "save_figures", "write_page"]
