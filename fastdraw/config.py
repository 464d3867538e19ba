"""The shapes of the models, and the settings of the paper's Table 3."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, TypeVar

from fastdraw.scalars import check_size, expected


@dataclass(frozen=True)
class DRAWConfig:
    """Everything that decides the shapes of a DRAW model's weights, and nothing else.

    image_shape: (channels, height, width) of the images, in pixels.
    glimpses:    T, the number of steps in which an image is read and drawn.
    hidden_size: h, units of the encoder's LSTM and of the decoder's.
    latent_size: Z, latent dimensions per glimpse.
    read_size, write_size: N, filters along each side of the window; None means no attention there (equations 17, 18).
    num_classes: of a class-conditional model, whose encoder and decoder are also given the class; None means none.

    Raises TypeError or ValueError, naming the field, for anything else than whole numbers of at least 1.
    """

    image_shape: tuple[int, int, int] = (1, 28, 28)
    glimpses: int = 64
    hidden_size: int = 256
    latent_size: int = 100
    read_size: int | None = 2
    write_size: int | None = 5
    num_classes: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", _checked_shape(self.image_shape))
        for name in ("glimpses", "hidden_size", "latent_size"):
            object.__setattr__(self, name, check_size(name, getattr(self, name)))
        for name in ("read_size", "write_size", "num_classes"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, check_size(name, getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `DRAWConfig(**d)` gives the configuration back."""
        return asdict(self)

    @property
    def parameter_count(self) -> int:
        """Numbers that a model of this configuration learns."""
        classes, size = self.num_classes or 0, self.hidden_size
        encoder = _lstm_numel(2 * self.read_numel + size + classes, size)
        heads = 2 * self.latent_size + self.patch_numel + 5 * ((self.read_size is not None) + (self.write_size is not None))
        initial = math.prod(self.image_shape) + 2 * size
        return encoder + _lstm_numel(self.latent_size + classes, size) + (size + 1) * heads + initial

    def __repr__(self) -> str:
        return f"{self}  # {self.parameter_count:,} parameters"

    def __str__(self) -> str:
        return _text(self)

    @property
    def patch_numel(self) -> int:
        """Outputs of the patch layer: C N N, or the whole canvas without attention."""
        return _numel(self.image_shape, self.write_size)

    @property
    def read_numel(self) -> int:
        """R: elements of one read; the encoder sees two of them, of x and of the error image."""
        return _numel(self.image_shape, self.read_size)


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything that decides the shapes of a DRAWClassifier's weights, and nothing else.

    image_shape: (channels, height, width) of the images, in pixels.
    glimpses:    T, the number of reads before the class is told.
    hidden_size: h, units of the LSTM.
    read_size:   N, filters along each side of the window.
    num_classes: the classes told apart.

    Raises TypeError or ValueError, naming the field, for anything else than whole numbers of at least 1.
    """

    image_shape: tuple[int, int, int] = (1, 100, 100)
    glimpses: int = 8
    hidden_size: int = 256
    read_size: int = 12
    num_classes: int = 10

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_shape", _checked_shape(self.image_shape))
        for name in ("glimpses", "hidden_size", "read_size", "num_classes"):
            object.__setattr__(self, name, check_size(name, getattr(self, name)))

    def to_dict(self) -> dict[str, Any]:
        """The fields as JSON can hold them; `ClassifierConfig(**d)` gives the configuration back."""
        return asdict(self)

    @property
    def parameter_count(self) -> int:
        """Numbers that a model of this configuration learns."""
        heads = 5 + self.num_classes
        return _lstm_numel(self.read_numel, self.hidden_size) + (self.hidden_size + 1) * heads + self.hidden_size

    def __repr__(self) -> str:
        return f"{self}  # {self.parameter_count:,} parameters"

    def __str__(self) -> str:
        return _text(self)

    @property
    def read_numel(self) -> int:
        """R: elements of one read, C N N."""
        return _numel(self.image_shape, self.read_size)


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if not isinstance(shape, (tuple, list)) or len(shape) != 3:
        raise expected("image_shape", "(channels, height, width)", shape)
    # A list comes out of JSON; the frozen field holds a tuple of plain ints either way.
    return tuple(check_size("image_shape", side) for side in shape)


def _numel(image_shape: tuple[int, int, int], size: int | None) -> int:
    channels, height, width = image_shape
    return channels * height * width if size is None else channels * size * size


def _lstm_numel(inputs: int, size: int) -> int:
    return 4 * size * (inputs + size + 2)


def _text(config: Any) -> str:
    """The call that makes an equal one."""
    return f"{type(config).__name__}({', '.join(f'{f.name}={getattr(config, f.name)!r}' for f in fields(config))})"


C = TypeVar("C")


class PresetError(KeyError, ValueError):
    """A preset that there is not: a KeyError, and the ValueError that every other wrong argument is."""

    def __str__(self) -> str:
        return str(self.args[0])


class Presets(dict[str, C]):
    """Configurations by name."""

    def __init__(self, known: Mapping[str, C], others: str = "") -> None:
        super().__init__(known)
        self.others = others

    def __missing__(self, name: object) -> C:
        raise expected("preset", f"one of {', '.join(self)}{self.others}", name, PresetError)


_MNIST = DRAWConfig((1, 28, 28), glimpses=64, hidden_size=256, latent_size=100, read_size=2, write_size=5)
_SVHN = DRAWConfig((3, 54, 54), glimpses=32, hidden_size=800, latent_size=100, read_size=12, write_size=12)

#: Table 3 of the paper, by the name of the data set, "mnist-no-attention" being its comparison on MNIST; and the models of the
#: data sets beside it, whose choice `fastdraw.train.recipes` explains.
presets: Presets[DRAWConfig] = Presets(
    {
        "mnist": _MNIST,
        "mnist-no-attention": replace(_MNIST, read_size=None, write_size=None),
        "svhn": _SVHN,
        "cifar10": DRAWConfig((3, 32, 32), glimpses=64, hidden_size=400, latent_size=200, read_size=5, write_size=5),
        "binarized-mnist": _MNIST,
        "two-digits": replace(_MNIST, image_shape=(1, 60, 60)),
        "svhn-extra": _SVHN,
        "omniglot": _MNIST,
        "digits": DRAWConfig((1, 28, 28), glimpses=12, hidden_size=128, latent_size=16, read_size=5, write_size=5),
    },
    " (cluttered-mnist and cluttered-mnist-60 are in classifier_presets)",
)

#: The paper's classifier on 100x100 cluttered MNIST (Table 3), and the same on the smaller 60x60 images with 4 pieces.
classifier_presets: Presets[ClassifierConfig] = Presets(
    {
        "cluttered-mnist": ClassifierConfig((1, 100, 100), glimpses=8, hidden_size=256, read_size=12, num_classes=10),
        "cluttered-mnist-60": ClassifierConfig((1, 60, 60), glimpses=8, hidden_size=256, read_size=12, num_classes=10),
    },
    " (what draws is in presets)",
)
