"""MkDocs hook: add the pages that are generated from the code.

Each module of `generated/` returns its pages as path → text. If a written page has the same path,
the build fails, so that a generated page never silently replaces it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from generated import commands, results, study, tables
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

MAKERS = (commands.pages, study.pages, tables.pages, results.pages)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages generated from the code and from `results/`."""
    for maker in MAKERS:
        for path, content in maker().items():
            if files.get_file_from_path(path):
                raise PluginError(f"docs/{path}: {maker.__module__} generates it; remove the file")
            files.append(File.generated(config, path, content=content))
    return files


def on_post_page(output: str, *, page: Page, **_: Any) -> str:
    """Set the HTML language of pages not in English, for screen readers and hyphenation."""
    language = page.meta.get("language")
    return output.replace('<html lang="en"', f'<html lang="{language}"', 1) if language else output
