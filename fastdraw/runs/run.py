"""A trained run, opened: its model, and the images it was trained on or tested with."""

from __future__ import annotations

import os
import shlex
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdraw import data, pretrained
from fastdraw.checks import expected
from fastdraw.files import expanded
from fastdraw.runs.checkpoint import Checkpoint, found, load_checkpoint, model_of
from fastdraw.runs.held_out import to_input
from fastdraw.runs.kinds import task_of
from fastdraw.runs.options import check_kind, image_size, told
from fastdraw.runs.parallel import ALONE, Processes
from fastdraw.runs.randomness import generator


class Run:
    """A run's folder or a checkpoint's file.

    data_name, data_dir: where the images are, if not where the run's own options say. Those are a stranger's, who may have
    sent the file: a data set that only they name is not downloaded, nor opened outside of the folders of the call, which are
    the run's, the present one and data_dir. split: train, validation or test. seed: decides which images are shown.
    ema: whether to take the moving average of the weights where the run kept one. saved, options: what the file holds, where
    that is read already, and the run's options, where the file itself does not hold them. together: who shares the work.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        data_name: str | None = None,
        data_dir: str | None = None,
        split: str = "test",
        seed: int = 0,
        device: str = "cpu",
        ema: bool = True,
        saved: Checkpoint | None = None,
        options: dict[str, Any] | None = None,
        together: Processes = ALONE,
    ) -> None:
        if split not in ("train", "validation", "test"):
            raise expected("split", "train, validation or test", split)
        self.path, self.file, self.split, self.seed, self.together = path, found(path), split, seed, together
        checkpoint = load_checkpoint(path) if saved is None else saved
        self.options: dict[str, Any] = told(self.file, checkpoint) if options is None else options
        self.model, self.task = model_of(checkpoint, device, ema).eval(), task_of(checkpoint.config)
        self.config: Any = checkpoint.config
        self.step, self.device = checkpoint.step, torch.device(device)
        self.asked = data_name is not None
        self.data_name = self.options.get("data") if data_name is None else expanded(check_kind("data", data_name, str))
        self.data_dir = None if data_dir is None else expanded(check_kind("data_dir", data_dir, str))
        self.binary = self.options.get("binarize") == "dynamic"
        #: The name of the model, where it is one that comes with fastdraw and was called by it.
        self.shipped = os.fspath(path) if pretrained.shipped(path) is not None else None

    @cached_property
    def splits(self) -> data.Splits:
        """Raises ValueError (DataError) or OSError where the images cannot be had, or are not of the model's shape."""
        if self.data_name is None:
            raise expected("data", "the name or path of the images, which this checkpoint does not tell", None)
        size = image_size(self.options.get("image_size"))
        if size is not None and size != tuple(self.config.image_shape[1:]):
            raise self._other_shape(self.options["image_size"])
        how: dict[str, Any] = {"image_size": size, "skip_bad": bool(self.options.get("skip_bad"))}
        splits = data.load(self.data_name, data_dir=self.data_dir, **how) if self.asked else self._unasked(self.data_name, how)
        if splits.image_shape != tuple(self.config.image_shape):
            raise self._other_shape("x".join(map(str, splits.image_shape)))
        return splits

    def _other_shape(self, came: str) -> ValueError:
        shape = "x".join(map(str, self.config.image_shape))
        return ValueError(f"data: expected images of {shape}, as {self.file} takes them, got {came}")

    def _unasked(self, name: str, how: dict[str, Any]) -> data.Splits:
        """The data set that the checkpoint names, from where the call may look for it."""
        inside = [Path.cwd(), self.file.parent] + ([] if self.data_dir is None else [Path(self.data_dir)])
        if name not in data.names():
            if not _lies_in(name, inside):
                raise ValueError(
                    f"data: expected images in the folders of this call, or named by it (--data {shlex.quote(name)}), "
                    f"got {name}, which only {self.file} names"
                )
            return data.load(name, **how)
        own = self.options.get("data_dir")
        folder = self.data_dir or (own if own is not None and _lies_in(own, inside) else None)
        try:
            return data.load(name, data_dir=folder, download=False, **how)
        except data.DataError as error:
            where = "" if own is None or folder == own else f" --data-dir {shlex.quote(own)}"
            raise data.DataError(
                f"data: expected {name} where this call may look, or named by it (--data {name}{where}), since only "
                f"{self.file} names it, got: {error}"
            ) from error

    def data_problem(self) -> Exception | None:
        """Why the images cannot be had; None where they can."""
        try:
            _ = self.splits
        except (ValueError, OSError, ModuleNotFoundError) as error:
            return error
        return None

    @property
    def has_data(self) -> bool:
        return self.data_problem() is None

    def finished(self, split: str) -> Tensor:
        """uint8 [N, C, H, W]: all images of a split. Where training composes its own anew, one of each."""
        images = getattr(self.splits, split)
        if split != "train" or self.splits.make is None:
            return images
        random = generator(self.seed, "pictures", 0)
        return torch.cat([self.splits.make(part, random) for part in images.split(1000)])

    def images(self, count: int) -> tuple[Tensor, Tensor | None]:
        """`count` images of the split as the model takes them [n, C, H, W], and their class numbers where they are known."""
        images = getattr(self.splits, self.split)
        order = torch.randperm(len(images), generator=generator(self.seed, "pictures", 1))[:count]
        chosen = images[order]
        if self.split == "train" and self.splits.make is not None:
            chosen = self.splits.make(chosen, generator(self.seed, "pictures", 2))
        known = self.splits.labels
        labels = None if known is None else getattr(known, self.split)[order].to(self.device)
        x = to_input(chosen, self.device, self.seed if self.binary else None, "pictures", 3)
        return x.to(next(self.model.parameters()).dtype), labels

    def noise(self, purpose: str, count: int) -> Tensor:
        """Standard normal [T, count, Z] on the model's device."""
        shape = (self.config.glimpses, count, self.config.latent_size)
        e = torch.randn(shape, generator=generator(self.seed, purpose, 0, self.device), device=self.device)
        return e.to(self.model.initial_canvas.dtype)

    def given(self, labels: Tensor | None) -> dict[str, Tensor]:
        """Class numbers, for a model that takes them. Raises ValueError where it needs them and there are none."""
        if getattr(self.config, "num_classes", None) is None:
            return {}
        if labels is None:
            raise ValueError(f"data: expected images with classes, which {self.file} is conditioned on, got none")
        return {"labels": labels}


def _lies_in(path: str, folders: list[Path]) -> bool:
    """Whether `path`, with all links followed, is in one of the folders."""
    try:
        place = Path(path).resolve()
        return any(place.is_relative_to(folder.resolve()) for folder in folders)
    except (OSError, ValueError, RuntimeError):
        return False
