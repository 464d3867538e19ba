"""The shapes that are profiled: what is measured, what windows see of their images, and the least that it costs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fastdraw import reference
from fastdraw.checks import check_size, expected
from fastdraw.config import DRAWConfig
from fastdraw.profile import cost
from fastdraw.profile.cost import Cost, Support
from fastdraw.profile.options import OF_SHAPE

#: Pixels further from a filter than this many sigma add nothing that float32 (or half precision, summed in it) could hold.
REACH = math.sqrt(2 * 20.0)


@dataclass(frozen=True)
class Glimpses:
    """Of `operator`, "read" or "write". window: its side as a fraction of the image's longer side; sigma is half the stride.

    image_gradient: whether the image wants a gradient; of the read alone.
    """

    operator: str
    batch: int
    channels: int
    height: int
    width: int
    size: int = 12
    window: float = 0.5
    windows: int = 1
    image_gradient: bool = True

    glimpses = 1

    @property
    def text(self) -> str:
        several = f",K={self.windows}" if self.windows > 1 else ""
        gradient = "" if self.image_gradient else ",grad=params"
        sides = f"{self.batch}x{self.channels}x{self.height}x{self.width}"
        return f"{sides},N={self.size},window={self.window:g}{several}{gradient}"

    @property
    def measured(self) -> str:
        first = "image" if self.operator == "read" else "patch"
        return f"forward and backward, gradient{f's to {first} and' if self.image_gradient else ' to'} params"

    @property
    def stride(self) -> float:
        """Pixels between two filters of a window."""
        return self.window * (max(self.height, self.width) - 1) / max(self.size - 1, 1)

    def cost(self, e: int) -> Cost:
        """Bytes and operations of the pixels that windows see."""
        least = cost.read_support if self.operator == "read" else cost.write_support
        pixels = self.height * self.width if self.image_gradient else 0
        return least(self.batch, self.channels, self.windows, self.size, self.support(), e, pixels)

    def params(self) -> Tensor:
        """float64 [B, 5], or [B, K, 5] of several windows: anywhere in the image as far as they fit, the same each time."""
        free = max(0.0, 1 - self.window)
        generator = torch.Generator().manual_seed(0)
        centres = (2 * torch.rand(self.batch, self.windows, 2, generator=generator, dtype=torch.float64) - 1) * free
        # A window of no width, in an image of one pixel, has no logarithm.
        rest = [2 * math.log(max(self.stride, 1e-3) / 2), math.log(self.window), 0.0]
        tail = torch.tensor(rest, dtype=torch.float64).expand(self.batch, self.windows, 3)
        found = torch.cat([centres, tail], 2)
        return found if self.windows > 1 else found[:, 0]

    def support(self) -> Support:
        """What the windows of `params` see: pixels further than REACH sigma from every filter are not counted."""
        window = reference.window(self.params().flatten(0, -2), self.size, (self.height, self.width))
        indices = torch.arange(self.size, dtype=torch.float64) - (self.size - 1) / 2
        (seen_y, bands_y), (seen_x, bands_x) = (
            _axis(centre[:, None] + indices * window.delta[:, None], REACH * window.sigma[:, None], length)
            for centre, length in ((window.centre_y, self.height), (window.centre_x, self.width))
        )
        return Support(int((seen_y * seen_x).sum()), int((bands_y * seen_x).sum()), int(self.size * bands_x.sum()))


def _axis(mu: Tensor, reach: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Pixels along an axis that some filter of a window sees, and the sum of those that each one sees; [B K] both."""
    nearest = mu.round().clamp(0, length - 1)
    low = torch.minimum((mu - reach).ceil().clamp(0, length - 1), nearest)
    high = torch.maximum((mu + reach).floor().clamp(0, length - 1), nearest)
    bands = high - low + 1
    # Filters stand in rising order: what lies between two of them and is seen by neither is not counted.
    overlap = (high[:, :-1] - low[:, 1:] + 1).clamp(min=0)
    return bands.sum(1) - overlap.sum(1), bands.sum(1)


@dataclass(frozen=True)
class Step:
    """Of lstm_step."""

    batch: int
    inputs: int
    hidden: int

    operator, glimpses = "lstm", 1
    measured = "forward and backward, gradients to x, h, c and all weights"

    @property
    def text(self) -> str:
        return f"{self.batch}x{self.inputs}x{self.hidden}"

    def cost(self, e: int) -> Cost:
        return cost.lstm_step(self.batch, self.inputs, self.hidden, e)


