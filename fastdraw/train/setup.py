"""From options to everything that training needs: device, data, model, optimizer, and where a checkpoint left off."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fastdraw import data
from fastdraw._version import __version__
from fastdraw.runs import checkpoint
from fastdraw.runs.checkpoint import Checkpoint, load_optimizer
from fastdraw.runs.device import find_device
from fastdraw.runs.fingerprint import fingerprint
from fastdraw.runs.kinds import Config, Model, kind
from fastdraw.runs.options import image_size
from fastdraw.runs.parallel import Processes, local_rank
from fastdraw.runs.randomness import generator
from fastdraw.train import metrics
from fastdraw.train.options import TrainOptions
from fastdraw.train.resume import Found, continued, last_run, saved_run
from fastdraw.train.schedule import Average

#: The best weights, of a run with --patience.
BEST = "best.safetensors"
ABOUT = "config.json"
#: What a run writes, beside TensorBoard's files; --overwrite deletes these and nothing else.
FILES = (checkpoint.NAME, checkpoint.PREVIOUS, BEST, metrics.NAME, ABOUT, "samples.png", "drawing.gif")


#: Options that may be others on another machine: where things lie, and how many cores there are. The images are compared.
OWN = frozenset(("data", "data_dir", "out", "threads"))


@dataclass
class Setup:
    """splits: with their labels only where the run uses them; on the device where they fit there. found: lines on them."""

    options: TrainOptions
    folder: Path
    device: torch.device
    splits: data.Splits
    found: list[str]
    fingerprint: str
    model: Model
    average: Average | None
    optimizer: torch.optim.Adam
    checkpoint: Checkpoint | None
    processes: Processes
    #: Whether `checkpoint` is the last one that the run wrote.
    whole: bool = True
    #: Whether the command that started the run goes on with it, too.
    unattended: bool = False

    def about(self) -> dict[str, Any]:
        """What config.json says: enough to repeat the run."""
        cuda = self.device.type == "cuda"
        versions = {"fastdraw": __version__, "torch": torch.__version__, "numpy": np.__version__}
        images = {part: len(getattr(self.splits, part)) for part in ("train", "validation", "test")}
        return {
            "options": self.options.to_dict(),
            "model": self.model.config.to_dict(),
            "images": {**images, "fingerprint": self.fingerprint},
            "versions": {**versions, "python": platform.python_version()},
            "device": torch.cuda.get_device_name(self.device) if cuda else platform.machine(),
            "threads": torch.get_num_threads(),
            "processes": self.processes.size,
        }


def run_folder(said: TrainOptions, first: bool = True) -> Path:
    """Where the run is, or will be. Raises ValueError, before anything is made, where there can be none.

    first: whether this is the first process, which alone needs to see what is in it.
    """
    folder = Path(said.out or Path("runs") / _name(said.data))
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out: expected a folder, got the file {folder}")
    if first and said.resume is True and not any((folder / name).exists() for name in (checkpoint.NAME, checkpoint.PREVIOUS)):
        raise ValueError(f"resume: expected a checkpoint in {folder}, got none: leave --resume out to begin there")
    return folder


def prepare(said: TrainOptions, explicit: Collection[str] | None, processes: Processes) -> Setup:
    """Reads and checks everything, and writes nothing.

    Raises ValueError (DataError, CheckpointError), OSError or ModuleNotFoundError for what a user can mend.
    """
    # Missing, it must be missed before anything is written.
    import torch.utils.tensorboard

    folder = run_folder(said, processes.is_first)
    common = {name: value for name, value in said.to_dict().items() if name not in OWN}
    processes.agree({"version": f"fastdraw {__version__}, torch {torch.__version__}", **common})
    # The first process reads for all: the others may be on machines that do not have the folder.
    run = processes.first(lambda: _run_there(said, folder))
    saved = None if run is None else run.checkpoint
    options = said if run is None else continued(said, run.options, explicit)
    if saved is not None and options.threads and saved.training.get("processes", 1) != processes.size:
        # Those of then are no measure for as many processes as there are now.
        options = replace(options, threads=said.threads)
    device = find_device(options.device, local_rank())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    _check_precision(options.precision, device)
    torch.set_num_threads(options.threads or processes.threads())
    splits = _load(options, processes)
    found = [*(() if run is None else run.notes), *data.found(splits)]
    splits = splits if options.needs_labels else splits._replace(labels=None)
    train = splits.train
    options = replace(options.resolved(splits.image_shape, torch.get_num_threads()), out=str(folder), **_places(options))
    _check_batch(options, len(train), processes)
    config = options.config(splits.image_shape, _classes(options, splits))
    seen, held_out = fingerprint(splits.train, splits.labels and splits.labels.train), ""
    if processes.size > 1:
        of = splits.labels and (splits.labels.validation, splits.labels.test)
        held_out = fingerprint(splits.validation, splits.test, *(of or ()))
    same = f"training images {seen}, others {held_out}"
    processes.agree({"device": device.type, "data": same, "configuration": config})
    if saved is not None:
        _check_same_run(saved, config, seen, folder)
    splits = _on_device(splits, device, options)
    model = new_model(config, options, splits).to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate or 0.0, betas=(0.9, 0.999), fused=True)
    if saved is not None:
        model.load_state_dict(saved.model)
        load_optimizer(model, optimizer, saved.optimizer)
    average = Average(model, options.ema) if options.ema else None
    if average is not None and saved is not None:
        average.model.load_state_dict(saved.ema)
    return Setup(
        *(options, folder, device, splits, found, seen, model, average, optimizer, saved, processes),
        whole=run is None or run.whole,
        unattended=said.resume == "auto",
    )


def _run_there(said: TrainOptions, folder: Path) -> Found | None:
    """The run to go on with; None where one is to begin, for which there is room then."""
    run = last_run(folder) if said.resume else None
    if run is None and said.resume is True:
        # Says what is wrong with the only one.
        return Found(*saved_run(folder))
    if run is None:
        # A run whose only checkpoint is damaged has nothing left to lose.
        _check_free(folder, said.overwrite or (bool(said.resume) and os.path.lexists(folder / checkpoint.NAME)))
    return run


def _name(name_or_path: str) -> str:
    return Path(name_or_path).stem or "run"


def _places(options: TrainOptions) -> dict[str, Any]:
    """Where the data are, whatever folder the run is gone on with from."""
    named = options.data in data.names() or options.data.startswith(data.hub.PREFIX)
    where = options.data_dir
    return {
        "data": options.data if named else os.path.abspath(options.data),
        "data_dir": None if where is None else os.path.abspath(where),
    }


def _load(options: TrainOptions, processes: Processes) -> data.Splits:
    def load() -> data.Splits:
        size, bar = image_size(options.image_size), sys.stderr.isatty() and local_rank() == 0
        return data.load(options.data, options.data_dir, size, progress=bar, skip_bad=options.skip_bad)

    # The first process of a machine downloads and decodes; the others then find the files.
    splits = load() if local_rank() == 0 else None
    processes.wait()
    return splits or load()


def _classes(options: TrainOptions, splits: data.Splits) -> int | None:
    if not options.needs_labels:
        return None
    if splits.labels is None:
        name = "conditional" if options.conditional else "task"
        raise ValueError(f"{name}: expected images whose classes are known, got {options.data}, which has no labels")
    return 1 + max(int(labels.max()) for labels in splits.labels)


def _check_batch(options: TrainOptions, images: int, processes: Processes) -> None:
    batch = options.batch_size or 1
    if images < batch:
        raise ValueError(f"batch_size: expected at most {images}, the number of training images, got {batch}")
    if batch % processes.size:
        raise ValueError(f"batch_size: expected a multiple of {processes.size}, one share for each process, got {batch}")
    if options.accumulate > batch // processes.size:
        share = batch // processes.size
        raise ValueError(f"accumulate: expected at most {share}, the images of one step, got {options.accumulate}")


def _check_precision(precision: str, device: torch.device) -> None:
    if precision == "tf32" and device.type != "cuda":
        raise ValueError("precision: expected fp32 or bf16 on the CPU, which has no tf32, got tf32")


def _check_same_run(saved: Checkpoint, config: Config, fingerprint: str, folder: Path) -> None:
    if saved.config != config or saved.training.get("fingerprint") != fingerprint:
        raise ValueError(f"data: expected the training images that the run in {folder} was started with, got others")


def _on_device(splits: data.Splits, device: torch.device, options: TrainOptions) -> data.Splits:
    """All images at once on the device, where they take little of its memory; batches then cost no transfer."""
    # Pictures are put together by additions whose order varies on CUDA: exact in whole numbers, but refused all the same.
    refused = options.deterministic and splits.make is not None
    total = sum(part.numel() for part in splits[:3])
    if device.type != "cuda" or refused or total >= torch.cuda.mem_get_info(device)[0] // 4:
        return splits
    train, validation, test = (part.to(device) for part in splits[:3])
    labels = splits.labels and data.Labels(*(part.to(device) for part in splits.labels))
    return splits._replace(train=train, validation=validation, test=test, labels=labels)


def written(folder: Path) -> list[Path]:
    """What stands in `folder` under the names of a run's files."""
    named = [folder / name for name in FILES if os.path.lexists(folder / name)]
    return named + sorted(folder.glob(f"events.out.tfevents.*{metrics.SUFFIX}"))


