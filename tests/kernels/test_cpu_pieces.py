"""The recurrence's pieces in C++, in every instruction set that runs here, against the plain pieces in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import fastdraw
from budget import assert_within_budget
from fastdraw.kernels import aten_pieces, cpu

if fastdraw.backends()["native"] is not None:
    pytest.skip("the C++ kernels were not built", allow_module_level=True)

from fastdraw.kernels.cpu import pieces


def levels() -> list[int]:
    found = []
    for level in range(3):
        try:
            cpu.table(level)
        except RuntimeError:
            continue
        found.append(level)
    return found


DTYPES = [torch.float64, torch.float32, torch.bfloat16]
#: (B, K, h), each with what it is there for.
LAYERS = [
    (1, 1, 1),  # the smallest of everything
    (5, 20, 17),  # primes; one row over a tile, one unit over a vector
    (33, 33, 40),  # one row over a task, an odd depth, half a panel of latents
    (4, 257, 64),  # whole tiles and panels
    (70, 12, 100),  # several tasks; the paper's latents
]


@pytest.fixture(params=levels())
def level(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    original = pieces.functions
    monkeypatch.setattr(pieces, "functions", lambda dtype: original(dtype, request.param))
    return request.param


def normal(*sizes: int) -> Tensor:
    return torch.randn(sizes, dtype=torch.float64)


def missing(*sizes: int) -> Tensor:
    return torch.full(sizes, torch.nan, dtype=torch.float64)


def columns_of_more(tensor: Tensor, before: int = 3, after: int = 2) -> Tensor:
    """The same values as columns of a wider matrix, whose other columns are NaN."""
    wide = tensor.new_full((tensor.shape[0], before + tensor.shape[1] + after), torch.nan)
    wide[:, before : before + tensor.shape[1]] = tensor
    return wide[:, before : before + tensor.shape[1]]


def in_parts(weight: Tensor) -> tuple[Tensor, ...]:
    """An LSTM's weight comes in two, cut anywhere."""
    cut = weight.shape[1] // 3
    return (weight[:, :cut], weight[:, cut:]) if cut else (weight,)


