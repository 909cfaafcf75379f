"""The pages beside README.md of results/throughput are made of the data beside them."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

PUBLISHED = sorted((Path(__file__).parents[2] / "results" / "throughput").glob("*.json"))


@pytest.mark.parametrize("data", PUBLISHED, ids=[path.stem for path in PUBLISHED])
def test_a_published_page_is_made_of_the_data_beside_it(data: Path) -> None:
    program = importlib.import_module(data.stem)
    assert data.with_suffix(".md").read_text() == program.page(json.loads(data.read_text()))


def test_every_page_that_the_readme_names_has_its_data() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    named = {path.stem for path in PUBLISHED if f"results/throughput/{path.stem}.md" in readme}
    assert named == {"agreement", "calibration", "repetitions", "slowdowns"}
