"""What a person sees while a measurement runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.cli import measuring_progress
from bench.cli.measuring_progress import measuring_view

EVENTS = [
    {"event": "export", "what": "resnet18 fp32"},
    {"event": "process", "number": 1, "of": 6, "seconds_left": None},
    {"event": "prepare", "what": "[a]", "number": 2, "of": 4},
    {"event": "warm_up", "what": "[a]", "number": 3, "of": 4},
    {"event": "block", "what": "[a]", "round": 2, "of": 4},
    {"event": "process", "number": 2, "of": 6, "seconds_left": 75.0},
    {"event": "round", "round": 4, "done": 3, "of": 4, "seconds_left": 5.0},
    {"event": "ceiling"},
]


@pytest.fixture
def shown(monkeypatch):
    """Show events on a terminal, or elsewhere; returns the lines."""

    def show(events, *, terminal):
        found = []
        console = Console(file=io.StringIO(), force_terminal=terminal, width=200)
        monkeypatch.setattr(measuring_progress, "stderr", lambda: console)
        monkeypatch.setattr(measuring_progress, "remarks", lambda **_: found.append)
        if terminal:
            monkeypatch.setattr("rich.status.Status.update", lambda _self, text: found.append(text))
        with measuring_view(quiet=False) as on_event:
            for event in events:
                on_event(event)
        return found

    return show


def test_a_terminal_shows_how_much_is_done_what_is_left_and_what_happens(shown):
    assert shown(EVENTS, terminal=True) == [
        "exporting resnet18 fp32 to ONNX",
        "process 1 of 6",
        r"process 1 of 6; preparing \[a] (2 of 4)",
        r"process 1 of 6; warming up \[a] (3 of 4)",
        r"process 1 of 6; round 3 of 4: \[a]",
        "process 2 of 6, about 75 s left",
        "process 2 of 6, about 75 s left; round 4: 3 of 4 configurations done",
        "measuring this machine's matrix-multiply ceiling",
    ]


def test_elsewhere_only_what_is_rare_is_a_line(shown):
    lines = shown(EVENTS, terminal=False)
    assert [line.partition(",")[0] for line in lines] == [
        "exporting resnet18 fp32 to ONNX", "process 1 of 6", "process 2 of 6",
        "measuring this machine's matrix-multiply ceiling",
    ]  # fmt: skip


def test_in_one_process_the_rounds_say_what_is_left(shown):
    (line,) = shown(EVENTS[-2:-1], terminal=True)
    assert line == ("round 4: 3 of 4 configurations done, at most 5 s left")
