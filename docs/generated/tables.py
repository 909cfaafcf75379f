"""The reference page of the result tables, generated from their column declarations."""

from __future__ import annotations

from generated.markdown import code, table

_HEAD = """# Tables

`bench.load_results(path, table="{first}")` returns one of these tables as a pandas DataFrame with
one row per observation. The columns below are always present, in this order, even if there are no
rows. Missing values are missing, never zero. This page is generated from
`bench.store.tables.columns`.
"""


def pages() -> dict[str, str]:
    """Return the page of every table and column."""
    from bench.store.tables.columns import TABLES

    parts = [_HEAD.format(first=next(iter(TABLES)))]
    for name, columns in TABLES.items():
        rows = [(code(key), code(column.dtype), column.meaning) for key, column in columns.items()]
        parts += [f"## {name}", "", table(("column", "dtype", "meaning"), rows)]
    return {"reference/tables.md": "\n".join(parts)}
