"""What `fastdraw evaluate` does: a run's model on a split of its images."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdraw._version import __version__
from fastdraw.checks import check_size, expected
from fastdraw.evaluation.bound import Likelihood, likelihood
from fastdraw.evaluation.classes import ClassErrors, class_errors
from fastdraw.runs import checkpoint
from fastdraw.runs.checkpoint import Checkpoint, found, load_checkpoint
from fastdraw.runs.device import find_device
from fastdraw.runs.fingerprint import fingerprint
from fastdraw.runs.kinds import task_of
from fastdraw.runs.numerics import numerics
from fastdraw.runs.options import told as options_told
from fastdraw.runs.parallel import Processes, local_rank, processes
from fastdraw.runs.randomness import generator
from fastdraw.runs.run import Run

#: Images evaluated at once, where neither the caller nor the run says so.
BATCH = 500
#: Training images that are composed at once, where a data set makes them anew for each batch.
MADE_AT_ONCE = 1000


@dataclass(frozen=True)
class Report:
    """What was evaluated, and the result: Likelihood of a DRAW, ClassErrors of a classifier.

    averaged: whether the weights are the moving average that the run kept. split_images: how many the split has; where fewer
    were evaluated, the seed drew them. seed: of noise, binarisation and that.
    """

    checkpoint: str
    task: str
    step: int
    averaged: bool
    data: str
    split: str
    split_images: int
    seed: int
    batch_size: int
    precision: str
    result: Likelihood | ClassErrors

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON can hold it."""
        return asdict(self)


def evaluate_run(
    path: str | os.PathLike[str],
    data: str | None = None,
    data_dir: str | None = None,
    split: str = "test",
    samples: int = 1,
    batch_size: int | None = None,
    limit: int | None = None,
    ema: bool = True,
    precision: str | None = None,
    seed: int | None = None,
    device: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Evaluates the model of a run's folder or a checkpoint's file; None means what the run was trained with.

    data, data_dir  images of the model's shape, as for training; a data set that only the checkpoint names is not downloaded,
                    nor opened outside of the run's folder, the present one and data_dir
    split           test, validation or train
    samples         K, of the importance-weighted estimate; 1 for a classifier, which has none
    limit           evaluate so many images of the split, drawn by the seed: files are often sorted by class
    ema             take the moving average of the weights where the run kept one
    precision       of matrix products: fp32, tf32 (CUDA) or bf16
    progress        called between passes with images times samples, done and in all; what it raises ends the evaluation

    Started by torchrun in several processes, these share the batches, and each is given the whole report.

    With the run's own data, seed, batch and precision the bound (or error) is what training told at its end. Raises ValueError
    (DataError, CheckpointError), TypeError or OSError for what a user can mend.
    """
    for name, value in (("split", split), ("device", device), ("precision", "fp32" if precision is None else precision)):
        if not isinstance(value, str):
            raise expected(name, "text", value, TypeError)
    samples = check_size("samples", samples)
    limit = None if limit is None else check_size("limit", limit)
    with processes(find_device(device, local_rank()).type == "cuda") as together:
        where = find_device(device, local_rank())
        if together.size > 1:
            torch.set_num_threads(together.threads())
        file, weights = found(path), load_checkpoint(path)
        options, task = _options(file, weights), task_of(weights.config)
        if task == "classify" and samples > 1:
            raise expected("samples", "1 for a classifier, which has no latents to sample", samples)
        batch = check_size("batch_size", options.get("eval_batch", BATCH) if batch_size is None else batch_size)
        seed = check_size("seed", options.get("seed", 0) if seed is None else seed, least=0)
        precision = precision or options.get("precision", "fp32")
        _check_precision(precision, where)
        run = Run(path, data, data_dir, split, seed, str(where), ema, weights, options)
        return _evaluated(together, run, ema and bool(weights.ema), samples, batch, limit, precision, progress)


def _evaluated(
    together: Processes,
    run: Run,
    averaged: bool,
    samples: int,
    batch: int,
    limit: int | None,
    precision: str,
    progress: Callable[[int, int], None],
) -> Report:
    seed, task = run.seed, run.task
    rows = _rows(run, limit, seed)
    images, labels = _images(run, rows, seed), None
    if task == "classify" or run.config.num_classes is not None:
        labels = _labels(run, rows)
    autocast, total = torch.bfloat16 if precision == "bf16" else None, len(images) * samples
    asked = task, run.step, averaged, run.split, samples, batch, limit, precision, seed, run.device.type
    together.agree(
        {
            "version": f"fastdraw {__version__}, torch {torch.__version__}",
            "configuration": asked,
            "run": fingerprint(*run.model.state_dict().values()),
            "data": f"images {fingerprint(images)}",
        }
    )

    def told(done: int) -> None:
        progress(min(total, done * together.size), total)

    with numerics(precision, deterministic=False):
        if task == "classify":
            assert labels is not None
            result: Any = class_errors(run.model, images, labels, batch, seed, run.binary, autocast, told, together)
        else:
            result = likelihood(run.model, images, batch, seed, run.binary, samples, labels, autocast, told, together)
    progress(total, total)
    there = len(getattr(run.splits, run.split))
    about = str(run.file), task, run.step, averaged, str(run.data_name), run.split, there
    return Report(*about, seed, batch, precision, result)


def _options(file: Path, saved: Checkpoint) -> dict[str, Any]:
    """The options that the run was trained with; a run's best weights find them in the checkpoint beside them."""
    beside = file.with_name(checkpoint.NAME)
    options = options_told(file, saved)
    return options or (options_told(beside, load_checkpoint(beside)) if beside != file and beside.exists() else {})


def _check_precision(precision: str, device: torch.device) -> None:
    known = ("fp32", "bf16") if device.type == "cpu" else ("fp32", "tf32", "bf16")
    if precision not in known:
        raise expected("precision", f"one of {', '.join(known)} on {device.type}", precision)


def _rows(run: Run, limit: int | None, seed: int) -> Tensor | slice:
    """Which images of the split: all, or `limit` of them in their own order."""
    number = len(getattr(run.splits, run.split))
    if limit is None or limit >= number:
        return slice(None)
    return torch.randperm(number, generator=generator(seed, "evaluated part"))[:limit].sort().values


def _images(run: Run, rows: Tensor | slice, seed: int) -> Tensor:
    images = getattr(run.splits, run.split)[rows]
    if run.split == "train" and run.splits.make is not None:
        random = generator(seed, "evaluation composition")
        images = torch.cat([run.splits.make(part, random) for part in images.split(MADE_AT_ONCE)])
    return images


def _labels(run: Run, rows: Tensor | slice) -> Tensor:
    if run.splits.labels is None:
        raise expected("data", "images whose classes are known", f"{run.data_name}, which has no labels")
    labels = getattr(run.splits.labels, run.split)[rows]
    if (most := int(labels.max())) >= run.config.num_classes:
        raise expected("data", f"classes from 0 to {run.config.num_classes - 1}, as {Path(run.file)} tells them", most)
    return labels
