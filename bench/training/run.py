"""One run from its request to its folder: build, train, evaluate, record."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from bench.data.splits import stable_seed
from bench.errors import BenchError
from bench.networks.gradient_norms import measure_blocks
from bench.networks.summary import count_macs, count_parameters
from bench.networks.traced_architecture import DOCUMENT as ARCHITECTURE
from bench.networks.traced_architecture import trace_to_document
from bench.store.files import StorageError
from bench.system.signals import Stop, StopRequestedError
from bench.system.user_code import changes
from bench.training.checkpoint import capture, restore
from bench.training.distributed import Replicas, join
from bench.training.evaluation import Evaluation, evaluate
from bench.training.grown_start import grow_into
from bench.training.initialise import digests
from bench.training.inputs import describe_data, refuse_other_inputs
from bench.training.layout import lay_out
from bench.training.loop import DivergedError, Trainer
from bench.training.optimisers import muon_precision
from bench.training.outcome import begin_record, failure
from bench.training.resources import Resources, torch_settings
from bench.training.setup import Split, build_network, load_data
from bench.training.weights import stored

if TYPE_CHECKING:
    from pathlib import Path

    from bench.data import Dataset, Images
    from bench.store import RunRecord, Store
    from bench.studies.run_request import RunRequest

Event = dict[str, Any]
OnEvent = Callable[[Event], None]

CHECKPOINT_SECONDS = 60.0  # the most that a killed run repeats
PROGRESS_SECONDS = 0.5


class RunHeldError(Exception):
    """Another process is doing the run."""


def execute(
    request: RunRequest,
    store: Store,
    resources: Resources,
    *,
    stop: Stop | None = None,
    on_event: OnEvent = lambda _event: None,
    weights: Path | None = None,
    wait: bool = True,
) -> RunRecord:
    """Do one run, or resume it, and record how it ended.

    A run that diverges, runs out of memory or fails is recorded as such. Two processes
    never do the same run: the second waits and returns the first one's record.

    Args:
        request: what to train.
        store: where to record it.
        resources: where and how.
        stop: checked between steps.
        on_event: called with the start, progress, every epoch and the end.
        weights: safetensors or state-dict file to start from, if the request names one.
        wait: wait until another process that is doing the run has ended.

    Raises:
        RunHeldError: another process is doing the run, and *wait* is False.
        StopRequestedError: a checkpoint was written; the same call resumes.
        StorageError: the results folder cannot be written.
    """
    run, stop = request.run_id, stop or Stop()
    group = join(resources.device)
    free = contextlib.nullcontext(True)
    with store.lock(run, wait=wait, waiting=stop.check) if group.leads else free as ours:
        if not ours:
            raise RunHeldError(run)
        finished = store.read_run(run) if group.leads and not resources.force else None
        if group.largest(finished is not None)[0]:
            return finished or begin_record(request, resources)
        if resources.force and group.leads:
            _, state = store.load_checkpoint(run) or ({}, {})
            if state.get("command") != resources.command:
                store.clear_partial(run)
        if not group.leads:
            on_event = lambda _event: None  # noqa: E731 - the first process reports
        on_event({"event": "start", "run": run, "epochs": request.recipe.epochs})
        attempt = _Attempt(request, store, resources, stop, on_event, weights, group)
        record = attempt.perform()
        on_event({"event": "end", "run": run, "status": record.status, "error": record.error})
        return record


@dataclass
class _Attempt:
    """One try at a run, and the bookkeeping around it."""

    request: RunRequest
    store: Store
    resources: Resources
    stop: Stop
    on_event: OnEvent
    weights: Path | None
    group: Replicas
    trainer: Trainer | None = None
    before: float = 0.0  # seconds of the attempts before this one
    memory_format: torch.memory_format = torch.contiguous_format
    inputs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.started = self.saved = self.reported = time.monotonic()
        self.record = begin_record(self.request, self.resources)
        self.earlier = self.store.read_unfinished(self.record.run)
        if self.weights is not None:
            self.record.environment["weights_file"] = str(self.weights.resolve())

    def perform(self) -> RunRecord:
        """Train, evaluate and publish; a failure of the run itself is a recorded result."""
        try:
            with torch_settings(self.request, self.resources):
                return self._train_and_publish()
        except DivergedError as error:
            return self._publish_divergence(error)
        except StopRequestedError:
            if self.group.leads:
                self._checkpoint()
                self.store.mark_unfinished(self.record)
            raise
        except StorageError:
            raise  # nothing can be recorded there
        except Exception as error:  # whatever a network or dataset raises fails this run
            self.trainer = None  # frees its memory first
            record = failure(self.record, error, seconds=self._seconds)
            # If another process failed first, and this one lost it, the other's is the reason.
            found = self.store.read_unfinished(record.run)
            if found == self.earlier or found is None:
                self.store.mark_unfinished(record)
                found = record
            if not self.group.all_failed(record.run):
                raise BenchError(
                    f"run {record.run} failed in one of {self.group.size} processes, which ends "
                    f"all: {found.error}; the same command resumes it"
                ) from error
            return found

    def _train_and_publish(self) -> RunRecord:
        request, group = self.request, self.group
        device = torch.device(group.device if group.size > 1 else self.resources.device)
        dataset = load_data(request)
        self._check_inputs(dataset)
        split = Split.of(dataset, request, device)
        model = build_network(request, dataset, self.weights)
        documents = grow_into(model, split, self.store)
        documents["initial_weights.json"] = digests(model)
        if ":" in request.model:  # a report does not rebuild foreign networks
            architecture = trace_to_document(model, split.input_shape)
            documents |= {ARCHITECTURE: architecture} if architecture else {}
        model = group.synchronise_batch_norm(model)
        self.memory_format = lay_out(model, device, split.input_shape)
        self.trainer = Trainer(
            model,
            split.training_batches(self.memory_format),
            request.recipe,
            seed=request.order_seed,
            device=device,
            precision=request.precision,
            compiled=self.resources.compiled,
            cuda_graph=self.resources.cuda_graph,
            replicas=group,
        )
        if group.size > 1:
            self.record.environment["processes"] = group.size
        layout = str(self.memory_format).removeprefix("torch.")
        self.record.environment["memory_format"] = layout
        self.record.environment["compiled"] = self.resources.compiled
        if self.resources.cuda_graph:
            self.record.environment["cuda_graph"] = True
        if request.recipe.muon_learning_rate:
            self.record.environment["muon_precision"] = muon_precision(device)
        self._resume()
        self._record_blocks()
        while self.trainer.position.epoch < request.recipe.epochs:
            self._epoch(split)
        try:
            return self._publish(split, documents) if group.leads else self.record
        finally:
            group.largest(0)  # all processes wait until the run is published, or cannot be

    def _check_inputs(self, dataset: Dataset) -> None:
        """Refuse code and images other than those that the study was begun with."""
        request = self.request
        code = self.record.environment.get("user_code", {})
        begun = self.resources.code.get(request.model)  # empty if it is in no file
        if begun and (changed := changes(begun, code)):
            raise BenchError(
                f"model '{request.model}' has other code in this process than in the one that "
                f"began the study ({', '.join(changed)}); restore it, or begin the study again"
            )
        wanted = self.resources.fingerprints.get(request.data, dataset.fingerprint)
        if wanted != dataset.fingerprint:
            raise BenchError(
                f"dataset '{request.dataset}' gave other images to this process than to the one "
                "that began the study; let its function seed the random numbers that it draws"
            )
        self.inputs = {"user_code": code, **describe_data(dataset)}

    def _resume(self) -> None:
        found = self.store.load_checkpoint(self.request.run_id)
        if found is None or self.trainer is None:
            return
        tensors, state = found
        before = state.get("inputs", {})
        refuse_other_inputs(self.request.run_id, self.request, before, self.inputs, begun=True)
        restore(self.trainer, tensors, state)
        self.before = state["seconds"]
        self.record = dataclasses.replace(self.record, started_at=state["started_at"])

    def _epoch(self, split: Split) -> None:
        trainer = self._trainer
        position, epoch, sums = trainer.position, trainer.position.epoch, trainer.position.sums
        figures: dict[str, Any] = {"epoch": epoch + 1}
        figures |= trainer.run_epoch(after_step=self._after_step)
        try:
            if self.group.leads:
                figures |= self._score(split)
        except StopRequestedError:  # a resumed run evaluates again, from after the last step
            position.epoch, position.batch, position.sums = epoch, len(trainer.batches), sums
            raise
        position.history.append(figures)
        self.on_event({"event": "epoch", "run": self.request.run_id, **figures})
        self._record_blocks()
        if position.epoch < self.request.recipe.epochs and self._is_due():
            self._checkpoint()

    def _score(self, split: Split) -> dict[str, Any]:
        """Evaluate the network as it is after an epoch."""
        figures: dict[str, Any] = {}
        if len(split.validation):
            scored = self._evaluate(split, split.validation)
            figures |= {"validation_loss": scored.loss, "validation_accuracy": scored.accuracy}
        if self.request.recipe.test_every_epoch and self.request.evaluate_test:
            figures["test_accuracy"] = self._evaluate(split, split.test).accuracy
        return figures

    def _record_blocks(self) -> None:
        """Measure the blocks once per epoch, and before the first."""
        position = self._trainer.position
        if not self.request.recipe.record_blocks or position.batch:
            return
        if any(row["epoch"] == position.epoch for row in position.blocks):
            return  # resumed from a checkpoint that has them
        seed = stable_seed("blocks", self.request.order_seed, position.epoch)
        torch.manual_seed(seed)  # for dropout
        last = max(0, self.request.recipe.epochs - 1)  # whose images are the largest if they grow
        images, labels = next(self._trainer.batches.epoch(last))
        rows = measure_blocks(self._trainer.model, images, labels, called=self.request.model)
        position.blocks += [{"epoch": position.epoch, **row} for row in rows]

    def _after_step(self) -> None:
        # What arrives in one process meanwhile, all of them act on after the next step.
        signal, due = self.group.largest(self.stop.signal or 0, self._is_due())
        if signal or due:
            self._trainer.finish_steps()  # before the first process writes a checkpoint, alone
        if signal:
            raise StopRequestedError(signal)
        self._report_progress()
        if due and self.group.leads:
            self._checkpoint()

    def _report_progress(self) -> None:
        now = time.monotonic()
        if now - self.reported > PROGRESS_SECONDS:
            self.reported = now
            position = self._trainer.position
            share = position.batch / len(self._trainer.batches)
            done = (position.epoch + share) / max(1, self.request.recipe.epochs)
            self.on_event({"event": "progress", "run": self.request.run_id, "done": done})

    def _evaluate(self, split: Split, images: Images, *, mirrored: bool = False) -> Evaluation:
        network = self._trainer.network
        batches = split.evaluation(images, self.memory_format)
        return evaluate(network, batches, mirrored=mirrored, after_batch=self._after_batch)

    def _after_batch(self) -> None:
        if self.group.size == 1:  # several stop together, which they do after a step
            self.stop.check()
        self._report_progress()

    def _is_due(self) -> bool:
        return self.group.leads and time.monotonic() - self.saved > CHECKPOINT_SECONDS

    def _checkpoint(self) -> None:
        self.record = dataclasses.replace(self.record, seconds=self._seconds)
        if self.trainer is None:
            return
        tensors, state = capture(self.trainer)
        state |= {"seconds": self.record.seconds, "started_at": self.record.started_at}
        state |= {"inputs": self.inputs, "command": self.resources.command}
        state |= {"environment": self.record.environment}
        self.store.save_checkpoint(self.request.run_id, tensors, state)
        self.saved = time.monotonic()

    def _publish(self, split: Split, documents: dict[str, Any]) -> RunRecord:
        network = self._trainer.network
        test = self._evaluate(split, split.test) if self.request.evaluate_test else None
        training = None if self.request.imported else self._evaluate(split, split.train)
        if training is not None and not math.isfinite(training.loss):  # the last step diverged
            raise DivergedError(self._trainer.steps - 1)
        if self.request.imported and test is not None and not math.isfinite(test.loss):
            raise BenchError(
                "its outputs for some test images are not finite, so it has no accuracy; check its "
                "weights, and the normalisation of the images"
            )
        history = self._trainer.position.history
        result = self._result(split, test, training, history[-1] if history else {})
        if test is not None and self.request.recipe.test_time_flip:
            both = self._evaluate(split, split.test, mirrored=True)
            result["test_accuracy_with_flip"] = both.accuracy
        if self._trainer.position.blocks:
            documents["blocks.json"] = self._trainer.position.blocks
        tensors = {"model.safetensors": stored(network.state_dict())}
        if test is not None:
            tensors["predictions.safetensors"] = {
                "predictions": test.predictions.int(),
                "confidence": test.confidence,
                "labels": test.labels.int(),
                "confusion": test.confusion(len(split.dataset.classes)).int(),
            }
        return self.store.finish_run(
            dataclasses.replace(
                self.record, status="complete", error=None, result=result, seconds=self._seconds
            ),
            history=_csv(history),
            tensors=tensors,
            documents=documents,
        )

    def _result(
        self,
        split: Split,
        test: Evaluation | None,
        training: Evaluation | None,
        last: dict[str, Any],
    ) -> dict[str, Any]:
        model = self._trainer.model
        shape = (1, *split.input_shape)
        history = self._trainer.position.history
        images = len(split.train) * len(history)
        return {
            "parameters": count_parameters(model),
            "macs": count_macs(model, shape),
            "input_shape": list(split.input_shape),
            "image_size": split.dataset.size,
            "train_accuracy": training.accuracy if training else None,
            "train_loss": training.loss if training else None,
            "validation_accuracy": last.get("validation_accuracy"),
            "validation_loss": last.get("validation_loss"),
            "validation_images": len(split.validation),
            "validation_largest_class": split.validation.largest_class
            if len(split.validation)
            else None,
            **(_tested(split, test, training) if test is not None else {}),
            "images_per_second": images / sum(r["seconds"] for r in history) if history else None,
            **describe_data(split.dataset),
            "timing_only": split.dataset.timing_only,
        }

    def _publish_divergence(self, error: DivergedError) -> RunRecord:
        record = dataclasses.replace(
            self.record,
            status="diverged",
            error=str(error),
            result={"diverged_step": error.step},
            seconds=self._seconds,
        )
        if not self.group.leads:
            return record
        return self.store.finish_run(record, history=_csv(self._trainer.position.history))

    @property
    def _seconds(self) -> float:
        return self.before + time.monotonic() - self.started

    @property
    def _trainer(self) -> Trainer:
        assert self.trainer is not None  # noqa: S101 - set before it is used
        return self.trainer


def _tested(split: Split, test: Evaluation, training: Evaluation | None) -> dict[str, Any]:
    """Return what to record of the test images."""
    confusion = test.confusion(len(split.dataset.classes))
    per_class = confusion.diagonal().double() / confusion.sum(1).clamp(min=1)
    return {
        "test_accuracy": test.accuracy,
        "test_images": len(split.test),
        "largest_class": split.test.largest_class,
        "test_fingerprint": split.dataset.test_fingerprint,
        "test_loss": test.loss,
        "generalization_gap": training.accuracy - test.accuracy if training else None,
        "per_class_accuracy": per_class.tolist(),
    }


def _csv(history: list[dict[str, Any]]) -> str:
    return pd.DataFrame(history).to_csv(index=False) if history else ""
