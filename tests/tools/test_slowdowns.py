"""The counts of found slowdowns; measuring them takes minutes."""

from __future__ import annotations

import slowdowns

from builders import make_row


def rows(**ratios: tuple[float, float]):
    """ONNX Runtime, and sleeping backends with a ratio and a half-width."""
    found = [
        make_row(backend="onnxruntime", processes=6, ratio=1.0, ratio_low=1.0, ratio_high=1.0,
                 reference="ort", difference="reference", ci_low=99.0, ci_high=101.0)
    ]  # fmt: skip
    for backend, (ratio, width) in ratios.items():
        ends = {"ratio_low": ratio - width, "ratio_high": ratio + width}
        found.append(
            make_row(backend=backend, processes=6, ratio=ratio, **ends, reference="ort",
                     difference="slower", ci_low=99.0, ci_high=101.0)
        )  # fmt: skip
    return found


def test_each_sleeping_backend_is_a_trial_and_no_other_is():
    measured = rows(samex0=(1.04, 0.01), by5x0=(0.95, 0.01), by5x1=(0.95, 0.04), eager=(0.5, 0.01))
    measured.append(make_row(backend="by10x0", status="failed", error="it broke", ci_low=None))
    found = slowdowns.verdicts(measured)
    assert found["0.02"] == {
        "same": ["faster"],
        "by5": ["slower", "undecided"],
        "by10": ["not judged"],
    }
    ratios = [
        {"backend": name, "ratio": ratio}
        for name, ratio in {"onnxruntime": 1.0, "samex0": 1.0001, "by5x0": 0.94, "by5x1": 0.96,
                            "by5x2": 0.8, "by10x0": None}.items()
    ]  # fmt: skip
    document = {
        "measurements": [{"verdicts": found, "ratios": ratios}],
        "command": "x", "created_at": "today",
        "environment": {"cpu": "A", "instruction_sets": ["avx"], "git_commit": "c"},
    }  # fmt: skip
    text = slowdowns.page(document)
    assert "| more time (median) | 0.0 % | 6.4 % |  |" in text
    assert "| 0.02 | 1 of 1 | 1 of 2 | 0 of 0 |" in text
    assert "| 0.05 | 0 of 1 | 0 of 2 | 0 of 0 |" in text


def test_a_backend_sleeps_for_its_share_of_the_time():
    assert {b.share for b in slowdowns.backends().values()} == {0.0, 0.05, 0.1}
    assert all(getattr(slowdowns, name).name == name for name in slowdowns.backends())
