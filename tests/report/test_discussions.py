"""Each number in a discussion is the figure that it is said to be, of the data beside its page."""

from __future__ import annotations

import math
import re
from functools import cache
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pandas as pd
import pytest
import republish
import torch
from scipy import stats

from bench.models import build_model
from bench.report.findings.statistics import deviation, variance_ratio
from bench.report.findings.time_to_accuracy import time_to_accuracy
from bench.report.pages.study_report import StudyReport
from bench.studies import load_study

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.report.findings.statistics import Estimate
    from bench.studies.recipe import Recipe
    from bench.studies.run_request import RunRequest

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"(?<![\w.,:/-])[+-]?\d+(?:,\d{3})*(?:\.\d+)?(?:e-\d)?(?!\w|\.\d|:\d)")
# Not figures: years, places in papers, commands, levels, numbers of seeds, and names by depth.
NO_FIGURE = re.compile(
    r"et al\. 20\d\d|\d+ November 20\d\d|(?:section|figure|Table) [\d.]+|commit \w+|`[^`]*`"
    r"|95 % interval|80 % power|n = \d+|seeds? \d|(?:\d+(?:, | and | to ))*\d+[ -]layer"
)
GIVEN = "in no data of ours: the paper's, the setting's, or an earlier page's"
NAME = "part of a variant's name"

# Numbers in words are not compared with data, so those that are data are written as digits. Each
# word below is no data: the study's design, or what others did.
WORD = re.compile(
    r"\b(three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|sixteen|twenty|forty|"
    r"half|halves|thirds?|quarters?|fifths?|eighths?|tenths?|fortieth|hundred|million|\w+fold)\b",
    re.IGNORECASE,
)
WORDS_OF_NO_DATA = {
    "activation-order": ["With four seeds and nine comparisons", "With four seeds, a difference"],
    "book": ["the last six epochs"],
    "bottleneck": ["among seven on held-out images", "Over the first of three epochs",
                   "In the third epoch"],
    "capacity": ["At width 16, four times as many", "factor of four", "Four widths with unchanged"],
    "degradation": ["four seeds do not settle it", "Three epochs of", "the three stages",
                    "Twenty layers"],
    "deployment": ["Over three seeds, the four networks", "the side of an image by four",
                   "after three epochs of"],
    "depth": ["In three epochs", "among five on held-out images", "the three bottleneck networks",
              "the four deeper networks", "In the first of three epochs", "In the third epoch",
              "gaps of these three", "the three of bottlenecks"],
    "fast-recipe": ["Three seeds decide", "about ten epochs on CIFAR-10",
                    "about a third of the time"],
    "grow": ["none of the three depths", "all fifteen growths"],
    "identity": ["after five epochs", "five epochs are only"],
    "quickstart": ["In four epochs", "by the means at half of it"],
    "shortcut": ["after three epochs", "in the third epoch"],
    "shortcut-kinds": ["Four seeds show none", "drops half of the shortcut's values",
                       "1.9 million"],
    "table-1": ["With six epochs"],
    "table-1-longer": ["after six epochs"],
}  # fmt: skip

Quote = tuple[object, ...]  # a text, then what each of its numbers is


class Page:
    """The figures of one published page: accuracies in %, differences in points."""

    def __init__(self, name: str) -> None:
        self.folder = ROOT / "results" / name
        self.data = republish.read(self.folder)
        self.file = load_study(name)
        self.whole = (self.folder / "README.md").read_text()
        self.text = " ".join(self.data.study.paragraphs)
        self.summaries = {summary.name: summary for summary in self.data.summaries}
        self.names = list(self.summaries)

    def csv(self, name: str) -> pd.DataFrame:
        return pd.read_csv(self.folder / f"{name}.csv")

    def mean(self, variant: str) -> float:
        """Difference from the reference."""
        return 100 * self.summaries[variant].difference.mean

    def interval(self, variant: str) -> tuple[float, float]:
        """Interval of the difference, of its size where it is negative."""
        found = self.summaries[variant].difference
        return _ends(found.low, found.high)

    def both(self, variant: str) -> tuple[float, float, float]:
        """Difference and interval."""
        return (self.mean(variant), *self.interval(variant))

    def detectable(self, variant: str) -> float:
        return 100 * self.summaries[variant].difference.detectable

    def needed(self, *variants: str) -> tuple[int | None, int | None]:
        """The fewest and the most seeds that any of the differences may need."""
        found = [self.summaries[variant].difference.seeds_needed for variant in variants]
        most = [high for _, high in found]
        return min(low for low, _ in found), None if None in most else max(most)

    def test(self, *variants: str) -> list[float]:
        return [100 * self.summaries[variant].test_accuracy.mean for variant in variants]

    def train(self, *variants: str) -> list[float]:
        return [100 * self.summaries[variant].train_accuracy.mean for variant in variants]

    def speed(self, *variants: str) -> list[float]:
        """Median of the training images/s."""
        return [self.summaries[variant].images_per_second for variant in variants]

    def ratio(self, column: str, variant: str, other: str) -> float:
        first, second = (getattr(self.summaries[v], column) for v in (variant, other))
        return first / second

    def seeds(self, *variants: str, column: str = "test_accuracy") -> list[float]:
        """Every run's accuracy, the lowest first."""
        rows = self.data.runs[self.data.runs["variant"].isin(variants)]
        return sorted(100 * rows[column].dropna())

    def epoch(self, epoch: int, *variants: str, column: str = "train_accuracy") -> list[float]:
        """Mean over seeds at the end of an epoch."""
        rows = self.data.epochs[self.data.epochs["epoch"] == epoch]
        means = rows.groupby("variant")[column].mean()
        return [float(means[v]) * (100 if "accuracy" in column else 1) for v in variants]

    def published(self, variant: str) -> float:
        """The paper's difference."""
        errors = self.data.study.published["top1_error"]
        return errors[self.summaries[variant].reference] - errors[variant]

    def rate(self, variant: str | None = None) -> float:
        """The peak learning rate, of a variant that was tuned."""
        if variant is None:
            (rate,) = {self.recipe(name).learning_rate for name in self.summaries}
            return rate
        tuned = self.whole.partition("## What was tuned")[2].partition("\n## ")[0]
        return float(re.search(rf"^\| {variant} \|.* \| ([\d.]+)[^|]*\|$", tuned, re.MULTILINE)[1])

    def cell(self, variant: str, value: str) -> str:
        """What the table of the search says of a value that was tried."""
        section = self.whole.partition("## What was tuned")[2].partition("\n## ")[0]
        table = [line.strip("| ").split(" | ") for line in section.splitlines() if "|" in line]
        place = table[0].index(value)
        return next(row[place] for row in table if row[0] == variant)

    def tuned(self, variant: str, value: str) -> tuple[float, float]:
        """Validation accuracy and standard error (NaN for one run) of a value that was tried."""
        mean, _, error = self.cell(variant, value).partition(" ± ")
        return float(mean), float(error or "nan")

    def recipe(self, variant: str) -> Recipe:
        return self._request(variant).recipe

    def network(self, variant: str) -> torch.nn.Module:
        request = self._request(variant)
        return build_model(request.model, num_classes=10, in_channels=1, **request.options)

    def images(self, variant: str) -> int:
        """Images that are trained on in an epoch."""
        request = self._request(variant)
        images = request.train_images or {"fashion-mnist-mini": 6_000}.get(request.dataset, 60_000)
        return round(images * (1 - request.recipe.validation_fraction))

    def steps(self, variant: str, epochs: int | None = None) -> int:
        recipe = self.recipe(variant)
        return (epochs or recipe.epochs) * math.ceil(self.images(variant) / recipe.batch_size)

    def _request(self, variant: str) -> RunRequest:
        found = next(v for v in self.file.expand().variants if v.name == variant)
        return next(iter(found.requests.values()))


def _ends(low: float, high: float) -> tuple[float, float]:
    """Return an interval in %, without signs if it is below zero: "1.6 to 5.5 points worse"."""
    return (-100 * high, -100 * low) if high < 0 else (100 * low, 100 * high)


def _of_single_runs(p: Page) -> tuple[list[float], list[bool]]:
    """Return the binomial standard errors at the rates taken, and which others are nearer."""
    errors, nearer = [], []
    for name in p.names:
        taken = p.rate(name)
        right = p.tuned(name, str(taken))[0]
        errors.append(math.sqrt(right * (100 - right) / (p.images(name) / 9)))
        others = [p.tuned(name, f"{r}")[0] for r in p.file.study.tune.learning_rate if r != taken]
        nearer += [abs(right - other) <= errors[-1] for other in others]
    return errors, nearer


def _round(value: float) -> int:
    """Round to tens, as in "some 420 steps"."""
    return round(value, -1)


