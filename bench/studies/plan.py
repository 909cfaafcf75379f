"""The plan a study expands into: variants × random seeds, each with its request."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.studies.run_request import RunRequest
    from bench.studies.schema import Study


class VariantError(BenchError):
    """A variant names something that is unknown or does not fit.

    Attributes:
        variant: its index in the study.
        keys: path of the wrong key, outermost first: `("options", "shortcut")`.
    """

    def __init__(self, message: str, variant: int, *keys: str) -> None:
        super().__init__(message)
        self.variant = variant
        self.keys = keys


@dataclass(frozen=True)
class PlannedVariant:
    """One variant with its requests.

    Attributes:
        name: its name in the tables.
        reference: the variant it is compared with; None for the reference itself.
        requests: random seed → what to train.
    """

    name: str
    reference: str | None
    requests: dict[int, RunRequest]


@dataclass(frozen=True)
class Plan:
    """A study expanded: variants × random seeds.

    Attributes:
        name: the study's name in the results.
        study: its content.
        variants: its variants with their requests.
        only: the variants to train (default: all).
        overrides: values that replace those of the study's file: epochs, dataset, deterministic.
        file: name of the study's file; empty for a study that was made in Python.
    """

    name: str
    study: Study
    variants: tuple[PlannedVariant, ...]
    only: tuple[str, ...] = ()
    overrides: dict[str, Any] = field(default_factory=dict)
    file: str = ""

    def map(self, change: Callable[[RunRequest], RunRequest]) -> Plan:
        """Return the plan with every request changed; grown ones name their changed parent."""
        renamed: dict[str, str] = {}

        def changed(request: RunRequest) -> RunRequest:
            parent = renamed.get(request.grown_from or "", request.grown_from)
            new = change(replace(request, grown_from=parent))
            renamed[request.run_id] = new.run_id
            return new

        variants = tuple(
            replace(v, requests={s: changed(r) for s, r in v.requests.items()})
            for v in self.variants
        )
        return replace(self, variants=variants)

    @property
    def selected(self) -> list[PlannedVariant]:
        """The variants to train: all, or those that `only` names."""
        return [v for v in self.variants if not self.only or v.name in self.only]

    @property
    def all_requests(self) -> list[RunRequest]:
        """The requests of all variants, also of those that `only` leaves out."""
        return replace(self, only=()).requests

    @property
    def requests(self) -> list[RunRequest]:
        """Every distinct run, seed by seed, so that an early stop leaves complete pairs."""
        seeds = dict.fromkeys(s for v in self.selected for s in v.requests)
        ordered = (v.requests[s] for s in seeds for v in self.selected if s in v.requests)
        return list({request.run_id: request for request in ordered}.values())

    @property
    def generations(self) -> list[list[RunRequest]]:
        """The requests in groups, each group's parents in groups before it (`grow_from`)."""
        left, groups = self.requests, []
        while left:
            waiting = {request.run_id for request in left}
            group = [r for r in left if r.grown_from not in waiting]
            groups.append(group)
            left = [r for r in left if r.grown_from in waiting]
        return groups
