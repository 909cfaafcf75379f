"""What a request only names, and what its run's result depends on: the user's code, the images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.data.catalog import find_folder
from bench.errors import BenchError
from bench.system.environment import version_of
from bench.system.user_code import LIBRARIES, changes, imported_code

if TYPE_CHECKING:
    from bench.data import Dataset
    from bench.store import RunRecord
    from bench.studies.run_request import RunRequest


def describe_inputs(request: RunRequest) -> dict[str, Any]:
    """Return what to record of a run's code and folder, as this process found them."""
    folder, code = find_folder(request.dataset), imported_code(request.model)
    package = request.model.partition(":")[0]
    version = version_of(package) if package in LIBRARIES else None
    return {
        **({"user_code": code} if code else {}),
        **({"library": f"{package} {version}"} if version else {}),
        **({"dataset_path": str(folder)} if folder else {}),
    }


def describe_data(dataset: Dataset) -> dict[str, Any]:
    """Return what tells a dataset from another of the same name, as a run records it."""
    return {
        "dataset_fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
    }


def recorded_inputs(record: RunRecord) -> dict[str, Any]:
    """Return what a finished run recorded of its code and images."""
    environment = record.environment
    return {**record.result, **{k: environment.get(k) for k in ("user_code", "library")}}


def remake(request: RunRequest) -> str:
    """Word how to make a recorded run again, whichever command finds that it is out of date."""
    return f"{'import' if request.imported else 'train'} it again with --force"


def refuse_other_inputs(
    run: str,
    request: RunRequest,
    recorded: dict[str, Any],
    now: dict[str, Any],
    *,
    begun: bool = False,
) -> None:
    """Refuse to take a run for one of other code or images; what was not recorded is not compared.

    Args:
        run: its id.
        request: what it was requested as.
        recorded: `user_code` and `describe_data` as recorded with it.
        now: the same as they are now; what is missing is not compared.
        begun: it is to be resumed, not to be reused.

    Raises:
        BenchError: something differs; it is named.
    """
    what = "imported" if request.imported else "begun" if begun else "trained"
    again = remake(request)
    changed = changes(recorded.get("user_code") or {}, now.get("user_code") or {})
    if changed and recorded.get("user_code") and "user_code" in now:
        if not now["user_code"]:
            raise BenchError(
                f"run {run}: the code of its network ({', '.join(changed)}) is not found; work in "
                "the folder that holds it, or install it"
            )
        if recorded.get("library"):
            raise BenchError(
                f"run {run} was {what} with other code than there is now in {', '.join(changed)} "
                f"({recorded['library']} then); install that version, or {again}"
            )
        raise BenchError(
            f"run {run} was {what} with other code than there is now in {', '.join(changed)}; "
            f"restore the code, give the new network another name, or {again}"
        )
    for key in ("dataset_fingerprint", "classes", "mean", "std"):
        if key in now and recorded.get(key, now[key]) != now[key]:
            named = "images" if key == "dataset_fingerprint" else key
            raise BenchError(
                f"run {run} was {what} on other {named} than dataset '{request.dataset}' has now; "
                f"restore them, or {again} (a function that draws them must seed its random "
                "numbers)"
            )
