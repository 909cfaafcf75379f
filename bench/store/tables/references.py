"""Which runs a table shows, and as which variant of which study."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.store.runs import PARTIAL

if TYPE_CHECKING:
    from pathlib import Path

    from bench.store import Store

Place = tuple[str | None, str | None]  # study and variant that refer to a run


@dataclass(frozen=True)
class Appearances:
    """Rows of a table to be, one a run and variant that refers to it.

    Attributes:
        folders: of the runs, a run's again for every further variant.
        studies: that refer to them; None for a run of none.
        variants: of those studies.
    """

    folders: list[str]
    studies: list[str | None]
    variants: list[str | None]


def appearances(store: Store, study: str | None = None, run: str | None = None) -> Appearances:
    """Find the runs of a results folder, of one of its studies, or one run of it."""
    folder_of = _folders(store.root / "runs")
    pairs: list[tuple[str, Place]]
    if study is not None:
        found = store.read_study(study)
        pairs = [
            (folder_of[wanted], (study, variant))
            for variant, entry in (found.variants if found else {}).items()
            for wanted in entry["runs"].values()
            if wanted in folder_of
        ]
    else:
        referred = _referred(store)
        if run is not None:
            folder_of = {n: f for n, f in folder_of.items() if run in {n, f}}
        if not referred:  # 100,000 runs without a study need not be looked at one by one
            nothing: list[str | None] = [None] * len(folder_of)
            return Appearances(list(folder_of.values()), nothing, nothing)
        nowhere: list[Place] = [(None, None)]
        pairs = [
            (folder, place)
            for name, folder in folder_of.items()
            for place in referred.get(name, nowhere)
        ]
    places = [place for _, place in pairs]
    return Appearances([f for f, _ in pairs], [s for s, _ in places], [v for _, v in places])


def _folders(runs: Path) -> dict[str, str]:
    """Run → its folder, in order of name, the finished ones first.

    A file among them has no record and so no row: it need not be told from a folder here.
    """
    if not runs.is_dir():
        return {}
    names = sorted(name for name in os.listdir(runs) if name[0] != ".")  # noqa: PTH208 - plain names
    begun = [name for name in names if name.endswith(PARTIAL)]
    if not begun:
        return dict(zip(names, names, strict=True))
    finished = {name: name for name in names if not name.endswith(PARTIAL)}
    unfinished = {name.removesuffix(PARTIAL): name for name in begun}
    return finished | {run: name for run, name in unfinished.items() if run not in finished}


def _referred(store: Store) -> dict[str, list[Place]]:
    referred: dict[str, list[Place]] = {}
    for record in store.studies():
        for variant, entry in record.variants.items():
            for name in entry["runs"].values():
                referred.setdefault(name, []).append((record.name, variant))
    return referred
