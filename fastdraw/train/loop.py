"""The training loop."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdraw import dispatch
from fastdraw.files import write_atomically
from fastdraw.graphed import GraphedStep
from fastdraw.kernels.cpu import gemm
from fastdraw.train import pictures
from fastdraw.train.checkpoint import Checkpoint, optimizer_tensors, save_checkpoint
from fastdraw.train.display import Display, display, figures
from fastdraw.train.evaluate import Evaluation, evaluate, to_input
from fastdraw.train.metrics import Metrics
from fastdraw.train.options import TrainOptions
from fastdraw.train.progress import SUMS, Progress
from fastdraw.train.randomness import generator, noise
from fastdraw.train.setup import Setup, prepare
from fastdraw.train.signals import Interrupted, Interruptions


class DivergedError(RuntimeError):
    """Nats or gradients stopped being finite. The run's checkpoint is the last one from before."""


@dataclass(frozen=True)
class Result:
    """What a finished run says: validation and test are None where that split holds no images."""

    folder: Path
    step: int
    validation: Evaluation | None
    test: Evaluation | None


def train(options: TrainOptions, explicit: Collection[str] | None = None, show: Display | None = None) -> Result:
    """Trains as `options` say, and writes the run's folder: checkpoint.safetensors, metrics.jsonl, TensorBoard's event files,
    config.json, samples.png and, at the end, drawing.gif.

    `explicit` names the options that were given, for a run that goes on (see `options.continued`).

    Raises ValueError (DataError and CheckpointError are kinds of it) or OSError for what a user can mend, DivergedError
    where nats stop being finite, Interrupted after SIGINT or SIGTERM; in each case the last checkpoint is whole.
    """
    setup = prepare(options, explicit)
    show = show or display()
    run = Run(setup, show)
    try:
        with Interruptions() as interruptions:
            return run(interruptions)
    finally:
        show.stop()
        run.metrics.close()


