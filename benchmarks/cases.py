"""The cases: inputs, every way to compute them that is at hand, the exact results, and the least cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import fastdraw
from fastdraw import reference
from fastdraw.products import float32_products
from fastdraw.profile import cost
from fastdraw.profile.cost import Cost
from fastdraw.profile.gradients import Function, as_list, differentiate, leaves
from fastdraw.profile.timing import Variant

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
#: More sets of inputs than this are not made, however large L2 is: a graph holds a few dozen kernels for each.
MOST_SETS = 256


@dataclass
class Case:
    """variants: the first is fastdraw as it comes, "reference" is among the rest. exact: outputs and gradients in float64."""

    title: str
    measured: str
    dtype: torch.dtype
    precision: str
    cost: Cost
    variants: list[Variant]
    exact: Callable[[], list[Tensor]]
    sets: int
    input_bytes: int
    #: Results, besides the variant called "reference", that arithmetic of this dtype cannot be told from exact ones: the
    #: budget is that of the worst of them.
    rivals: Callable[[torch.dtype], list[list[Tensor]]] = lambda _: []
    #: Of a model: what turns a time into microseconds per glimpse and images per second.
    batch: int | None = None
    glimpses: int | None = None
    #: The same at a size that float64 can be computed at: it is proven in this case's place.
    twin: Case | None = None
    #: Of a model: operations in its matrix products alone.
    product_operations: int | None = None


def fastdraw_backends() -> list[str]:
    """Backends that run on DEVICE here, the one that "auto" means first."""
    order = ["triton", "aten"] if DEVICE == "cuda" else ["native", "aten"]
    return [name for name in order if fastdraw.backends()[name] is None]


def operator_case(
    title: str,
    measured: str,
    least: Callable[[int], Cost],
    operator: Function,
    naive: Function,
    peers: dict[str, Function],
    make: Callable[[], list[Tensor]],
    precision: str,
    keep_wide: Sequence[int] = (),
    compiled: bool = False,
    peers_narrow: bool = False,
    constants: Sequence[int] = (),
) -> Case:
    """A case of one operator. make() gives float64 inputs; those numbered in `keep_wide` are never narrower than float32, and
    those in `constants` get no gradient.

    peers_narrow: peers take every input in the precision itself, those of `keep_wide` too.
    """
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    torch.manual_seed(0)
    exact_inputs = [tensor.to(DEVICE) for tensor in make()]
    dtypes = [torch.float32 if index in keep_wide else dtype for index in range(len(exact_inputs))]
    first = leaves(exact_inputs, dtypes, constants)
    # The yardstick starts from the very numbers that the variants get.
    exact_inputs = list(leaves([t.detach() for t in first], [torch.float64] * len(first), constants))
    weights = [torch.randn_like(output) for output in as_list(naive(*exact_inputs))]
    # Gradients come in the dtype of what they belong to.
    output_dtypes = [t.dtype for t in as_list(operator(*first))]
    narrow = [weight.detach().to(d) for weight, d in zip(weights, output_dtypes, strict=True)]
    exact_weights = [weight.double() for weight in narrow]

    input_bytes = sum(tensor.nbytes for tensor in (*first, *narrow))
    sets = 1
    if DEVICE == "cuda":
        sets = min(MOST_SETS, math.ceil(2 * torch.cuda.get_device_properties(0).L2_cache_size / input_bytes))
    all_inputs = [first, *(leaves([t.detach() for t in first], dtypes, constants) for _ in range(sets - 1))]
    all_weights = [narrow, *([t.clone() for t in narrow] for _ in range(sets - 1))]

    def variant(name: str, function: Function, backend: str | None = None, narrow_all: bool = False) -> Variant:
        inputs, weights = all_inputs, all_weights
        if narrow_all:
            inputs = [leaves([t.detach() for t in first], [dtype] * len(first), constants) for _ in range(sets)]
            weights = [[t.to(dtype) for t in narrow] for _ in range(sets)]
        setting = partial(float32_products, "high" if precision == "tf32" else "highest")
        return Variant(name, lambda k: differentiate(function, inputs[k], weights[k]), backend, setting)

    variants = [variant(f"fastdraw {name}", operator, name) for name in fastdraw_backends()]
    variants.append(variant("reference", naive))
    variants += [variant(name, function, narrow_all=peers_narrow) for name, function in peers.items()]
    if compiled and DEVICE == "cuda":
        variants.append(variant("torch.compile", torch.compile(naive, dynamic=False)))

    def exact() -> list[Tensor]:
        return differentiate(naive, exact_inputs, exact_weights)

    name, least_cost = f"{title}, {precision}", least(dtype.itemsize)
    return Case(name, measured, dtype, precision, least_cost, variants, exact, sets, input_bytes)


def window_params(batch: int) -> Tensor:
    """Windows as a model in training has them: anywhere in the image, of about half its size."""
    return torch.randn(batch, 5, dtype=torch.float64) * 0.5 + torch.tensor([0.0, 0.0, -0.5, -0.5, 0.0], dtype=torch.float64)


def read_case(b: int, c: int, h: int, w: int, n: int, precision: str = "float32", compiled: bool = False) -> Case:
    def with_einsum(image: Tensor, params: Tensor) -> Tensor:
        y, x, gamma = reference.filterbank(params, n, (h, w))
        return torch.einsum("bnh,bchw,bmw,b->bcnm", y, image.to(y.dtype), x, gamma).to(image.dtype)

    return operator_case(
        f"read {b}x{c}x{h}x{w}, N={n}",
        "forward and backward, gradients to image and params",
        lambda e: cost.read(b, c, h, w, n, e),
        lambda image, params: fastdraw.read(image, params, n),
        lambda image, params: reference.read(image, params, n),
        {"einsum": with_einsum} if DEVICE == "cuda" else {},
        lambda: [torch.rand(b, c, h, w, dtype=torch.float64), window_params(b)],
        precision,
        keep_wide=[1],
        compiled=compiled,
    )


def write_case(b: int, c: int, h: int, w: int, n: int, precision: str = "float32", compiled: bool = False) -> Case:
    def with_einsum(patch: Tensor, params: Tensor) -> Tensor:
        y, x, gamma = reference.filterbank(params, n, (h, w))
        return torch.einsum("bnh,bcnm,bmw,b->bchw", y, patch.to(y.dtype), x, 1 / gamma).to(patch.dtype)

    return operator_case(
        f"write {b}x{c}x{h}x{w}, N={n}",
        "forward and backward, gradients to patch and params",
        lambda e: cost.write(b, c, h, w, n, e),
        lambda patch, params: fastdraw.write(patch, params, (h, w)),
        lambda patch, params: reference.write(patch, params, (h, w)),
        {"einsum": with_einsum} if DEVICE == "cuda" else {},
        lambda: [torch.randn(b, c, n, n, dtype=torch.float64), window_params(b)],
        precision,
        keep_wide=[1],
        compiled=compiled,
    )


def filterbank_case(b: int, h: int, w: int, n: int, compiled: bool = False) -> Case:
    return operator_case(
        f"filterbank {b}x{h}x{w}, N={n}",
        "forward and backward, gradient to params",
        lambda e: cost.filterbank(b, h, w, n, e),
        lambda params: fastdraw.filterbank(params, n, (h, w)),
        lambda params: reference.filterbank(params, n, (h, w)),
        {},
        lambda: [window_params(b)],
        "float32",
        compiled=compiled,
    )


def lstm_case(b: int, i: int, h: int, precision: str = "float32", compiled: bool = False) -> Case:
    def cell(x: Tensor, hidden: Tensor, c: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        # What nn.LSTMCell.forward calls; it wants one dtype.
        return torch.lstm_cell(x, (hidden, c), *weights)

    def make() -> list[Tensor]:
        scale = 1 / math.sqrt(h)
        shapes = [(4 * h, i), (4 * h, h), (4 * h,), (4 * h,)]
        states = [torch.randn(b, k, dtype=torch.float64) for k in (i, h, h)]
        return [*states, *(torch.empty(shape, dtype=torch.float64).uniform_(-scale, scale) for shape in shapes)]

    return operator_case(
        f"lstm_step {b}, {i}->{h}",
        "forward and backward, gradients to x, h, c and all weights",
        lambda e: cost.lstm_step(b, i, h, e),
        lambda x, hidden, c, *weights: fastdraw.lstm_step(x, (hidden, c), *weights),
        lambda x, hidden, c, *weights: reference.lstm_step(x, (hidden, c), *weights),
        {"nn.LSTMCell": cell},
        make,
        precision,
        keep_wide=[2],
        compiled=compiled,
        peers_narrow=True,
    )
