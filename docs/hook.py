"""What MkDocs is to do beside reading Markdown: make the pages that come from the code.

Each module of `generated/` returns its pages as path → text; a path that a written page has
already is an error, so that nothing is made in silence over what a person wrote.
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
    """Add the pages that are made from the code and from `results/`."""
    for maker in MAKERS:
        for path, content in maker().items():
            if files.get_file_from_path(path):
                raise PluginError(f"docs/{path} is made by {maker.__module__}; remove the file")
            files.append(File.generated(config, path, content=content))
    return files


def on_post_page(output: str, *, page: Page, **_: Any) -> str:
    """Say the language of a page that is not in English, for screen readers and hyphenation."""
    language = page.meta.get("language")
    return output.replace('<html lang="en"', f'<html lang="{language}"', 1) if language else output