def activation_order(p: Page) -> Iterator[Quote]:
    orders = ("relu_preact", "preact", "post", "bn_after_add", "relu_before_add")
    deep = [f"56-{order}" for order in orders]
    yield "ReLU-only pre-activation (85.7 %)", *p.test("56-relu_preact")
    yield "full pre-activation (85.4 %)", *p.test("56-preact")
    yield "the original order (81.2 %)", *p.test("56-post")
    yield "batch norm after the addition (80.2 %)", *p.test("56-bn_after_add")
    yield "ReLU before the addition (70.5 %)", *p.test("56-relu_before_add")
    post, pre = p.seeds("56-post"), p.seeds("56-preact", "56-relu_preact")
    better = sum(accuracy > post[-1] for accuracy in pre)
    yield "Here 7 of the 8 pre-activation networks", better, len(pre)
    yield "the best of the 4 original ones", len(post)
    yield "reach 83.4 to 84.7 %, and that one 72.9 %", post[1], post[-1], post[0]
    yield "the pre-activation networks reach 84.6 to 86.3 %", pre[0], pre[-1]
    train = p.seeds("56-post", column="train_accuracy")
    yield "training accuracy (74.9 to 87.5 %)", train[0], train[-1]
    yield "how far 56 layers learn in 210 steps", _round(p.steps("56-post"))
    yield "the first 70 of these steps", _round(p.steps("56-post", epochs=1))
    norm = {name: p.epoch(1, name, column="gradient_norm")[0] for name in deep}
    first = {name: p.epoch(1, name)[0] for name in deep}
    for order, text in {
        "relu_before_add": "a gradient norm of 19 (mean over steps and seeds) and classifies 20 %",
        "post": "The original order has 4.9 and 41 %",
        "preact": "full pre-activation 1.3 and 46 %",
        "relu_preact": "ReLU-only pre-activation 3.4 and 55 %",
    }.items():
        yield text, norm[f"56-{order}"], first[f"56-{order}"]
    close = p.test(*(f"20-{order}" for order in orders[:-1]))
    yield "the orders are close (84.5 to 85.6 %)", min(close), max(close)
    last = "20-relu_before_add"
    yield "(82.4 %, with one seed at 78.7 %)", *p.test(last), p.seeds(last)[0]
    yield "He et al. 2016b compare 110 and more", GIVEN
    yield "about 23 points or more", min(p.detectable(name) for name in deep if name != "56-post")
    yield "5 to 19 seeds are needed for ReLU before the addition", *p.needed("56-relu_before_add")
    yield "14 or more for pre-activation", p.needed("56-relu_preact", "56-preact")[0]
    yield "peak learning rate, 0.1", p.rate()


def batch_norm(p: Page) -> Iterator[Quote]:
    primary = p.data.contrasts[0].train_difference
    size = [100 * x for x in (primary.mean, primary.low, primary.high, primary.detectable)]
    yield "56 layers instead of 20 change", NAME
    yield "by +31.6 points more", size[0]
    yield "(-7.5 to +70.6, n = 8; interval", *size[1:3]
    yield "only a difference of 54 points", size[3]
    deep, small, plain = "resnet56-without", "resnet20-without", "plain56-without"
    lost = {s.name: s.failures for s in p.summaries.values() if s.name.endswith("without")}
    counts = {name: 0 if found is None else found.failed for name, found in lost.items()}
    yield (
        "10 of 32 runs did not learn",
        sum(counts.values()),
        len(counts) * len(p.seeds("resnet20")),
    )
    yield "7 of 8 of the residual network of 56 layers", counts[deep], lost[deep].runs
    yield (
        "2 and 1 of 8 of the plain ones of 56 and 20, and none of the residual one of 20",
        *(counts[plain], counts["plain20-without"], lost[plain].runs, *[NAME] * 3),
    )
    assert counts[small] == 0
    failed, diverged = p.summaries[deep].failures, p.summaries[deep].statuses
    tuned = {rate: p.tuned(deep, rate) for rate in ("0.03", "0.1")}
    yield "At its rate, 0.1", p.rate(deep)
    yield (
        "the residual network of 56 layers diverged in 4 of 8 runs",
        len(diverged),
        failed.runs,
    )
    yield "in 3 others", failed.failed - len(diverged)
    yield "The remaining run has a test accuracy of 83.8 %", p.seeds(deep)[-1]
    yield "(76.7 to 82.5 %)", *p.seeds(small)[:: len(p.seeds(small)) - 1]
    yield "of both tuning seeds, 82.55 %", tuned["0.1"][0]
    yield "the next smaller one, 0.03", p.file.study.tune.learning_rate[2]
    yield "2.05 points below it", tuned["0.1"][0] - tuned["0.03"][0]
    yield "the standard error of 1.20", tuned["0.1"][1]
    yield "the smallest rate tried, 0.003", p.rate(plain)
    rates = ("0.003", "0.01", "0.03", "0.1", "0.3")
    tried = {rate: p.tuned("plain20-without", rate) for rate in rates[:4]}
    best = max(tried, key=lambda rate: tried[rate][0])
    yield "At 20 layers the best mean, 43.00 % at 0.03", tried[best][0], best
    yield "(standard error 33.00)", tried[best][1]
    assert min(tried.values())[0] >= tried[best][0] - tried[best][1]
    yield "even the one taken, with 12.30", tried[str(p.rate("plain20-without"))][0]
    yield "above 14.1 %", max(p.tuned(plain, rate)[0] for rate in rates)
    ends = [p.seeds(name)[end] for name in (plain, "plain20-without") for end in (0, -1)]
    yield "Their 8 evaluated runs", len(p.seeds(plain))
    yield "10.0 to 56.9 %, and those of 20 layers 10.0 to 76.9 %", *ends
    yield "is 94.4 and 95.3 % in residual networks", *p.train("resnet20", "resnet56")
    yield "of 20 and 56 layers, and 92.6 and 82.7 %", *p.train("plain20", "plain56")
    yield "Training consists of 497 steps", p.steps(small)
    names = (small, "plain20-without")
    last, before = p.epoch(7, *names), p.epoch(6, *names)
    gains = [a - b for a, b in zip(last, before, strict=True)]
    yield "rises by 2.1 points in residual and by 7.2 points", *gains


def without_batch_norm(p: Page) -> Iterator[Quote]:
    def in_training(name: str) -> list[float]:
        found = p.summaries[name].train_difference
        return [100 * x for x in (found.mean, found.low, found.high)]

    primary = p.data.contrasts[0].train_difference
    assert primary.significant
    assert p.file.study.earlier_looks == 1
    yield "56 layers instead of 20 change", NAME
    yield "by 47.4 points less favourably", -100 * primary.mean
    yield "(18.1 to 76.6, n = 12; interval", -100 * primary.high, -100 * primary.low
    deep, low, high = in_training("plain56")
    yield "The plain network loses 47.5 points", -deep
    yield "(8.6 to 86.3) and 46.1 points", -high, -low, -p.mean("plain56")
    yield "of test accuracy (8.2 to 83.9)", *p.interval("plain56")
    assert p.summaries["plain56"].difference.significant
    yield "(-0.1 points of training accuracy, -1.3 to +1.1", *in_training("resnet56")
    found = p.summaries["resnet56"].difference
    yield (
        "-0.2 of test accuracy, -1.1 to +0.7)",
        *(100 * x for x in (found.mean, found.low, found.high)),
    )
    assert not found.significant
    failures = {name: p.summaries[name].failures for name in p.names}
    yield (
        "The plain network of 56 layers did not learn in 4 of 12 runs, and that of 20 layers in 1;",
        *(failures["plain56"].failed, failures["plain56"].runs),
        failures["plain20"].failed,
    )
    assert failures["resnet20"] is failures["resnet56"] is None
    learned = p.seeds("plain56")[failures["plain56"].failed :]
    yield "from 13.8 to 66.4 %", learned[0], learned[-1]
    names = ("plain20", "plain56", "resnet20", "resnet56")
    gains = [a - b for a, b in zip(p.epoch(4, *names), p.epoch(3, *names), strict=True)]
    yield "rises by 11.3 points (20 layers) and 5.3 (56 layers)", *gains[:2]
    yield "residual ones by 3.2 and 3.8", *gains[2:]
    yield "(-14.6 points of training accuracy, -39.9 to +10.8)", *in_training("plain20")
    yield "The rate is 0.03 for both", p.rate("resnet20")
    assert p.rate("resnet20") == p.rate("resnet56") == p.file.study.tune.learning_rate[-1]
    yield "since many runs at 0.1", page("batch-norm").rate("resnet56-without")
    yield "and 0.003 for both plain ones", p.rate("plain20")
    assert p.rate("plain20") == p.rate("plain56")

    def searched(name: str, rate: str) -> tuple[float, int, int]:
        cell = p.cell(name, rate)
        accuracy, _, *some = [float(x) for x in re.findall(r"[\d.]+", cell)]
        return (accuracy, *(map(int, some) if some else (3, 3)))

    yield (
        "3 of 3 with 20 layers, 2 of 3 with 56 layers.",
        *(*searched("plain20", "0.003")[1:], *searched("plain56", "0.003")[1:]),
    )
    higher = searched("plain20", "0.01")
    assert higher[1] == 1
    yield "With 20 layers, one of 3 seeds learns at 0.01", higher[2], 0.01
    yield (
        "(79.0 % of the validation images, against 76.7 %)",
        higher[0],
        searched("plain20", "0.003")[0],
    )
    yield "scaled by 1/√blocks", GIVEN
    first = page("batch-norm")
    look = first.data.contrasts[0].train_difference
    yield (
        "was +31.6 points (-7.5 to +70.6)",
        *(100 * x for x in (look.mean, look.low, look.high)),
    )
    before = first.summaries["resnet56-without"].failures
    yield "7 of 8 residual networks of 56 layers", before.failed, before.runs
    yield "at their rate, 0.1", first.rate("resnet56-without")
    yield "1128 steps of 32 images", p.steps("plain56"), p.recipe("plain56").batch_size
    yield "for the first 14 runs of the search", GIVEN


