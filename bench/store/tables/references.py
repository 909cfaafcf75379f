"""References: the variants of studies that a table's runs stand for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from bench.store.runs import PARTIAL

if TYPE_CHECKING:
    from pathlib import Path

    from bench.store import Store


class Reference(NamedTuple):
    """One run, as one variant of one study.

    Attributes:
        folder: name of the run's folder.
        study: the study that refers to the run; None for a run of no study.
        variant: of that study.
    """

    folder: str
    study: str | None = None
    variant: str | None = None


def find_references(
    store: Store, study: str | None = None, run: str | None = None
) -> list[Reference]:
    """Return the references to the runs of a results folder, of one study, or to one run.

    A run to which several variants refer has a reference for each; a run of no study has one.
    """
    folder_of = _run_folders(store.root / "runs")
    if study is not None:
        record = store.read_study(study)
        return [
            Reference(folder_of[name], study, variant)
            for variant, entry in (record.variants.items() if record else ())
            for name in entry["runs"].values()
            if name in folder_of
        ]
    if run is not None:
        folder_of = {name: folder for name, folder in folder_of.items() if run in {name, folder}}
    variants_of: dict[str, list[tuple[str, str]]] = {}
    for record in store.studies():
        for variant, entry in record.variants.items():
            for name in entry["runs"].values():
                variants_of.setdefault(name, []).append((record.name, variant))
    return [
        reference
        for name, folder in folder_of.items()
        for reference in (
            [Reference(folder, *place) for place in variants_of.get(name, ())]
            or [Reference(folder)]
        )
    ]


def _run_folders(runs: Path) -> dict[str, str]:
    """Map each run to its folder: finished runs first, in order of name.

    Files are not excluded here: they have no record, and so no row.
    """
    if not runs.is_dir():
        return {}
    names = sorted(name for name in os.listdir(runs) if name[0] != ".")  # noqa: PTH208 - plain names
    finished = {name: name for name in names if not name.endswith(PARTIAL)}
    unfinished = {name.removesuffix(PARTIAL): name for name in names if name.endswith(PARTIAL)}
    return finished | {run: name for run, name in unfinished.items() if run not in finished}
