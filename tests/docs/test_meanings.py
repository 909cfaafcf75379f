"""Every column of every table is explained."""

from __future__ import annotations

import pytest

from bench.store.tables.columns import COLUMNS
from bench.store.tables.meanings import MEANINGS, meaning


@pytest.mark.parametrize(("table", "column"), [(t, c) for t in COLUMNS for c in COLUMNS[t]])
def test_every_column_has_a_meaning(table: str, column: str) -> None:
    assert meaning(table, column).endswith(".")


def test_nothing_is_explained_that_is_not_there() -> None:
    everything = {column for columns in COLUMNS.values() for column in columns}
    assert set(MEANINGS[""]) <= everything
    for table, columns in COLUMNS.items():
        assert set(MEANINGS[table]) <= set(columns)
