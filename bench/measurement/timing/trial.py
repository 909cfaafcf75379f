"""A trial: one configuration in a measurement, from the plan to its samples."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import geometric_mean, median
from typing import TYPE_CHECKING, Any

from bench.measurement.backends import status_of
from bench.system.intervals import (
    CONFIDENCE,
    Interval,
    median_interval,
    mostly_failed,
    process_interval,
    ratio_interval,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.measurement.accuracy import Score
    from bench.measurement.configurations import Configuration
    from bench.measurement.timing.runner import Runner, RunnerReport
    from bench.measurement.timing.warmup import WarmUp


@dataclass(eq=False)
class Trial:
    """One configuration in a measurement; filled in place while it is measured.

    Once closed it holds plain data only, which can be sent between processes.

    Attributes:
        configuration: what is measured.
        runner: runs it; None before it is opened and after it is closed.
        is_reference: whether the others of its group are compared with it. It is sampled as long
            as any of them is, so that ratios are paired.
        status: complete, unsupported, out_of_memory or failed.
        error: one line if the status is not complete.
        warm_up: the samples that do not count.
        blocks: round → seconds of each sample of that round's block.
        positions: round → place in that round's order.
        seconds_spent: wall time of the blocks.
        samples_per_block: number of samples of the next block; with several streams, of batches
            of each stream, which together are one sample.
        interval: of the median sample; None before the first block.
        report: what ran, read back after the last block.
        columns: columns of the row that the server scenario adds.
        layers: time by layer and operator, if it was requested.
        score: its answers on the network's dataset; None until they are asked for.
        replicates: number of a fresh process → what it measured of this configuration. With any,
            they hold the samples, and the interval is over them.
        confidence: level of the intervals over processes.
        failures: status and error of each process in which it failed.
        attempts: number of fresh processes that were to measure it.
    """

    configuration: Configuration
    runner: Runner | None = None
    is_reference: bool = False
    status: str = "complete"
    error: str | None = None
    warm_up: WarmUp | None = None
    blocks: dict[int, list[float]] = field(default_factory=dict)
    positions: dict[int, int] = field(default_factory=dict)
    seconds_spent: float = 0.0
    samples_per_block: int = 1
    interval: Interval | None = None
    report: RunnerReport | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    layers: list[dict[str, Any]] = field(default_factory=list)
    score: Score | None = None
    replicates: dict[int, Trial] = field(default_factory=dict)
    confidence: float = CONFIDENCE
    failures: list[tuple[str, str | None]] = field(default_factory=list)
    attempts: int = 0
    _blocks_seen: int = 0

    def __post_init__(self) -> None:
        if self.configuration.unsupported is not None:
            self.status, self.error = "unsupported", self.configuration.unsupported

    @property
    def name(self) -> str:
        """The configuration's name, unique in a measurement."""
        return self.configuration.name

    @property
    def group(self) -> str:
        """Trials of equal group are compared."""
        return self.configuration.group

    @property
    def samples(self) -> list[float]:
        """Seconds of one batch, of all samples in order."""
        if self.replicates:
            return [second for one in self.replicates.values() for second in one.samples]
        return [second for block in self.blocks.values() for second in block]

    @property
    def latencies(self) -> list[float]:
        """Seconds from the start of a batch to its end, while as many run as there are streams."""
        if self.configuration.streams == 1 or self.report is None:
            return self.samples
        return list(self.report.latencies)

    @property
    def latencies_by_process(self) -> list[list[float]]:
        """The latencies of each process; of one that has no replicates, only its own."""
        return [one.latencies for one in self.replicates.values()] or [self.latencies]

    @property
    def timed_batches(self) -> int:
        """Number of batches whose latency is known: with several streams, more than samples."""
        if self.replicates:
            return sum(one.timed_batches for one in self.replicates.values())
        streams = self.configuration.streams
        return len(self.samples) * (streams * self.samples_per_block if streams > 1 else 1)

    def opened(self) -> Runner:
        """Return the open runner.

        Raises:
            RuntimeError: it is not open.
        """
        if self.runner is None:
            raise RuntimeError(f"{self.name} is not open")
        return self.runner

    def close(self) -> None:
        """Close the runner, if there is one."""
        if self.runner is not None:
            self.runner.close()
            self.runner = None

    @contextmanager
    def recording_failure(self) -> Iterator[None]:
        """Record an exception of the block as this trial's; the other trials are not affected."""
        try:
            yield
        except Exception as error:  # a backend's code may raise anything
            self.status, self.error = status_of(error)

    def fresh(self) -> Trial:
        """Return the trial as it is before it is measured, for another process."""
        return Trial(self.configuration, is_reference=self.is_reference, score=self.score)

    def add_replicate(self, number: int, measured: Trial) -> None:
        """Take over what process *number* measured of this configuration.

        What failed there may be given up (`add_failure`); what is not supported, or answers
        wrongly, at once.
        """
        self.score = measured.score or self.score
        if self.score is not None and self.score.wrong:
            self.status, self.error = "failed", self.score.wrong
            return
        if measured.status != "complete" or measured.interval is None:
            self.add_failure(measured.status, measured.error)
            return
        self.replicates[number] = measured
        self.seconds_spent += measured.seconds_spent
        if self.warm_up is None or self.warm_up.steady:
            self.warm_up = measured.warm_up
        if measured.report is not None:
            earlier = self.report
            self.report = measured.report if earlier is None else earlier.plus(measured.report)
        medians = [one.interval.median for one in self.replicates.values() if one.interval]
        alone = len(medians) == 1  # then there is only the interval within it
        self.interval = measured.interval if alone else process_interval(medians, self.confidence)

    def add_failure(self, status: str, error: str | None) -> None:
        """Record that a process failed at this configuration.

        It is given up if that was the second, and most processes so far failed at it.
        """
        self.failures.append((status, error))
        if status == "unsupported" or mostly_failed(len(self.failures), len(self.replicates)):
            self.give_up()

    def give_up(self) -> None:
        """Take the last failure as the outcome; without one, say that no process was complete."""
        none = ("failed", f"none of {self.attempts} processes was complete")
        self.status, self.error = self.failures[-1] if self.failures else none

    def update_interval(self, *, always: bool = False) -> None:
        """Compute the interval, but only after an eighth more blocks.

        Each time an interval is looked at is a chance to stop on one that is narrow by accident.
        """
        if self.blocks and (always or len(self.blocks) >= self._blocks_seen * 1.125):
            self.interval = median_interval(list(self.blocks.values()))
            self._blocks_seen = len(self.blocks)

    def speedup_over(self, reference: Trial) -> Interval | None:
        """Return how many times the images/s of *reference* it reaches, paired by round.

        Batch sizes may differ (`--batch-size auto`).

        Returns:
            Its interval over processes, or over the rounds of one; None without a round that both
            took part in.
        """
        ratio: Interval | None
        if self.replicates:
            pairs = [
                (reference.replicates[number].blocks, one.blocks)
                for number, one in self.replicates.items()
                if number in reference.replicates
            ]
            ratios = [found for pair in pairs if (found := _mean_ratio(*pair)) is not None]
            if len(ratios) > 1:
                ratio = process_interval(ratios, self.confidence)
            else:
                ratio = ratio_interval(*pairs[0]) if pairs else None
        else:
            ratio = ratio_interval(reference.blocks, self.blocks)
        if ratio is None:
            return None
        return ratio.scaled(self.configuration.batch_size / reference.configuration.batch_size)


def _mean_ratio(reference: dict[int, list[float]], other: dict[int, list[float]]) -> float | None:
    """Return the geometric mean over shared rounds of (reference's median / other's median)."""
    shared = sorted(reference.keys() & other.keys())
    if not shared:
        return None
    return geometric_mean(median(reference[r]) / median(other[r]) for r in shared)