def check(name: str, dtype: torch.dtype, arguments: dict[str, Any], outputs: str, operands: str, role: str | None) -> None:
    """The piece `name` against the plain one in float64, with the plain one in `dtype` as its rival, and the same bits twice
    and on one thread. `operands` are handed over in `dtype`, other tensors in that of states; `outputs` are filled."""
    states = torch.float64 if dtype == torch.float64 else torch.float32

    def run(module: Any, exact: bool) -> list[Tensor]:
        def give(key: str, value: Any) -> Any:
            if isinstance(value, list):
                return [give(key, one) for one in value]
            if not isinstance(value, Tensor):
                return value
            rounded = value.to(dtype if key in operands.split() else states)
            whole = rounded.double() if exact else rounded.clone()
            return whole if value.is_contiguous() else columns_of_more(whole)

        given = {key: give(key, value) for key, value in arguments.items()}
        called = dict(given)
        if role is not None:
            called["weight"] = module.prepared(in_parts(given["weight"]), role, "backward" in name)
        getattr(module, name)(**called)
        flat = [one for key in outputs.split() for one in (given[key] if isinstance(given[key], list) else [given[key]])]
        return [tensor for tensor in flat if tensor is not None]

    exact, rival, actual, again = (run(aten_pieces, True), run(aten_pieces, False), run(pieces, False), run(pieces, False))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = run(pieces, False)
    finally:
        torch.set_num_threads(threads)
    for i, (a, b, c, r, e) in enumerate(zip(actual, again, alone, rival, exact, strict=True)):
        assert torch.equal(a, b), "not the same bits twice"
        assert torch.equal(a, c), "not the same bits on one thread"
        assert_within_budget(f"{name}, output {i}", a, r, e, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", LAYERS, ids=str)
class TestPieces:
    def test_cell(self, sizes: tuple[int, ...], dtype: torch.dtype, level: int) -> None:
        batch, depth, hidden = sizes
        for places in (1, 2):
            arguments = {
                "inputs": columns_of_more(normal(batch, depth)),
                "weight": normal(4 * hidden, depth) / depth**0.5,
                "bias": normal(4 * hidden),
                "c": normal(batch, hidden),
                "gates": missing(batch, 4 * hidden),
                "c_new": missing(batch, hidden),
                "h_outs": [columns_of_more(missing(batch, hidden)) for _ in range(places)],
            }
            check("cell", dtype, arguments, "gates c_new h_outs", "inputs weight bias gates h_outs", "cell")

    def test_latent(self, sizes: tuple[int, ...], dtype: torch.dtype, level: int) -> None:
        batch, depth, latents = sizes
        arguments = {
            "h": columns_of_more(normal(batch, depth)),
            "weight": normal(2 * latents, depth) / depth**0.5,
            "bias": normal(2 * latents),
            "noise": normal(batch, latents),
            "out": missing(batch, 2 * latents),
            "z": columns_of_more(missing(batch, latents)),
            "kl": missing(batch),
        }
        check("latent", dtype, arguments, "out z kl", "h weight bias z", "latent")

    def test_linear(self, sizes: tuple[int, ...], dtype: torch.dtype, level: int) -> None:
        batch, depth, outputs = sizes
        arguments = {
            "h": columns_of_more(normal(batch, depth)),
            "weight": normal(outputs, depth) / depth**0.5,
            "bias": normal(outputs),
            "out": missing(batch, outputs),
        }
        check("linear", dtype, arguments, "out", "h weight bias", "linear")

    def test_cell_backward(self, sizes: tuple[int, ...], dtype: torch.dtype, level: int) -> None:
        batch, depth, hidden = sizes
        gates = torch.cat(
            [normal(batch, 2 * hidden).sigmoid(), normal(batch, hidden).tanh(), normal(batch, hidden).sigmoid()], 1
        )
        for places in (1, 2):
            arguments = {
                "grad_out": normal(batch, depth),
                "weight": normal(depth, hidden) / depth**0.5,
                "others": [columns_of_more(normal(batch, hidden)) for _ in range(places)],
                "gates": gates,
                "c": normal(batch, hidden),
                "c_new": normal(batch, hidden),
                "grad_c": normal(batch, hidden),
                "grad_gates": missing(batch, 4 * hidden),
            }
            operands = "grad_out weight others gates grad_gates"
            check("cell_backward", dtype, arguments, "grad_gates grad_c", operands, "linear")

    def test_latent_backward(self, sizes: tuple[int, ...], dtype: torch.dtype, level: int) -> None:
        batch, depth, latents = sizes
        for noise_too in (False, True):
            arguments = {
                "grad_gates": normal(batch, depth),
                "weight": normal(depth, latents + 7) / depth**0.5,
                "latent": normal(batch, 2 * latents),
                "noise": normal(batch, latents),
                "grad_kl": normal(batch),
                "grad_inputs": missing(batch, latents + 7),
                "grad_latent": missing(batch, 2 * latents),
                "grad_noise": missing(batch, latents) if noise_too else None,
            }
            outputs, operands = "grad_inputs grad_latent grad_noise", "grad_gates weight grad_inputs grad_latent"
            check("latent_backward", dtype, arguments, outputs, operands, "linear")

    def test_input_backward(self, sizes: tuple[int, ...], dtype: torch.dtype, level: int) -> None:
        batch, depth, inputs = sizes
        arguments = {
            "grad_out": columns_of_more(normal(batch, depth)),
            "weight": normal(depth, inputs) / depth**0.5,
            "grad_inputs": missing(batch, inputs),
        }
        check("input_backward", dtype, arguments, "grad_inputs", "grad_out weight grad_inputs", "linear")

    def test_weight_gradient(self, sizes: tuple[int, ...], dtype: torch.dtype, level: int) -> None:
        rows, inputs, outputs = sizes
        cut = inputs // 3
        for parts in ([inputs], [cut, inputs - cut]):
            arguments = {
                "grad_out": columns_of_more(normal(rows, outputs)),
                "inputs": columns_of_more(normal(rows, inputs)),
                "weights": [normal(outputs, part) for part in parts if part],
                "bias": normal(outputs),
            }
            check("weight_gradient", dtype, arguments, "weights bias", "grad_out inputs", None)
