"""The pages of published results, which `bench report --publish` wrote into `results/`."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from generated.markdown import table

RESULTS = Path(__file__).parents[2] / "results"
_WIDE = "---\nhide: [navigation, toc]\n---\n"


def pages() -> dict[str, str | bytes]:
    """Return the page and files of each published study, and the index page."""
    files: dict[str, str | bytes] = {}
    folders = sorted(page.parent for page in RESULTS.glob("*/README.md"))
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            name = "index.md" if path == folder / "README.md" else str(path.relative_to(folder))
            files[f"results/{folder.name}/{name}"] = path.read_bytes()
    title, intro, notes = (RESULTS / "README.md").read_text().split("\n\n", 2)
    rows = table(("question", "answer", "picture"), map(_row, folders))
    files["results/index.md"] = f"{_WIDE}{title}\n\n{intro}\n\n{rows}\n{notes}"
    return files


def _row(folder: Path) -> tuple[str, str, str]:
    """Return a study's row in the index: its question as a link, its answer, and its picture."""
    lines = (folder / "README.md").read_text().splitlines()
    title = lines[0].removeprefix("# ")
    begin = next((n for n, line in enumerate(lines[1:], 1) if line and line[:6] != "After "), 1)
    answer = [*itertools.takewhile(bool, lines[begin:])]  # a sentence, or a list
    text = "<br>".join(line.removeprefix("- ") for line in answer)
    text = re.sub(r"\]\((?!https?:)", f"]({folder.name}/", text)
    link = f"[{title}]({folder.name}/index.md)"
    pictures = (folder / name for name in ("study.svg", "roofline.svg"))
    picture = next((path.name for path in pictures if path.is_file()), None)
    shown = f'![{folder.name}]({folder.name}/{picture}){{ width="420" loading=lazy }}'
    return link, text, shown if picture else ""
