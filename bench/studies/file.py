"""Read and check study files: those that ship with bench, and the user's own."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.errors import BenchError, check_known, nearest, nearest_file
from bench.models import ModelError, canonical
from bench.studies.expansion import Overrides, expand
from bench.studies.lines import explain, explain_first, line_of
from bench.studies.plan import Plan, VariantError
from bench.studies.recipe import RECIPES
from bench.studies.schema import Settings, Study

ADHOC = "adhoc"  # the study in which single runs are recorded
_MOST_BYTES = 1_000_000
_NAME = re.compile(r"\w[^/\\:*?\"<>|]{0,79}")  # can be a file's on every operating system
_MOST_VARIANTS = 1_000
_At = Callable[..., str]  # of keys such as "contrast", "0": what a message about them begins with


def shipped_studies() -> dict[str, Path]:
    """Return the studies that ship with bench: name → file."""
    folder = Path(str(resources.files("bench.ablations")))
    paths = [*sorted(folder.glob("*.toml")), *sorted(folder.glob("full/*.toml"))]
    return {path.stem: path for path in paths}


def shipped_costs() -> dict[str, int]:
    """Return the multiply-adds of all trainings of each shipped study.

    `tools/costs.py` computes them, because that takes longer than a list of studies may.
    """
    text = resources.files("bench.ablations").joinpath("costs.json").read_text(encoding="utf-8")
    costs: dict[str, int] = json.loads(text)
    return costs


@dataclass(frozen=True)
class StudyFile:
    """A study that was read from a file.

    Attributes:
        name: the study's name in the results: the file's, without its ending.
        study: its content.
        path: the file, as errors name it.
        content: the file's text, in which errors find their line.
    """

    name: str
    study: Study
    path: Path
    content: str

    def expand(self, overrides: Overrides | None = None) -> Plan:
        """Expand the study into its runs.

        Raises:
            BenchError: as `bench.studies.expand`, with the file and the line before it.
        """
        try:
            return expand(self.name, self.study, overrides)
        except VariantError as error:
            raise BenchError(f"{self.path}{self._line_of(error)}: {error}") from None

    def _line_of(self, error: VariantError) -> str:
        """Find the line that causes an error: the variant's own, or else the base's."""
        own = ["variant", str(error.variant)] if self.study.variant else ["grid"]
        places = ([*own, *error.keys], ["base", *error.keys])
        lines = (line_of(self.content, place, exactly=True) for place in places if error.keys)
        return next(filter(None, lines), line_of(self.content, own))


def load_study(name_or_path: str | Path) -> StudyFile:
    """Read a shipped study by name, or a study file by path.

    Raises:
        BenchError: there is no such study, its file is not valid, or has a name that no study can
            have; the message names the file, the line, the key, and the nearest valid spelling.
    """
    text = str(name_or_path)
    path = Path(text)
    shipped = shipped_studies()
    if text in shipped:
        path = shipped[text]
    elif path.suffix != ".toml" and not path.is_file():
        raise BenchError(
            f"unknown study '{text}'{nearest(text, shipped)} "
            f"(shipped: {', '.join(shipped)}; or give the path of a .toml file)"
        )
    content = _read(path)
    if path.stem not in shipped or content != _read(shipped[path.stem]):
        check_study_name(path.stem, str(path))
    return StudyFile(path.stem, parse_study(content, path), path, content)


def check_study_name(name: str, where: str) -> None:
    """Refuse a name of a user's study that would not be found again, or means something else.

    Args:
        name: the study's name.
        where: the file or option that gives it, with which the error begins.

    Raises:
        BenchError: the name cannot be used.
    """
    if _NAME.fullmatch(name) is None or not name.isprintable():
        raise BenchError(
            f"{where}: the name of a study begins with a letter, digit or _, and has at most "
            '80 characters and none of / \\ : * ? " < > |; choose another name'
        )
    if name in {ADHOC, *shipped_studies()}:
        raise BenchError(
            f"{where}: '{name}' is the name of a study of bench's own, and the results would be "
            "taken for that one's; choose another name"
        )
    try:
        canonical(name)
    except ModelError:
        return
    raise BenchError(
        f"{where}: '{name}' is a model, which commands would take it for; choose another name"
    )


def _read(path: Path) -> str:
    try:
        if path.exists() and not path.is_file() and not path.is_dir():  # a pipe never ends
            raise BenchError(f"cannot read the study {path}: it is a device or pipe; give a file")
        if path.is_file() and path.stat().st_size > _MOST_BYTES:
            raise BenchError(
                f"cannot read the study {path}: it has more than {_MOST_BYTES:,} bytes, as no "
                "study file has; give a .toml file that 'bench init' could have written"
            )
        return path.read_text(encoding="utf-8-sig")  # Notepad writes a byte-order mark
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        hint = "" if path.exists() else nearest_file(path)
        if not path.exists() and not hint:
            hint = "; 'bench init FILE.toml' writes one, 'bench list studies' lists those shipped"
        raise BenchError(f"cannot read the study {path}: {reason}{hint}") from None


def parse_study(content: str, path: Path) -> Study:
    """Parse and check a study file's text; *path* is named in errors.

    Raises:
        BenchError: as `load_study`.
    """
    try:
        values = tomllib.loads(content)
    except RecursionError:
        raise BenchError(f"{path}: nested too deeply for a study; write fewer brackets") from None
    except ValueError as error:  # a number of thousands of digits is not a TOMLDecodeError
        raise BenchError(f"{path}: not valid TOML: {error}") from None
    if not values:
        raise BenchError(f"{path} is empty; 'bench init {path.name}' writes a commented starter")
    try:
        study = Study.model_validate(values)
    except ValidationError as error:
        raise BenchError(explain(error, content, path)) from None

    def at(*keys: str) -> str:
        return f"{path}{line_of(content, list(keys))}" if keys else f"{path}"

    try:
        _check_names(study, at)
    except ValidationError as error:
        raise BenchError(explain(error, content, path, ["grid"])) from None
    return study


def check_study(study: Study, name: str) -> None:
    """Check a study that was made in Python, as a file's content is checked.

    Raises:
        BenchError: as `load_study`.
    """
    try:
        _check_names(study, lambda *_: f"study '{name}'")
    except ValidationError as error:
        raise BenchError(f"study '{name}': {explain_first(error, ['grid'])}") from None


def adhoc_study(question: str, variant: dict[str, Any], seed: int) -> Study:
    """Make a study of one variant and one seed.

    Raises:
        BenchError: a setting is unknown or impossible.
    """
    values = {"question": question, "base": {"seeds": [seed]}, "variant": [variant]}
    try:
        study = Study.model_validate(values)
        canonical(variant["model"], variant.get("options"))  # the error names no variant
    except ModelError as error:
        raise BenchError(str(error)) from None
    except ValidationError as error:
        raise BenchError(explain_first(error, ["variant", "0"])) from None
    return study


def _check_names(study: Study, at: _At) -> None:
    """Check what pydantic cannot: that names are unique, and that those referred to exist.

    Args:
        study: read from a file, or made in Python.
        at: returns what a message about a key begins with, such as a file and a line.

    Raises:
        BenchError: the study is not one.
        ValidationError: a combination of the grid is impossible.
    """
    if bool(study.variant) == bool(study.grid):
        raise BenchError(f"{at()}: give either [[variant]] entries or one [grid], not both or none")
    if study.grid:
        _check_grid(study, at)
    variants = study.variants
    names = [v.name for v in variants]
    for name in names:
        if names.count(name) > 1:
            last = len(names) - 1 - names[::-1].index(name)
            raise BenchError(
                f"{at('variant', str(last), 'name')}: two variants are called '{name}'; rename one"
            )
    places = [["variant", str(i)] for i in range(len(study.variant))] or [["grid"]] * len(names)
    references = [variant.reference for variant in variants]
    for place, wanted in [([], study.reference), *zip(places, references, strict=True)]:
        if wanted is not None:
            check_known(f"{at(*place, 'reference')}: reference", wanted, names)
    for name in study.published.top1_error if study.published else ():
        where = at("published", "top1_error", name)
        check_known(f"{where}: published.top1_error: variant", name, names)
    _check_contrasts(study, at, names)
    _check_primary(study, at)
    for place, settings in zip([["base"], *places], [study.base, *variants], strict=True):
        if settings.recipe is not None:
            check_known(f"{at(*place, 'recipe')}: recipe", settings.recipe, RECIPES)


def _check_contrasts(study: Study, at: _At, names: list[str]) -> None:
    known = [contrast.name for contrast in study.contrast]
    for number, contrast in enumerate(study.contrast):
        where = at("contrast", str(number))
        if contrast.name in [*names, *known[:number]]:
            raise BenchError(
                f"{where}: contrast '{contrast.name}' has the name of a variant or of another "
                "contrast; rename it"
            )
        for name in contrast.weights:
            check_known(f"{where}: contrast '{contrast.name}': variant", name, names)
        if not math.isclose(sum(contrast.weights.values()), 0, abs_tol=1e-9):
            raise BenchError(
                f"{where}: the weights of contrast '{contrast.name}' add up to "
                f"{sum(contrast.weights.values()):g}; they must add up to 0"
            )
        if not all(contrast.weights.values()):
            raise BenchError(
                f"{where}: contrast '{contrast.name}' has a weight of 0; leave the variant out"
            )


def _check_primary(study: Study, at: _At) -> None:
    if study.primary is None:
        return
    first = study.reference or study.variants[0].name
    compared = [v.name for v in study.variants if (v.reference or first) != v.name]
    known = [*compared, *(contrast.name for contrast in study.contrast)]
    if study.primary.name not in known:
        raise BenchError(
            f"{at('primary')}: primary '{study.primary.name}' is no contrast, and no variant that "
            f"is compared with another{nearest(study.primary.name, known)} "
            f"(known: {', '.join(known)})"
        )
    if study.primary.accuracy == "train" and not study.compare_training:
        raise BenchError(
            f"{at('primary')}: primary.accuracy = 'train' needs compare_training = true"
        )


def _check_grid(study: Study, at: _At) -> None:
    for key, values in study.grid.items():
        where = at("grid", key)
        if key not in Settings.model_fields or (isinstance(values, dict) != (key == "options")):
            known = [f"options.{key}", *(k for k in Settings.model_fields if k != "options")]
            raise BenchError(
                f"{where}: grid key '{key}' is no setting"
                f"{nearest(key, known)}; an option of the network is written options.{key}"
            )
        if not values or (isinstance(values, dict) and not all(values.values())):
            raise BenchError(f"{where}: grid key '{key}' has no values")
    count = math.prod(
        len(choices)
        for values in study.grid.values()
        for choices in (values.values() if isinstance(values, dict) else [values])
    )
    if count > _MOST_VARIANTS:
        raise BenchError(
            f"{at('grid')}: the grid multiplies out to {count:,} variants, "
            f"and a study has at most {_MOST_VARIANTS:,}; give fewer values"
        )
