"""The training loop."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastdraw.checks import expected
from fastdraw.dispatch import slower
from fastdraw.files import OwnedError, owned, sweep, write_atomically
from fastdraw.graphed import GraphedStep
from fastdraw.runs.checkpoint import (
    Checkpoint,
    CheckpointError,
    keep_previous,
    load_checkpoint,
    optimizer_tensors,
    save_checkpoint,
)
from fastdraw.runs.device import find_device
from fastdraw.runs.kinds import kind
from fastdraw.runs.numerics import numerics
from fastdraw.runs.parallel import local_rank, lost, processes
from fastdraw.runs.randomness import DRAWS
from fastdraw.runs.signals import Interrupted, Interruptions
from fastdraw.train.batches import Batches
from fastdraw.train.display import Display, Result, Silent, again, display, diverged, headline
from fastdraw.train.metrics import Metrics
from fastdraw.train.options import TrainOptions
from fastdraw.train.resume import SUMS, Progress
from fastdraw.train.schedule import factor, scheduler
from fastdraw.train.setup import ABOUT, BEST, Setup, clear, prepare, run_folder
from fastdraw.train.tasks import Classify, Draw, Task


class DivergedError(RuntimeError):
    """Nats or gradients stopped being finite. The run's checkpoint is the last one from before."""


def train(
    options: TrainOptions, explicit: Collection[str] | None = None, show: Display | None = None, unattended: bool = False
) -> Result:
    """Trains as `options` say, and writes the run's folder: checkpoint.safetensors, metrics.jsonl, TensorBoard's event files,
    config.json; of DRAW samples.png and, at the end, drawing.gif; with patience best.safetensors.

    `explicit` names the options that were given, for a run that goes on (see `resume.continued`). unattended: whether the
    command that called this goes on with the run by itself, as the sentence after an interruption then says. Started by
    torchrun in several processes, or where torch.distributed is initialised, these share every batch, and the first one
    writes.

    Raises ValueError (DataError and CheckpointError are kinds of it) or OSError for what a user can mend, DivergedError
    where nats stop being finite, Interrupted after SIGINT, SIGTERM or `minutes`, ProcessLost where another process of the
    run is gone; in each case the last checkpoint is whole.
    """
    if not isinstance(options, TrainOptions):
        raise expected("options", "TrainOptions", options, TypeError)
    interruptions = Interruptions(options.minutes)
    with processes(find_device(options.device, local_rank()).type == "cuda") as together, contextlib.ExitStack() as stack:
        folder = run_folder(options, together.is_first)
        if together.is_first:
            _own(stack, folder, options.resume == "auto")
            sweep(folder)
        setup = prepare(options, explicit, together)
        setup.unattended |= unattended
        show = (show or display()) if together.is_first else Silent()
        with numerics(setup.options.precision, setup.options.deterministic), interruptions:
            run = Run(setup, show)
            try:
                return run(interruptions)
            finally:
                show.stop()
                run.close()


#: Up to so many processes look at every step whether a signal came to one of them; more look the more rarely, down to every
#: RARELY-th step: a launcher gives its workers half a minute.
OFTEN, RARELY = 8, 16
#: Seconds that `--resume auto` waits for the folder: workers of a launcher that is gone take a moment to notice.
PATIENCE = 60


def _own(stack: contextlib.ExitStack, folder: Path, patient: bool) -> None:
    until = time.monotonic() + (PATIENCE if patient else 0)
    while True:
        try:
            return stack.enter_context(owned(folder))
        except OwnedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