def book(p: Page) -> Iterator[Quote]:
    yield "92.48 % against 91.90 %", *p.test("fast", "d2l_resnet18")
    last = [p.epoch(n, "d2l_resnet18", column="test_accuracy")[0] / 100 for n in range(5, 11)]
    yield "varies between 0.893 and 0.919", min(last), max(last)
    yield "20 rounds", GIVEN
    yield "7.2 images (quartiles 7.0 and 7.3)", GIVEN, GIVEN, GIVEN  # of tests/benchmarks
    seen = {name: p.images(name) * p.recipe(name).epochs for name in ("fast", "d2l_resnet18")}
    yield "`fast` sees 108,000 images", seen["fast"]
    yield "the book's training 600,000", seen["d2l_resnet18"]
    yield "2.5 % of the time", 100 * seen["fast"] / seen["d2l_resnet18"] / 7.2


def bottleneck(p: Page) -> Iterator[Quote]:
    basic, narrow = "resnet34-basic", "resnet50-bottleneck"
    same, equal = "resnet56-bottleneck", "resnet83-bottleneck"
    yield "ResNet-50 is 3.6 points of test accuracy worse", p.mean(narrow)
    yield "(95 % interval 1.6 to 5.5)", *p.interval(narrow)
    yield "are 2.6 points behind", p.mean(equal)
    yield "(6.5 behind to 1.3 ahead)", *p.interval(equal)
    yield "(1.8 points behind, 95 % interval 10.5 behind to 6.9 ahead", *p.both(same)
    yield "0.0125 for ResNet-34 and 0.005 for ResNet-50", p.rate(basic), p.rate(narrow)
    yield "0.1 for the CIFAR family's basic blocks", p.rate("resnet56-basic")
    yield "0.3 for its bottlenecks", p.rate(same)
    yield "0.3 for its bottlenecks", p.rate(equal)
    yield "single runs on 1,000 images", p.images(basic) / 9
    errors, nearer = _of_single_runs(p)
    yield "standard errors of 1.0 to 1.2 points", min(errors), max(errors)
    yield "7 of 30 other rates are nearer", sum(nearer), len(nearer)
    # The first version of this page: no longer in results/.
    yield "0.65 times the multiply-adds", p.ratio("macs", same, "resnet56-basic")
    yield "one rate for all, 0.05", GIVEN
    yield "At 1.1 times the multiply-adds, ResNet-50", p.ratio("macs", narrow, basic)
    yield "64 % of that went away", 100 * (1 - abs(p.mean(narrow)) / 9.9)
    yield "9.9 points behind (95 % interval of that comparison alone: 5.6 to 14.3)", *[GIVEN] * 3
    yield "the gaps were 2.4 points at 56 layers and 2.6 at 83", GIVEN, GIVEN, NAME
    yield "now they are 1.8 and 2.6", p.mean(same), p.mean(equal)
    yield "(86.4 against 89.5 %;", *p.train(narrow, basic)
    yield "88.1 and 87.6 against 90.5 %)", *p.train(same, equal, "resnet56-basic")
    yield "some 280 steps", _round(p.steps(basic, epochs=1))
    yield "65 % of its training images correctly and ResNet-50 52 %", *p.epoch(1, basic, narrow)
    yield "63 % with basic blocks", *p.epoch(1, "resnet56-basic")
    yield "50 and 47 % with 56 and 83 layers of bottlenecks", *p.epoch(1, same, equal)
    yield "In the third epoch it is 87 and 82 %", *p.epoch(3, basic, narrow)
    yield "88, 85 and 84 %", *p.epoch(3, "resnet56-basic", same, equal)
    yield "has 1.5 times as many layers", 83 / 56
    yield "has 1.5 times as many layers", 50 / 34
    pointwise = [100 * _pointwise(p.network(name), 32) for name in (narrow, same, equal)]
    yield "48 to 53 % of its multiply-adds", min(pointwise), max(pointwise)
    yield "an advantage of 1.7 points", p.published(narrow)
    yield "some 600,000 steps", GIVEN
    yield "here there are 846", p.steps(basic)
    yield "ResNet-50 trains at 150 images/s and ResNet-34 at 241", *p.speed(narrow, basic)
    yield "1.1 times the multiply-adds", p.ratio("macs", narrow, basic)
    yield "of bottlenecks train at 113 images/s", *p.speed(equal)
    yield "of basic blocks at 199", *p.speed("resnet56-basic")


