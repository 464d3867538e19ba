"""Everything that happens in each glimpse of a few images: canvases, windows, patches and KL."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdraw import reference
from fastdraw.checks import expected
from fastdraw.outputs import Window


class Record(NamedTuple):
    """T glimpses of n images. Without attention there are neither windows nor patches of that kind.

    images:  [n, C, H, W] in [0, 1]: what was read; None for samples.
    frames:  [T, n, C, H, W] in [0, 1]: sigmoid of the canvas after each glimpse; None where nothing is drawn.
    write_windows, read_windows: fields [T, n].
    written: [T, n, C, N, N]: what the glimpse adds at its filters, in logits (the patch over gamma).
    read, error: [T, n, C, N, N]: what the glimpse sees of the image, in [0, 1], and of the error image, in [-1, 1]; gamma
             left out.
    kl:      [T, n], nats; None for samples.
    moved:   [T, n], percent: how far the glimpse moves the mean pixel.
    """

    images: Tensor | None
    frames: Tensor | None = None
    write_windows: Window | None = None
    read_windows: Window | None = None
    written: Tensor | None = None
    read: Tensor | None = None
    error: Tensor | None = None
    kl: Tensor | None = None
    moved: Tensor | None = None


@torch.inference_mode()
def record(model: Any, x: Tensor | None, noise: Tensor, labels: Tensor | None = None) -> Record:
    """Samples of a DRAW from `noise` [T, n, Z], or with `x` [n, C, H, W] in [0, 1] its reconstructions of these images.

    Runs in the specification, which is slow and says everything. Raises TypeError or ValueError as the model does.
    """
    if not isinstance(model, reference.DRAW):
        raise expected("model", "a DRAW", model, TypeError)
    config: Any = model.config
    for name, value in (("x", x), ("noise", noise), ("labels", labels)):
        if not isinstance(value, Tensor) and (value is not None or name == "noise"):
            raise expected(name, "a tensor", value, TypeError)
    specification = reference.DRAW.from_config(model.config)
    weights = {name: value.detach().cpu().float() for name, value in model.state_dict().items()}
    specification.load_state_dict(weights)
    patches: list[Tensor] = []
    specification.patch.register_forward_hook(lambda _module, _inputs, output: patches.append(output))
    more: dict[str, Any] = {"return_trajectory": True} | ({} if labels is None else {"labels": labels.cpu()})
    e = noise.cpu().float()
    if x is None:
        _, t = specification.sample(e.shape[1], e, **more)
    else:
        x = x.cpu().float()
        _, t = specification.reconstruct(x, e, **more)
    frames = torch.sigmoid(t.canvases)
    written, seen, error, kl = None, None, None, None
    if t.write_windows is not None:
        size = (*frames.shape[:2], config.image_shape[0], config.write_size, config.write_size)
        written = torch.stack(patches).view(size) / t.write_windows.gamma[..., None, None, None]
    before = torch.cat([torch.sigmoid(specification.initial_canvas).expand_as(frames[:1]), frames[:-1]])
    moved = 100 * (frames - before).abs().flatten(2).mean(2)
    if x is not None and t.read_windows is not None:
        seen = look(x.expand_as(frames), t.read_windows, config.read_size)
        error = look(x - before, t.read_windows, config.read_size)
    if x is not None:
        kl = reference.kl_divergence(t.mu, t.log_sigma)
    return Record(x, frames, t.write_windows, t.read_windows, written, seen, error, kl, moved)


def look(images: Tensor, window: Window, size: int) -> Tensor:
    """What N x N filters see of images [T, n, C, H, W] through windows with fields [T, n], gamma left out: [T, n, C, N, N]."""
    height, width = int(images.shape[3]), int(images.shape[4])
    params = window_params(window, size, (height, width)).flatten(0, 1)
    patches = reference.read(images.flatten(0, 1).cpu().float(), params.float(), size)
    return patches.view(*images.shape[:3], size, size)


def window_params(window: Window, size: int, image_size: tuple[int, int]) -> Tensor:
    """Equations 22 to 24 backwards, with gamma one: float64 params [..., 5] from fields [...]."""
    height, width = image_size
    x, y, delta, sigma, _ = (field.detach().cpu().double() for field in window)
    log_delta = delta.log() - math.log((max(height, width) - 1) / (size - 1)) if size > 1 and max(height, width) > 1 else 0 * x
    columns = [2 * (x + 1) / (width + 1) - 1, 2 * (y + 1) / (height + 1) - 1, 2 * sigma.log(), log_delta, 0 * x]
    return torch.stack(columns, -1)
