"""The pages of published results, which `bench report --publish` wrote into `results/`."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

RESULTS = Path(__file__).parents[2] / "results"


def pages() -> dict[str, str | bytes]:
    """Return the page and files of each published study, and the index page."""
    files: dict[str, str | bytes] = {}
    folders = sorted(page.parent for page in RESULTS.glob("*/README.md"))
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = "index.md" if path == folder / "README.md" else str(path.relative_to(folder))
            files[f"results/{folder.name}/{name}"] = path.read_bytes()
    files["results/index.md"] = "\n".join(
        [_without_title((RESULTS / "README.md").read_text()), *map(_entry, folders)]
    )
    return files


def _without_title(text: str) -> str:
    return text if text.startswith("# ") else f"# Published results\n\n{text}"


def _entry(folder: Path) -> str:
    """Return a study's entry in the index: its question as a link, and its answer."""
    lines = (folder / "README.md").read_text().splitlines()
    title = lines[0].removeprefix("# ")
    begin = next((n for n, line in enumerate(lines[1:], 1) if line and line[:6] != "After "), 1)
    answer = "\n".join(itertools.takewhile(bool, lines[begin:]))  # a sentence, or a list
    answer = re.sub(r"\]\((?!https?:)", f"]({folder.name}/", answer)
    return f"## [{title}]({folder.name}/index.md)\n\n{answer}\n"
