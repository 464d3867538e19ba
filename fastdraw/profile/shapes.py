"""The shapes that are profiled, as they are written on the command line and in the table."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastdraw.checks import expected
from fastdraw.config import DRAWConfig


@dataclass(frozen=True)
class Glimpses:
    """Of read and write. window: the window's side as a fraction of the image's longer side; sigma is half the stride.

    image_gradient: whether the image wants a gradient; of the read alone.
    """

    batch: int
    channels: int
    height: int
    width: int
    size: int = 12
    window: float = 0.5
    windows: int = 1
    image_gradient: bool = True

    @property
    def text(self) -> str:
        several = f",K={self.windows}" if self.windows > 1 else ""
        gradient = "" if self.image_gradient else ",grad=params"
        sides = f"{self.batch}x{self.channels}x{self.height}x{self.width}"
        return f"{sides},N={self.size},window={self.window:g}{several}{gradient}"


@dataclass(frozen=True)
class Step:
    """Of lstm_step."""

    batch: int
    inputs: int
    hidden: int

    @property
    def text(self) -> str:
        return f"{self.batch}x{self.inputs}x{self.hidden}"


@dataclass(frozen=True)
class Drawing:
    """Of a training step of DRAW, with attention on both sides."""

    batch: int
    config: DRAWConfig

    @property
    def text(self) -> str:
        c = self.config
        sides = "x".join(map(str, (self.batch, *c.image_shape)))
        return f"{sides},T={c.glimpses},h={c.hidden_size},Z={c.latent_size},read={c.read_size},write={c.write_size}"


Shape = Glimpses | Step | Drawing


def _glimpses(sides: list[int], said: dict[str, str]) -> Glimpses:
    window = _number(said, "window", 0.5)
    gradient = said.pop("grad", "all")
    if gradient not in ("all", "params"):
        raise expected("shape", "grad=all or grad=params", gradient)
    batch, channels, height, width = sides
    size, windows = _whole(said, "N", 12), _whole(said, "K", 1)
    return Glimpses(batch, channels, height, width, size, window, windows, gradient == "all")


def _drawing(sides: list[int], said: dict[str, str]) -> Drawing:
    batch, channels, height, width = sides
    config = DRAWConfig(
        (channels, height, width),
        glimpses=_whole(said, "T", 64),
        hidden_size=_whole(said, "h", 256),
        latent_size=_whole(said, "Z", 100),
        read_size=_whole(said, "read", 2),
        write_size=_whole(said, "write", 5),
    )
    return Drawing(batch, config)


#: By operator: how its shape is written, how many sides there are, and what makes it of the sides and the rest.
_FORMS: dict[str, tuple[str, int, Callable[[list[int], dict[str, str]], Shape]]] = {
    "read": ("BxCxHxW[,N=12][,window=0.5][,K=1][,grad=all|params]", 4, _glimpses),
    "write": ("BxCxHxW[,N=12][,window=0.5][,K=1]", 4, _glimpses),
    "lstm": ("BxIxh", 3, lambda sides, said: Step(*sides)),
    "draw": ("BxCxHxW[,T=64][,h=256][,Z=100][,read=2][,write=5]", 4, _drawing),
}
OPERATORS = tuple(_FORMS)

#: The paper's MNIST and SVHN, and one and sixteen megapixels with a window that sees a part of them.
STANDARD = {
    "read": [
        "128x1x28x28,N=5",
        "64x3x54x54,N=12",
        "4x3x1024x1024,N=32,window=0.25",
        "4x3x1024x1024,N=32,window=0.25,grad=params",
        "1x3x4096x4096,N=64,window=0.1,grad=params",
    ],
    "write": ["128x1x28x28,N=5", "64x3x54x54,N=12", "4x3x1024x1024,N=32,window=0.25"],
    "lstm": ["128x264x256"],
    "draw": ["128x1x28x28,T=64"],
}


def parse(operator: str, text: str) -> Shape:
    """The shape of `operator` that `text` says: sides with x between them, then options. Raises ValueError."""
    form, count, make = _FORMS[operator]
    first, *rest = (part.strip() for part in text.split(","))
    wrong = expected(f"shape of {operator}", form, text)
    try:
        sides = [int(side) for side in first.lower().split("x")]
        said = {name.strip(): value.strip() for name, value in (part.split("=") for part in rest)}
    except ValueError:
        raise wrong from None
    if len(sides) != count or min(sides) < 1 or len(said) < len(rest):
        raise wrong
    if operator == "write" and "grad" in said:
        raise wrong
    shape = make(sides, said)
    if said:
        raise wrong
    return shape


def chosen(operators: list[str], texts: list[str]) -> list[tuple[str, Shape]]:
    """Every operator with every shape said, or with its standard ones. Raises ValueError."""
    for name in operators:
        if name != "all" and name not in OPERATORS:
            raise expected("operators", f"some of {', '.join(OPERATORS)}, or all", name)
    names = [name for name in OPERATORS if not operators or "all" in operators or name in operators]
    return [(name, parse(name, text)) for name in names for text in texts or STANDARD[name]]


def _whole(said: dict[str, Any], name: str, default: int) -> int:
    text = said.pop(name, str(default))
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise expected("shape", f"{name} to be a whole number of at least 1", text)
    return int(text)


def _number(said: dict[str, Any], name: str, default: float) -> float:
    text = said.pop(name, str(default))
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (0 < value < math.inf):
        raise expected("shape", f"{name} to be a number above 0", text)
    return value