class Run:
    def __init__(self, setup: Setup, show: Display) -> None:
        self.setup, self.show, self.options, self.processes = setup, show, setup.options, setup.processes
        self.model, self.optimizer, self.device, self.average = setup.model, setup.optimizer, setup.device, setup.average
        options, self.names = setup.options, SUMS[setup.options.task or "draw"]
        self.autocast = torch.bfloat16 if options.precision == "bf16" else None
        self.task: Task = Classify(options, self.processes, self.autocast)
        if options.task == "draw":
            self.task = Draw(options, self.processes, self.device, self.autocast)
        self.progress, self.sums = Progress(), torch.zeros(len(self.names), dtype=torch.float64, device=self.device)
        if setup.checkpoint is not None:
            self.progress = Progress.of(setup.checkpoint)
            self.sums.copy_(setup.checkpoint.progress["sums"])
        # None of these is None in resolved options.
        self.batch_size, epochs = options.batch_size or 1, options.epochs or 1
        splits, binarize = setup.splits, options.binarize == "dynamic"
        labels = splits.labels and splits.labels.train
        where = options.seed, self.device, self.processes
        self.batch = Batches(splits.train, labels, splits.make, self.batch_size, binarize, *where)
        self.evaluate_every = (options.evaluate_every or 1) * self.batch.steps_per_epoch
        total = epochs * self.batch.steps_per_epoch
        self.total = max(min(total, options.steps or total), self.progress.step)
        curve = options.schedule or "constant", options.warmup_steps or 0, self.total
        self.rate_factor = factor(*curve)
        self.scheduler = scheduler(self.optimizer, *curve, self.progress.step)
        self._graphed: GraphedStep | None = None
        self._saved = self.progress.step if setup.checkpoint is not None else -1
        # What stands there is this run's, and whole.
        self._keeps = setup.checkpoint is not None and setup.whole
        self.validation: Any = None
        # On CUDA reading a step's figures would wait for the device: there they are read when a line or a checkpoint is
        # written, and not before. Sums that are not finite stay so till then.
        self.reads_every_step = self.device.type == "cpu"
        self.metrics: Metrics | None = None
        os.makedirs(setup.folder, exist_ok=True)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated and drawn: the moving average where there is one."""
        return self.model if self.average is None else self.average.model

    def __call__(self, interruptions: Interruptions) -> Result:
        progress = self.progress
        self._take_place()
        for line in (*self.setup.found, headline(self.setup, self.progress.step), slower(self.device.type)):
            if line is not None:
                self.show.note(line)
        self.show.start(progress.step, self.total)
        try:
            while True:
                self._check(interruptions)
                patience = self.options.patience
                at_end = progress.step >= self.total
                due = at_end or (progress.step > 0 and progress.step % self.evaluate_every == 0)
                if due and progress.validated < progress.step:
                    self.validate(interruptions)
                if at_end or (patience is not None and progress.stale >= patience):
                    break
                self.step()
                if progress.step % self.options.checkpoint_every == 0:
                    self.save()
            test = self.finish(interruptions)
        except (Interrupted, KeyboardInterrupt) as error:
            if isinstance(error, Interrupted) and self._saved != progress.step:
                self.save()
            self.show.stop()
            how = "the same command goes on" if self.setup.unattended else f"to go on: {again(self.setup)}"
            self.show.note(f"stopped at step {self._saved}; {how}")
            raise
        return Result(self.setup.folder, progress.step, self.validation, test, self.processes.rank)

    def _take_place(self) -> None:
        """Makes the folder this run's. What stood there is whole until its first checkpoint replaces the old one."""
        folder, progress = self.setup.folder, self.progress
        if self._saved < 0:
            self.save()
        if not self.processes.is_first:
            return
        if progress.step == progress.lines == 0:
            # Nothing but the checkpoint is this run's yet, also where a kill came between it and this.
            clear(folder)
        about = json.dumps(self.setup.about(), indent=2) + "\n"
        write_atomically(folder / ABOUT, about.encode())
        self.metrics = Metrics(folder, progress.lines, progress.step)

    def _check(self, interruptions: Interruptions) -> None:
        """A signal to one process ends all, after the same step."""
        # Gloo's message goes round all of them: of many, it is sent at every so many-th step alone.
        if self.progress.step % min(RARELY, -(-self.processes.size // OFTEN)):
            return
        if signum := self.processes.largest(interruptions.signum or 0):
            raise Interrupted(signum)

    def step(self) -> None:
        began, step = time.perf_counter(), self.progress.step
        batch = self.batch(step)
        self.model.train()
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            if self._graphed is None:
                o = self.options
                self._graphed = GraphedStep(
                    self.model, self.optimizer, batch.images, o.clip, o.accumulate, self.processes.group
                )
            with lost():
                now = self.task.step(self._graphed, batch, step).double()
        self.scheduler.step()
        if self.average is not None:
            self.average.update(step)
        now = self.processes.mean(now)
        # What NaN has spoilt is never saved.
        figures_now = self._finite(now, step) if self.reads_every_step else None
        self.sums += now
        progress = self.progress
        progress.step, progress.count = step + 1, progress.count + 1
        if progress.count >= self.options.log_every:
            self._finite(self.sums, step)
        elapsed = time.perf_counter() - began
        progress.seconds, progress.window = progress.seconds + elapsed, progress.window + elapsed
        rate = self.batch_size / elapsed
        self.show.step(progress.step, figures_now and {**figures_now, "images_per_second": rate})
        if progress.count >= self.options.log_every:
            self.log()

    def log(self) -> None:
        progress = self.progress
        means = dict(zip(self.names, (self.sums / progress.count).tolist(), strict=True))
        rate = (self.options.learning_rate or 0.0) * self.rate_factor(progress.step - 1)
        per_second = progress.count * self.batch_size / progress.window if progress.window else 0.0
        self._write("train", {**means, "learning_rate": rate, "images_per_second": per_second})
        self.sums.zero_()
        progress.count, progress.window = 0, 0.0

    def validate(self, interruptions: Interruptions) -> None:
        """Evaluates, draws samples, and makes a checkpoint that says so."""
        self._finite(self.sums, self.progress.step - 1)
        self.validation = self._evaluate("validation", self.evaluated, interruptions)
        self.processes.first(self._show)
        self.progress.validated = self.progress.step
        if self.validation is not None and self.progress.judge(getattr(self.validation, self.task.score)):
            self._save_best()
        self.save()

    def _show(self) -> None:
        """Pictures in the folder, and for TensorBoard."""
        self.task.samples(self.evaluated, self.setup.folder)
        if self.metrics is not None:
            splits = self.setup.splits
            seen = self.task.watched(self.evaluated, splits.validation, splits.labels and splits.labels.validation)
            self.metrics.watch(self.progress.step, seen)

    def finish(self, interruptions: Interruptions) -> Any:
        """The drawing process and, only now, the test images."""
        progress, fresh = self.progress, self.progress.tested != self.progress.step
        if self.options.skip_test:
            # Not counted as tested: a later call without the option tests.
            fresh = False
        elif not fresh:
            self.show.note(f"finished at step {progress.step} already; raise --epochs or --steps to go on")
        model = self._finalist()
        test = None if self.options.skip_test else self._evaluate("test", model, interruptions, write=fresh)
        if self.validation is None or model is not self.evaluated:
            self.validation = self._evaluate("validation", model, interruptions, write=False)
        if fresh:
            self.processes.first(lambda: self.task.finish(model, self.setup.folder))
            progress.tested = progress.step
            self.save()
        return test

    def save(self) -> None:
        self._finite(self.sums, self.progress.step - 1)
        self._saved = self.progress.step
        if not self.processes.is_first:
            return
        if self.metrics is not None:
            self.metrics.sync()
            self.progress.lines = self.metrics.lines
        training = {
            "options": self.options.to_dict(),
            "fingerprint": self.setup.fingerprint,
            "progress": asdict(self.progress),
            "processes": self.processes.size,
            "draws": DRAWS,
        }
        optimizer, ema = optimizer_tensors(self.model, self.optimizer), self.average and self.average.model.state_dict()
        config, weights, step = self.model.config, self.model.state_dict(), self.progress.step
        parts = optimizer, {"sums": self.sums}, training, ema or {}
        if self._keeps:
            keep_previous(self.setup.folder)
        self._write_checkpoint(self.setup.folder, Checkpoint(config, weights, step, *parts))
        self._keeps = True

    def _save_best(self) -> None:
        if self.options.patience is not None and self.processes.is_first:
            best = Checkpoint(self.model.config, self.evaluated.state_dict(), self.progress.step)
            self._write_checkpoint(self.setup.folder / BEST, best)

    def _write_checkpoint(self, path: Path, made: Checkpoint) -> None:
        try:
            save_checkpoint(path, made)
        except CheckpointError:
            # Of a model that training made, nothing but its values can be wrong.
            raise self._diverged(max(self.progress.step - 1, 0)) from None

    def _finalist(self) -> nn.Module:
        """The model that is tested: with patience that of the best evaluation."""
        step = self.progress.best_step
        if self.options.patience is None or step in (-1, self.progress.step):
            return self.evaluated
        best = self.processes.first(self._best)
        if best is None or best.step != step or best.config != self.model.config:
            return self.evaluated
        self.show.note(f"the best weights are those of step {step}, in {self.setup.folder / BEST}: they are tested")
        model = kind(self.options.task or "draw").model.from_config(best.config).to(self.device)
        model.load_state_dict(best.model)
        return model

    def _best(self) -> Checkpoint | None:
        try:
            return load_checkpoint(self.setup.folder / BEST)
        except (OSError, CheckpointError):
            return None

    def _evaluate(self, split: str, model: nn.Module, interruptions: Interruptions, write: bool = True) -> Any:
        images, labels = getattr(self.setup.splits, split), self.setup.splits.labels
        if len(images) == 0:
            return None
        model.eval()
        result = self.task.evaluate(model, images, labels and getattr(labels, split), interruptions.check)
        if not math.isfinite(getattr(result, self.task.score)):
            raise self._diverged(self.progress.step)
        if write:
            self._write(split, asdict(result))
        return result

    def _write(self, split: str, values: dict[str, Any]) -> None:
        step = self.progress.step
        where = {"step": step, "epoch": -(-step // self.batch.steps_per_epoch), "split": split}
        record = {**where, **values, "seconds": round(self.progress.seconds, 3)}
        if self.metrics is not None:
            self.metrics.write(record)
        self.show.metrics(record)

    def _finite(self, values: Tensor, step: int) -> dict[str, float]:
        numbers = values.tolist()
        if not all(map(math.isfinite, numbers)):
            raise self._diverged(step)
        return dict(zip(self.names, numbers, strict=True))

    def _diverged(self, step: int) -> DivergedError:
        return DivergedError(diverged(self.setup, step, self._saved))

    def close(self) -> None:
        if self.metrics is not None:
            self.metrics.close()
