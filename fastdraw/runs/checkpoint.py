"""Checkpoints: one safetensors file with everything needed to go on, or only to use the model.

The file holds tensors under three prefixes, and one JSON text under "fastdraw" in the safetensors metadata:

    model.NAME                 the weights, by their names in state_dict
    ema.NAME                   their moving average, where the run kept one
    optimizer.NAME.FIELD       Adam's exp_avg, exp_avg_sq and step for the weight NAME
    progress.NAME              whatever else a training loop carries
    {"format": 1, "version": fastdraw's, "task": "draw" or "classify", "config": the fields of its configuration,
     "step": steps taken, "training": {...}}

Nothing is pickled, so a file from anywhere can be opened safely.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from fastdraw import pretrained, sharing, weights
from fastdraw._version import __version__
from fastdraw.checks import expected
from fastdraw.files import expanded, second_name, write_atomically
from fastdraw.runs.kinds import KINDS, Config, kind, task_of
from fastdraw.text import short

NAME = "checkpoint.safetensors"
#: The one before it, which a run goes on from where a broken disk or network file system has cut the last one short.
PREVIOUS = "previous.safetensors"
FORMAT = 1
ADAM = ("exp_avg", "exp_avg_sq", "step")


class CheckpointError(ValueError):
    """A file that is no checkpoint of fastdraw, or a damaged one. The message names the file and what is wrong."""


class Damaged(CheckpointError):
    """A checkpoint's file that is cut short, or is no safetensors file."""


@dataclass
class Checkpoint:
    """What a checkpoint holds, on the CPU. optimizer is keyed NAME.FIELD, and empty where only weights were saved; ema is
    empty where no moving average of the weights was kept."""

    config: Config
    model: dict[str, Tensor]
    step: int = 0
    optimizer: dict[str, Tensor] = field(default_factory=dict)
    progress: dict[str, Tensor] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    ema: dict[str, Tensor] = field(default_factory=dict)


def locate(path: str | os.PathLike[str]) -> Path:
    """The checkpoint's file, from its own path or that of the run's folder."""
    file = expanded(Path(weights.check_path("path", path)))
    return file / NAME if file.is_dir() else file


def found(path: str | os.PathLike[str]) -> Path:
    """The file to read: a checkpoint; where there is none, the weights of a folder that `save_pretrained` wrote, or of a model
    that comes with fastdraw, where nothing of its name lies here."""
    file = locate(path)
    for folder in (expanded(Path(path)), pretrained.shipped(path)):
        if not file.exists() and folder is not None and (folder / sharing.WEIGHTS).exists():
            return folder / sharing.WEIGHTS
    return file


