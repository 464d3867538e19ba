"""The recurrence's pieces in C++, in every instruction set that runs here, against the plain pieces in float64."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from levels import levels
from piece_calls import ROLES, check_piece, one_thread, piece_cases

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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("sizes", LAYERS, ids=str)
@pytest.mark.parametrize("name", ROLES)
def test_products(name: str, sizes: tuple[int, ...], dtype: torch.dtype, level: int) -> None:
    for case in piece_cases(name, *sizes):
        check_piece(pieces, name, dtype, *case, ROLES[name], ways=(nullcontext(), one_thread()))
