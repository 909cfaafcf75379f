"""Feed the parsers that are ours mutated inputs until a count is reached.

Seeds are valid files of each format; each input is one of them with a few bytes flipped, cut,
doubled, spliced with another or replaced by a token of the format. No coverage guides it here;
`coverage.py` beside this file feeds the same parsers by coverage. Checksums are recomputed after
the mutation where a file has one, or hardly an input would come past them.
What counts as a failure: any exception but `BenchError`, or an input that takes over a second
of the processor.
"""

from __future__ import annotations

import argparse
import dataclasses
import gzip
import hashlib
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
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper

from bench.data.formats import read_cifar, read_idx
from bench.errors import BenchError
from bench.export.build import from_file
from bench.export.classifier import ExportedClassifier
from bench.export.examine import examine
from bench.launch.planning import read_machines
from bench.measurement.compared_speeds import load_speeds
from bench.store import RunRecord, Store
from bench.store.archive import unpack
from bench.store.measurements import read_samples
from bench.store.records import read_study_record, seal
from bench.store.tables.runs import epoch_rows
from bench.studies.file import parse_study
from bench.studies.recipe import get_recipe
from bench.studies.run_request import RunRequest

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
MACHINES = b"""[[machine]]
name = "a"
workers = 2
flops_per_second = 1e11
images_per_second = { resnet20 = 100.0 }
watts = 60
"""
HISTORY = b"epoch,train_loss,train_accuracy,seconds\n1,0.5,0.8,1.0\n2,0.25,,1.0\n"
SAMPLES = b"configuration,phase,round,position,seconds\na,sample,0,0,0.1\na,sample,1,0,0.2\n"
ROW = {
    "status": "complete", "images_per_second": 10.0, "ci_low": 9.0, "ci_high": 11.0,
    "boundary": "compute", "model": "resnet8", "backend": "eager", "batch_size": 1,
    "ratio": 2.0, "ratio_low": 1.9, "ratio_high": 2.1, "noisy": False,
}  # fmt: skip
PROPERTIES = {
    "classes": ["cat", "dog"], "input_shape": [1, 4, 4], "mean": [0.5], "std": [0.5],
    "antialias": False, "normalize": True, "with_preprocessing": False,
}  # fmt: skip
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
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def network() -> onnx.ModelProto:
    """Return a small convolutional classifier of one grey image of 4×4."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2, 1, 4, 4], [0.1] * 32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("Flatten", ["c"], ["logits"]),
    ]
    take = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 4, 4])
    give = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2])
    graph = helper.make_graph(nodes, "g", [take], [give], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {key: json.dumps(value) for key, value in PROPERTIES.items()})
    return model


Target = tuple[bytes, "Callable[[bytes], object]"]


def targets(folder: Path) -> dict[str, Target]:
    """Name → (a valid input, what parses one)."""
    return data_files(folder) | records(folder) | onnx_files(folder)


def as_file(path: Path, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Return what writes its input as a file, and reads that."""

    def parse(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return parse


def data_files(folder: Path) -> dict[str, Target]:
    path = folder / "input"

    def idx(content: bytes) -> object:
        path.write_bytes(gzip.compress(content, 0))
        return read_idx(path)

    def cifar(content: bytes) -> object:
        path.write_bytes(gzip.compress(content, 0))
        return read_cifar(path, train=("a.bin",), test="t.bin", names="n.txt", label_bytes=1)

    pixels = struct.pack(">HBBII", 0, 8, 2, 3, 4) + bytes(range(12))
    images = {"cifar/a.bin": bytes(3073), "cifar/t.bin": bytes(3073), "cifar/n.txt": b"cat\ndog\n"}
    return {
        "idx": (pixels, idx),
        "gzip of idx": (gzip.compress(pixels), as_file(path, read_idx)),
        "cifar": (tar(images), cifar),
    }


def records(folder: Path) -> dict[str, Target]:
    path = folder / "input"
    store = Store(folder / "results")
    request = RunRequest(model="resnet8", dataset="mnist", recipe=get_recipe("fast"), seed=0)
    record = RunRecord(
        run=request.run_id, request=request.as_dict(), status="complete", environment={},
        started_at="2026-01-02T03:04:05+00:00", seconds=1.0, result={"test_accuracy": 0.5},
    )  # fmt: skip
    run, measured = store.folder(record.run), folder / "results" / "measurements" / "m"
    for made in (run, measured, store.root / "studies"):
        made.mkdir(parents=True)
    kept = {"measurement": "m", "request": {}, "rows": []}
    named = {"name": "s", "question": "?", "variants": {"a": {"reference": None, "runs": {}}}}

    def study(content: bytes) -> object:
        return parse_study(content.decode(errors="replace"), Path("study.toml"))

    def run_json(content: bytes) -> object:
        (run / "run.json").write_bytes(sealed(content))
        return store.read_run(record.run)

    def study_json(content: bytes) -> object:
        written = store.root / "studies" / "s.json"
        written.write_bytes(sealed(content))
        return read_study_record(written)

    def history(content: bytes) -> object:
        (run / "history.csv").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        return epoch_rows(store, dataclasses.replace(record, files={"history.csv": digest}))

    def samples(content: bytes) -> object:
        (measured / "samples.csv").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        (measured / "measurement.json").write_bytes(seal(kept | {"files": {"samples.csv": digest}}))
        return read_samples(measured)

    def archive(content: bytes) -> object:
        path.write_bytes(gzip.compress(content, 0))
        with tempfile.TemporaryDirectory(dir=folder) as name:
            return unpack(Store(Path(name) / "results"), path)

    def archived(name: str, **others: bytes) -> Callable[[bytes], object]:
        beside = {f"{Path(name).parent.as_posix()}/{other}": text for other, text in others.items()}
        return lambda content: archive(tar({name: sealed(content), **beside}))

    written = json.dumps(json.loads(record.to_json())).encode()
    sha256 = hashlib.sha256(b"a file").hexdigest()
    row = {"run": None, "file": "f", "sha256": sha256, "status": "complete"}
    export = {"export": sha256, "request": {}, "row": row, "files": {"f": sha256}}
    return {
        "study": (STUDY, study),
        "run.json": (written, run_json),
        "study record": (json.dumps(json.loads(seal(named))).encode(), study_json),
        "history": (HISTORY, history),
        "samples": (SAMPLES, samples),
        "throughput JSON": (
            json.dumps({"schema": 1, "rows": [ROW]}).encode(),
            as_file(path, load_speeds),
        ),
        "machines": (MACHINES, as_file(path, read_machines)),
        "archive of runs": (tar({f"runs/{record.run}/run.json": written}), archive),
        "archived export": (
            json.dumps(export).encode(),
            archived(f"exports/{sha256}/export.json", f=b"a file"),
        ),
        "archived measurement": (
            json.dumps(kept).encode(),
            archived("measurements/m/measurement.json"),
        ),
    }


def onnx_files(folder: Path) -> dict[str, Target]:
    path = folder / "network.onnx"
    model = network()

    def given(content: bytes) -> object:
        path.write_bytes(content)
        return from_file(path), examine(path)

    def properties(content: bytes) -> object:
        """Each line is one property's text."""
        lines = content.decode(errors="replace").split("\n")
        del model.metadata_props[:]
        helper.set_model_props(model, dict(zip(PROPERTIES, lines, strict=False)))
        path.write_bytes(model.SerializeToString())
        return ExportedClassifier(path)

    texts = "\n".join(json.dumps(value) for value in PROPERTIES.values())
    return {
        "ONNX file": (network().SerializeToString(), given),
        "ONNX properties": (texts.encode(), properties),
    }


def sealed(content: bytes) -> bytes:
    """Recompute the checksum of a record; leave anything else as it is."""
    try:
        values: Any = json.loads(content)
        values.pop("checksum", None)
        return seal(values)
    except (ValueError, AttributeError, TypeError, RecursionError):
        return content


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
        known = list(targets(Path(folder)))
    names = chosen.format or known
    if unknown := set(names) - set(known):
        parser.error(f"--format {', '.join(sorted(unknown))}: it must be of {', '.join(known)}")
    for name in names:
        begun = time.perf_counter()
        failures = fuzz(name, chosen.count, chosen.seed)
        seconds = time.perf_counter() - begun
        print(f"{name}: {chosen.count:,} inputs, {len(failures)} failures, {seconds:.0f} s")
        for failure in failures[:5]:
            print(failure)
        failed = failed or bool(failures)
    sys.exit(failed)


if __name__ == "__main__":
    main()
