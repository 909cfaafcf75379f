"""Whatever is called from Python, the calling process is left as it was."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
import warnings

import numpy as np
import pytest
import torch

import bench
from bench.store import Store

TINY = {"options": {"width": 2}, "device": "cpu", "threads": 1}


def state():
    return {
        "threads": torch.get_num_threads(),
        "threads between operators": torch.get_num_interop_threads(),
        "torch's random numbers": torch.get_rng_state().tolist(),
        "torch's seed": torch.initial_seed(),
        "Python's random numbers": random.getstate(),
        "NumPy's random numbers": str(np.random.get_state()),  # noqa: NPY002
        "gradients": torch.is_grad_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "type": torch.get_default_dtype(),
        "TF32": torch.backends.cudnn.allow_tf32,
        "working directory": os.getcwd(),  # noqa: PTH109
        "signals": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)],
        "wording of warnings": warnings.formatwarning,
        # tqdm, which the exporter shows progress with, keeps one of its own.
        "live threads": {t.name for t in threading.enumerate()} - {"tqdm_monitor"},
    }


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """A results folder that may be written to, and one of its runs, of a residual network."""
    root = shutil.copytree(trained, tmp_path_factory.mktemp("caller") / "bench-runs")
    complete = (r for r in Store(root).runs() if r.status == "complete")
    return root, next(r.run for r in complete if r.request["options"].get("shortcut") != "none")


def show(root):
    report = bench.Report(root)
    return report.answer, report.table, report._repr_html_()


CALLS = {
    "Report": lambda root, _run, _new: show(root),
    "export_onnx": lambda root, run, _new: bench.export_onnx(run, results=root, threads=1),
    "gradients": lambda root, run, _new: bench.gradients([run], results=root, device="cpu"),
    "grow": lambda root, run, _new: bench.grow(
        run, "resnet32", epochs=0, results=root, device="cpu", threads=1
    ),
    "import_model": lambda root, run, new: bench.import_model(
        "resnet8", weights=root / "runs" / run / "model.safetensors", dataset="fashion-mnist-mini",
        options=Store(root).read_run(run).request["options"], results=new, device="cpu", threads=1,
    ),
    "landscape": lambda root, run, _new: bench.landscape(
        [run], results=root, device="cpu", points=3, images=20
    ),
    "lesion": lambda root, run, _new: bench.lesion(run, results=root, device="cpu", swaps=False),
    "load_model": lambda root, run, _new: bench.load_model(run, results=root),
    "load_results": lambda root, _run, _new: bench.load_results(root),
    "measure": lambda _root, _run, new: bench.measure(
        "resnet8", results=new, backends=["eager", "onnxruntime"], batch_sizes=[1],
        max_seconds=0.1, processes=1, input_size=8, **TINY,
    ),
    "run_study": lambda _root, _run, new: bench.run_study(
        new / "one.toml", results=new, device="cpu", threads=1
    ),
    "train": lambda _root, _run, new: bench.train(
        "resnet8", results=new, epochs=1, settings={"train_images": 100}, deterministic=True, **TINY
    ),
}  # fmt: skip
STUDY = """
question = "?"
[base]
epochs = 1
seeds = [0]
train_images = 100
[[variant]]
name = "one"
model = "resnet8"
options = { width = 2 }
"""


def test_every_public_function_is_called_here():
    functions = {name for name in bench.__all__ if not name.endswith("Error")}
    assert set(CALLS) == functions


@pytest.mark.parametrize("name", CALLS)
def test_the_process_is_left_as_it_was(name, run, tmp_path):
    (tmp_path / "one.toml").write_text(STUDY)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        torch.manual_seed(123)
        before = state()
        result = CALLS[name](*run, tmp_path)
        after = state()
    finally:
        torch.set_num_threads(threads)
    assert result is not None
    assert {key: after[key] for key in before if before[key] != after[key]} == {}
