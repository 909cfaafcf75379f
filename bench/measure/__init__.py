"""How fast a network runs: for what really ran, with an interval, beside the machine's ceiling.

`measurement` conducts it: `sources` finds the networks, `plan` lays out what is compared,
`backends` prepare it, `lanes` (or, in processes of their own, `isolation`) run it, `sampling`
interleaves the blocks, `intervals` and `percentiles` turn samples into figures, `ceiling` and
`machine` say what they stand beside, `rows` writes the table. `compare` judges two
`sides`, `tuning` looks for the fastest configuration.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


class _Measure(ModuleType):
    """`bench.measure(…)` is a function, and `bench.measure` also this package's name.

    Python binds the package to that name as soon as a module of it is imported; so that the
    call works before and after, the package can be called.
    """

    def __call__(self, *arguments: Any, **options: Any) -> pd.DataFrame:
        """Measure; see `bench.measure.measurement.measure`."""
        from bench.measure.measurement import measure

        return measure(*arguments, **options)


sys.modules[__name__].__class__ = _Measure
