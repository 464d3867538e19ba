"""What operators and DRAW give, by name: of the reference and of the kernels alike."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from fastdraw import checks


def brief(output: Any) -> str:
    """A named tuple of tensors in a few lines: what is larger than a few numbers by dtype, shape and device."""
    lines = [f"{name}={_shown(value)}" for name, value in zip(output._fields, output, strict=True)]
    return f"{type(output).__name__}({', '.join(lines)})"


def _shown(value: Any) -> str:
    return repr(value) if not isinstance(value, Tensor) or value.numel() <= 1 else f"<{checks.describe(value)[2:]}>"


class Window(NamedTuple):
    """Where the filters of each image stand: in pixels, counted from 0; all [B], but delta and sigma [B, 2], of x and y,
    where params have one of their own for each axis."""

    centre_x: Tensor
    centre_y: Tensor
    delta: Tensor
    sigma: Tensor
    gamma: Tensor

    def __repr__(self) -> str:
        return brief(self)


class FilterBank(NamedTuple):
    """y [B, N_y, H] and x [B, N_x, W], whose rows sum to one, and gamma [B]."""

    y: Tensor
    x: Tensor
    gamma: Tensor

    def __repr__(self) -> str:
        return brief(self)


class DRAWOutput(NamedTuple):
    """loss: nats per image, averaged over the batch. reconstruction [B] and kl [T, B]: nats. canvas [B, C, H, W]: logits."""

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor
    canvas: Tensor

    def __repr__(self) -> str:
        return brief(self)


class Trajectory(NamedTuple):
    """How images came to be. canvases [T, B, C, H, W]: logits after each glimpse. Windows: fields [T, B], or None.

    mu, log_sigma [T, B, Z]: of each glimpse's latent given the image (equations 1 and 2); None where nothing was inferred.
    """

    canvases: Tensor
    write_windows: Window | None
    read_windows: Window | None
    mu: Tensor | None = None
    log_sigma: Tensor | None = None

    def __repr__(self) -> str:
        return brief(self)


class Recurrence(NamedTuple):
    """canvas [B, C, H, W]: logits; trajectory where it was asked for. Where nothing was inferred kl and latent are None:

    kl [T, B]: nats; latent [T, B, 2Z]: mu, then log sigma, of each glimpse.
    """

    canvas: Tensor
    kl: Tensor | None
    trajectory: Trajectory | None
    latent: Tensor | None = None

    def __repr__(self) -> str:
        return brief(self)
