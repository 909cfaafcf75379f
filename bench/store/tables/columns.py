"""Columns of every table: name, dtype and meaning. The unit is part of the meaning."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal, NamedTuple

import pandas as pd

RecordedTable = Literal[
    "runs",
    "epochs",
    "exports",
    "throughput",
    "cold_starts",
    "lesions",
    "gradients",
    "correlations",
    "landscapes",
]
Table = Literal[RecordedTable, "comparisons"]  # the latter is computed from recorded runs

# The dtype of categories: pandas 3 uses `str` for text, also for a column without values.
CATEGORIES: Any = "str" if pd.__version__ >= "3" else "object"


class Column(NamedTuple):
    """One column of a table.

    Attributes:
        dtype: pandas dtype.
        meaning: what the column holds, with its unit, as one line of the documentation.
    """

    dtype: str
    meaning: str


_text = partial(Column, "string")
_category = partial(Column, "category")
_integer = partial(Column, "Int64")
_number = partial(Column, "float64")

# Columns that mean the same in several tables.
_RUN = _text("Id of the run: model, dataset, seed and the hash of the request.")
_STUDY = _category("Study that refers to the run; missing if none does.")
_VARIANT = _category("Name of the variant in that study.")
_MODEL = _category("Name of the network.")
_OPTIONS = _text("Options of the network, as key=value.")
_SEED = _integer("Random seed.")
_INPUT_SIZE = _integer("Side of the network's input images, pixels.")
_ERROR = _text("Why `status` is not `complete`, in one line.")
_MACS = _integer("Multiply-adds for one image.")
_DEVICE = _category("Device that the work ran on.")
_GPU = _text("Name of the GPU that the work ran on; missing on other devices.")
_PRECISION = _category("Requested precision.")
_THREADS = _integer("Number of CPU threads.")
_EXECUTED_PRECISION = _category("Precision that was actually used, read back from the library.")
_CALIBRATION = _text(
    "Images that int8 ranges come from: `training` (the run's), a dataset's name, or `random`."
)
_ANALYSIS = _text("Id of the analysis recorded by `bench lesion`, `gradients` or `landscape`.")
_BLOCK = _text("Path of the block in the network.")
_TARGET = _text("Network or run, as named on the command line.")
_MEASURED_RUN = _text("Run that was measured; missing for an untrained network.")
_MEASUREMENT = _text("Id of the measurement that the row belongs to.")
_FILE_SHA256 = _text("SHA-256 of the file that ran.")
_BACKEND = _category("Runtime; see `bench list backends`.")
_MEMORY_FORMAT = _category("`contiguous` or `channels_last`.")
_BATCH_SIZE = _integer("Images in one batch.")
_EPOCH = _integer("Epochs of training here; 0 is before it, also of imported networks.")

TABLES: dict[str, dict[str, Column]] = {
    "runs": {
        "run": _RUN,
        "study": _STUDY,
        "variant": _VARIANT,
        "model": _MODEL,
        "options": _OPTIONS,
        "seed": _SEED,
        "dataset": _category("Name of the dataset."),
        "input_size": _INPUT_SIZE,
        "recipe": _text(
            "Closest named recipe, followed by the values that differ from it; `imported` for a "
            "network trained elsewhere."
        ),
        "status": _category("`complete`, `diverged`, `out_of_memory`, `failed` or `interrupted`."),
        "error": _ERROR,
        "epochs": _integer("Number of epochs requested."),
        "parameters": _integer("Number of parameters, shared and frozen ones included once."),
        "macs": _MACS,
        "train_accuracy": _number("Accuracy of the trained network on the training images, 0…1."),
        "validation_accuracy": _number("Accuracy on the validation images, 0…1."),
        "test_accuracy": _number("Fraction of the test images classified correctly, 0…1."),
        "test_accuracy_with_flip": _number(
            "Test accuracy, logits averaged over image and mirror image, 0…1 (`test_time_flip`)."
        ),
        "train_loss": _number("Cross-entropy of the trained network on the training images."),
        "validation_loss": _number("Cross-entropy on the validation images."),
        "test_loss": _number("Cross-entropy on the test images."),
        "generalization_gap": _number("`train_accuracy` minus `test_accuracy`."),
        "images_per_second": _number("Training images per second, over all epochs."),
        "seconds": _number("Wall-clock time, seconds."),
        "parent": _text("Run that this one was grown from."),
        "device": _DEVICE,
        "precision": _PRECISION,
        "threads": _THREADS,
        "workers": _integer(
            "Runs that the machine trained at a time, on which the speed depends; missing: unknown."
        ),
        "cpu": _category("Model of the processor."),
        "gpu": _GPU,
        "git_commit": _text("Git commit of the folder in which the run was started."),
        "started_at": Column("datetime64[ns, UTC]", "Start time, UTC."),
    },
    "epochs": {
        "run": _RUN,
        "study": _STUDY,
        "variant": _VARIANT,
        "seed": _SEED,
        "epoch": _integer("Number of the epoch, from 1."),
        "train_loss": _number("Mean of the optimised training loss during the epoch."),
        "train_accuracy": _number(
            "Accuracy during the epoch on the augmented training images, 0…1."
        ),
        "validation_loss": _number("Cross-entropy on the validation images after the epoch."),
        "validation_accuracy": _number("Accuracy on the validation images after the epoch, 0…1."),
        "test_accuracy": _number(
            "Test accuracy after the epoch, for information only, 0…1; `test_every_epoch` only."
        ),
        "learning_rate": _number("Learning rate of the epoch's last step."),
        "gradient_norm": _number("Mean norm of the gradient over sampled steps."),
        "images_per_second": _number("Training images per second."),
        "seconds": _number("Training time of the epoch, seconds."),
    },
    "exports": {
        "export": _text("Id of the export: the SHA-256 of its file."),
        "run": _text("Run that was exported; missing for a network given by name."),
        "model": _MODEL,
        "format": _category("File format."),
        "precision": _PRECISION,
        "target": _category("What the file is built for."),
        "opset": _integer("Version of the ONNX operator set."),
        "file": _text("Name of the file."),
        "sha256": _text("SHA-256 of the file."),
        "bytes": _integer("Size of the file, bytes."),
        "max_abs_diff": _number("Largest absolute difference of a logit from PyTorch's."),
        "max_rel_diff": _number("That difference relative to the largest logit."),
        "flipped_predictions": _integer(
            "Number of images whose predicted class differs from PyTorch's."
        ),
        "images_compared": _integer("Number of images compared."),
        "torch_accuracy": _number(
            "Test accuracy in PyTorch, or of the ONNX file that was quantised, 0…1."
        ),
        "test_accuracy": _number("Test accuracy of the exported file itself, 0…1."),
        "seconds": _number("Time for export and verification, seconds."),
        "cpu": _category("Processor used for the verification, with its instruction sets."),
        "status": _category("`complete`, or how it failed."),
        "error": _ERROR,
        "executed_precision": _EXECUTED_PRECISION,
        "calibration": _CALIBRATION,
    },
    "throughput": {
        "measurement": _MEASUREMENT,
        "model": _MODEL,
        "options": _OPTIONS,
        "run": _text("Run that was measured; missing for a network given by name and for a file."),
        "file_sha256": _FILE_SHA256,
        "backend": _BACKEND,
        "provider": _text("What computed inside the runtime, read back from it."),
        "executed_precision": _EXECUTED_PRECISION,
        "device": _DEVICE,
        "precision": _PRECISION,
        "memory_format": _MEMORY_FORMAT,
        "batch_size": _BATCH_SIZE,
        "input_size": _integer(
            "Side of the network's input images, pixels; missing if not square."
        ),
        "input_shape": _text(
            "Sizes of one image in the order of the input: 3x64x256, or 64x256x3 (channels last)."
        ),
        "input_type": _text("Element type of the images that the network takes."),
        "boundary": _category("What was timed: `compute`, `copies` or `end-to-end`."),
        "scenario": _category("`offline`, `single-stream` or `server`."),
        "latency_bound_ms": _number(
            "What p99 was not to exceed in the server scenario, milliseconds; else missing."
        ),
        "threads": _THREADS,
        "streams": _integer(
            "Batches in flight at once, each on `threads` divided by `streams` threads, rounded "
            "down."
        ),
        "timing": _text(
            "How else it was timed: `pinned` (to cores), `L2 cleared` (before each sample) or "
            "`batches alone` (each is a sample); missing: none of these."
        ),
        "images_per_second": _number(
            "Batch size divided by the median time of a batch; of several streams, by the time of "
            "a block over the number of its batches. In the server scenario: the highest rate of "
            "queries within `latency_bound_ms`."
        ),
        "processes": _integer(
            "Number of fresh processes that the intervals are over; 1: within one process, so "
            "that nothing is claimed."
        ),
        "ci_low": _number("Lower end of the 95 % interval of `images_per_second`."),
        "ci_high": _number("Upper end of it."),
        "width": _number("Half the width of that interval, relative to `images_per_second`."),
        "repeat_count": _integer(
            "Number of measurements in the results folder, this one included, that `repeat_low` "
            "and `repeat_high` are based on: same configuration, machine, versions and commit. "
            "Empty if fewer than three."
        ),
        "repeat_low": _number(
            "Lower end of the 95 % interval of `images_per_second` that contains their spread, too."
        ),
        "repeat_high": _number("Upper end of it."),
        "ratio": _number("How many times faster than `reference`, paired by round."),
        "ratio_low": _number("Lower end of the ratio's 95 % interval."),
        "ratio_high": _number("Upper end of it."),
        "ratio_processes": _integer("Number of fresh processes that it is over."),
        "reference": _text("Configuration that the row is compared with."),
        "best_eager_ratio": _number("How many times faster than `best_eager`, paired by round."),
        "best_eager_ratio_low": _number("Lower end of that ratio's 95 % interval."),
        "best_eager_ratio_high": _number("Upper end of it."),
        "best_eager": _text(
            "Fastest fp32 configuration of PyTorch eager, if several formats or numbers of streams "
            "were measured."
        ),
        "noise_floor": _number(
            "Relative difference of the reference from itself, measured as two entries."
        ),
        "difference": _category(
            "`faster`, `slower`, `none` (not distinguishable from noise) or `reference`."
        ),
        "latency_p50_ms": _number(
            "Median time of a batch, milliseconds, while `streams` batches are in flight."
        ),
        "latency_p90_ms": _number("90th percentile, milliseconds; missing with too few samples."),
        "latency_p99_ms": _number("99th percentile, milliseconds; missing with too few samples."),
        "latency_p99_high_ms": _number(
            "What the true 99th percentile does not exceed, at 95 % confidence, milliseconds: of "
            "what `latency_p99_scope` says. In the server scenario, the highest upper limit of the "
            "processes at the rates that each found."
        ),
        "latency_p99_scope": _text(
            "What `latency_p99_high_ms` holds for: a `new process`, or `these processes` (fewer "
            "than six), if batches are independent. Missing: these processes, of an older record."
        ),
        "samples": _integer("Number of timed samples; with several streams, of blocks."),
        "compile_seconds": _number("Time to compile before the first batch, seconds."),
        "macs": _MACS,
        "flops_per_second": _number("2 × `macs` × `images_per_second`."),
        "arithmetic_intensity": _number(
            "FLOPs per byte, if each layer reads input and weights once and writes its output once."
        ),
        "peak_fraction": _number(
            "`flops_per_second` over the machine's measured ceiling; Winograd can exceed 1."
        ),
        "ceiling_flops_per_second": _number(
            "Measured ceiling of this machine: a matrix product or, on a CPU, a convolution."
        ),
        "ceiling_bytes_per_second": _number(
            "Measured memory bandwidth of this machine: a copy, bytes read and written."
        ),
        "peak_memory_mib": _number(
            "Peak memory, MiB: of the isolated process, or of torch's allocator."
        ),
        "peak_gpu_memory_mib": _number("Peak memory in use on the whole GPU (NVML), MiB."),
        "gpu_sm_clock_mhz": _number(
            "Median clock of the GPU's multiprocessors during the measurement (NVML), MHz."
        ),
        "gpu_memory_clock_mhz": _number(
            "Median clock of the GPU's memory during the measurement (NVML), MHz."
        ),
        "gpu_temperature_c": _number(
            "Highest temperature of the GPU during the measurement (NVML), °C."
        ),
        "gpu_slowed_by": _text("Why the GPU reduced its clocks during the measurement (NVML)."),
        "energy_joules_per_image": _number(
            "Energy per image, joules; only where the device has a counter."
        ),
        "test_accuracy": _number(
            "Test accuracy of the measured network or file, answered by this very backend, 0…1."
        ),
        "validation_accuracy": _number(
            "Likewise on the images that the run's training held out, 0…1; what `bench choose` and "
            "`bench tune` select by."
        ),
        "test_images": _integer("Number of test images that were answered."),
        "flipped_predictions": _integer(
            "Number of test images whose predicted class differs from that of PyTorch in fp32, or "
            "of the ONNX file that was quantised."
        ),
        "dataset": _text("Dataset of these accuracies."),
        "nodes_elsewhere": _integer(
            "Number of graph nodes run by another provider than the requested one."
        ),
        "cpu": _category("Processor with its instruction sets."),
        "gpu": _GPU,
        "noisy": Column(
            "boolean",
            "Whether the interval stayed wider than requested: that of the ratio to the reference, "
            "or without one that of `images_per_second`. Also if the times are multiples of a time "
            "slice; in the server scenario if a process failed or had too few queries for a p99.",
        ),
        "other_processes": _number(
            "Share of the processor that other processes used during the measurement, 0…1."
        ),
        "warnings": _text("What to know when reading the row."),
        "status": _category("`complete`, `unsupported`, `out_of_memory` or `failed`."),
        "error": _ERROR,
        "calibration": _CALIBRATION,
    },
    "cold_starts": {
        "measurement": _MEASUREMENT,
        "model": _MODEL,
        "options": _OPTIONS,
        "run": _MEASURED_RUN,
        "file_sha256": _FILE_SHA256,
        "backend": _BACKEND,
        "precision": _PRECISION,
        "memory_format": _MEMORY_FORMAT,
        "batch_size": _BATCH_SIZE,
        "threads": _THREADS,
        "phase": _category("`import` (of the runtime), `load` (of the file) or `first inference`."),
        "seconds": _number("Time of the phase, seconds: geometric mean over the processes."),
        "seconds_low": _number("Lower end of its 95 % interval; missing below 6 processes."),
        "seconds_high": _number("Upper end of it."),
        "memory_mib": _number("Memory of the process after the phase (resident), MiB."),
        "memory_mib_low": _number("Lower end of its 95 % interval; missing below 6 processes."),
        "memory_mib_high": _number("Upper end of it."),
        "processes": _integer("Number of fresh processes; the files were in the page cache."),
        "warnings": _text("What to know when reading the row."),
        "status": _category("`complete`, `unsupported` or `failed`."),
        "error": _ERROR,
    },
    "lesions": {
        "analysis": _ANALYSIS,
        "run": _RUN,
        "lesion": _category(
            "`none` (whole network), `drop` (without `block`) or `swap` (`block` with `other`)."
        ),
        "block": _BLOCK,
        "other": _text("Path of the block that `block` was exchanged with."),
        "test_accuracy": _number("Test accuracy with that lesion and no further training, 0…1."),
        "accuracy_drop": _number("`test_accuracy` of the whole network minus that of this row."),
        "norm_ratio": _number(
            "Median over the images of ‖F(x)‖ / ‖h(x)‖ where branch and shortcut meet, before the "
            "shortcut's scale, gate or dropout acts on them; missing without a shortcut."
        ),
        "norm_ratio_low": _number("10th percentile over the images."),
        "norm_ratio_high": _number("90th percentile over the images."),
        "initial_gradient_norm": _number(
            "L2 norm of the first batch's gradient for the block's convolutions, before training."
        ),
        "images": _integer("Number of test images used."),
    },
    "gradients": {
        "analysis": _ANALYSIS,
        "target": _TARGET,
        "run": _MEASURED_RUN,
        "epoch": _EPOCH,
        "block": _BLOCK,
        "depth": _integer("Number of the block from input to output, from 1."),
        "gradient_norm": _number(
            "L2 norm of one batch's gradient with respect to the block's convolutions."
        ),
        "norm_ratio": _number(
            "Median over that batch of ‖F(x)‖ / ‖h(x)‖ where branch and shortcut meet, before the "
            "shortcut's scale, gate or dropout acts on them."
        ),
    },
    "correlations": {
        "analysis": _ANALYSIS,
        "target": _TARGET,
        "run": _MEASURED_RUN,
        "epoch": _EPOCH,
        "lag": _integer("Distance in places on the line between two test images."),
        "correlation": _number("Mean autocorrelation of the derivative along those lines."),
    },
    "landscapes": {
        "analysis": _ANALYSIS,
        "run": _RUN,
        "model": _MODEL,
        "split": _category("Split that was evaluated: `train` (not augmented) or `test`."),
        "images": _integer("Number of images used."),
        "seed": _integer("Random seed of the directions."),
        "x": _number("Step along the first direction; 1 moves each filter by its own length."),
        "y": _number("Step along the second direction; missing on a line."),
        "loss": _number("Mean cross-entropy at that point; missing if not finite."),
        "accuracy": _number("Fraction of the images classified correctly at that point, 0…1."),
    },
    "comparisons": {
        "study": _category("Name of the study."),
        "comparison": _text("The weighted sum of accuracies: `variant - reference` or a contrast."),
        "variant": _category("Variant that is compared; missing for a contrast."),
        "reference": _category("Variant that it is compared with; missing for a contrast."),
        "contrast": _text("Name of the contrast; missing for a variant."),
        "accuracy": _category("Which accuracy: `test`, or `train` if the study compares it."),
        "test": _category("`paired` (t-test, paired by seed) or `welch` (Welch's t-test)."),
        "primary": Column(
            "boolean", "Whether it is the study's primary comparison, which is tested alone."
        ),
        "seeds": _integer("Number of seeds that all its variants have."),
        "difference": _number("Mean difference of the accuracies, 0…1 (0.01 is one point)."),
        "ci_low": _number(
            "Lower end of its interval, 95 % for all comparisons of the study together (of a "
            "primary one, alone); missing for one seed, and where all seeds differ equally."
        ),
        "ci_high": _number("Upper end of it."),
        "p_value": _number(
            "Two-sided, adjusted for the number of comparisons: below 0.05 exactly if the interval "
            "excludes zero; like the interval, missing while runs have not ended."
        ),
        "significant": Column(
            "boolean", "Whether the interval excludes zero and there is no `doubt`."
        ),
        "equivalent": Column(
            "boolean",
            "Whether the interval lies within the `margin`, there is no `doubt`, and neither lacks "
            "a result that the other has; missing without a margin.",
        ),
        "doubt": _text(
            "`pending` (runs have not ended), `missing` (results are missing, and the difference "
            "is not significant with chance accuracy in place of the better side's and the best "
            "accuracy in place of the worse side's) or `secondary` (the primary comparison is not "
            "significant)."
        ),
        "margin": _number("Largest difference that the study counts as equivalent, 0…1."),
        "level": _number("Significance level of this comparison alone."),
        "standard_deviation": _number("Standard deviation of the difference over seeds, 0…1."),
        "effect_size": _number("`difference` over `standard_deviation`: Cohen's d_z if paired."),
        "seeds_needed_low": _integer(
            "Fewest seeds with which an undecided difference is significant with 80 % power if the "
            "observed one is true (80 % interval of the standard deviation); missing above 50."
        ),
        "seeds_needed_high": _integer("Most seeds; missing above 50."),
        "detectable": _number(
            "Difference that would be significant with 80 % power at this number of seeds, 0…1; "
            "above 1 if none that is possible would be."
        ),
        "superiority": _number(
            "Probability that a new seed's difference is above zero, if differences are normal."
        ),
        "superiority_low": _number("Lower end of its interval, of the `level` of this comparison."),
        "superiority_high": _number("Upper end of it."),
        "correlation": _number("Correlation of the two accuracies over seeds; from three seeds."),
        "new_images_low": _number(
            "Lower end of the test accuracy's interval for new seeds and new test images, of the "
            "`level` of this comparison; missing where a run's predictions are, and with a `doubt`."
        ),
        "new_images_high": _number("Upper end of it."),
        "discordant": _number(
            "Share of the test images that just one of the variant and its reference classifies "
            "correctly, 0…1 (mean over seeds)."
        ),
        "discordant_seeds": _number("The same of two seeds of the reference: what a seed changes."),
    },
}

# Table → column → dtype.
COLUMNS = {
    table: {name: c.dtype for name, c in columns.items()} for table, columns in TABLES.items()
}


def typed_frame(rows: list[dict[str, Any]], columns: dict[str, str]) -> pd.DataFrame:
    """Return rows as a frame with exactly these columns and dtypes; absent values are missing."""
    frame = pd.DataFrame(rows, columns=list(columns))
    times = [name for name, dtype in columns.items() if dtype.startswith("datetime")]
    for name in times:
        frame[name] = pd.to_datetime(frame[name], utc=True)
    for name in (n for n, dtype in columns.items() if dtype == "category"):
        frame[name] = frame[name].astype(CATEGORIES)  # also where every value is missing
    typed: pd.DataFrame = frame.astype(columns)
    return typed
