"""The recurrence's pieces in C++, in every instruction set that runs here, against the plain pieces in float64."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from levels import levels
from piece_calls import Arguments, check_piece, columns_of_more, missing, normal, one_thread

import fastdraw

if fastdraw.backends()["native"] is not None:
    pytest.skip("the C++ kernels were not built", allow_module_level=True)

from fastdraw.kernels.cpu import pieces

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


def check(name: str, dtype: torch.dtype, arguments: Arguments, outputs: str, operands: str, role: str | None) -> None:
    ways = (nullcontext(), one_thread())
    check_piece(pieces, name, dtype, arguments, outputs, operands, role, ways=ways)


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
