"""Replication in fresh processes: what differs between two runs of one command is measured.

A network's speed differs from process to process by more than it does within one: memory lies
elsewhere, and caches and huge pages are in another state. An interval from one process does not
include that, and does not cover what the next run finds. So each process opens all configurations
of the comparison, in another order and after another amount of memory, warms up, and takes a few
interleaved rounds; the interval is over processes (Kalibera and Jones 2013).
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import random
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from bench.errors import BenchError
from bench.measurement.accuracy import Scorer
from bench.measurement.machine.noise import noise_between, take_snapshot
from bench.measurement.timing.process_runner import ProcessRunner
from bench.measurement.timing.runner import LocalRunner
from bench.measurement.timing.sampling import Goal, run_plan
from bench.measurement.timing.server_scenario import find_rate
from bench.system.intervals import FEWEST_PROCESSES, LOOK_CONFIDENCE, LOOKS
from bench.system.memory import be_killed_first, describe_exit, memory_left, out_of_memory_kills
from bench.system.spawn import ignoring_interrupts, without_main

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from bench.measurement.configurations import Configuration, Request
    from bench.measurement.timing.trial import Trial
    from bench.training.run import OnEvent


_ROUNDS = 4  # of blocks in one process
_BLOCK_SECONDS = 0.125
_END_SECONDS = 10.0
_MOST_PADDING = 64 << 20  # bytes allocated before a network, which moves everything after it
# A batch whose images alone take this share of the free memory may not fit with its
# activations (about twenty times as large in a residual network), so it runs in a subprocess.
_RISKY_SHARE = 0.05


@dataclass(frozen=True)
class Replicate:
    """One process of a measurement.

    Attributes:
        number: place in the order in which they ran.
        pid: its process id.
        started_at: UTC, ISO 8601.
        seconds: wall time from its start to its end.
        error: why it does not count; None if it does.
        noise: the machine's counters before and after, and the warnings.
    """

    number: int
    pid: int | None
    started_at: str
    seconds: float
    error: str | None = None
    noise: dict[str, Any] = field(default_factory=dict)


class Replication(NamedTuple):
    """The processes of a measurement, what a reader must know of them, and whether Ctrl-C came."""

    processes: list[Replicate]
    warnings: list[str]
    interrupted: bool = False


def replicate(
    trials: Sequence[Trial],
    request: Request,
    goal: Goal,
    run: Callable[[Sequence[Trial], int], Replicate],
    on_event: OnEvent = lambda _event: None,
) -> Replication:
    """Measure all trials in one process after the other, until the goal is reached.

    Each trial's `replicates` are filled in place; one that fails in most processes is given up.
    Ctrl-C ends the measurement, and what is complete is kept.

    Args:
        trials: what each process measures.
        request: the number of processes: a number, or `auto`.
        goal: width, and time for each trial over all processes.
        run: measures trials in process number N, as `run_process` does.
        on_event: called with `process`.

    Raises:
        KeyboardInterrupt: before the first process was complete.
    """
    looks: tuple[int, ...] = LOOKS
    if request.processes == "auto":
        for trial in trials:
            trial.confidence = LOOK_CONFIDENCE
    else:
        looks = (int(request.processes),)
    done: list[Replicate] = []
    try:
        while (wanted := _wanted(trials, goal, looks, len(done))) > len(done):
            on_event(_progress(done, wanted))
            done.append(run([t for t in trials if t.status == "complete"], len(done)))
            if len(done) == 1 and (short := _too_short(trials, goal, looks[0])):
                return Replication(done, [short])
    except KeyboardInterrupt:
        if not any(trial.replicates for trial in trials):
            raise
        complete = sum(one.error is None for one in done)
        claim = "" if complete >= FEWEST_PROCESSES else ", too few for any claim"
        warning = f"interrupted after {complete} complete processes{claim}"
        return Replication(done, [warning], interrupted=True)
    finally:
        for trial in trials:
            if trial.status == "complete" and trial.attempts and not trial.replicates:
                trial.give_up()
    return Replication(done, [])


def _wanted(trials: Sequence[Trial], goal: Goal, looks: Sequence[int], done: int) -> int:
    """Return the number of processes at which to look next; *done* if it is enough."""
    usable = [trial for trial in trials if trial.status == "complete"]
    if not usable:
        return done
    if done not in looks:
        return next((look for look in looks if look > done), done)
    following = next((look for look in looks if look > done), done)
    spent = max(trial.seconds_spent for trial in usable)
    if all(is_reached(t, trials, goal) for t in usable):
        return done
    return following if spent * following / done <= goal.max_seconds else done


def is_reached(trial: Trial, trials: Sequence[Trial], goal: Goal) -> bool:
    """Return whether what a trial is judged by is narrow enough, and has enough samples.

    That is its ratio to the reference, since images/s differ more between processes than ratios
    within them do; of the reference itself, the ratio of its twin. Without a reference it is the
    time itself. Of one process only, it is the interval within it.
    """
    if not trial.replicates:
        return goal.is_reached(trial)
    judged = trial.interval
    references = (t for t in trials if t.is_reference and t.replicates and t.status == "complete")
    reference = next((t for t in references if t.group == trial.group), None)
    if reference is not None:
        twins = [t for t in trials if t.configuration.twin and t.group == trial.group]
        other = next(iter(twins), None) if trial is reference else trial
        judged = other.speedup_over(reference) if other is not None else trial.interval
    return (
        judged is not None
        and judged.confident
        and judged.half_width <= goal.target_width
        and goal.has_samples(trial)
    )


def _progress(done: Sequence[Replicate], look: int) -> dict[str, Any]:
    left = None
    if done:
        left = sum(one.seconds for one in done) / len(done) * (look - len(done))
    return {"event": "process", "number": len(done) + 1, "of": look, "seconds_left": left}


def _too_short(trials: Sequence[Trial], goal: Goal, fewest: int) -> str | None:
    """Return why the time does not suffice for one sample in each of the processes."""
    # A single slow sample, as when another program runs for a moment, says nothing.
    longest = max((median(t.samples) for t in trials if t.samples), default=0.0) * fewest
    if longest <= goal.max_seconds:
        return None
    return (
        f"one process only, no claim: --max-seconds {goal.max_seconds:g} is too short for a sample "
        f"in each of {fewest} processes (give at least {math.ceil(longest)}, or a smaller "
        "--batch-size)"
    )


def run_process(
    trials: Sequence[Trial],
    number: int,
    *,
    request: Request,
    goal: Goal,
    device: str,
    on_event: OnEvent,
) -> Replicate:
    """Run one process, and add what it measured to the trials.

    A process that crashes or hangs does not count: the configuration it was measuring has failed.
    """
    context = multiprocessing.get_context("spawn")  # a forked torch may hang
    here, there = context.Pipe()
    kills = out_of_memory_kills()
    started_at, begun = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    goal = share_of(goal, request)
    arguments = ([t.fresh() for t in trials], request, goal, device, request.seed + number)
    process = context.Process(target=_measure, args=(there, *arguments))
    with without_main(), ignoring_interrupts():  # a terminal interrupts both; this one ends it
        process.start()
    there.close()
    at_work: str | None = None
    error, noise = None, {}
    try:
        while here.poll(request.timeout):
            event = here.recv()
            if event["event"] == "done":
                noise = event["noise"]
                for trial, measured in zip(trials, event["trials"], strict=True):
                    trial.add_replicate(number, measured)
                break
            at_work = event.get("what", at_work)
            on_event(event)
        else:
            error = f"no sign of progress for {request.timeout:g} s (--timeout)"
    except (EOFError, OSError):
        process.join()
        error = describe_exit(process.exitcode, kills, "the process")[1]
    finally:
        if noise:  # it has only to end, which a runtime may fail to do
            process.join(_END_SECONDS)
        process.kill()
        process.join()
        here.close()
    for trial in trials:
        trial.attempts += 1
    if error is not None:
        culprits = [t for t in trials if at_work in {t.name, None}]
        made = {replace(t.configuration, twin=False).name for t in culprits}
        for trial in trials:  # a reference and its twin are one configuration
            if replace(trial.configuration, twin=False).name in made:
                trial.add_failure("failed", error)
    return Replicate(
        number, process.pid, started_at, time.monotonic() - begun, error=error, noise=noise
    )


def fewest_processes(request: Request) -> int:
    """Return the number of processes that a measurement has at least."""
    return FEWEST_PROCESSES if request.processes == "auto" else int(request.processes)


def share_of(goal: Goal, request: Request) -> Goal:
    """Return the goal of one process: an equal part of the time and of the samples.

    Of `auto` it is a part for the fewest processes there will be.
    """
    count = fewest_processes(request)
    return replace(
        goal,
        max_seconds=goal.max_seconds / count,
        min_samples=math.ceil(goal.min_samples / count),
        block_seconds=_BLOCK_SECONDS,
        rounds=_ROUNDS,
    )


def _measure(
    connection: Connection,
    trials: list[Trial],
    request: Request,
    goal: Goal,
    device: str,
    seed: int,
) -> None:
    """Measure all trials in this process, and send them; the order of opening is random."""
    be_killed_first()
    source = random.Random(seed)  # noqa: S311 - nothing secret
    # Bytes that are written are really allocated, so networks lie at other addresses.
    padding = bytearray(os.urandom(1)) * source.randrange(_MOST_PADDING)
    order = list(trials)
    source.shuffle(order)

    def tell(event: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            connection.send(event)

    open_trials(order, request, tell)
    before = take_snapshot(device)
    sample_trials(order, goal, seed=seed, on_event=tell)
    warnings, noise = noise_between(before, take_snapshot(device))
    describe_trials(order, energy=seed == request.seed)  # the first process suffices for it
    score_trials(order, tell)
    for trial in trials:
        trial.close()
    tell({"event": "done", "trials": trials, "noise": noise | {"warnings": warnings}})
    del padding


def open_trials(trials: Sequence[Trial], request: Request, on_event: OnEvent) -> None:
    """Make trials ready to run in this process; one that fails is marked."""
    for number, trial in enumerate(trials, 1):
        if trial.status == "complete":
            made = trial.configuration
            on_event({"event": "prepare", "what": made.name, "number": number, "of": len(trials)})
            isolate = request.isolate or _is_risky(made)
            with trial.recording_failure():
                trial.runner = (
                    ProcessRunner(made, timeout=request.timeout) if isolate else LocalRunner(made)
                )


def sample_trials(trials: Sequence[Trial], goal: Goal, *, seed: int, on_event: OnEvent) -> None:
    """Take the samples of every open trial in this process.

    The rates of the server scenario are searched one trial after the other, the times of the other
    scenarios in interleaved rounds.
    """
    opened = [trial for trial in trials if trial.runner is not None]
    served = [trial for trial in opened if trial.configuration.scenario == "server"]
    for trial in served:
        with trial.recording_failure():
            find_rate(trial, goal, seed=seed, on_event=on_event)
    timed = [trial for trial in opened if trial not in served]
    run_plan(timed, goal, seed=seed, on_event=on_event)


def _is_risky(made: Configuration) -> bool:
    images = 4 * made.batch_size * math.prod(made.target.input_shape)
    return made.device == "cpu" and images > _RISKY_SHARE * memory_left()


def describe_trials(trials: Sequence[Trial], *, energy: bool = True) -> None:
    """Read back what each trial really ran, and with *energy* measure that of a GPU."""
    for trial in trials:
        if trial.runner is not None and trial.status == "complete":
            with trial.recording_failure():  # what ran is unknown, so there is no figure
                if energy:
                    trial.runner.measure_energy()
                trial.report = trial.runner.describe()


def score_trials(trials: Sequence[Trial], on_event: OnEvent) -> None:
    """Score every open trial that was not scored before; one that answers wrongly has failed."""
    scorer = Scorer(on_event)
    # Large batches answer fastest, and the others may share their score.
    for trial in sorted(trials, key=lambda trial: -trial.configuration.batch_size):
        if trial.score is None and trial.runner is not None and trial.status == "complete":
            with trial.recording_failure():
                trial.score = scorer.score(trial.configuration, trial.runner.answer)
                if trial.score.wrong:
                    raise BenchError(trial.score.wrong)
