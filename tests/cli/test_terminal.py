"""Tables on narrow terminals: what matters most comes first, and no figure is cut."""

from __future__ import annotations

import re
from functools import partial

import pytest
from rich.console import Console

from bench.cli import output
from bench.report.tables.throughput import footnotes, throughput_table, throughput_text
from bench.store import Store
from bench.store.tables.columns import COLUMNS

WIDTHS = (80, 60)
ROW = {
    **dict.fromkeys(COLUMNS["throughput"]), "measurement": "m", "model": "resnet34",
    "options": "width=8", "run": "resnet34-fashion-mnist-mini-s0-0123456789ab",
    "variant": "plain34", "device": "cpu", "threads": 2, "cpu": "made up", "scenario": "offline",
    "boundary": "compute", "memory_format": "contiguous", "precision": "fp32", "batch_size": 32,
    "executed_precision": "fp32", "status": "complete", "reference": "eager fp32 contiguous",
    "noise_floor": 0.01, "processes": 1, "streams": 1, "samples": 30, "noisy": False, "width": 0.01,
}  # fmt: skip


def speed(backend, images_per_second, **columns):
    """Make a row of the `throughput` table with a ratio to eager at 1000 images/s."""
    ratio = images_per_second / 1000
    ends = {"ratio": ratio, "ratio_low": ratio * 0.99, "ratio_high": ratio * 1.01}
    own = {"difference": "reference"} if backend == "eager" else {}
    return {**ROW, "backend": backend, "images_per_second": images_per_second, **ends, **own,
            **columns}  # fmt: skip


@pytest.fixture
def terminal(bench, monkeypatch):
    """Run `bench WORDS…` on a terminal of some width; return what stands there."""

    def run(width, *words):
        console = partial(Console, width=width, force_terminal=True, color_system=None)
        monkeypatch.setattr(output, "Console", console)
        shown = bench(*words).out
        # Paths and commands are not broken, so that they can be copied.
        assert all(len(line) <= width for line in shown.splitlines() if "/" not in line)
        return shown

    return run


def show(renderable, width):
    """Print on a terminal of some width, and return the lines."""
    console = Console(width=width, force_terminal=True, color_system=None, highlight=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get().splitlines()


def cells_of(lines):
    """Return what stands in the lines, whatever the layout: their words in order."""
    return " ".join(" ".join(lines).replace("·", " ").split())


@pytest.mark.parametrize("width", WIDTHS)
def test_a_studys_table_begins_with_accuracy_and_difference(width, terminal, results, tiny_study):
    words = ("run-ablation", tiny_study, "--results", results, "--quiet", "--threads", 1)
    lines = terminal(width, *words).splitlines()
    text = cells_of(lines)
    assert "…" not in text
    number = r"[+-]?\d+\.\d\d"
    accuracy = rf"(test accuracy % )?{number} (± {number}|\[{number}, {number}\])"
    assert re.search(rf"residual {accuracy} .*?reference", text)
    assert re.search(rf"plain {accuracy} .*?{number} \[{number}, {number}\]", text)


@pytest.mark.parametrize("width", WIDTHS)
def test_runs_are_listed_by_variant_with_the_hash_that_commands_take(
    width, terminal, bench, trained
):
    lines = terminal(width, "results", "ls", "--results", trained).splitlines()
    assert re.match(r"variant +seed +run +status", lines[0])
    for record in Store(trained).runs():
        short = record.run[-12:-4]
        (line,) = [line for line in lines if short in line]
        assert re.match(rf"(residual|plain) +{record.request['seed']} +{short} +complete", line)
        (row,) = bench("results", "show", short, "--results", trained, "--json").document["rows"]
        assert row["run"] == record.run


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("thing", ["models", "options", "studies", "datasets", "recipes"])
def test_lists_are_whole(width, thing, terminal):
    narrow, wide = (terminal(columns, "list", thing) for columns in (width, 1000))
    assert "Not shown" not in narrow
    assert set(wide.split()) - {"-", "name", "key"} <= set(narrow.split())


@pytest.mark.parametrize("width", [*WIDTHS, 40])
def test_speeds_are_sorted_and_never_cut(width):
    rows = [speed("eager", 1000), speed("compile", 1500), speed("onnxruntime", 12345.6)]
    lines = show(throughput_table(rows), width)
    text = cells_of(lines)
    places = [text.index(figure) for figure in ("12,346", "1,500", "1,000")]
    assert places == sorted(places)
    for word in ("plain34 s0", "01234567", "onnxruntime", "fp32", "12.35 [12.22, 12.47]"):
        assert word in text
    assert not any("…" in line or "e+" in line for line in lines)
    assert max(map(len, lines)) <= width


def test_speeds_are_whole_off_a_terminal():
    (columns, *rows) = throughput_text([speed("eager", 1000, noisy=True)]).to_markdown()
    assert "network" in columns
    assert "1,000*" in rows[1].replace("\\", "")
    assert rows[1].count("noisy") == 1


@pytest.mark.parametrize(
    "doubt",
    [
        {"samples": 3},  # too few for an interval
        {"width": 1.2, "ratio_low": 0.1, "ratio_high": 10.5},
        {"noise_floor": 9.81},  # the reference differs from itself
    ],
    ids=str,
)
def test_a_figure_that_cannot_be_is_a_dash_and_a_sentence(doubt):
    rows = [speed("eager", 1000), speed("compile", 5000, **doubt)]
    table = throughput_text(rows)
    (line,) = [row for row in table.rows if "compile" in row]
    assert line[table.columns.index("ratio to reference")] == "—"
    assert any(note.startswith("—: ") for note in footnotes(rows))


def test_a_reference_of_few_samples_has_no_ratios():
    rows = [
        speed("eager", 1000, samples=2),
        speed("compile", 5000),
        speed("null", 9000, batch_size=1),
    ]
    table = throughput_text(rows)
    ratios = dict(zip([row[1] for row in table.rows], [row[5] for row in table.rows], strict=True))
    assert ratios == {"null": "9.00 [8.91, 9.09]", "compile": "—", "eager": "reference"}


@pytest.mark.parametrize(
    ("words", "seeds"),
    [("0-3", [0, 1, 2, 3]), ("7", [7]), ("1,4-5", [1, 4, 5]), ("-2", [-2]), ("0-0", [0])],
)
def test_ranges_of_seeds(words, seeds, bench, trained, tiny_study):
    done = bench(
        "run-ablation", tiny_study, "--results", trained, f"--seeds={words}", "--only", "plain",
        "--dry-run", "--json", "--threads", 1,
    )  # fmt: skip
    assert [row["seed"] for row in done.document["rows"]] == seeds


@pytest.mark.parametrize("words", ["3-0", "0-", "0-99999999", "0..3"])
def test_a_range_that_is_none_is_refused(words, bench, tiny_study):
    refusal = bench("run-ablation", tiny_study, f"--seeds={words}").refusal
    assert refusal.startswith(f"--seeds {words}: random seeds are integers or ranges")


def test_an_accuracy_as_a_fraction_is_refused_with_the_value_that_is_meant(bench):
    refusal = bench("tune", "resnet20", "--min-accuracy", 0.93).refusal
    assert refusal.endswith("write --min-accuracy 93")
