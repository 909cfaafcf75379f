"""Tables read from a results folder, as pandas frames.

`columns` declares every table's columns, their dtypes and meanings; `frames` loads a table
(`load_results`); `runs` makes the rows of the `runs` and `epochs` tables from run records.
"""