def save_checkpoint(path: str | os.PathLike[str], checkpoint: Checkpoint) -> None:
    """Writes `checkpoint` to `path`, a file or an existing folder, in place of what was there and in one instant.

    Weights that several names share are written once for each. Raises CheckpointError for what `load_checkpoint` would not
    accept, OSError where it cannot be written; the file that was there before is then untouched.
    """
    c, file = checkpoint, locate(path)
    if not isinstance(c, Checkpoint) or not isinstance(c.config, tuple(k.config for k in KINDS.values())):
        raise expected("checkpoint", "a Checkpoint with a model's configuration", c, TypeError)
    if type(c.step) is not int or c.step < 0 or not isinstance(c.training, dict):
        raise expected("checkpoint", "a step of at least 0 and the training's options", (c.step, c.training), TypeError)
    _check(file, c)
    parts = {"model": c.model, "ema": c.ema, "optimizer": c.optimizer, "progress": c.progress}
    tensors = {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    about = {"format": FORMAT, "version": __version__, "task": task_of(c.config), "config": c.config.to_dict()}
    text = json.dumps({**about, "step": c.step, "training": c.training})
    write_atomically(file, save(weights.plain(tensors), {"fastdraw": text}))


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Reads what `save_checkpoint` wrote, from the file or the run's folder; of a folder that `save_pretrained` wrote, and of
    a model that comes with fastdraw, by its name, what is there of a checkpoint.

    Raises FileNotFoundError where there is none, and CheckpointError for a truncated file, one of another format, or one whose
    weights do not fit its configuration or are not finite.
    """
    file = found(path)
    if file.name == sharing.WEIGHTS and (file.parent / sharing.CONFIG).exists():
        return _shared(file.parent)
    if not file.exists() and (said := pretrained.hint(path)):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT) + said, str(file))
    tensors, about = _read(file)
    try:
        # Files from before there were classifiers name no task.
        config = kind(about.get("task", "draw")).config(**about["config"])
        step, training = about["step"], about["training"]
        if type(step) is not int or not 0 <= step < 1 << 53 or not isinstance(training, dict):
            raise ValueError("step: expected a whole number of at least 0, beside the training's options")
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file}: expected a model's configuration, got {short(error)}") from error
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "ema": {}, "optimizer": {}, "progress": {}}
    for name, tensor in tensors.items():
        prefix, _, rest = name.partition(".")
        if prefix not in parts:
            raise CheckpointError(f"{file}: expected tensors of a model, its optimizer and its progress, got {short(name)}")
        parts[prefix][rest] = tensor
    loaded = Checkpoint(config, parts["model"], step, parts["optimizer"], parts["progress"], training, parts["ema"])
    _check(file, loaded)
    return loaded


def _shared(folder: Path) -> Checkpoint:
    """Of a folder that `save_pretrained` wrote; its config.json may have the run's step and options as well."""
    file = folder / sharing.CONFIG
    try:
        about = json.loads(file.read_text(encoding="utf-8"))
        task = next(task for task, k in KINDS.items() if about.get("architectures") == [k.model.__name__])
        step, training = about.get("step", 0), about.get("training", {})
        if type(step) is not int or not 0 <= step < 1 << 53 or not isinstance(training, dict):
            raise ValueError("step: expected a whole number of at least 0, beside the training's options")
    except (OSError, UnicodeError, ValueError, AttributeError, StopIteration, RecursionError) as error:
        raise CheckpointError(f"{file}: expected the configuration of a model of fastdraw, got {short(error)}") from error
    model = kind(task).model.from_pretrained(folder)
    return Checkpoint(model.config, model.state_dict(), step, training=training)


def keep_previous(folder: Path) -> None:
    """Gives the run's checkpoint a second name, so that it outlives the next one being written over it."""
    with second_name(folder / NAME) as part:
        os.replace(part, folder / PREVIOUS)


def is_checkpoint(file: Path) -> bool:
    """Whether `file` says of itself that it is a checkpoint of fastdraw; its weights are not looked at."""
    if not file.is_file():
        return False
    try:
        about = json.loads(weights.metadata(file).get("fastdraw", ""))
        return {"format", "config", "training"} <= about.keys()
    except (ValueError, AttributeError, RecursionError):
        return False


def _check(file: Path, c: Checkpoint) -> None:
    """What holds of every checkpoint, written or read. Raises CheckpointError."""
    shapes = weights.shapes(file, kind(task_of(c.config)).specification, c.config, CheckpointError)
    weights.check(file, c.model, shapes, CheckpointError, "model")
    if c.ema:
        weights.check(file, c.ema, shapes, CheckpointError, "ema")
    if c.optimizer:
        adam = {f"{name}.{kind}": (() if kind == "step" else shape) for name, shape in shapes.items() for kind in ADAM}
        weights.check(file, c.optimizer, adam, CheckpointError, "optimizer")


def load_model(path: str | os.PathLike[str], device: torch.device | str = "cpu", ema: bool = True) -> Any:
    """The model of a checkpoint's file or a run's folder, DRAW or DRAWClassifier, on `device`, in the dtype it was saved in.

    ema: whether to take the moving average of the weights where the run kept one (`--ema`), rather than the last weights.
    Raises as `load_checkpoint`, and ValueError for a device that there is not.
    """
    return model_of(load_checkpoint(path), device, ema)


def model_of(checkpoint: Checkpoint, device: torch.device | str = "cpu", ema: bool = True) -> Any:
    """As `load_model`, of a checkpoint that is read already."""
    device = weights.check_device("device", device)
    tensors = checkpoint.ema if ema and checkpoint.ema else checkpoint.model
    model = kind(task_of(checkpoint.config)).model.from_config(checkpoint.config)
    model.to(device, next(iter(tensors.values())).dtype).load_state_dict(tensors)
    return model


def optimizer_tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Adam's state by the names of the weights; zeros where no step was taken yet."""
    out: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state.get(parameter, {})
        for moment in ADAM:
            empty = torch.zeros(()) if moment == "step" else torch.zeros_like(parameter)
            out[f"{name}.{moment}"] = state.get(moment, empty)
    return out


def load_optimizer(model: nn.Module, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts `optimizer_tensors` back. The optimizer must have been made from model.parameters()."""
    state = {
        i: {kind: tensors[f"{name}.{kind}"].clone() for kind in ADAM} for i, (name, _) in enumerate(model.named_parameters())
    }
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not file.exists():
        raise FileNotFoundError(2, "no such checkpoint", str(file))
    tensors, metadata = weights.read(file, Damaged)
    try:
        about = json.loads(metadata.get("fastdraw", ""))
    except (ValueError, RecursionError):
        raise CheckpointError(f"{file}: expected a checkpoint of fastdraw, got a safetensors file of another kind") from None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        came = about.get("format") if isinstance(about, dict) else about
        raise CheckpointError(f"{file}: expected checkpoint format {FORMAT}, got {short(came)}")
    return tensors, about
