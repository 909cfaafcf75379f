"""The page of the result tables, read from the declaration of their columns."""

from __future__ import annotations

from generated.markdown import code, table

_HEAD = """# Tables

`bench.load_results(path, table="{first}")` returns one of these as a pandas frame: one row an
observation, the columns below in this order, also when there is no row. Missing is missing, never
zero. Made from `bench.store.tables.columns`.
"""


def pages() -> dict[str, str]:
    """Return the page of every table and column."""
    from bench.store.tables.columns import TABLES

    parts = [_HEAD.format(first=next(iter(TABLES)))]
    for name, columns in TABLES.items():
        rows = [(code(key), code(column.dtype), column.meaning) for key, column in columns.items()]
        parts += [f"## {name}", "", table(("column", "dtype", "meaning"), rows)]
    return {"reference/tables.md": "\n".join(parts)}
