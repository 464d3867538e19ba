"""What torch.utils.flop_counter is told of the operators: as many operations as the reference's matrix products take.

Those are the products with layers, with filters' rows and patches. What a backend leaves out (pixels that no filter sees),
does in another order or does again (canvases that are rebuilt) is not looked at, and neither is what is no product: filters
themselves, nonlinearities, sums. A backward pass counts the products that autograd would make of the reference's for the same
gradients.

torch.utils.flop_counter imports triton where that is installed, which `import fastdraw` must not: where nobody has imported
it yet, it is told when somebody does.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from math import prod
from types import ModuleType
from typing import Any

import torch

from fastdraw.ops import classification, recurrence
from fastdraw.ops.records import named

#: A tensor's shape, which is all that a formula is given of it.
Size = Sequence[int]


def _window(images: int, rows: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """Of a read, the product with F_Y and that with F_X; `images` counts channels too."""
    return 2 * images * rows * height * width, 2 * images * rows * columns * width


def _drawn(images: int, rows: int, columns: int, height: int, width: int) -> tuple[int, int]:
    """The same of a write."""
    return 2 * images * rows * columns * height, 2 * images * columns * height * width


def _backward(products: tuple[int, int], need_first: bool, need_params: bool) -> int:
    """The gradients of F_1 A F_2: to A, and to both F."""
    first, second = products
    return first * (need_first + need_params) + second * (1 + need_params) if need_first or need_params else 0


def read(image: Size, params: Size, rows: int, columns: int, *_: Any, **__: Any) -> int:
    return sum(_window(prod(params[:-1]) * image[1], rows, columns, *image[2:]))


def read_backward(grad: Size, image: Size, params: Size, need_image: bool, need_params: bool, *_: Any, **__: Any) -> int:
    products = _window(prod(params[:-1]) * image[1], *grad[-2:], *image[2:])
    return _backward(products, need_image, need_params)


def write(patch: Size, params: Size, height: int, width: int, *_: Any, **__: Any) -> int:
    return sum(_drawn(prod(patch[:-2]), patch[-2], patch[-1], height, width))


def write_backward(grad: Size, patch: Size, params: Size, need_patch: bool, need_params: bool, *_: Any, **__: Any) -> int:
    return _backward(_drawn(prod(patch[:-2]), *patch[-2:], *grad[2:]), need_patch, need_params)


def filterbank(*_: Any, **__: Any) -> int:
    """No product."""
    return 0


def lstm_step(x: Size, h: Size, c: Size, weight_ih: Size, weight_hh: Size, *_: Any, **__: Any) -> int:
    return 2 * x[0] * (prod(weight_ih) + prod(weight_hh))


def lstm_step_backward(grad_h: Size, grad_c: Size, gates: Size, c: Size, c_new: Size, *rest: Any, **__: Any) -> int:
    """To the inputs and to the weights, all of which it gives."""
    x, h, weight_ih, weight_hh, *_ = rest
    return 2 * lstm_step(x, h, c, weight_ih, weight_hh)


def _glimpses(noise: Any, layers: Any, options: Any, infers: bool) -> dict[str, int]:
    """Forward, by part, for all glimpses of a DRAW. noise: its size; layers: a recurrence.Layers of sizes."""
    read_size, write_size = options.read_size, options.write_size
    steps, batch, _ = noise
    channels, height, width = layers.canvas
    n, images = 2 * batch * steps, batch * channels * steps
    parts = {
        "decoder of z": n * prod(layers.decoder_ih),
        "decoder": n * prod(layers.decoder_hh),
        "patch": n * prod(layers.patch),
    }
    if infers:
        parts["encoder"] = n * (prod(layers.encoder_ih) + prod(layers.encoder_hh) + prod(layers.latent))
    if write_size:
        parts["write"] = n * prod(layers.write) + sum(_drawn(images, write_size, write_size, height, width))
    if read_size and infers:
        parts["read"] = n * prod(layers.read) + sum(_window(2 * images, read_size, read_size, height, width))
    return parts


def draw(*arguments: Any, **__: Any) -> int:
    a = named(recurrence.Arguments, arguments)
    return sum(_glimpses(a.noise, a.layers, a.options, a.x is not None).values())


def draw_backward(*arguments: Any, **__: Any) -> int:
    a = named(recurrence.GradientArguments, arguments)
    parts = _glimpses(a.noise, a.layers, a.options, a.x is not None)
    # What is drawn from the prior is a constant, unless somebody wants its gradient.
    constant = 0 if a.x is not None or a.options.need_noise else parts["decoder of z"]
    return 2 * sum(parts.values()) - constant


def _classified(x: Any, layers: Any, steps: int, size: int) -> tuple[int, int, int]:
    """Forward for all glimpses: reads' products, and those of the layers."""
    first, second = _window(x[0] * x[1] * steps, size, size, *x[2:])
    n = 2 * x[0]
    glimpse = prod(layers.head) + prod(layers.lstm_ih) + prod(layers.lstm_hh)
    return first, second, n * (steps * glimpse + prod(layers.output))


def classify(*arguments: Any, **__: Any) -> int:
    a = named(classification.Arguments, arguments)
    return sum(_classified(a.x, a.layers, a.options.glimpses, a.options.size))


def classify_backward(*arguments: Any, **__: Any) -> int:
    a = named(classification.GradientArguments, arguments)
    steps: Any = a.tape.params[0]
    first, second, products = _classified(a.x, a.layers, steps, a.options.size)
    return _backward((first, second), a.options.need_x, True) + 2 * products


FORMULAS: dict[str, Callable[..., int]] = {
    "read": read,
    "read_backward": read_backward,
    "write": write,
    "write_backward": write_backward,
    "filterbank": filterbank,
    "filterbank_backward": filterbank,
    "lstm_step": lstm_step,
    "lstm_step_backward": lstm_step_backward,
    "recurrence": draw,
    "recurrence_backward": draw_backward,
    "classification": classify,
    "classification_backward": classify_backward,
}

_COUNTER = "torch.utils.flop_counter"


def _tell(counter: Any) -> None:
    for name, formula in FORMULAS.items():
        operator = getattr(torch.ops.fastdraw, name)
        # An earlier import of fastdraw in this process may have told of it.
        counter.flop_registry.pop(operator, None)
        counter.register_flop_formula(operator)(formula)


class _WhenImported(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds torch.utils.flop_counter as everybody else would, and tells it once it is there."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _COUNTER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            self.own, spec.loader = spec.loader, self
        return spec

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.own.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.own.exec_module(module)
        _tell(module)


def tell() -> None:
    if _COUNTER in sys.modules:
        _tell(sys.modules[_COUNTER])
    else:
        sys.meta_path.insert(0, _WhenImported())