class Run:
    def __init__(self, setup: Setup, show: Display) -> None:
        self.setup, self.show, self.options = setup, show, setup.options
        self.model, self.optimizer, self.device = setup.model, setup.optimizer, setup.device
        self.progress, self.sums = Progress(), torch.zeros(len(SUMS), dtype=torch.float64, device=self.device)
        if setup.checkpoint is not None:
            self.progress = Progress.of(setup.checkpoint)
            self.sums.copy_(setup.checkpoint.progress["sums"])
        # None of these is None in resolved options.
        self.batch_size, epochs = self.options.batch_size or 1, self.options.epochs or 1
        self.steps_per_epoch = len(setup.train) // self.batch_size
        self.evaluate_every = (self.options.evaluate_every or 1) * self.steps_per_epoch
        total = epochs * self.steps_per_epoch
        self.total = max(min(total, self.options.steps or total), self.progress.step)
        self.autocast = torch.bfloat16 if self.options.precision == "bf16" else None
        self.binarize = self.options.binarize == "dynamic"
        self._epoch, self._order = -1, torch.empty(0)
        self._graphed: GraphedStep | None = None
        self._saved = self.progress.step if setup.checkpoint is not None else -1
        self.validation: Evaluation | None = None
        self.metrics = Metrics(setup.folder, self.progress.lines, self.progress.step)

    def __call__(self, interruptions: Interruptions) -> Result:
        folder, progress = self.setup.folder, self.progress
        about = json.dumps(self.setup.about(), indent=2) + "\n"
        write_atomically(folder / "config.json", about.encode())
        if self._saved < 0:
            self.save()
        self.show.note(self._headline())
        self.show.start(progress.step, self.total)
        try:
            while True:
                interruptions.check()
                at_end = progress.step >= self.total
                due = at_end or (progress.step > 0 and progress.step % self.evaluate_every == 0)
                if due and progress.validated < progress.step:
                    self.validate(interruptions)
                if at_end:
                    break
                self.step()
                if progress.step % self.options.checkpoint_every == 0:
                    self.save()
            test = self.finish(interruptions)
        except (Interrupted, KeyboardInterrupt) as error:
            if isinstance(error, Interrupted) and self._saved != progress.step:
                self.save()
            self.show.stop()
            self.show.note(f"stopped at step {self._saved}; add --resume to go on")
            raise
        return Result(folder, progress.step, self.validation, test)

    def step(self) -> None:
        began, step = time.perf_counter(), self.progress.step
        x = self.batch(step)
        shape = (self.model.config.glimpses, len(x), self.model.config.latent_size)
        e = noise(self.options.seed, "noise", step, shape, self.device)
        warmup = self.options.kl_warmup or 0
        self.model.train()
        with torch.autocast(self.device.type, self.autocast, enabled=self.autocast is not None):
            if self._graphed is None:
                self._graphed = GraphedStep(self.model, self.optimizer, x, self.options.clip)
            out = self._graphed(x, e, kl_weight=1.0 if step >= warmup else step / warmup)
        now = torch.stack([out.loss, out.reconstruction.mean(), out.kl.sum(0).mean(), out.gradient_norm]).double()
        # What NaN has spoilt is never saved. On CUDA reading the figures would wait for the device: there they are read when
        # a line or a checkpoint is written.
        figures_now = self._finite(now, step) if self.device.type == "cpu" else None
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

    def batch(self, step: int) -> Tensor:
        """The images of a step, a function of the seed and the step alone."""
        epoch, i = divmod(step, self.steps_per_epoch)
        images = self.setup.train
        if epoch != self._epoch:
            order = torch.randperm(len(images), generator=generator(self.options.seed, "order", epoch))
            self._epoch, self._order = epoch, order.to(images.device)
        chosen = images[self._order[i * self.batch_size : (i + 1) * self.batch_size]]
        return to_input(chosen, self.device, self.options.seed if self.binarize else None, "images", step)

    def log(self) -> None:
        progress = self.progress
        means = dict(zip(SUMS, (self.sums / progress.count).tolist(), strict=True))
        rate = progress.count * self.batch_size / progress.window if progress.window else 0.0
        self._write("train", {**means, "learning_rate": self.options.learning_rate, "images_per_second": rate})
        self.sums.zero_()
        progress.count, progress.window = 0, 0.0

    def validate(self, interruptions: Interruptions) -> None:
        """Evaluates, draws samples, and makes a checkpoint that says so."""
        self._finite(self.sums, self.progress.step - 1)
        self.validation = self._evaluate("validation", self.setup.validation, interruptions)
        pictures.samples(self.model, self.options.samples, self.options.seed, self.setup.folder / "samples.png")
        self.progress.validated = self.progress.step
        self.save()

    def finish(self, interruptions: Interruptions) -> Evaluation | None:
        """The drawing process and, only now, the test images."""
        progress = self.progress
        if progress.tested == progress.step:
            self.show.note(f"finished at step {progress.step} already; raise --epochs or --steps to go on")
        test = self._evaluate("test", self.setup.test, interruptions, write=progress.tested != progress.step)
        if self.validation is None:
            self.validation = self._evaluate("validation", self.setup.validation, interruptions, write=False)
        if progress.tested != progress.step:
            pictures.drawing(self.model, min(16, self.options.samples), self.options.seed, self.setup.folder / "drawing.gif")
            progress.tested = progress.step
            self.save()
        return test

    def save(self) -> None:
        self._finite(self.sums, self.progress.step - 1)
        self.metrics.sync()
        self.progress.lines = self.metrics.lines
        training = {
            "options": self.options.to_dict(),
            "fingerprint": self.setup.fingerprint,
            "progress": asdict(self.progress),
            **({"gemm": gemm.chosen()} if dispatch.backends()["native"] is None else {}),
        }
        optimizer = optimizer_tensors(self.model, self.optimizer)
        config, weights, step = self.model.config, self.model.state_dict(), self.progress.step
        save_checkpoint(self.setup.folder, Checkpoint(config, weights, step, optimizer, {"sums": self.sums}, training))
        self._saved = step

    def _evaluate(self, split: str, images: Tensor, interruptions: Interruptions, write: bool = True) -> Evaluation | None:
        if len(images) == 0:
            return None
        options, check = self.options, interruptions.check
        self.model.eval()
        result = evaluate(self.model, images, options.eval_batch, options.seed, self.binarize, self.autocast, check)
        if not math.isfinite(result.nats):
            raise self._diverged(self.progress.step)
        if write:
            self._write(split, asdict(result))
        return result

    def _write(self, split: str, values: dict[str, Any]) -> None:
        step = self.progress.step
        where = {"step": step, "epoch": -(-step // self.steps_per_epoch), "split": split}
        record = {**where, **values, "seconds": round(self.progress.seconds, 3)}
        self.metrics.write(record)
        self.show.metrics(record)

    def _finite(self, values: Tensor, step: int) -> dict[str, float]:
        numbers = values.tolist()
        if not all(map(math.isfinite, numbers)):
            raise self._diverged(step)
        return dict(zip(SUMS, numbers, strict=True))

    def _diverged(self, step: int) -> DivergedError:
        at = f"step {step + 1}" if self.device.type == "cpu" else f"step {step + 1} or shortly before"
        return DivergedError(
            f"nats or gradients are not finite at {at}: lower --learning-rate or --clip; the checkpoint of step "
            f"{self._saved} in {self.setup.folder} is good"
        )

    def _headline(self) -> str:
        config, weights = self.model.config, sum(p.numel() for p in self.model.parameters())
        size, begin = "x".join(map(str, config.image_shape)), "resuming" if self.progress.step else "training"
        return (
            f"{begin} {self.setup.folder}: {len(self.setup.train)} images of {size}, "
            f"{config.glimpses} glimpses, {weights:,} weights, on {self.device} with {torch.get_num_threads()} threads"
        )


def summary(result: Result) -> list[str]:
    """The last lines of a run: the held-out nats, and the files to look at."""
    lines = []
    for name, value in (("validation", result.validation), ("test", result.test)):
        if value is not None:
            lines.append(f"{name}: {figures(asdict(value))}, {value.images} held-out images")
    look = ", ".join(str(result.folder / name) for name in ("samples.png", "drawing.gif", "metrics.jsonl"))
    return [*lines, f"look at {look}"]
