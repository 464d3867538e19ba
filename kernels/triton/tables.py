"""Block sizes as data: the first row whose thresholds hold is taken. Every figure that tunes a kernel is on this page.

The rows are the largest tiles that tests/kernels/test_triton_aot.py finds to spill no register on sm_80, sm_90, sm_100 and
gfx942; where several did, and for the LSTM's limits, the choice is reasoned for an H100 (132 SMs) and not measured on one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

#: The write's backward is one launch up to this N, by arithmetic, and two above, where registers would spill.
WRITE_GRAD_SIZE = {torch.float64: 0, torch.float32: 32}


class Blocks(NamedTuple):
    """constants: constexprs by name."""

    constants: dict[str, Any]
    num_warps: int
    num_stages: int


class Row(NamedTuple):
    """Up to this N, a power of two; of more filters a program has a tile of as many as the last row says. The largest side of
    a tile of the image, pixels; warps and stages; whether products are a tl.dot."""

    size: int
    side: int
    num_warps: int
    num_stages: int
    dot: bool = True


ANY = float("inf")
#: By kernel and kind of product: "ieee" (float32 FMA), "tf32" (tensor cores), "float64".
WINDOW_ROWS: dict[tuple[str, str], tuple[Row, ...]] = {
    ("read", "ieee"): (Row(8, 32, 4, 1, dot=False), Row(16, 64, 4, 1), Row(32, 32, 4, 2), Row(64, 32, 8, 1)),
    ("read", "tf32"): (Row(16, 64, 4, 2), Row(64, 64, 8, 2)),
    ("read", "float64"): (Row(16, 16, 4, 1), Row(32, 16, 8, 1)),
    ("write", "ieee"): (Row(8, 32, 4, 1, dot=False), Row(16, 64, 4, 2), Row(32, 32, 4, 2), Row(64, 32, 8, 2)),
    ("write", "tf32"): (Row(16, 64, 4, 2), Row(64, 64, 8, 2)),
    ("write", "float64"): (Row(16, 32, 8, 2), Row(32, 16, 8, 2)),
    # The gradient to params alone. With one stage fewer registers hold addresses of loads to come. A tile of a patch
    # has half as many filters as the largest whole patch: registers that hold such a one do not hold a tile's place as well.
    ("window_grad", "ieee"): (
        *(Row(8, 32, 8, 1, dot=False), Row(16, 32, 8, 1), Row(32, 16, 4, 1), Row(64, 16, 8, 1)),
        Row(32, 16, 4, 1),
    ),
    ("window_grad", "tf32"): (Row(16, 32, 8, 1), Row(32, 16, 4, 1), Row(64, 16, 8, 1)),
    # Of eight filters, a large image's kernel leaves 8 bytes on the stack with triton 3.9.
    ("window_grad", "float64"): (Row(4, 8, 4, 1, dot=False),),
    # The same with the patch's gradient.
    ("write_grad", "ieee"): (Row(8, 32, 8, 1, dot=False), Row(16, 32, 4, 1), Row(32, 16, 8, 1)),
    ("write_grad", "tf32"): (Row(16, 16, 8, 1), Row(32, 16, 8, 1)),
}


#: Images of at least so many pixels are shared by several programs, up to so many in all: two for each SM of an H100. Smaller
#: ones are over before a second launch that sums the parts would have begun.
SPLIT_PIXELS = 2**17
SPLIT_PROGRAMS = 264


def window_parts(patches: int, pixels: int) -> int:
    """How many programs share the pixels of each of so many patches, channels and tiles of patches counted."""
    return max(1, SPLIT_PROGRAMS // patches) if pixels >= SPLIT_PIXELS else 1


def next_power_of_2(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _window_row(kernel: str, size: int, dtype: torch.dtype, precision: str) -> Row:
    rows = WINDOW_ROWS[kernel, "float64" if dtype == torch.float64 else precision]
    return next((row for row in rows if size <= row.size), rows[-1])


def patch_tiles(kernel: str, size: int, dtype: torch.dtype, precision: str) -> int:
    """In how many tiles an N x N patch is shared out."""
    return math.ceil(size / _window_row(kernel, size, dtype, precision).size) ** 2


def window_blocks(kernel: str, size: int, height: int, width: int, dtype: torch.dtype, precision: str) -> Blocks:
    """Blocks for N = `size` filters on a height x width image."""
    row = _window_row(kernel, size, dtype, precision)
    # Every side of a tl.dot is 16 at least.
    block_h, block_w = (min(max(next_power_of_2(side), 16), row.side) for side in (height, width))
    constants = {
        "DOT": row.dot,
        "SINGLE": height <= block_h and width <= block_w,
        "TILED": size > row.size,
        "BLOCK_N": max(min(next_power_of_2(size), row.size), 16 if row.dot else 2),
        "BLOCK_H": block_h,
        "BLOCK_W": block_w,
    }
    return Blocks(constants, row.num_warps, row.num_stages)


def filterbank_blocks(size: int, side: int, dtype: torch.dtype) -> Blocks:
    """Blocks for N = `size` filters on axes of up to `side` pixels: a tile of at most 1,024 elements."""
    largest_n, largest_a = (16, 64) if dtype == torch.float32 else (8, 32)
    block_a = min(max(next_power_of_2(side), 16), largest_a)
    block_n = min(next_power_of_2(size), largest_n)
    return Blocks({"BLOCK_N": block_n, "BLOCK_A": block_a}, 4, 1)


class LstmRow(NamedTuple):
    """Up to this B * H: tile sizes (BLOCK_H units make 4 BLOCK_H columns), warps and stages."""

    states: float
    block_b: int
    block_h: int
    block_k: int
    num_warps: int
    num_stages: int


#: Elements of one program of the LSTM's pointwise kernels.
POINTWISE_BLOCK = 512
#: The fused step is taken up to this many multiplications of a gate, B H (I + H). Float32 runs on tensor cores only as tf32.
LSTM_FUSED_LIMIT = {"ieee": 2**25, "tf32": 2**28, "half": 2**28}
#: Small states take small tiles, so that about 132 programs share the weights.
LSTM_ROWS: dict[str, tuple[LstmRow, ...]] = {
    "ieee": (LstmRow(2**16, 16, 16, 32, 4, 3), LstmRow(ANY, 32, 32, 16, 8, 3)),
    "tf32": (LstmRow(2**16, 16, 16, 64, 4, 3), LstmRow(ANY, 32, 32, 32, 8, 3)),
    "half": (LstmRow(2**16, 16, 16, 64, 4, 4), LstmRow(ANY, 64, 32, 32, 8, 3)),
}


def lstm_blocks(batch: int, inputs: int, hidden: int, dtype: torch.dtype, precision: str) -> Blocks | None:
    """Blocks for the fused LSTM step; None where torch's products and a pointwise launch take its place."""
    if dtype == torch.float64:
        return None
    kind = precision if dtype == torch.float32 else "half"
    if batch * hidden * (inputs + hidden) > LSTM_FUSED_LIMIT[kind]:
        return None
    row = next(row for row in LSTM_ROWS[kind] if batch * hidden <= row.states)
    return Blocks({"BLOCK_B": row.block_b, "BLOCK_H": row.block_h, "BLOCK_K": row.block_k}, row.num_warps, row.num_stages)
