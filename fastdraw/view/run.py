"""A trained run as pictures need it: its model, and the images it was trained on or tested with."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from fastdraw import data
from fastdraw.checks import expected
from fastdraw.train.checkpoint import load_checkpoint, load_model, locate
from fastdraw.train.evaluate import to_input
from fastdraw.train.kinds import task_of
from fastdraw.train.randomness import generator


class Run:
    """A run's folder or a checkpoint's file.

    data_name, data_dir: where the images are, if not where the run's own options say. split: train, validation or test.
    seed: decides which images are shown.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        data_name: str | None = None,
        data_dir: str | None = None,
        split: str = "test",
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if split not in ("train", "validation", "test"):
            raise expected("split", "train, validation or test", split)
        checkpoint = load_checkpoint(path)
        saved = checkpoint.training.get("options")
        self.path, self.file, self.split, self.seed = path, locate(path), split, seed
        self.model, self.task = load_model(path, device).eval(), task_of(checkpoint.config)
        self.config: Any = checkpoint.config
        self.step, self.device = checkpoint.step, torch.device(device)
        self.options: dict[str, Any] = saved if isinstance(saved, dict) else {}
        self.data_name = data_name or self.options.get("data")
        # Where other data are asked for, the folder of the run's own says nothing.
        self.data_dir = data_dir or (None if data_name else self.options.get("data_dir"))
        self.binary = self.options.get("binarize") == "dynamic"

    @cached_property
    def splits(self) -> data.Splits:
        """Raises ValueError (DataError) or OSError where the images cannot be had, or are not of the model's shape."""
        if self.data_name is None:
            raise expected("data", "the name or path of the images, which this checkpoint does not tell", None)
        size = self.options.get("image_size")
        splits = data.load(self.data_name, data_dir=self.data_dir, image_size=None if size is None else (size, size))
        if splits.image_shape != tuple(self.config.image_shape):
            shape = "x".join(map(str, self.config.image_shape))
            raise ValueError(
                f"data: expected images of {shape}, as {self.file} takes them, got {'x'.join(map(str, splits.image_shape))}"
            )
        return splits

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
