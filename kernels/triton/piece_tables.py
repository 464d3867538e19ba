"""Block sizes of the recurrence's pieces as data, as tables.py has those of the operators.

Reasoned for an H100 (132 SMs, an L2 that gives each of them about 64 bytes a cycle) and the paper's MNIST model at B = 128,
where a product is a matter of microseconds and every program waits for its operands: tiles as square as they can be read the
least, and about 64 to 132 of them keep the SMs busy. Not measured. tests/test_triton_aot.py proves that no row spills.
"""

from __future__ import annotations

from typing import NamedTuple

from .tables import ANY, Blocks, next_power_of_2


class ProductRow(NamedTuple):
    """Up to this many results (B x columns): the tile, its depth, warps and stages.

    block_n counts hidden units for "cell", which make four columns each, and latents for "latent", which make two.
    """

    results: float
    block_b: int
    block_n: int
    block_k: int
    num_warps: int
    num_stages: int


#: By kernel and kind of operands. "cell": an LSTM's product and cell; "cell_grad": its reverse; "linear": product and bias;
#: "input_grad": products with a weight as it lies; "latent": one program sees all latents of its rows, for KL's sum;
#: "weight_grad": block_b are rows of the weight here. ieee products are no matter of tensor cores but of FMA units: they take
#: more, smaller programs.
PRODUCT_ROWS: dict[tuple[str, str], tuple[ProductRow, ...]] = {
    ("cell", "half"): (ProductRow(2**16, 32, 8, 128, 4, 3), ProductRow(ANY, 64, 32, 32, 8, 3)),
    ("cell", "tf32"): (ProductRow(2**16, 32, 8, 64, 4, 3), ProductRow(ANY, 64, 32, 32, 8, 3)),
    ("cell", "ieee"): (ProductRow(2**16, 32, 8, 32, 4, 3), ProductRow(ANY, 32, 16, 32, 8, 3)),
    ("cell_grad", "half"): (ProductRow(2**16, 16, 16, 128, 4, 3), ProductRow(ANY, 32, 32, 64, 8, 3)),
    ("cell_grad", "tf32"): (ProductRow(2**16, 16, 16, 64, 4, 3), ProductRow(ANY, 32, 32, 32, 4, 3)),
    ("cell_grad", "ieee"): (ProductRow(2**16, 16, 16, 32, 4, 3), ProductRow(ANY, 32, 32, 32, 4, 3)),
    ("linear", "half"): (
        ProductRow(2**15, 16, 16, 128, 4, 3),
        ProductRow(2**17, 32, 32, 64, 4, 3),
        ProductRow(ANY, 64, 64, 64, 4, 3),
    ),
    ("linear", "tf32"): (
        ProductRow(2**15, 16, 16, 64, 4, 3),
        ProductRow(2**17, 32, 32, 64, 4, 3),
        ProductRow(ANY, 64, 64, 32, 4, 3),
    ),
    ("linear", "ieee"): (ProductRow(2**15, 16, 16, 32, 4, 3), ProductRow(ANY, 32, 32, 32, 4, 3)),
    ("input_grad", "half"): (ProductRow(2**17, 32, 32, 128, 4, 3), ProductRow(ANY, 64, 64, 64, 4, 3)),
    ("input_grad", "tf32"): (ProductRow(2**17, 32, 32, 64, 4, 3), ProductRow(ANY, 64, 64, 32, 4, 3)),
    ("input_grad", "ieee"): (ProductRow(2**17, 16, 32, 32, 4, 3), ProductRow(ANY, 32, 64, 32, 8, 3)),
    ("latent", "half"): (ProductRow(ANY, 16, 128, 32, 8, 4),),
    ("latent", "tf32"): (ProductRow(ANY, 16, 64, 64, 4, 3),),
    ("latent", "ieee"): (ProductRow(ANY, 4, 128, 16, 8, 4),),
    ("weight_grad", "half"): (ProductRow(ANY, 64, 64, 64, 4, 3),),
    ("weight_grad", "tf32"): (ProductRow(ANY, 64, 64, 32, 4, 3),),
}
#: A product of more multiplications than this goes to torch, and what follows it is a launch of its own. A float32 weight
#: gradient always does.
FUSED_LIMIT = {"ieee": 2**27, "tf32": 2**30, "half": 2**30}


