"""Every column of every table is explained, in one line that fits a cell."""

from __future__ import annotations

import pytest

from bench.store.tables.columns import TABLES


@pytest.mark.parametrize(("table", "column"), [(t, c) for t in TABLES for c in TABLES[t]])
def test_every_column_has_a_meaning(table: str, column: str) -> None:
    meaning = TABLES[table][column].meaning
    assert meaning.endswith(".")
    assert len(meaning) > 8
    assert "\n" not in meaning
