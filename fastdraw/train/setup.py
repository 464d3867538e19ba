"""From options to everything that training needs: device, data, model, optimizer, and where a checkpoint left off."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdraw import data
from fastdraw._version import __version__
from fastdraw.config import DRAWConfig
from fastdraw.model import DRAW
from fastdraw.train import checkpoint, metrics
from fastdraw.train.checkpoint import Checkpoint, CheckpointError, load_optimizer
from fastdraw.train.options import TrainOptions, continued
from fastdraw.train.progress import Progress
from fastdraw.train.randomness import generator

#: Means of pixels are kept this far from 0 and 1, so that the first canvas is certain of nothing (logits of at most 4.6).
MEAN_MARGIN = 0.01
#: What a run writes; --overwrite deletes these and nothing else.
FILES = (checkpoint.NAME, metrics.NAME, "config.json", "samples.png", "drawing.gif")


@dataclass
class Setup:
    options: TrainOptions
    folder: Path
    device: torch.device
    train: Tensor
    validation: Tensor
    test: Tensor
    fingerprint: str
    model: DRAW
    optimizer: torch.optim.Adam
    checkpoint: Checkpoint | None

    def about(self) -> dict[str, Any]:
        """What config.json says: enough to repeat the run."""
        cuda = self.device.type == "cuda"
        versions = {"fastdraw": __version__, "torch": torch.__version__, "numpy": np.__version__}
        images = {"train": len(self.train), "validation": len(self.validation), "test": len(self.test)}
        return {
            "options": self.options.to_dict(),
            "model": self.model.config.to_dict(),
            "images": {**images, "fingerprint": self.fingerprint},
            "versions": {**versions, "python": platform.python_version()},
            "device": torch.cuda.get_device_name(self.device) if cuda else platform.machine(),
            "threads": torch.get_num_threads(),
        }


def prepare(said: TrainOptions, explicit: Collection[str] | None = None) -> Setup:
    """Raises ValueError (DataError, CheckpointError), OSError or ModuleNotFoundError for what a user can mend."""
    # Missing, it must be missed before anything is written.
    import torch.utils.tensorboard

    folder = Path(said.out or Path("runs") / _name(said.data))
    saved = _saved(folder) if said.resume else None
    options = continued(said, TrainOptions(**saved.training["options"]), explicit) if saved else said
    device = _device(options.device)
    if saved is not None and "gemm" in saved.training:
        # Another library would round differently: a run goes on with the one it was started with.
        os.environ["FASTDRAW_GEMM"] = saved.training["gemm"]
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if not said.resume:
        _clear(folder, said.overwrite)
    size = None if options.image_size is None else (options.image_size, options.image_size)
    splits = data.load(options.data, data_dir=options.data_dir, image_size=size, progress=sys.stderr.isatty())
    train, validation, test = splits[:3]
    shape = (int(train.shape[1]), int(train.shape[2]), int(train.shape[3]))
    options = replace(options.resolved(shape, torch.get_num_threads()), out=str(folder))
    assert options.batch_size is not None
    if len(train) < options.batch_size:
        raise ValueError(f"batch_size: expected at most {len(train)}, the number of training images, got {options.batch_size}")
    fingerprint = blake2b(train.numpy().tobytes(), digest_size=16).hexdigest()
    config = options.config(shape)
    if saved is not None:
        _check_same_run(saved, config, fingerprint, folder)
    model = _model(config, options, train)
    model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate or 0.0, betas=(0.9, 0.999), fused=True)
    if saved is not None:
        model.load_state_dict(saved.model)
        load_optimizer(model, optimizer, saved.optimizer)
    # All images at once on the device, where they take little of its memory; batches then cost no transfer.
    if device.type == "cuda" and train.numel() < torch.cuda.mem_get_info(device)[0] // 4:
        train = train.to(device)
    return Setup(options, folder, device, train, validation, test, fingerprint, model, optimizer, saved)


def _name(name_or_path: str) -> str:
    return Path(name_or_path).stem or "run"


def _saved(folder: Path) -> Checkpoint:
    file = folder / checkpoint.NAME
    if not file.exists():
        raise ValueError(f"resume: expected a checkpoint in {folder}, got none: leave --resume out to begin there")
    saved = checkpoint.load_checkpoint(file)
    try:
        options, _ = TrainOptions(**saved.training["options"]), Progress.of(saved)
        if options.config(saved.config.image_shape) != saved.config or not saved.optimizer:
            raise ValueError("options that fit its weights")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: expected a checkpoint of `fastdraw train`, got one without {error}") from error
    return saved


def _check_same_run(saved: Checkpoint, config: DRAWConfig, fingerprint: str, folder: Path) -> None:
    if saved.config != config or saved.training.get("fingerprint") != fingerprint:
        raise ValueError(f"data: expected the training images that the run in {folder} was started with, got others")


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: expected cpu or auto, got cuda, of which this PyTorch finds none")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _clear(folder: Path, overwrite: bool) -> None:
    """An existing folder with no run in it; with `overwrite`, by deleting the one that is there."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out: expected a folder, got the file {folder}")
    there = [folder / name for name in FILES if (folder / name).exists()] + sorted(folder.glob("events.out.tfevents.*"))
    if there and not overwrite:
        raise ValueError(f"out: expected a folder without a run, got {folder}: add --resume or --overwrite")
    for file in there:
        file.unlink()
    os.makedirs(folder, exist_ok=True)


def _model(config: DRAWConfig, options: TrainOptions, train: Tensor) -> DRAW:
    """A new model, its weights decided by the seed alone and no trace left on torch's own generators."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(options.seed, "weights").initial_seed())
        model = DRAW.from_config(config)
    if options.initial_canvas == "mean":
        with torch.no_grad():
            model.initial_canvas.copy_(torch.logit(train.float().mean(0) / 255, eps=MEAN_MARGIN))
    return model
