"""The matrix products that a training step cannot do without, alone: each by the fastest way to it that torch carries here.

Forward, each glimpse: encoder, latent, decoder, head. Backward, each glimpse: the gradients of their inputs. Then one product
per weight over all glimpses. Operands lie as each product likes them best, and nothing is computed between: a step that
reaches this time has hidden everything else.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw.config import DRAWConfig

Product = Callable[[], Tensor]


class Layer(NamedTuple):
    """[rows, inputs] times [inputs, outputs]."""

    inputs: int
    outputs: int


def layers(config: DRAWConfig) -> list[Layer]:
    h, windows = config.hidden_size, 5 * ((config.read_size is not None) + (config.write_size is not None))
    # Without read attention x is multiplied once a step, which is left out.
    images = 1 if config.read_size is None else 2
    return [
        Layer(images * config.read_numel + 2 * h, 4 * h),
        Layer(h, 2 * config.latent_size),
        Layer(config.latent_size + h, 4 * h),
        Layer(h, config.patch_numel + windows),
    ]


def operations(config: DRAWConfig, batch: int) -> int:
    return sum(6 * config.glimpses * batch * layer.inputs * layer.outputs for layer in layers(config))


def training_products(config: DRAWConfig, batch: int, dtype: torch.dtype, device: str) -> Callable[[], None]:
    """Called, it computes them all, glimpse after glimpse, on buffers as large as a step's own."""
    steps = config.glimpses
    forward: list[list[Product]] = []
    backward: list[list[Product]] = []
    weights: list[Product] = []
    for layer in layers(config):
        inputs, grads = (torch.randn(steps, batch, size, device=device).to(dtype) for size in layer)
        weight = torch.randn(layer.outputs, layer.inputs, device=device).to(dtype)
        forward.append(_each(inputs, weight.t()))
        backward.append(_each(grads, weight))
        weights.append(_weight_gradient(grads.flatten(0, 1), inputs.flatten(0, 1)))

    def run() -> None:
        with torch.no_grad():
            for t in range(steps):
                for products in forward:
                    products[t]()
            for t in reversed(range(steps)):
                for products in reversed(backward):
                    products[t]()
            for product in weights:
                product()

    return run


def _each(a: Tensor, b: Tensor) -> list[Product]:
    """a[t] b for every t, by the way that was the fastest on the first few of them."""
    makers = _ways(b)
    best = min(makers, key=lambda make: _seconds([make(a[t]) for t in range(min(8, len(a)))]))
    return [best(a[t]) for t in range(len(a))]


def _ways(b: Tensor) -> list[Callable[[Tensor], Product]]:
    """Ways to a b for one b: torch.mm or oneDNN, with b lying as it does or the other way."""
    layouts = (b, b.t().contiguous().t() if b.is_contiguous() else b.contiguous())
    ways: list[Callable[[Tensor], Product]] = [lambda a, b=layout: lambda: torch.mm(a, b) for layout in layouts]
    if _onednn_available(b):
        linear = torch.ops.mkldnn._linear_pointwise.default
        ways += [lambda a, b=layout: lambda: linear(a, b.t(), None, "none", [], "") for layout in layouts]
    return ways


def _weight_gradient(grads: Tensor, inputs: Tensor) -> Product:
    """grads^T inputs. The transposed operand is taken to lie transposed where that is faster."""
    candidates: list[Product] = [lambda: torch.mm(grads.t(), inputs)]
    transposed = grads.t().contiguous()
    candidates.append(lambda: torch.mm(transposed, inputs))
    if _onednn_available(grads):
        linear = torch.ops.mkldnn._linear_pointwise.default
        inputs_transposed = inputs.t().contiguous()
        candidates.append(lambda: linear(transposed, inputs.t(), None, "none", [], ""))
        candidates.append(lambda: linear(transposed, inputs_transposed, None, "none", [], ""))
    return min(candidates, key=lambda product: _seconds([product]))


def _onednn_available(like: Tensor) -> bool:
    # torch.mm goes to oneDNN by itself in half precision.
    return like.device.type == "cpu" and like.dtype == torch.float32 and torch.backends.mkldnn.is_available()


def _seconds(products: list[Product]) -> float:
    """The best of several rounds."""
    best = float("inf")
    with torch.no_grad():
        for round_ in range(6):
            _wait()
            start = time.perf_counter()
            for product in products:
                product()
            _wait()
            # The first round starts threads and chooses code.
            best = min(best, time.perf_counter() - start) if round_ else best
    return best


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