def clear(folder: Path) -> None:
    """Deletes a run's files but for its checkpoint: what an earlier run left, once the checkpoint is that of a new one."""
    for file in written(folder):
        if file.name != checkpoint.NAME:
            file.unlink()


def _check_free(folder: Path, overwrite: bool) -> None:
    """A folder with no run in it; with `overwrite`, one with a run. Files of other programs are never replaced."""
    there = written(folder)
    if not there:
        return
    # Nothing is lost with empty files, as a crash of the machine may leave them.
    whole = checkpoint.is_checkpoint(folder / checkpoint.NAME) or _is_about(folder / ABOUT)
    if not whole and any(file.lstat().st_size for file in there):
        names = ", ".join(file.name for file in there)
        raise ValueError(
            f"out: expected a folder with a run or without such files, got {folder} with {names} of something else"
        )
    if not overwrite:
        raise ValueError(f"out: expected a folder without a run, got {folder}: add --resume or --overwrite")


def _is_about(file: Path) -> bool:
    """Whether a config.json is that of a run."""
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        return isinstance(about["options"], dict) and "fastdraw" in about["versions"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


#: Means of pixels are kept this far from 0 and 1, so that the first canvas is certain of nothing (logits of at most 4.6).
MEAN_MARGIN = 0.01
#: Images that the mean is taken of where they are made anew for each batch.
MEAN_MADE = 2000


def new_model(config: Config, options: TrainOptions, splits: data.Splits) -> Model:
    """A model on the CPU, decided by the options' seed alone; no trace is left on torch's own generators."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(options.seed, "weights").initial_seed())
        model = kind(options.task or "draw").model.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if options.weight_std is not None and parameter.dim() == 2:
                    parameter.normal_(std=options.weight_std)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LSTMCell):
                # Rows i, f, g, o.
                module.bias_ih.view(4, -1)[1] += options.forget_bias
        if options.task == "draw":
            model.initial_canvas.copy_(_canvas(options, splits, model.initial_canvas))
    return model


def _canvas(options: TrainOptions, splits: data.Splits, like: torch.Tensor) -> torch.Tensor:
    """Logits [C, H, W]."""
    if options.initial_canvas != "mean":
        return torch.full_like(like, 0.0 if options.initial_canvas == "zero" else float(options.initial_canvas))
    images = splits.train
    if splits.make is not None:
        images = images[torch.linspace(0, len(images) - 1, min(MEAN_MADE, len(images))).long()]
        images = splits.make(images, generator(options.seed, "mean image", 0, images.device))
    # float64 holds the sum of any number of pixels exactly.
    at_once = max(1, (1 << 22) // images[:1].numel())
    mean = sum(part.sum(0, dtype=torch.float64) for part in images.split(at_once)) / (255 * len(images))
    return torch.logit(mean.float(), eps=MEAN_MARGIN)
