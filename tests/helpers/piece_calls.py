"""The pieces of a backend's recurrence, each by the rule of fastdraw/testing.py against the plain ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from fastdraw.kernels import aten_pieces
from fastdraw.ops.contract import wide_dtype
from fastdraw.testing import check, nudged

Arguments = dict[str, Any]


def normal(*sizes: int) -> Tensor:
    return torch.randn(sizes, dtype=torch.float64)


def missing(*sizes: int) -> Tensor:
    return torch.full(sizes, torch.nan, dtype=torch.float64)


def columns_of_more(tensor: Tensor, before: int = 3, after: int = 2) -> Tensor:
    """The same values as columns of a wider matrix, whose other columns are NaN."""
    wide = tensor.new_full((tensor.shape[0], before + tensor.shape[1] + after), torch.nan)
    wide[:, before : before + tensor.shape[1]] = tensor
    return wide[:, before : before + tensor.shape[1]]


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _laid_out(value: Tensor, dtypes: Sequence[torch.dtype], device: str) -> Tensor:
    """In each of the dtypes in turn. A view stays one, with what lies around it."""
    whole = torch.empty(0, dtype=value.dtype).set_(value.untyped_storage())
    for dtype in dtypes:
        whole = whole.to(dtype)
    own = whole.clone() if whole.data_ptr() == value.untyped_storage().data_ptr() else whole
    return own.to(device).as_strided(value.shape, value.stride(), value.storage_offset())


#: Pieces that are products, and the role of each one's weight, where backends prepare it.
ROLES = {
    "cell": "cell",
    "latent": "latent",
    "linear": "linear",
    "cell_backward": "linear",
    "latent_backward": "linear",
    "input_backward": "linear",
    "weight_gradient": None,
}


def piece_cases(name: str, batch: int, depth: int, units: int) -> Iterator[tuple[Arguments, str, str]]:
    """What a piece of ROLES is given, its outputs and its operands, as `check_piece` takes them, in each of its forms."""
    inputs, bias = columns_of_more(normal(batch, depth), 0, 3), normal(units)
    scale = depth**-0.5
    if name == "cell":
        for places, own_bias in ((1, False), (2, False), (1, True)):
            yield (
                {
                    "inputs": inputs,
                    "weight": normal(4 * units, depth) * scale,
                    "bias": normal(batch, 4 * units) if own_bias else normal(4 * units),
                    "c": normal(batch, units),
                    "gates": missing(batch, 4 * units),
                    "c_new": missing(batch, units),
                    "h_outs": [columns_of_more(missing(batch, units), 2 * place + 1, 1) for place in range(places)],
                },
                "gates c_new h_outs",
                "inputs weight gates h_outs" if own_bias else "inputs weight bias gates h_outs",
            )
    elif name == "latent":
        yield (
            {
                "h": columns_of_more(normal(batch, depth), 3, 2),
                "weight": normal(2 * units, depth) * scale,
                "bias": normal(2 * units),
                "noise": normal(batch, units),
                "out": missing(batch, 2 * units),
                "z": columns_of_more(missing(batch, units), 0, 5),
                "kl": missing(batch),
            },
            "out z kl",
            "h weight bias z",
        )
    elif name == "linear":
        yield (
            {
                "h": columns_of_more(normal(batch, depth), 7, 2),
                "weight": normal(units, depth) * scale,
                "bias": bias,
                "out": missing(batch, units),
            },
            "out",
            "h weight bias",
        )
    elif name == "cell_backward":
        i, f, g, o = (normal(batch, units) for _ in range(4))
        for others in (0, 1, 2):
            yield (
                {
                    "grad_out": normal(batch, depth),
                    "weight": normal(depth, units) * scale,
                    "others": [columns_of_more(normal(batch, units), 5 * other, 1) for other in range(others)],
                    "gates": torch.cat([i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()], 1),
                    "c": normal(batch, units),
                    "c_new": normal(batch, units),
                    "grad_c": normal(batch, units),
                    "grad_gates": missing(batch, 4 * units),
                },
                "grad_gates grad_c",
                "grad_out weight others gates grad_gates",
            )
    elif name == "latent_backward":
        for needs_noise in (False, True):
            yield (
                {
                    "grad_gates": normal(batch, depth),
                    "weight": normal(depth, units + 37) * scale,
                    "latent": normal(batch, 2 * units),
                    "noise": normal(batch, units),
                    # What a sum hands back: one value for all images.
                    "grad_kl": normal(1).expand(batch),
                    "grad_inputs": missing(batch, units + 37),
                    "grad_latent": missing(batch, 2 * units),
                    "grad_noise": missing(batch, units) if needs_noise else None,
                },
                "grad_inputs grad_latent grad_noise",
                "grad_gates weight grad_inputs grad_latent",
            )
    elif name == "input_backward":
        yield (
            {
                "grad_out": columns_of_more(normal(batch, depth)),
                "weight": normal(depth, units) * scale,
                "grad_inputs": missing(batch, units),
            },
            "grad_inputs",
            "grad_out weight grad_inputs",
        )
    else:
        cut = depth // 3
        for parts in ([depth], [cut, depth - cut]):
            yield (
                {
                    "grad_out": columns_of_more(normal(batch, units)),
                    "inputs": inputs,
                    # The first part as an encoder's lies, whose first columns are another's.
                    "weights": [columns_of_more(normal(units, part), 5 * (i == 0), 0) for i, part in enumerate(parts) if part],
                    "bias": bias,
                },
                "weights bias",
                "grad_out inputs",
            )


def check_piece(
    pieces: ModuleType,
    name: str,
    dtype: torch.dtype,
    arguments: Arguments,
    outputs: str,
    operands: str,
    role: str | None = None,
    params: int = 0,
    device: str = "cpu",
    ways: Sequence[AbstractContextManager[None]] = (nullcontext(),),
) -> None:
    """The piece `name` against the plain one in float64, with the plain one in `dtype` as its rival; the same bits again, in
    each of `ways`.

    arguments: by name, tensors in float64. `operands` of them are handed over in `dtype`, the others in that of states;
    `outputs` are filled, or change. role: of the weight, where it is to be prepared. params: how many of the head's last
    columns place windows, if any.
    """
    states = wide_dtype(dtype)

    def run(module: ModuleType, exact: bool, device: str = "cpu", head: Tensor | None = None) -> list[Tensor]:
        def laid_out(key: str, value: Any) -> Any:
            if isinstance(value, list):
                return [laid_out(key, one) for one in value]
            # Rounded first, so that float64 sees the same values.
            dtypes = [dtype if key in operands.split() else states, *([torch.float64] * exact)]
            return _laid_out(value, dtypes, device) if isinstance(value, Tensor) else value

        called = {key: laid_out(key, value) for key, value in arguments.items()}
        if head is not None:
            called["head"] = head
        results = {key: called[key] for key in outputs.split()}
        if role is not None:
            called["weight"] = module.prepared(_in_parts(called["weight"]), role, "backward" in name)
        getattr(module, name)(**called)
        flat = [one for value in results.values() for one in (value if isinstance(value, list) else [value])]
        return [tensor.cpu() for tensor in flat if tensor is not None]

    def moved() -> Iterator[list[Tensor]]:
        head = _laid_out(arguments["head"], [states, torch.float64], "cpu")
        for (windows,) in nudged([head[:, -params:]], dtype, 0):
            yield run(aten_pieces, True, head=torch.cat([head[:, :-params], windows], 1))

    actual = run(pieces, False, device)
    for way in ways:
        with way:
            again = run(pieces, False, device)
        assert all(torch.equal(a, b) for a, b in zip(actual, again, strict=True)), f"{name}: not the same bits again"
    exact, naive = run(aten_pieces, True), run(aten_pieces, False)
    check(actual, exact, chain([naive], moved() if params else ()), dtype, name)


def _in_parts(weight: Tensor) -> tuple[Tensor, ...]:
    """An LSTM's weight comes in two, cut anywhere."""
    cut = weight.shape[1] // 3
    return (weight[:, :cut], weight[:, cut:]) if cut else (weight,)
