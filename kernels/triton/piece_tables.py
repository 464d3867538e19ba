"""Block sizes of the recurrence's pieces as data, as tables.py has those of the operators.

Reasoned for an H100 (132 SMs, an L2 that gives each of them about 64 bytes a cycle) and the paper's MNIST model at B = 128,
where a product is a matter of microseconds and every program waits for its operands: tiles as square as they can be read the
least, and about 64 to 132 of them keep the SMs busy. Not measured. tests/kernels/test_triton_aot.py proves that no row spills.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from fastdraw.ops.contract import Shape

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


#: By kernel and kind of operands. "cell": an LSTM's product and cell; "cell_backward": its reverse; "linear": product and
#: bias; "input_backward": products with a weight as it lies; "latent_backward": the same with the latents' gradients. ieee
#: products are no matter of tensor cores but of FMA units: they take more, smaller programs. Of more results than the last row
#: has torch multiplies: latents' gradients behind a large tile in half precision need more registers than there are.
PRODUCT_ROWS: dict[tuple[str, str], tuple[ProductRow, ...]] = {
    ("cell", "half"): (
        ProductRow(2**16, 32, 8, 64, 4, 5),
        ProductRow(2**17, 64, 16, 64, 4, 3),
        ProductRow(ANY, 128, 32, 32, 8, 3),
    ),
    ("cell", "tf32"): (ProductRow(2**16, 32, 8, 64, 4, 3), ProductRow(ANY, 64, 32, 32, 8, 3)),
    ("cell", "ieee"): (ProductRow(2**16, 32, 8, 32, 4, 3), ProductRow(ANY, 32, 16, 32, 8, 3)),
    ("cell_backward", "half"): (
        ProductRow(2**16, 16, 16, 128, 4, 3),
        ProductRow(2**17, 32, 32, 64, 8, 3),
        ProductRow(ANY, 64, 32, 64, 8, 3),
    ),
    ("cell_backward", "tf32"): (ProductRow(2**16, 16, 16, 64, 4, 3), ProductRow(ANY, 32, 32, 32, 4, 3)),
    ("cell_backward", "ieee"): (ProductRow(2**16, 16, 16, 32, 4, 3), ProductRow(ANY, 32, 32, 32, 4, 3)),
    ("linear", "half"): (
        ProductRow(2**15, 16, 16, 256, 4, 1),
        ProductRow(2**17, 32, 32, 64, 4, 3),
        ProductRow(ANY, 64, 64, 64, 4, 3),
    ),
    ("linear", "tf32"): (
        ProductRow(2**15, 16, 16, 64, 4, 3),
        ProductRow(2**17, 32, 32, 64, 4, 3),
        ProductRow(ANY, 64, 64, 32, 4, 3),
    ),
    ("linear", "ieee"): (ProductRow(2**15, 16, 16, 32, 4, 3), ProductRow(ANY, 32, 32, 32, 4, 3)),
    ("input_backward", "half"): (
        ProductRow(2**17, 32, 32, 64, 4, 5),
        ProductRow(2**19, 64, 64, 64, 4, 3),
        ProductRow(ANY, 128, 128, 64, 8, 3),
    ),
    ("input_backward", "tf32"): (ProductRow(2**17, 32, 32, 64, 4, 3), ProductRow(ANY, 64, 64, 32, 4, 3)),
    ("input_backward", "ieee"): (ProductRow(2**17, 16, 32, 32, 4, 3), ProductRow(ANY, 32, 64, 32, 8, 3)),
    ("latent_backward", "half"): (
        ProductRow(2**16, 16, 32, 128, 4, 4),
        ProductRow(2**17, 32, 32, 128, 4, 3),
    ),
    ("latent_backward", "tf32"): (ProductRow(2**17, 32, 32, 64, 4, 3), ProductRow(ANY, 64, 64, 32, 8, 3)),
    ("latent_backward", "ieee"): (ProductRow(2**17, 16, 32, 32, 4, 3), ProductRow(ANY, 32, 64, 32, 8, 3)),
    ("latent", "half"): (ProductRow(2**15, 16, 16, 128, 4, 3), ProductRow(ANY, 64, 32, 64, 8, 3)),
    ("latent", "tf32"): (ProductRow(2**15, 16, 16, 64, 4, 3), ProductRow(ANY, 64, 32, 32, 4, 3)),
    ("latent", "ieee"): (ProductRow(2**15, 16, 16, 32, 4, 3), ProductRow(ANY, 32, 32, 32, 8, 3)),
}
#: A product of more multiplications than this goes to torch, and what follows it is a launch of its own.
FUSED_LIMIT = {"ieee": 2**27, "tf32": 2**30, "half": 2**33}
#: How many bytes the gradients of an LSTM's gates may be that are kept before torch makes the weights' gradients from them, by
#: the bytes of a number: 8,192 rows (64 glimpses of 128 images) of 256 hidden units in half precision, 2,048 in float32.
CHUNK_BYTES = {2: 2**24, 4: 2**23, 8: 2**23}


def product_blocks(kernel: str, kind: str, batch: int, units: int, columns: int, depth: int) -> Blocks | None:
    """Blocks for [batch, columns] results of products `depth` long; `units`: what block_n counts. None: torch multiplies."""
    if (kernel, kind) not in PRODUCT_ROWS or batch * columns * depth > FUSED_LIMIT[kind]:
        return None
    row = next((row for row in PRODUCT_ROWS[kernel, kind] if batch * units <= row.results), None)
    if row is None:
        return None
    constants = {
        "BLOCK_B": row.block_b,
        "BLOCK_N": min(row.block_n, max(next_power_of_2(units), 8)),
        "BLOCK_K": min(row.block_k, max(next_power_of_2(depth), 16)),
    }
    return Blocks(constants, row.num_warps, row.num_stages)


def kl_parts(batch: int, latents: int, depth: int, kind: str) -> int:
    """In how many tiles, and so parts of KL, `latent` goes over the latents."""
    blocks = product_blocks("latent", kind, batch, latents, 2 * latents, depth) or POINTWISE
    return math.ceil(latents / blocks.constants["BLOCK_N"])


#: Tile of what remains of a piece where torch multiplies: BLOCK_B x BLOCK_N, one element or unit each.
POINTWISE = Blocks({"BLOCK_B": 4, "BLOCK_N": 128, "BLOCK_K": 16}, 4, 1)


class CanvasRow(NamedTuple):
    """Up to these N of read and write: the largest tile of the image, pixels; warps."""

    read: int
    write: int
    block_h: int
    block_w: int
    num_warps: int


#: The largest N of the kernels around the canvas; beyond it the plain pieces take over, whose products are then large enough.
MAX_CANVAS_SIZE = 32
#: By kernel and kind of product, all of them a tl.dot. "_more": where canvases are rebuilt or images have a gradient, which
#: registers have to hold as well. One stage: with more, registers hold addresses of loads to come.
CANVAS_ROWS: dict[tuple[str, str], tuple[CanvasRow, ...]] = {
    ("canvas", "ieee"): (CanvasRow(16, 16, 32, 32, 4), CanvasRow(32, 32, 32, 32, 8)),
    ("canvas", "tf32"): (CanvasRow(16, 16, 64, 64, 8), CanvasRow(32, 32, 32, 32, 8)),
    ("canvas_backward", "ieee"): (
        CanvasRow(8, 8, 16, 32, 8),
        CanvasRow(16, 16, 64, 32, 4),
        CanvasRow(32, 32, 16, 16, 8),
    ),
    ("canvas_backward_more", "ieee"): (
        CanvasRow(8, 8, 16, 32, 8),
        CanvasRow(16, 16, 32, 32, 8),
        CanvasRow(32, 32, 16, 16, 8),
    ),
    ("canvas_backward", "ieee, sm_100"): (
        CanvasRow(8, 8, 16, 32, 8),
        CanvasRow(16, 16, 32, 32, 4),
        CanvasRow(32, 32, 16, 16, 8),
    ),
    ("canvas_backward", "tf32"): (CanvasRow(16, 16, 32, 32, 4), CanvasRow(32, 32, 16, 16, 8)),
    ("canvas_backward_more", "tf32"): (CanvasRow(16, 16, 32, 16, 4), CanvasRow(32, 32, 16, 16, 8)),
    ("canvas", "hip"): (CanvasRow(32, 32, 32, 32, 4),),
    ("canvas_backward", "hip"): (CanvasRow(32, 32, 16, 16, 4),),
}


class SmallCanvasRow(NamedTuple):
    """Up to this N of read and write, on images of up to this side and so many channels: warps of a program."""

    size: int
    side: int
    channels: float
    num_warps: int


#: Where the kernels of few filters are taken. More warps share the pixels, and wait for each other at every sum. A gradient
#: over several channels would keep the filters of all of them in registers, which are too few.
SMALL_CANVAS_ROWS: dict[tuple[str, str], tuple[SmallCanvasRow, ...]] = {
    ("canvas", "few"): (SmallCanvasRow(8, 32, ANY, 1), SmallCanvasRow(8, 64, ANY, 4)),
    ("canvas_backward", "few"): (SmallCanvasRow(5, 32, 1, 1), SmallCanvasRow(8, 32, 1, 4)),
    # One program does both parts, and holds one more image.
    ("canvas_backward", "rebuild"): (SmallCanvasRow(8, 32, 1, 4),),
}


class CanvasBlocks(NamedTuple):
    """small: for the kernels of small_canvas.py and small_canvas_backward.py."""

    constants: dict[str, Any]
    num_warps: int
    num_stages: int
    small: bool


def canvas_blocks(
    kernel: str,
    read_size: int | None,
    write_size: int | None,
    s: Shape,
    kind: str,
    rebuild: bool = False,
    grad_x: bool = False,
) -> CanvasBlocks:
    """Blocks for a read and a write of these N on images of this shape; 0: without attention, None: there is none."""
    height, width = s.height, s.width
    sizes = [size for size in (read_size, write_size) if size is not None]
    for row in SMALL_CANVAS_ROWS[kernel, "rebuild" if rebuild else "few"] if min(sizes) > 0 else ():
        if max(sizes) <= row.size and max(height, width) <= row.side and s.channels <= row.channels:
            block_h, block_w = max(next_power_of_2(height), 16), max(next_power_of_2(width), 16)
            # As Triton shares a tile out: four pixels of a row to a lane, rows to the lanes and warps that are left.
            lanes_w = min(block_w // 4, 32)
            lanes_h = min(32 // lanes_w * row.num_warps, block_h)
            constants = {"LANES_H": lanes_h, "LANES_W": lanes_w, "BLOCK_H": block_h, "BLOCK_W": block_w}
            return CanvasBlocks(constants, row.num_warps, 1, True)
    read_size, write_size = read_size or 1, write_size or 1
    names = (f"{kernel}_more", kernel) if rebuild or grad_x else (kernel,)
    # What is not said of a device is as on others.
    found = ((name, kinds) for name in names for kinds in (kind, kind.split(",")[0]))
    rows = next(CANVAS_ROWS[key] for key in found if key in CANVAS_ROWS)
    large = next(row for row in rows if read_size <= row.read and write_size <= row.write)
    # Every side of a tl.dot is 16 at least.
    block_h, block_w = (
        min(max(next_power_of_2(height), 16), large.block_h),
        min(max(next_power_of_2(width), 16), large.block_w),
    )
    constants = {
        "SINGLE": height <= block_h and width <= block_w,
        "BLOCK_READ": max(next_power_of_2(read_size), 16),
        "BLOCK_WRITE": max(next_power_of_2(write_size), 16),
        "BLOCK_H": block_h,
        "BLOCK_W": block_w,
    }
    return CanvasBlocks(constants, large.num_warps, 1, False)