@dataclass(frozen=True)
class Drawing:
    """Of a training step of DRAW, with attention on both sides."""

    batch: int
    config: DRAWConfig

    operator = "draw"
    measured = "forward and backward of a training step, gradients to all weights"

    @property
    def glimpses(self) -> int:
        """Steps in a row, each of which depends on the one before."""
        return self.config.glimpses

    @property
    def text(self) -> str:
        c = self.config
        sides = "x".join(map(str, (self.batch, *c.image_shape)))
        return f"{sides},T={c.glimpses},h={c.hidden_size},Z={c.latent_size},read={c.read_size},write={c.write_size}"

    def cost(self, e: int) -> Cost:
        """Images, noise and weights are float32 whatever autocast's dtype is."""
        c = self.config
        assert c.read_size is not None
        assert c.write_size is not None
        weights = sum(p.numel() for p in reference.DRAW.from_config(c).parameters() if p.dim() == 2)
        return cost.draw(self.batch, c.glimpses, c.image_shape, c.latent_size, c.read_size, c.write_size, weights, 4)


Shape = Glimpses | Step | Drawing

#: By operator: the sides that --shape gives.
SIDES = {name: "BxCxHxW (batch, channels, height, width)" for name in ("read", "write", "draw")}
SIDES["lstm"] = "BxIxh (batch, inputs, hidden units)"
OPERATORS = tuple(OF_SHAPE)

#: The paper's MNIST and SVHN, and one and sixteen megapixels with a window that sees a part of them.
MNIST = DRAWConfig((1, 28, 28), glimpses=64, hidden_size=256, latent_size=100, read_size=2, write_size=5)
_MEGAPIXEL = Glimpses("read", 4, 3, 1024, 1024, 32, 0.25)
_READ = [Glimpses("read", 128, 1, 28, 28, 5), Glimpses("read", 64, 3, 54, 54, 12), _MEGAPIXEL]
_SIXTEEN = Glimpses("read", 1, 3, 4096, 4096, 64, 0.1, image_gradient=False)
STANDARD: dict[str, list[Shape]] = {
    "read": [*_READ, replace(_MEGAPIXEL, image_gradient=False), _SIXTEEN],
    "write": [replace(shape, operator="write") for shape in _READ],
    "lstm": [Step(128, 264, 256)],
    "draw": [Drawing(128, MNIST)],
}


def made(operator: str, sides: str, said: Mapping[str, Any]) -> Shape:
    """The shape of `operator` with these sides, as in "128x1x28x28"; of `said` what belongs to the operator counts."""
    try:
        numbers = [int(side) for side in sides.lower().split("x")]
    except ValueError:
        numbers = []
    if len(numbers) != SIDES[operator].split()[0].count("x") + 1 or min(numbers) < 1:
        raise expected("shape", f"{SIDES[operator]} for {operator}", sides)
    options = {name: value for name, value in said.items() if name in OF_SHAPE[operator]}
    if operator == "lstm":
        return Step(*numbers)
    if operator == "draw":
        batch, channels, height, width = numbers
        return Drawing(batch, replace(MNIST, image_shape=(channels, height, width), **options))
    for name in {"size", "windows"} & options.keys():
        check_size(name, options[name])
    if not 0 < options.get("window", 1.0) < math.inf:
        raise expected("window", "a number above 0", options["window"])
    options["image_gradient"] = not options.pop("params_only", False)
    batch, channels, height, width = numbers
    return Glimpses(operator, batch, channels, height, width, **options)


def chosen(operators: Sequence[str], sides: Sequence[str], said: Mapping[str, Any]) -> list[Shape]:
    """Every operator with each of `sides` and what was said with them, or its standard shapes. Raises ValueError."""
    for name in operators:
        if name not in ("all", *OPERATORS):
            raise expected("operators", f"some of {', '.join(OPERATORS)}, or all", name)
    names = [name for name in OPERATORS if not operators or "all" in operators or name in operators]
    for option, value in said.items():
        if not sides:
            raise expected(option.replace("_", "-"), "--shape with it", value)
        if not any(option in OF_SHAPE[name] for name in names):
            takes = [name for name in OPERATORS if option in OF_SHAPE[name]]
            raise expected(option.replace("_", "-"), f"{' or '.join(takes)} to be measured", ", ".join(names))
    if not sides:
        return list(itertools.chain.from_iterable(STANDARD[name] for name in names))
    return [made(name, each, said) for name in names for each in sides]
