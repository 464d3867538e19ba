"""What TensorBoard is shown at each evaluation: pictures, and where the windows are, glimpse by glimpse."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastdraw.outputs import Window
from fastdraw.runs.held_out import to_input
from fastdraw.runs.randomness import noise
from fastdraw.view import pictures
from fastdraw.view.drawing import strip
from fastdraw.view.picture import default_scale, enlarge, tile, to_bytes
from fastdraw.view.scenes import evenly

#: Images whose windows are told; rows of a picture; glimpses that are shown, evenly spaced, the last one with them.
IMAGES, ROWS, GLIMPSES = 64, 6, 8
#: Numbers that the canvases of all glimpses may have together.
MOST = 30_000_000


@dataclass
class Watched:
    """pictures: uint8 [h, w, 3]. windows: numbers of all images, [n], by name and glimpse, counted from 1; in pixels, gamma
    without unit."""

    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    windows: dict[str, Tensor] = field(default_factory=dict)

    def add_windows(self, name: str, found: Window | None) -> None:
        if found is None:
            return
        for part, values in found._asdict().items():
            # Stride, as the paper's text has it.
            called = "stride" if part == "delta" else part
            for t in evenly(len(values), GLIMPSES):
                self.windows[f"{name}/{called}/glimpse {t + 1}"] = values[t].float().cpu()


@torch.inference_mode()
def of_draw(model: Any, count: int, seed: int, binarize: bool, images: Tensor, labels: Tensor | None) -> Watched:
    """count: of samples. images: uint8 [N, C, H, W], the first of which are drawn again; labels [N], where they are known."""
    out, config, device = Watched(), model.config, model.initial_canvas.device
    tiles = to_bytes("samples", pictures.draw(model, min(count, IMAGES), seed))
    out.pictures["samples"] = tile(enlarge(tiles, max(1, default_scale(None, *tiles.shape[1:3]) // 2)), None, 2)
    most = max(1, MOST // (config.glimpses * math.prod(config.image_shape)))
    _, drawing = pictures.draw_slowly(model, min(ROWS, most), seed, "drawing")
    out.pictures["drawing"] = strip(drawing, config.write_size, None, GLIMPSES)
    n = min(IMAGES, most, len(images))
    if n == 0:
        return out
    x = to_input(images[:n], device, seed if binarize else None, "pictures", 3).to(model.initial_canvas.dtype)
    e = noise(seed, "reconstructions", 0, (config.glimpses, n, config.latent_size), device).to(x.dtype)
    given = {} if labels is None or config.num_classes is None else {"labels": labels[:n].to(device)}
    _, found = model.reconstruct(x, e, return_trajectory=True, **given)
    out.add_windows("windows read", found.read_windows)
    out.add_windows("windows write", found.write_windows)
    out.pictures["reconstructions"] = strip(
        _few(found), config.write_size, config.read_size, GLIMPSES, images=x[:ROWS].float().cpu()
    )
    return out


def _few(trajectory: Any) -> Any:
    """Of the first ROWS images."""

    def cut(part: Any) -> Any:
        return type(part)(*map(cut, part)) if isinstance(part, tuple) else part if part is None else part[:, :ROWS]

    return cut(trajectory)


@torch.inference_mode()
def of_classifier(model: Any, seed: int, binarize: bool, images: Tensor) -> Watched:
    """images: uint8 [N, C, H, W], the first of which are looked at."""
    out = Watched()
    if len(images):
        weight = model.initial_hidden
        x = to_input(images[:IMAGES], weight.device, seed if binarize else None, "pictures", 3).to(weight.dtype)
        out.add_windows("windows read", model.attend(x)[1])
    return out
