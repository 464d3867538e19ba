"""The options of `fastdraw profile`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastdraw.files import expanded
from fastdraw.runs.options import option

#: Those that go with --shape, by the operators that they are of.
OF_SHAPE = {
    "read": ("size", "window", "windows", "params_only"),
    "write": ("size", "window", "windows"),
    "lstm": (),
    "draw": ("glimpses", "hidden_size", "latent_size", "read_size", "write_size"),
}
_PANEL = "With --shape"


@dataclass(frozen=True)
class Options:
    """What `fastdraw profile` is told."""

    operators: list[str] | None = option(None, None, "What to measure.", "all", "[read|write|lstm|draw|all]...")
    shape: list[str] | None = option(
        None,
        None,
        "4x3x1024x1024 (batch, channels, height, width) for read, write and draw, 128x264x256 (batch, inputs, hidden units) "
        "for lstm. May be given several times.",
        "a list for each operator",
        "SIDES",
    )
    size: int | None = option(None, _PANEL, "Filters along a side of read's and write's patch.", "12", "N")
    window: float | None = option(
        None, _PANEL, "Side of read's and write's window, of the image's longer one.", "0.5", "FRACTION"
    )
    windows: int | None = option(None, _PANEL, "Windows of each image, for read and write.", "1", "K")
    params_only: bool = option(False, None, "Leave out the gradient to read's image.")
    glimpses: int | None = option(None, _PANEL, "Glimpses that draw takes.", "64", "T")
    hidden_size: int | None = option(None, _PANEL, "Units of each of draw's LSTMs.", "256", "UNITS")
    latent_size: int | None = option(None, _PANEL, "Latent variables of draw's glimpse.", "100", "Z")
    read_size: int | None = option(None, _PANEL, "Filters along a side of draw's read.", "2", "N")
    write_size: int | None = option(None, _PANEL, "Filters along a side of draw's write.", "5", "N")
    backend: str = option("auto", None, "Kernels that fastdraw runs.", metavar="auto|native|aten|triton|reference")
    device: str = option("auto", None, "Where to compute.", metavar="auto|cpu|cuda")
    dtype: str = option(
        "float32", None, "Type of images, patches and products; for draw that of autocast.", metavar="float32|bfloat16|float16"
    )
    seconds: float = option(0.4, None, "Measuring time for each variant.", metavar="SECONDS")
    peers: str = option(
        "standard",
        None,
        "What to measure fastdraw against: reference (plain PyTorch, dense products), einsum, grid_sample (approximate), "
        "LSTMCell; and compile, jax, which take long to compile and are not in standard.",
        metavar="standard|all|none|NAME,...",
    )
    json: Path | None = option(None, None, "Write every figure, machine and versions.", metavar="FILE.json")
    plot: Path | None = option(None, None, "Draw a roofline plot.", metavar="FILE.png")
    trace: Path | None = option(None, None, "Write a trace of a step of each, for ui.perfetto.dev.", metavar="FILE.json")
    compare: str | None = option(None, None, "An earlier run's --json: say what got slower since.", metavar="OLD.json")
    fail_slower: bool = option(False, None, "Exit with 1 where something of fastdraw's got slower; needs --compare.")

    def __post_init__(self) -> None:
        for name in ("json", "plot", "trace", "compare"):
            object.__setattr__(self, name, expanded(getattr(self, name)))

    @property
    def of_shape(self) -> dict[str, Any]:
        """What was said of the shapes."""
        named = {name: getattr(self, name) for names in OF_SHAPE.values() for name in names}
        return {name: value for name, value in named.items() if value is not None and value is not False}