def product_blocks(kernel: str, kind: str, batch: int, units: int, columns: int, depth: int) -> Blocks | None:
    """Blocks for [batch, columns] results of products `depth` long; `units`: what block_n counts. None: torch multiplies."""
    if (kernel, kind) not in PRODUCT_ROWS or batch * columns * depth > FUSED_LIMIT[kind]:
        return None
    row = next(row for row in PRODUCT_ROWS[kernel, kind] if batch * units <= row.results)
    constants = {
        "BLOCK_B": row.block_b,
        "BLOCK_N": min(row.block_n, max(next_power_of_2(units), 8)),
        "BLOCK_K": min(row.block_k, max(next_power_of_2(depth), 16)),
    }
    return Blocks(constants, row.num_warps, row.num_stages)


#: Tile of what remains of a piece where torch multiplies: BLOCK_B x BLOCK_N, one element or unit each.
POINTWISE = Blocks({"BLOCK_B": 4, "BLOCK_N": 128, "BLOCK_K": 16}, 4, 1)


class CanvasRow(NamedTuple):
    """Up to these N of read and write: the largest tile of the image, pixels; warps; whether products are a tl.dot."""

    read: int
    write: int
    block_h: int
    block_w: int
    num_warps: int
    dot: bool = True


#: The largest N of the kernels around the canvas; beyond it the plain pieces take over, whose products are then large enough.
MAX_CANVAS_SIZE = 32
#: By kernel and kind of product. One stage: with more, registers hold addresses of loads to come. "hip" has tl.dot throughout:
#: Triton's AMD backend fails at some sums of products as they stand.
CANVAS_ROWS: dict[tuple[str, str], tuple[CanvasRow, ...]] = {
    ("canvas", "ieee"): (CanvasRow(8, 8, 32, 32, 4, dot=False), CanvasRow(16, 16, 64, 64, 8), CanvasRow(32, 32, 32, 32, 8)),
    ("canvas", "tf32"): (CanvasRow(8, 8, 32, 32, 4, dot=False), CanvasRow(16, 16, 64, 64, 8), CanvasRow(32, 32, 32, 32, 8)),
    ("canvas_grad", "ieee"): (
        CanvasRow(2, 8, 32, 32, 8, dot=False),
        CanvasRow(8, 8, 16, 32, 8),
        CanvasRow(16, 16, 32, 32, 8),
        CanvasRow(32, 32, 16, 16, 8),
    ),
    ("canvas_grad", "tf32"): (
        CanvasRow(2, 8, 32, 32, 8, dot=False),
        CanvasRow(16, 16, 16, 32, 8),
        CanvasRow(32, 32, 16, 16, 8),
    ),
    ("canvas", "hip"): (CanvasRow(32, 32, 32, 32, 4),),
    ("canvas_grad", "hip"): (CanvasRow(32, 32, 16, 16, 4),),
}


def canvas_blocks(kernel: str, read_size: int, write_size: int, height: int, width: int, kind: str) -> Blocks:
    """Blocks for a read and a write of these N, 0 where there is no such window, on a height x width image."""
    row = next(row for row in CANVAS_ROWS[kernel, kind] if read_size <= row.read and write_size <= row.write)
    # Every side of a tl.dot is 16 at least.
    least = 16 if row.dot else 2
    block_h, block_w = min(max(next_power_of_2(height), 16), row.block_h), min(max(next_power_of_2(width), 16), row.block_w)
    constants = {
        "DOT": row.dot,
        "SINGLE": height <= block_h and width <= block_w,
        "BLOCK_READ": max(next_power_of_2(max(read_size, 1)), least),
        "BLOCK_WRITE": max(next_power_of_2(max(write_size, 1)), least),
        "BLOCK_H": block_h,
        "BLOCK_W": block_w,
    }
    return Blocks(constants, row.num_warps, 1)
