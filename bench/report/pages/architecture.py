"""Architecture diagrams of a study's networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from bench.models.errors import first_line
from bench.report.pages.diagram import draw
from bench.store.files import write_atomically
from bench.studies.run_request import RunRequest

if TYPE_CHECKING:
    from pathlib import Path

    from bench.networks.traced_architecture import Network
    from bench.report.study_data import StudyData
    from bench.store import RunRecord, Store


@dataclass(frozen=True)
class Architecture:
    """One network and the variants that have it.

    Attributes:
        variants: their names.
        svg: the picture; None if there is none.
        why: why there is none.
        parameters: number of parameters; None if unknown.
    """

    variants: tuple[str, ...]
    svg: Markup | None
    why: str | None
    parameters: int | None


def save_diagrams(data: StudyData, folder: Path) -> list[Path]:
    """Save every diagram as a separate SVG file; return the files.

    Raises:
        StorageError: the folder cannot be written.
    """
    drawn = [found for found in architectures(data, alone=True) if found.svg is not None]
    files = [folder / f"architecture-{number}.svg" for number in range(1, len(drawn) + 1)]
    for file, found in zip(files, drawn, strict=True):
        write_atomically(file, str(found.svg).encode())
    return files


def architectures(data: StudyData, *, alone: bool = False) -> list[Architecture]:
    """Draw each network of a study once; variants that share one are named together.

    This package's networks are rebuilt without weights from the requests of their runs. Of
    foreign ones (timm, torchvision, a user's own), the architecture recorded at training is drawn:
    a report does not run foreign code.
    """
    records: dict[str, RunRecord] = {}
    for run, record in data.records.items():
        variant = data.variant_of(run)
        if variant is not None and "input_shape" in record.result and "classes" in record.result:
            records.setdefault(variant, record)
    groups: dict[tuple[Network | str, Any], list[str]] = {}
    for variant in filter(records.get, data.variants):
        record = records[variant]
        key = (_read(data.store, record), record.result.get("parameters"))
        groups.setdefault(key, []).append(variant)
    made = []
    for number, ((found, parameters), variants) in enumerate(groups.items()):
        names = ", ".join(variants)
        svg = why = None
        if isinstance(found, str):
            why = f"{names}: {found}"
        else:
            text = draw(found, f"network-{number}", f"Architecture of {names}", alone=alone)
            svg = Markup(text)  # noqa: S704 - ElementTree escapes
        made.append(Architecture(tuple(variants), svg, why, parameters))
    missing = tuple(name for name in data.variants if name not in records)
    if missing:
        why = f"{', '.join(missing)}: no run has finished yet, so no network is known."
        made.append(Architecture(missing, None, why, None))
    return made


def _read(store: Store, record: RunRecord) -> Network | str:
    """Return a run's network, or why it cannot be drawn."""
    import torch

    from bench.networks.traced_architecture import DOCUMENT, Network, trace
    from bench.training.setup import build_blank

    name = str(record.request["model"])
    channels, height, width = record.result["input_shape"]
    shape = channels, height, width
    try:
        if DOCUMENT in record.files:
            return Network.from_document(store.read_document(record.run, DOCUMENT))
        if ":" in name:
            return (
                f"the architecture of {name} was not recorded when it was trained: it could not "
                "be traced, or the run is from an older version of bench; "
                f"'bench describe {name}' lists its layers."
            )
        with torch.device("meta"):
            request = RunRequest.from_dict(record.request)
            model = build_blank(request, len(record.result["classes"]), shape).eval()
        return trace(model, shape)
    except Exception as error:  # of any kind: the page has its other pictures
        return f"{name} cannot be drawn: {first_line(error)}"