def _pointwise(network: torch.nn.Module, size: int) -> float:
    """Return the share of the convolutions' multiply-adds that is in 1x1 convolutions."""
    macs = {True: 0, False: 0}

    def count(layer: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        macs[layer.kernel_size == (1, 1)] += layer.weight.numel() * output[0, 0].numel()

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.inference_mode():
        network.eval()(torch.zeros(1, 1, size, size))
    return macs[True] / sum(macs.values())


def capacity(p: Page) -> Iterator[Quote]:
    def gap(images: int, width: int) -> float:
        name = f"{images}-w{width}"
        return p.train(name)[0] - p.test(name)[0]

    sizes, widths = (500, 2000, 8000), (2, 8, 16, 32)
    wide = [f"{n}-w32" for n in sizes]
    means = {n: p.test(*(f"{n}-w{width}" for width in widths)) for n in sizes}
    yield "width 32 was never significantly better than width 16", NAME, NAME
    yield "of 1.9, 2.4 and 3.5 points would", *map(p.detectable, wide)
    yield "with 500, 2,000 and 8,000 images", NAME, NAME, NAME
    yield "With 500 images (450 for training)", NAME, p.images("500-w2")
    yield "widths 8 and above", NAME
    yield "at widths 2, 8, 16 and 32 are", *[NAME] * 4
    yield "68.9, 74.7, 76.3 and 76.7 %", *means[500]
    yield "With 2,000 images they are 76.4, 82.4, 83.7 and 83.6 %", NAME, *means[2000]
    yield "with 8,000 images 79.8, 84.6, 86.7 and 86.8 %", NAME, *means[8000]
    yield "From width 16 to 32", NAME, NAME
    yield "changes by +0.5, -0.1 and +0.1 points", *map(p.mean, wide)
    yield "at 4.0 times the multiply-adds", p.ratio("macs", "500-w32", "500-w16")
    yield "by a factor of 4.0 with each doubling", p.ratio("macs", "500-w16", "500-w8")
    yield "differs significantly from width 16, and only with 8,000 images", NAME, NAME
    yield "(6.9 points lower, 5.1 to 8.8)", *p.both("8000-w2")
    yield "it does with 2,000 and with 8,000 images", NAME, NAME
    yield "peak learning rate, 0.1", p.rate()
    yield "At width 16, four times as many", NAME
    yield "add 7.4 points (95 % interval 3.5 to 11.3)", *p.both("500-w16")
    yield "adds 3.0 (1.1 to 5.0)", *p.both("8000-w16")
    yield "at widths 8 to 32", NAME, NAME
    gaps = {n: [gap(n, width) for width in widths[1:]] for n in sizes}
    yield "23 to 25 points with 500 images", min(gaps[500]), max(gaps[500]), NAME
    yield "11 to 14 with 2,000", min(gaps[2000]), max(gaps[2000]), NAME
    yield "4 to 5 with 8,000", min(gaps[8000]), max(gaps[8000]), NAME
    yield "the training accuracies of widths 32 and 16 do not differ", NAME, NAME
    for images, text in {
        2000: "-1.5 points, -8.6 to +5.6, with 2,000",
        8000: "-0.3, -5.4 to +4.8, with 8,000",
    }.items():
        found = p.summaries[f"{images}-w32"].train_difference
        yield text, *(100 * x for x in (found.mean, found.low, found.high)), NAME


def degradation(p: Page) -> Iterator[Quote]:
    plain, residual = ([f"{kind}{n}" for n in (20, 32, 44, 56)] for kind in ("plain", "resnet"))
    yield "89.4 % with 20 layers", p.train("plain20")[0]
    yield "87.1, 84.0 and 79.8 % with 32, 44 and 56", *p.train(*plain[1:]), NAME, NAME, NAME
    yield "are 91.1, 92.0, 91.8 and 91.6 %", *p.train(*residual)
    yield "layers instead of 20 change", NAME
    both = p.data.contrasts[0].train_difference, p.data.contrasts[0].difference
    size = [100 * x for found in both for x in (found.mean, found.low, found.high)]
    yield "by -10.2 points more", size[0]
    yield "(95 % interval -25.3 to +5.0", *size[1:3]
    yield "the test accuracy by -9.1 (-23.1 to +5.0)", *size[3:]
    yield "p-values of 0.010 and 0.011", *(found.p_value * found.level / 0.05 for found in both)
    tested = sum(s.difference is not None for s in p.data.summaries) + len(p.data.contrasts)
    yield "as two of 16 comparisons, 8 of test and 8 of training", 2 * tested, tested, tested
    near = p.summaries["plain44"].difference.p_value
    yield "(5.0 points lower, adjusted p-value 0.082)", p.mean("plain44"), near
    yield "peak learning rate, 0.1", p.rate()
    yield "Three epochs of 18,000 images (2,000 are", p.images("plain20"), p.images("plain20") / 9
    yield "some 420 steps, against 64,000", _round(p.steps("plain20")), GIVEN
    blocks = p.csv("gradients").merge(p.data.runs[["run", "variant", "seed"]])
    norms = blocks.set_index(["variant", "epoch", "block"])["gradient_norm"]
    for text, variant in {"494 in the first block of plain56, against 0.36": "plain56",
                          "these norms are 1.9 and 0.29": "resnet56"}.items():  # fmt: skip
        yield text, norms[variant, 0, "layer1.0"], norms[variant, 0, "layer3.8"]
    after = {
        name: sorted(norms[name, 1, b] for b in ("layer1.0", "layer2.0", "layer3.0", "layer3.8"))
        for name in ("plain56", "resnet56")
    }
    yield "0.07 to 0.33 in plain56", after["plain56"][0], after["plain56"][-1]
    yield "0.17 to 0.27 in resnet56", after["resnet56"][0], after["resnet56"][-1]
    lesions = p.csv("lesions").merge(p.data.runs[["run", "variant"]])
    dropped = lesions[lesions["lesion"] == "drop"].groupby("variant")
    costs = {name: sorted(100 * rows["accuracy_drop"]) for name, rows in dropped}
    left = sorted(100 * dropped.get_group("plain56")["test_accuracy"])
    yield "the first 2,000 test images", lesions["images"].iloc[0]
    few = [cost for cost in costs["resnet56"] if round(cost, 1) <= 4.2]
    yield "any one of 21 of its 27 blocks", len(few), len(costs["resnet56"])
    yield "costs at most 4.2 points", max(few)
    yield "for 7 of them 0.5 points or less", sum(cost <= 0.5 for cost in few), few[6]
    yield "leaves an accuracy of 28 % or less", left[-2]
    yield "for 23 of the 27 blocks 20 % or less", sum(x <= 20 for x in left), len(left), GIVEN
    small = costs["resnet20"]
    yield (
        "any one of 6 of resnet20's 9 blocks",
        sum(cost >= small[-6] for cost in small),
        len(small),
    )
    yield "blocks costs 19 points or more", small[-6]
    slices = p.csv("landscapes").merge(p.data.runs[["run", "variant"]])
    loss = slices.pivot_table(index="x", columns="variant", values="loss")
    yield "1,000 training images", slices["images"].iloc[0]
    yield "(0.66 against 0.34)", loss["plain56"][0], loss["resnet56"][0]
    lower = loss["plain56"] < loss["resnet56"]
    yield "at 13 of the 21 points in all", sum(lower), len(lower)


def degradation_tuned(p: Page) -> Iterator[Quote]:
    def in_training(name: str) -> list[float]:
        found = p.summaries[name].train_difference
        return [found.mean * 100, *_ends(found.low, found.high)]

    primary = p.data.contrasts[0].train_difference
    assert primary.significant
    assert primary.high < 0
    yield "changes by 7.4 points less favourably", 100 * primary.mean
    yield "(6.6 to 8.2, n = 8; interval of this", *_ends(primary.low, primary.high)
    yield "loses 6.7 points of training accuracy (5.6 to 7.9)", *in_training("plain56")
    gain = p.summaries["resnet56"].train_difference
    assert not gain.significant
    yield "residual one is 0.7 points higher, which", 100 * gain.mean
    yield "not significant (-0.2 to +1.6)", 100 * gain.low, 100 * gain.high
    yield "the plain network loses 5.8 points (4.9 to 6.7)", *p.both("plain56")
    yield "and the residual one 0.4 (0.1 to 0.7)", *p.both("resnet56")
    yield "the plain network is 0.7 points worse on test images", p.mean("plain20")
    yield "than the residual one (0.2 to 1.2)", *p.interval("plain20")
    assert all(p.summaries[v].difference.significant for v in ("plain56", "resnet56", "plain20"))
    rates = p.file.study.tune.learning_rate
    taken = {name: p.rate(name) for name in p.names}
    yield "The rates are 0.3 for resnet20", taken["resnet20"]
    yield "0.1 for resnet56 and plain20", taken["resnet56"]
    assert taken["plain20"] == taken["resnet56"]
    yield "0.03 for plain56", taken["plain56"]
    small, deep = ({r: p.tuned(v, str(r)) for r in rates} for v in ("resnet20", "plain56"))
    best = [max(tried, key=lambda rate: tried[rate][0]) for tried in (small, deep)]
    assert best[0] == rates[-1]
    yield "rate that was tried, 1.0", best[0]
    yield "(92.07 %, against 91.78 % at 0.3)", small[best[0]][0], small[0.3][0], taken["resnet20"]
    yield "plain56 has its highest at 0.1", best[1]
    lower = deep[best[1]][0] - deep[taken["plain56"]][0]
    assert lower < deep[best[1]][1]
    yield "(86.58 %, 0.58 points above its rate)", deep[best[1]][0], lower
    yield "At 1.0 the two tuning seeds", rates[-1]
    yield "(standard error 4.45 points)", deep[rates[-1]][1]
    yield "and 3 epochs", load_study("degradation").study.base.epochs
    assert p.file.study.earlier_looks == 1
    yield "training consists of 1128 steps", p.steps("plain56")
    yield "The 8 epochs were declared by an estimate of 5.6 h", p.file.study.base.epochs, GIVEN
    yield "against 64,000 in the paper, on 18,000 images", GIVEN, p.images("plain56")


def orders_56(p: Page) -> Iterator[Quote]:
    primary = p.summaries["preact"].difference
    assert primary.significant
    assert primary.mean > 0
    ranked = sorted(p.names, key=lambda name: -p.test(name)[0])
    assert ranked[:2] == ["preact", "projection"]
    yield "the highest mean test accuracy of all (87.8 %)", *p.test("preact")
    yield "the projection (87.5 %)", *p.test("projection")
    yield "It is 1.0 points of test accuracy better", p.mean("preact")
    yield "(0.1 to 2.0, n = 12; interval", *p.interval("preact")
    likely = primary.superiority
    yield "is 0.85 (0.53 to 0.98)", likely.mean, likely.low, likely.high
    yield "(90.8 against 91.2 %; not tested)", *p.train("preact", "post")
    yield "8.1 points worse than the original order (6.9 to 9.2)", *p.both("relu_before_add")
    yield "no shortcut 12.4 points (7.3 to 17.4)", *p.both("none")
    assert all(p.summaries[v].difference.significant for v in ("relu_before_add", "none"))
    yield "(80.3 and 76.4 %)", *p.train("relu_before_add", "none")
    seeds = p.seeds("none")
    yield "from 64.3 to 79.6 %", seeds[0], seeds[-1]
    assert not p.summaries["projection"].difference.significant
    yield "(+0.8 points, -0.3 to +1.9)", *p.both("projection")
    yield "a difference of 1.4 points. He", p.detectable("projection")
    yield "for 110 layers and CIFAR-10 (6.37, 6.61 and 7.84 % error)", GIVEN, GIVEN, GIVEN
    taken = {name: p.rate(name) for name in p.names}
    yield "0.03 for the original order", taken["post"]
    yield "0.3 for full pre-activation", taken["preact"]
    yield "0.1 for the projection and for no shortcut", taken["projection"]
    assert taken["none"] == taken["projection"]
    yield "0.01 for ReLU before the addition", taken["relu_before_add"]
    rates = p.file.study.tune.learning_rate
    tried = {v: {r: p.tuned(v, str(r))[0] for r in rates} for v in p.names}
    assert max(rates, key=tried["relu_before_add"].get) == rates[0]
    assert max(rates, key=tried["preact"].get) == taken["preact"]
    preact, post = tried["preact"], tried["post"]
    yield "is at 0.3 (89.47 %)", taken["preact"], preact[taken["preact"]]
    yield "original order has 86.80 %", post[taken["preact"]]
    yield (
        "rate, 0.03, full pre-activation has 85.20 %, against 87.87 %",
        *((taken["post"], preact[taken["post"]], post[taken["post"]])),
    )
    assert max(rates, key=post.get) == taken["post"]
    yield "and 3 epochs", load_study("activation-order").study.base.epochs
    assert load_study("shortcut-kinds").study.base.epochs == 3
    before = page("activation-order").detectable("56-preact")
    yield "find a difference of 28 points", before
    yield "the second one of 23 points", page("shortcut-kinds").detectable("projection")
    yield "training consists of 355 steps on 9,000 images", p.steps("post"), p.images("post")


def deployment(p: Page) -> Iterator[Quote]:
    measured = {
        (
            f"preact_{row.model}" if row.options == "activation_order=preact" else row.model,
            row.precision,
        ): row
        for row in p.csv("throughput").itertuples()
        if row.options != "shortcut=none"
    }
    best, accurate = measured["resnet20", "int8"], measured["resnet56", "int8"]
    shown = p.csv("throughput")
    assert accurate.test_accuracy == shown["test_accuracy"].max()
    files = p.csv("exports").set_index(["run", "precision"])
    size = files["bytes"][best.run, "int8"] / 1e6
    yield "within 5 ms and 0.5", GIVEN, GIVEN
    yield "It processes 7,207 images/s", best.images_per_second
    yield "at most 0.53 ms (95 %)", best.latency_p99_high_ms, GIVEN
    yield "file of 0.32 MB has 91.11 %", size, 100 * best.test_accuracy
    yield "files measured, 91.46 %, and processes", 100 * accurate.test_accuracy
    yield "processes 2,723 images/s; its", accurate.images_per_second
    held_out = [100 * row.validation_accuracy for row in (accurate, best)]
    yield "(90.85 against 91.15 %)", *held_out
    means = p.test("resnet20", "resnet32", "resnet56", "preact_resnet20")
    yield "means of 90.8 to 91.2 %", min(means), max(means)
    yield "a limit of 5 ms", GIVEN
    slow = shown[shown["latency_p99_high_ms"] > 5]
    yield "by the bound of p99 3 of 18 files", len(slow), len(shown)
    bounds = [measured[n, "fp32"].latency_p99_high_ms for n in ("resnet34", "resnet50", "resnet56")]
    assert sorted(bounds) == sorted(slow["latency_p99_high_ms"])
    yield "in fp32 (6.4, 7.3 and 6.8 ms)", *bounds
    yield "41 times fewer parameters", p.ratio("parameters", "resnet18", "resnet20")
    yield "2.4 points higher, and that of ResNet-56 2.2", p.mean("resnet20"), p.mean("resnet56")
    yield "Of 28 pixels, its first stage sees 7", GIVEN, GIVEN
    last = [100 * _last_stage(p.network(name)) for name in ("resnet18", "resnet34", "resnet50")]
    yield "62 to 75 % of the weights, sees 1", min(last), max(last), GIVEN
    ratios = {name: (row.ratio, row.ratio_low, row.ratio_high)
              for (name, precision), row in measured.items() if precision == "int8"}  # fmt: skip
    yield "int8 makes ResNet-20 1.70 times", ratios["resnet20"][0]
    yield "(1.03, 1.00 to 1.06)", *ratios["resnet18"]
    deeper = [ratios[name][0] for name in ("resnet34", "resnet50", "resnet32", "resnet56")]
    yield "become 1.7 to 2.2 times", min(deeper), max(deeper)
    yield "the pre-activation ResNet-20 1.23 times", ratios["preact_resnet20"][0]
    yield "(0.94, 0.92 to 0.96)", *ratios["preact_resnet18"]
    int8 = files.xs("int8", level="precision")
    lost = 100 * (int8["test_accuracy"] - int8["torch_accuracy"]).sort_values()
    yield "26 of the 27 files", len(lost) - 1, len(lost)
    yield "by -0.19 to +0.14 points", lost.iloc[1], lost.iloc[-1]
    yield "on 10,000 test images", GIVEN
    assert lost.index[0].startswith("resnet50-fashion-mnist-s2-")
    yield "loses 11.2 points", -lost.iloc[0]
    yield "three epochs of 18,000 images", p.images("resnet18")
    yield "some 420 steps", _round(p.steps("resnet18"))
    yield (
        "ResNet-34 is 1.7 points and ResNet-50 is 4.1 points",
        *map(p.mean, ("resnet34", "resnet50")),
    )


def _last_stage(network: torch.nn.Module) -> float:
    """Return the share of the weights that is in the last stage."""
    size = {name: tensor.numel() for name, tensor in network.named_parameters()}
    return sum(n for name, n in size.items() if name.startswith("layer4.")) / sum(size.values())


def depth(p: Page) -> Iterator[Quote]:
    basic, deep = ("resnet18", "resnet34"), ("resnet50", "resnet101", "resnet152")
    yield "0.4 points of test accuracy behind", p.mean("resnet34")
    yield "95 % interval 3.9 behind to 3.1 ahead", *p.interval("resnet34")
    yield "layers are 4.0, 7.3 and 9.4 points lower", *map(p.mean, deep)
    yield "(95 % interval 2.0 to 16.9)", *p.interval("resnet152")
    yield "from 89.5 % (34 layers) to 79.6 %", *p.train("resnet34", "resnet152")
    gaps = [a - b for a, b in zip(p.train(*p.names), p.test(*p.names), strict=True)]
    yield "stay within 4.2 points of the test", max(gaps)
    yield "0.05 for resnet18, 0.0125 for resnet34", *map(p.rate, basic)
    yield from (("0.005 for the three", p.rate(name)) for name in deep)
    yield "single runs on 1,000", p.images("resnet18") / 9
    errors, nearer = _of_single_runs(p)
    yield "standard errors of 1.1 to 1.3 points", min(errors), max(errors)
    yield "6 of 20 other rates are nearer", sum(nearer), len(nearer)
    # The first version of this page: no longer in results/.
    yield "one rate for all, 0.05", GIVEN
    yield "4.9, 14.8, 28.5 and 40.6 points behind", *[GIVEN] * 4
    before = (14.8, 28.5, 40.6)
    gone = [100 * (1 + p.mean(name) / gap) for name, gap in zip(deep, before, strict=True)]
    yield "73 to 77 % of that gap", min(gone), max(gone)
    yield "846 steps of 32 images", p.steps("resnet18"), p.recipe("resnet18").batch_size
    yield "some 600,000 of 256", GIVEN, GIVEN
    yield "resnet18 classifies 67 %", *p.epoch(1, "resnet18")
    yield "resnet34 65 %", *p.epoch(1, "resnet34")
    yield "resnet152 52, 49 and 46 %", *p.epoch(1, *deep)
    yield "In the third epoch it is 87, 87, 82, 78 and 76 %", *p.epoch(3, *basic, *deep)
    behind = {n: [p.epoch(n, "resnet18")[0] - x for x in p.epoch(n, *deep)] for n in (1, 3)}
    left = [100 * late / early for early, late in zip(behind[1], behind[3], strict=True)]
    yield "shrink to 29 to 48 % of what they were", min(left), max(left)
    norms = [p.epoch(n, *basic, *deep, column="gradient_norm") for n in (1, 2, 3)]
    yield "gradients is 7 and 16", *norms[0][:2]
    yield "92, 244 and 627 for the three", *norms[0][2:]
    later = norms[1] + norms[2]
    yield "from the second epoch on it is 1.4 to 8.5", min(later), max(later)
    last = "resnet152"
    yield "6.6 times the multiply-adds of 18", p.ratio("macs", last, "resnet18"), NAME
    yield "5.2 times the parameters", p.ratio("parameters", last, "resnet18")
    yield "(56 against 454 images/s", *p.speed(last, "resnet18")
    yield "train at 12 % of the speed", 100 * p.ratio("images_per_second", last, "resnet18")


def fast_recipe(p: Page) -> Iterator[Quote]:
    yield "without Muon (-0.68 points, 95 % interval -2.39 to +1.02)", *p.both("no-muon")
    yield "without growing images (+0.68, -0.99 to +2.36)", *p.both("full-size")
    yield "without random crops (+0.60, -0.99 to +2.20)", *p.both("no-crop")
    yield "without label smoothing (-0.31, -0.98 to +0.36)", *p.both("no-smoothing")
    target = p.file.study.target_accuracy
    times = [
        median(
            time_to_accuracy(rows, target).seconds
            for _, rows in p.data.epochs[p.data.epochs["variant"] == name].groupby("seed")
        )
        for name in ("all", "full-size")
    ]
    reached = [
        {
            (rows["validation_accuracy"] >= target).idxmax()
            for _, rows in p.data.epochs[p.data.epochs["variant"] == name]
            .set_index("epoch")
            .groupby("seed")
        }
        for name in ("all", "full-size")
    ]
    yield "none of the 12 comparisons", len(p.names) - 1
    sizes = {abs(p.mean(name)): name for name in p.names if name not in ("all", "plain-fast")}
    largest = [sizes[size] for size in sorted(sizes, reverse=True)[:4]]
    assert set(largest) == {"no-muon", "full-size", "no-crop", "no-smoothing"}
    assert [len(epochs) for epochs in reached] == [1, 1]
    yield "of 92 % takes 3 epochs, and at full size only 2", 100 * target, *map(max, reached)
    yield "The medians over seeds are 261 and 256 s", *times
    yield "4 to 16 seeds are needed", *p.needed("no-muon", "no-crop", "full-size")


def grow(p: Page) -> Iterator[Quote]:
    sizes = (32, 44, 56)
    parents = ("resnet20", "resnet32-grown", "resnet44-grown")
    grown = [f"resnet{n}-grown" for n in sizes]
    text = "(95 % intervals -1.3 to +0.6, -1.7 to +0.6 and -1.3 to +2.3 points"
    yield text, *(end for name in grown for end in p.interval(name))
    seconds = p.data.runs.groupby("variant")["seconds"].mean()
    yield "takes 134 s of training (one thread)", seconds["resnet56-grown"]
    yield "training from scratch takes 325 s", seconds["resnet56-scratch"]
    yield "the logits of 1,000 validation images", p.images("resnet20") / 9
    yield "rises to 0.1 again", p.rate()
    yield "peak learning rate, 0.1", p.rate()
    steps = list(zip(p.epoch(3, *parents), p.epoch(1, *grown), strict=True))
    yield "(from 86.8 to 86.3 % for", *steps[0]
    yield "90.9 to 90.4 for 44", *steps[1], NAME
    yield "93.2 to 93.3 for 56", *steps[2], NAME
    column = "validation_accuracy"
    before, after = (p.epoch(3, *parents, column=column), p.epoch(1, *grown, column=column))
    drops = [first - second for first, second in zip(before, after, strict=True)]
    yield "lower by 8 to 12 points", min(drops), max(drops)
    text = "(from 86.3 to 78.1, 88.4 to 76.7 and 88.8 to 80.4 %)"
    yield text, *(value for pair in zip(before, after, strict=True) for value in pair)
    scratch = [p.epoch(n, "resnet44-scratch", column=column)[0] for n in (2, 3)]
    rows = p.data.epochs.set_index(["variant", "seed", "epoch"])[column]
    one = [100 * rows["resnet44-scratch", 4, n] for n in (2, 3, 4)]
    yield "(resnet44 with seed 4: 66.6, 57.9 and 85.3 %", *one
    yield "after epochs 2, 3 and 4", 2, 3, 4
    for name in ("resnet32-scratch", "resnet56-scratch"):
        second, third = (p.epoch(n, name, column=column)[0] for n in (2, 3))
        assert third > second
    yield "(75.6 and 75.5 % after epochs 2 and 3)", *scratch, 2, 3


def identity(p: Page) -> Iterator[Quote]:
    blocks = p.csv("gradients").merge(p.data.runs[["run", "variant", "seed"]])
    ratio = {key: rows["norm_ratio"] for key, rows in blocks.groupby(["variant", "epoch"])}
    assert set(blocks["seed"]) == {0}
    zero, drawn, decay = ratio["zero", 5], ratio["drawn", 5], ratio["branch-decay", 5]
    assert sorted(drawn)[-2] < 1 < max(drawn)
    yield "All 27 blocks", len(zero)
    yield "0.05 to 0.16 after one epoch", min(ratio["zero", 1]), max(ratio["zero", 1])
    yield "is 0.21 and its minimum 0.12", median(zero), min(zero)
    yield "is 0.39 before training and 0.42 after it", median(ratio["drawn", 0]), median(drawn)
    without = ratio["no-decay", 5]
    yield "(5e-4 on convolutions", p.recipe("drawn").weight_decay
    yield "after training is 0.40", median(without)
    yield "in 13 of 27 blocks", sum(without.to_numpy() < drawn.to_numpy()), len(drawn)
    strong = p.recipe("branch-decay").branch_weight_decay
    yield "With 10 times as much, 5e-3", strong / p.recipe("drawn").weight_decay, strong
    yield "nothing else, the median is 0.39", median(decay)
    yield "recipe's in 22 of 27 blocks", sum(decay.to_numpy() < drawn.to_numpy()), len(drawn)
    yield "is 0.63 instead of 1.52", decay.iloc[0], drawn.iloc[0]
    yield "3.2 points lower (95 % interval 1.7 to 4.7)", *p.both("zero")
    yield "peak learning rate, 0.1", p.rate()
    yield "are only 355 steps", p.steps("drawn")
    yield "in 90 epochs of ImageNet", GIVEN
    yield "by 0.9 points (0.7 to 1.1)", *p.both("branch-decay")
    yield "0.95 points lower, which is not significant (-2.2 to +0.3)", *p.both("no-decay")


def quickstart(p: Page) -> Iterator[Quote]:
    yield "the same peak rate, 0.05", p.rate()
    yield "Of 0.05, 0.1 and 0.2, it suited", GIVEN, GIVEN, GIVEN  # says the file's history
    yield "is 4.5 points below", p.mean("plain_cnn")


def shortcut_kinds(p: Page) -> Iterator[Quote]:
    ahead = ("projection", "shortcut_only_gated")
    pad, others = p.seeds("zero_pad"), p.seeds(*ahead)
    yield "are 3.9 and 4.0 points ahead", *map(p.mean, ahead)
    yield "(85.2 and 85.3 against 81.2 %)", *p.test(*ahead, "zero_pad")
    yield "which reaches 72.9 %; its others reach 83.4 to 84.7 %", pad[0], pad[1], pad[3]
    yield "training loss is 1.9 million", p.epoch(1, "dropout", column="train_loss")[0] / 1e6
    yield "those of the two other kinds 84.2 to 86.1 %", others[0], others[-1]
    yield "is 1.6 points behind (95 % interval -24.2 to +21.0)", *p.both("all_projection")
    yield "shortcut and branch halved 8.7 points (-20.5 to +3.0)", *p.both("scaled")
    yield "no shortcut at all 14.8 points (-38.9 to +9.3)", *p.both("none")
    yield "only 2.1 points behind the identity in the paper", p.published("gated")
    yield "an initial bias of -6", GIVEN
    yield "a weight of 0.0025", 1 / (1 + math.exp(6))
    norms = p.epoch(1, "gated", "zero_pad", column="gradient_norm")
    yield "have a norm of 0.2, against 4.9", *norms
    gated, identity = p.epoch(1, "gated", "zero_pad")
    yield "classifies 22 %", gated
    yield "against 41 %", identity
    yield "210 steps are probably", _round(p.steps("zero_pad"))
    yield "27 times in a row", (56 - 2) / 2
    yield "how far 56 layers learn in 210 steps", _round(p.steps("zero_pad"))
    yield "All have one learning rate, 0.1", p.rate()
    yield "5 to 20 seeds for no shortcut", *p.needed("none")
    yield "5 to 15 for the halved ones", *p.needed("scaled")
    yield "16 or more for the two kinds", p.needed(*ahead)[0]


def shortcut(p: Page) -> Iterator[Quote]:
    names = ("resnet18", "plain18", "plain_cnn")
    first, third = p.epoch(1, *names), p.epoch(3, *names)
    speed = p.speed(*names)
    slower = [100 * (1 - speed[0] / other) for other in speed[1:]]
    yield "plain18 is 0.8 points of test accuracy worse than resnet18", p.mean("plain18")
    yield "(95 % interval 0.3 to 1.4)", *p.interval("plain18")
    yield "1.04 times the multiply-adds", p.ratio("macs", "plain_cnn", "resnet18")
    yield "is 0.6 points worse (0.1 to 1.2)", *p.both("plain_cnn")
    yield "resnet18 trains 2 and 5 per cent more slowly", *slower
    yield "748 images/s on one thread, against 763 and 787", *speed
    yield "In the first epoch, 422 steps", p.steps("resnet18", epochs=1)
    assert (
        min(first[0] - other for other in first[1:])
        > max(third[0] - other for other in third[1:])
        > 0
    )
    yield "resnet18 classifies 82.1 %", first[0]
    yield "plain18 78.1 % and plain_cnn 77.5 %", *first[1:]
    yield "91.4, 90.2 and 90.1 %", *third
    gaps = [a - b for a, b in zip(p.train(*names), p.test(*names), strict=True)]
    yield "is 1.8 to 2.1 points", min(gaps), max(gaps)
    yield "some 600,000 steps", GIVEN
    yield "peak learning rate, 0.1", p.rate()


def table_1(p: Page) -> Iterator[Quote]:
    shown = p.test("resnet18", "resnet34", "resnet50", "resnet101")
    yield "two epochs of 5,400 images, 340 steps", p.images("resnet18"), _round(p.steps("resnet18"))
    yield "they classify 52 to 80 %", min(shown), max(shown)
    yield "against 10 % by chance", 100 / 10
    last = p.summaries["resnet152"].test_accuracy
    ends = _ends(last.low, last.high)
    yield "it reaches 20 % (95 % interval 10 to 30)", *p.test("resnet152"), *ends
    rows = p.data.epochs.query("variant == 'resnet152' and epoch == 2")["train_accuracy"]
    yield "it classifies 28 to 34 %", 100 * rows.min(), 100 * rows.max()
    yield "peak learning rate, 0.05", p.rate()


def table_1_longer(p: Page) -> Iterator[Quote]:
    last = p.summaries["resnet152"].test_accuracy
    yield "six epochs of 5,400 images", p.images("resnet152")
    yield "resnet152 classifies 66.6 %", *p.test("resnet152")
    yield "the 95 % interval, 52.3 to 80.9", *_ends(last.low, last.high)
    yield "above chance, 10 %", 100 / 10
    yield "Each of the 3 seeds classifies more than 62 %", len(p.seeds("resnet152")), GIVEN
    assert p.seeds("resnet152")[0] > 62
    yield "so this is look 3", 1 + p.file.study.earlier_looks
    found = p.summaries["resnet152"].difference
    assert not found.significant
    yield "mean is still 19.5 points lower than", p.mean("resnet152")
    yield "(-75.5 to +36.6, n = 3): `table-1`", 100 * found.low, 100 * found.high
    yield "the same learning rate, 0.05", p.rate()


def time_budget(p: Page) -> Iterator[Quote]:
    names = ("resnet14-w32", "resnet20")
    runs = p.csv("runs").set_index("variant")
    (wide, narrow), epochs = p.test(*names), [p.recipe(name).epochs for name in names]
    yield "a mean of 95.16 % on the test images after 18 epochs", wide, epochs[0]
    yield "94.85 % after 32", narrow, epochs[1]
    mean, low, high = p.both("resnet14-w32")
    yield "The difference of +0.31 points", mean
    yield "(interval of a second look -0.71 to +1.32, n = 3)", low, high
    yield "only 1.3 points could be detected", p.detectable("resnet14-w32")
    each = {name: p.seeds(name) for name in names}
    yield "Each of the 3 runs of ResNet-14 passes 95 %", len(each["resnet14-w32"]), GIVEN
    yield "(95.01 to 95.31 %)", each["resnet14-w32"][0], each["resnet14-w32"][-1]
    yield "each of ResNet-20 passes 94.5 %", GIVEN
    yield "(94.78 to 94.90 %)", each["resnet20"][0], each["resnet20"][-1]
    minutes = [sorted(runs["seconds"][name] / 60) for name in names]
    yield "18.0 to 18.6 and 17.6 to 17.9 minutes", *(m for one in minutes for m in one[::2])
    yield "both networks stay below 20 minutes", GIVEN
    yield "the mean of ResNet-14 could be below 95 %", GIVEN
    found = p.summaries["resnet14-w32"].test_accuracy
    yield "its interval is 94.79 to 95.53 %", 100 * found.low, 100 * found.high
    flipped = 100 * runs["test_accuracy_with_flip"]
    yield "the means are 95.26 and 95.12 %", *(flipped[name].mean() for name in names)
    yield "at 1,012 and 1,819 training images/s", *p.speed(*names)
    yield "reached 95.29 and 94.72 %", GIVEN, GIVEN  # the page before, in the history
    yield "all 3 seeds are of new runs", len(each["resnet20"])


def variance_components(p: Page) -> Iterator[Quote]:
    sources = ("initialization", "order", "split", "subset")

    def accuracy(net: str, what: str) -> Estimate:
        found = p.summaries[f"{net}-{what}"].test_accuracy
        assert found is not None
        return found

    def spread(net: str, *varied: str) -> list[float]:
        return sorted(100 * deviation(accuracy(net, what))[0] for what in varied)

    def shares(net: str) -> dict[str, list[float]]:
        whole = accuracy(net, "everything")
        found = {what: variance_ratio(accuracy(net, what), whole) for what in sources}
        return {what: [100 * value for value in ratio] for what, ratio in found.items()}

    one, other = spread("resnet20", *sources), spread("plain20", *sources)
    ours, theirs = shares("resnet20"), shares("plain20")
    others = [theirs[what] for what in sources if what != "subset"]
    rows = len(ours) + len(theirs)
    assert all(low < 100 < high for _, low, high in (*ours.values(), *others))
    yield "Allowing for 8 comparisons", rows
    seeds = accuracy("resnet20", "order").seeds
    yield "over 20 seeds is 0.38 points", seeds, *spread("resnet20", "everything")
    yield "0.33 to 0.41 if only one source", one[0], one[-1]
    ends = [end for _, *both in ours.values() for end in both]
    yield "reach from 29 to 287 %, and each contains 100 %", min(ends), max(ends), 100
    yield (
        "0.58 points and, by one source, 0.36 to 0.76",
        *spread("plain20", "everything"),
        other[0],
        other[-1],
    )
    yield "variance is 37 %, with an interval of 15 to 94 %", *theirs["subset"]
    ends = [end for _, *both in others for end in both]
    yield "reach from 36 to 427 % and contain 100 %", min(ends), max(ends), 100
    yield "of 8, one that just excludes 100 % shows nothing", rows, 100

    def total(shares: dict[str, list[float]]) -> tuple[float, float, float]:
        """Return the sum of the shares and its interval (F, Satterthwaite)."""
        found, size = [share for share, _, _ in shares.values()], seeds - 1
        freedom = size * sum(found) ** 2 / sum(share**2 for share in found)
        low, high = (stats.f.ppf(end, freedom, size) for end in (0.975, 0.025))
        return sum(found), sum(found) / low, sum(found) / high

    yield "sum to 382 % for resnet20 (95 % interval about 170 to 732", *total(ours)
    yield "to 418 % for plain20 (about 185 to 815)", *total(theirs)
    alone = [spread(net, what)[0] for what in sources[:2] for net in ("resnet20", "plain20")]
    yield "weights alone give 0.41 and 0.76 points", *alone[:2]
    yield "order alone 0.33 and 0.64", *alone[2:]
    factors = [high / share for share, _, high in (*ours.values(), *theirs.values())]
    yield "with 20 seeds, a ratio", seeds
    yield "a factor of about 2.5", max(factors)
    yield "one for all (0.1)", p.rate()


DISCUSSIONS: dict[str, Callable[[Page], Iterator[Quote]]] = {
    "activation-order": activation_order,
    "batch-norm": batch_norm,
    "book": book,
    "bottleneck": bottleneck,
    "capacity": capacity,
    "degradation": degradation,
    "degradation-tuned": degradation_tuned,
    "orders-56": orders_56,
    "deployment": deployment,
    "depth": depth,
    "fast-recipe": fast_recipe,
    "grow": grow,
    "identity": identity,
    "quickstart": quickstart,
    "shortcut": shortcut,
    "shortcut-kinds": shortcut_kinds,
    "table-1": table_1,
    "table-1-longer": table_1_longer,
    "time-budget": time_budget,
    "variance-components": variance_components,
    "without-batch-norm": without_batch_norm,
}


@cache
def page(name: str) -> Page:
    return Page(name)


@cache
def quotes(name: str) -> list[Quote]:
    return list(DISCUSSIONS[name](page(name)))


def numbers(text: str) -> list[re.Match[str]]:
    """Find the figures of a text; what is none becomes spaces."""
    return list(NUMBER.finditer(NO_FIGURE.sub(lambda found: " " * len(found[0]), text)))


def is_printed(number: str, value: object, names: list[str]) -> bool:
    """Return whether *number* is *value*, in as many digits as it has."""
    if value == GIVEN:
        return True
    if value == NAME:
        return any(number.replace(",", "") in re.findall(r"\d+", name) for name in names)
    if value is None:
        return False
    value = float(value)
    if "e" in number:
        return float(number) == value
    digits = len(number.partition(".")[2])
    signed = number[0] in "+-"
    size = f"{abs(value):.{digits}f}"
    return size == number.lstrip("+-").replace(",", "") and (
        not signed or float(size) == 0 or (value < 0) == (number[0] == "-")
    )


def wrong(p: Page, text: str, quotes: list[Quote]) -> list[str]:
    """Return each number of *text* that is quoted nowhere, and each quote that is not true."""
    found, covered = [], set()
    for quote, *values in quotes:
        places = [match.start() for match in re.finditer(re.escape(quote), text)]
        figures = [match[0] for match in numbers(quote)]
        if not places or len(figures) != len(values):
            found.append(f"{quote!r}: not in the text, or not {len(values)} numbers")
        for figure, value in zip(figures, values, strict=False):
            if not is_printed(figure, value, p.names):
                found.append(f"{quote!r}: {figure} is {value}")
        covered |= {place for start in places for place in range(start, start + len(quote))}
    return found + [
        f"quoted nowhere: {match[0]} in {text[max(0, match.start() - 40) : match.end() + 20]!r}"
        for match in numbers(text)
        if match.start() not in covered
    ]


def words(text: str, allowed: list[str]) -> list[str]:
    """Return the numbers in words that are not said to be no data."""
    for phrase in allowed:
        text = text.replace(phrase, "")
    return [found[0] for found in WORD.finditer(text)]


def test_every_published_discussion_is_checked() -> None:
    assert set(DISCUSSIONS) == {
        path.parent.name
        for path in ROOT.glob("results/*/epochs.csv")
        if load_study(path.parent.name).study.discussion
    }


@pytest.mark.parametrize("name", DISCUSSIONS)
def test_each_number_of_a_discussion_is_the_figure_it_is_said_to_be(name: str) -> None:
    assert wrong(page(name), page(name).text, quotes(name)) == []


@pytest.mark.parametrize("name", DISCUSSIONS)
def test_no_number_that_is_data_is_written_as_a_word(name: str) -> None:
    allowed = WORDS_OF_NO_DATA.get(name, [])
    assert words(page(name).text, allowed) == []
    assert [phrase for phrase in allowed if phrase not in page(name).text] == []


def test_a_number_in_words_is_found() -> None:
    text = "Nearly two thirds of it, and Seven of the three epochs; growth is threefold."
    assert words(text, ["three epochs"]) == ["thirds", "Seven", "threefold"]


def test_a_rate_that_is_shared_and_not_tuned_is_said_to_be() -> None:
    """Each discussion that compares variants at one learning rate has the caveat."""
    shared = [
        name
        for name in DISCUSSIONS
        if not page(name).file.study.tune
        and len({page(name).recipe(variant).learning_rate for variant in page(name).names}) == 1
    ]
    assert {"deployment", "fast-recipe", "time-budget", "variance-components"} <= set(shared)
    caveat = re.compile(r"\brates?\b[^;]*\b(not tuned for|tuned for (none|neither))\b")
    for name in shared:
        sentences = re.split(r"(?<=\.) (?=[A-Z`])", page(name).text)
        assert any(caveat.search(sentence) for sentence in sentences), name


# Differences that no data in results/ has: those of pages as they were first published.
NO_LONGER_PUBLISHED = {
    "9.9 points behind (95 % interval of that comparison alone: 5.6 to 14.3)",
    "the gaps were 2.4 points at 56 layers and 2.6 at 83",
    "4.9, 14.8, 28.5 and 40.6 points behind",
}


@pytest.mark.parametrize("name", DISCUSSIONS)
def test_a_number_that_is_changed_by_0_3_or_a_count_by_1_is_found(name: str) -> None:
    p = page(name)
    for quote, *values in quotes(name):
        for match, value in zip(numbers(quote), values, strict=True):
            number = match[0].replace(",", "")
            digits = len(number.partition(".")[2])
            for change in (0.3, -0.3) if digits else (1, -1):
                other = f"{float(number) + change:.{digits}f}"
                changed = quote[: match.start()] + other + quote[match.end() :]
                found = wrong(p, p.text.replace(quote, changed), [(changed, *values)])
                assert (value == GIVEN) != any(f": {other} is " in line for line in found)
        if GIVEN in values and re.search("points|interval", quote):
            assert quote in NO_LONGER_PUBLISHED


def test_the_quickstart_of_the_readme_is_its_published_page() -> None:
    readme = (ROOT / "README.md").read_text()
    report = StudyReport(page("quickstart").data)
    rows = [line.rsplit(" | ", 1)[0] + " |" for line in report.table.to_markdown()]
    assert rows[0] in readme  # without the last column, images/s
    for row in rows[2:]:
        assert row in readme
    quoted = " ".join(line.removeprefix("> ") for line in readme.splitlines() if line[:2] == "> ")
    assert quoted == report.answer


def test_the_mean_correlation_over_seeds_is_that_of_the_pages() -> None:
    text = " ".join((ROOT / "docs/why/measurement.md").read_text().split())
    (printed,) = re.findall(r"the mean correlation is only (0\.\d\d)\.", text)
    paths = (ROOT / "results").glob("*/comparisons.csv")
    found = pd.concat([pd.read_csv(path)["correlation"] for path in paths]).dropna()
    assert printed == f"{found.mean():.2f}"


def test_numbers_on_what_a_seed_varies_are_those_of_the_study() -> None:
    p = page("variance-components")
    text = " ".join((ROOT / "docs/why/measurement.md").read_text().split())
    paragraph = text.partition("**What the seed varies**")[2].partition("**")[0]
    seen = {quote: values for quote, *values in quotes("variance-components")}
    deviations = seen["over 20 seeds is 0.38 points"], seen["0.33 to 0.41 if only one source"]
    plain = seen["0.58 points and, by one source, 0.36 to 0.76"]
    claims: list[Quote] = [
        ("deviations of 0.33 to 0.41 points", *deviations[1]),
        ("everything together 0.38", deviations[0][1]),
        ("of 20 layers, 0.36 to 0.76 and 0.58", *plain[1:], plain[0]),
        ("(20 seeds each)", deviations[0][0]),
        ("a factor of about 2.5", *seen["a factor of about 2.5"]),
    ]
    assert wrong(p, paragraph, claims) == []


DOCS = {"en": ROOT / "docs/why/residual-learning.md", "vi": ROOT / "docs/vi/residual-learning.md"}


@pytest.mark.parametrize("language", DOCS)
def test_figures_of_the_page_on_residual_learning_are_those_of_the_results(language: str) -> None:
    text = DOCS[language].read_text()
    printed = {
        name: re.findall(r"\d+[.,]\d+", cell)
        for cell, name in re.findall(r"\[([^\]]*)\]\(\.\./results/([\w-]+)/index\.md\)", text)
    }
    tuned = page("degradation-tuned")
    contrast = tuned.data.contrasts[0].train_difference
    norm = page("without-batch-norm").data.contrasts[0].train_difference
    expected = {
        "shortcut": [*page("shortcut").both("plain18")],
        "bottleneck": [
            page("bottleneck").ratio("macs", "resnet50-bottleneck", "resnet34-basic"),
            *page("bottleneck").both("resnet50-bottleneck"),
        ],
        "time-budget": page("time-budget").test("resnet14-w32", "resnet20"),
        "orders-56": page("orders-56").both("preact"),
        "without-batch-norm": [100 * x for x in (norm.mean, norm.high, norm.low)],
        "degradation-tuned": [
            *(
                100 * tuned.summaries[name].train_difference.mean
                for name in ("plain56", "resnet56")
            ),
            *(100 * x for x in (contrast.mean, contrast.high, contrast.low)),
        ],
    }
    for name, found in printed.items():
        values = expected.get(name, [])
        assert [number.replace(",", ".") for number in found] == [f"{abs(v):.1f}" for v in values]
    assert expected.keys() <= printed.keys()
    errors = [100 - value for value in page("quickstart").epoch(4, "resnet34", "plain34")]
    alternative = re.search(r"!\[([^\]]*)\]\(\.\./figures/training", text)[1]
    assert re.findall(r"\d+", alternative) == [f"{error:.0f}" for error in errors]
    after = [100 - value for value in page("quickstart").train("resnet34", "plain34")]
    found = re.findall(r"(\d+[.,]\d) (?:and|và) (\d+[.,]\d) % \(n = 5\)", text)
    assert [n.replace(",", ".") for n in found[0]] == [f"{error:.1f}" for error in after]


def test_claims_of_the_page_on_residual_learning_are_those_of_the_results() -> None:
    def significant(name: str) -> set[str]:
        p = page(name)
        return {s.name for s in p.summaries.values() if s.difference and s.difference.significant}

    assert not any(c.difference.significant for c in page("degradation").data.contrasts)
    tuned = page("degradation-tuned").data.contrasts[0].train_difference
    assert tuned.significant
    assert tuned.mean < 0
    assert page("orders-56").summaries["preact"].difference.significant
    assert page("orders-56").mean("preact") > 0
    without = page("without-batch-norm").data.contrasts[0].train_difference
    assert without.significant
    assert without.mean < 0
    norm = page("batch-norm")
    assert not norm.data.contrasts[0].train_difference.significant
    failures = norm.summaries["resnet56-without"].failures
    assert (failures.failed, failures.runs) == (7, 8)
    assert significant("depth") == {"resnet152"}
    assert significant("shortcut-kinds") == {"gated", "dropout"}
    assert max(page("shortcut-kinds").mean(name) for name in ("gated", "dropout")) < 0
    assert significant("activation-order") == set()
    first = page("activation-order").test("56-relu_preact", "56-preact")
    assert (
        sorted(first)
        == sorted(
            page("activation-order").test(*(n for n in page("activation-order").names if "56" in n))
        )[-2:]
    )
    assert "resnet50-bottleneck" in significant("bottleneck")
    assert not {f"{n}-w32" for n in (500, 2000, 8000)} & significant("capacity")
    assert not {f"resnet{n}-grown" for n in (32, 44, 56)} & significant("grow")
    learned = {s.name for s in page("table-1").data.summaries if s.test_accuracy.low > 0.1}
    assert learned >= {"resnet18", "resnet34", "resnet50", "resnet101"}
    assert page("table-1-longer").summaries["resnet152"].test_accuracy.low > 0.1
