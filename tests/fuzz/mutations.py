"""Feed the parsers that are ours mutated inputs until a count is reached: `python -m` or pytest.

Seeds are valid files of each format; each input is one of them with a few bytes flipped, cut,
doubled, spliced with another or replaced by a token of the format. No coverage guides it.
What counts as a failure: any exception but `BenchError`, or an input that takes over a second
of the processor.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import random
import struct
import sys
import tarfile
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from bench.data.formats import read_cifar, read_idx
from bench.errors import BenchError
from bench.request import RunRequest
from bench.store import RunRecord, Store
from bench.studies.file import parse_study
from bench.training.recipe import get_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

SLOW_SECONDS = 1.0
STUDY = b"""question = "Why?"
reference = "a"
[base]
epochs = 2
seeds = [0, 1]
learning_rate = 0.1
[[variant]]
name = "a"
model = "resnet8"
options = { width = 4, shortcut = "none" }
"""
TOKENS = [
    *(b"\x00", b"\xff" * 4, b"[[", b"]]", b"{", b"}", b'"', b"'''", b"=", b"\n", b"nan", b"-inf"),
    *(b"1e999", b"9" * 40, b"null", b"true", b"../", b"\\u0000", b"\xed\xa0\x80", b"[grid]\n"),
]


def mutate(seed: bytes, chance: random.Random) -> bytes:
    """Return *seed* with one to six things wrong with it."""
    content = bytearray(seed)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(content) + 1)
        kind = chance.randrange(5)
        if kind == 0 and at < len(content):
            content[at] = chance.randrange(256)
        elif kind == 1:
            del content[at : at + chance.randint(1, 16)]
        elif kind == 2:
            content[at:at] = chance.choice(TOKENS)
        elif kind == 3:
            content[at:at] = content[at : at + chance.randint(1, 32)]
        else:
            del content[at:]
    return bytes(content)


def tar(members: dict[str, bytes]) -> bytes:
    """Return an uncompressed archive."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"cifar/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def targets(folder: Path) -> dict[str, tuple[bytes, Callable[[bytes], object]]]:
    """Name → (a valid input, what parses one)."""
    path = folder / "input"
    store = Store(folder / "results")
    request = RunRequest(model="resnet8", dataset="mnist", recipe=get_recipe("fast"), seed=0)
    record = RunRecord(
        run=request.run_id, request=request.as_dict(), status="complete", environment={},
        started_at="2026-01-02T03:04:05+00:00", seconds=1.0, result={"test_accuracy": 0.5},
    )  # fmt: skip
    run = store.folder(record.run)
    run.mkdir(parents=True)

    def study(content: bytes) -> object:
        return parse_study(content.decode(errors="replace"), Path("study.toml"))

    def run_json(content: bytes) -> object:
        (run / "run.json").write_bytes(content)
        return store.read_run(record.run)

    def idx(content: bytes) -> object:
        path.write_bytes(gzip.compress(content, 0))
        return read_idx(path)

    def cifar(content: bytes) -> object:
        path.write_bytes(gzip.compress(content, 0))
        return read_cifar(path, train=("a.bin",), test="t.bin", names="n.txt", label_bytes=1)

    def gz(content: bytes) -> object:
        path.write_bytes(content)
        return read_idx(path)

    pixels = struct.pack(">HBBII", 0, 8, 2, 3, 4) + bytes(range(12))
    records = {"a.bin": bytes(3073), "t.bin": bytes(3073), "n.txt": b"cat\ndog\n"}
    return {
        "study": (STUDY, study),
        "run.json": (json.dumps(json.loads(record.to_json())).encode(), run_json),
        "idx": (pixels, idx),
        "gzip of idx": (gzip.compress(pixels), gz),
        "cifar": (tar(records), cifar),
    }


def fuzz(name: str, count: int, seed: int = 0) -> list[str]:
    """Parse *count* mutated inputs of one format; returns what went wrong, with the input."""
    chance = random.Random(f"{name}/{seed}")
    failures = []
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        valid, parse = targets(Path(folder))[name]
        parse(valid)
        for _ in range(count):
            content = mutate(valid, chance)
            begun = time.process_time()  # on a shared machine, wall time measures the others
            try:
                parse(content)
            except BenchError:
                pass
            except Exception as error:
                failures.append(f"{name}: {type(error).__name__}: {error} from {content[:400]!r}")
            if time.process_time() - begun > SLOW_SECONDS:
                failures.append(f"{name}: slow from {content[:400]!r}")
    return failures


def main() -> None:
    """Fuzz one format or all, and print the counts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="inputs of each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--format", action="append", help="one format; all without")
    chosen = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        names = chosen.format or list(targets(Path(folder)))
    for name in names:
        begun = time.perf_counter()
        failures = fuzz(name, chosen.count, chosen.seed)
        seconds = time.perf_counter() - begun
        print(f"{name}: {chosen.count:,} inputs, {len(failures)} failures, {seconds:.0f} s")  # noqa: T201
        print(*failures[:5], sep="\n")  # noqa: T201
        failed = failed or bool(failures)
    sys.exit(failed)


if __name__ == "__main__":
    main()
