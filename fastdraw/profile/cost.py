"""The least that an operator must move and compute, forward and backward: the floors that times are set against.

Letters: B batch, C channels, H x W image, N patch size, T glimpses, h hidden units, I inputs, Z latent, e bytes an element.
Bytes: every input is read once and every result written once in each pass; filterbanks and products between are not stored.
Operations: a multiplication and an addition are two. Filters are taken as dense. Exponentials (at most 2BN(H+W), and 6BH for
an LSTM step) are left out: they are below a tenth of the rest, but for the filterbank alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fastdraw.config import ClassifierConfig, DRAWConfig


@dataclass(frozen=True)
class Cost:
    """launches: the kernels that a pass forward and backward takes on a GPU at least, which decides where sizes are small."""

    bytes: int
    bytes_formula: str
    operations: int
    operations_formula: str
    launches: int


class Support(NamedTuple):
    """What windows see of their images, summed over all of them: whole numbers, of one channel.

    pixels: those in the rectangle of rows and columns that a window sees. first: multiplications of F_Y I, where the rows that
    a filter sees meet the columns that its window sees. second: those of F_X^T behind it.
    """

    pixels: int
    first: int
    second: int


def read(b: int, c: int, h: int, w: int, n: int, e: int) -> Cost:
    """Forward: image and params read, patch written. Backward: image, patch's gradient and params read, two gradients written.

    Products forward: F_Y I (NHW), then F_X^T (N^2 W). Backward: P F_X (N^2 W), F_Y^T of it (NHW), its product with I (NHW),
    F_Y I again (NHW), P^T of it (N^2 W).
    """
    moved = e * (3 * b * c * h * w + 2 * b * c * n * n) + 60 * b
    computed = 2 * b * c * (4 * n * h * w + 3 * n * n * w)
    return Cost(moved, "e(3BCHW + 2BCN²) + 60B", computed, "2BC(4NHW + 3N²W)", 2)


def write(b: int, c: int, h: int, w: int, n: int, e: int) -> Cost:
    """Forward: patch and params read, image written. Backward: patch, image's gradient G, params read, two gradients written.

    Products forward: P F_X (N^2 W), F_Y^T of it (NHW). Backward: F_Y G (NHW), F_X^T (N^2 W) for the patch; P F_X again (N^2 W)
    and its product with G (NHW), P^T F_Y G (N^2 W) for the window.
    """
    moved = e * (2 * b * c * h * w + 3 * b * c * n * n) + 60 * b
    computed = 2 * b * c * (3 * n * h * w + 4 * n * n * w)
    return Cost(moved, "e(2BCHW + 3BCN²) + 60B", computed, "2BC(3NHW + 4N²W)", 2)


def read_support(b: int, c: int, k: int, n: int, seen: Support, e: int, pixels: int) -> Cost:
    """K windows of each image. `seen`: what they see, summed up over all; a window sees S x S pixels and each of its filters
    s of them along its axis. pixels: those of a channel's gradient, which is written; 0 where none is wanted.

    Forward: the S^2 pixels read, F_Y I (NsS) and F_X^T (N^2 s). Backward: the pixels again, F_Y I (NsS), P F_X (N^2 s), its
    product with I (NsS), P^T F_Y I (N^2 s); with the image's gradient F_Y^T of P F_X (NsS).
    """
    moved = e * (2 * c * seen.pixels + 2 * b * k * c * n**2 + b * c * pixels) + 60 * b * k
    computed = 2 * c * ((4 if pixels else 3) * seen.first + 3 * seen.second)
    written, products = (" + BCHW", "4") if pixels else ("", "3")
    return Cost(moved, f"e(2CΣS² + 2BKCN²{written}) + 60BK", computed, f"2CΣ({products}NsS + 3N²s)", 2)


def write_support(b: int, c: int, k: int, n: int, seen: Support, e: int, pixels: int) -> Cost:
    """K windows summed into an image of H x W = `pixels`, which is written whole. Backward each window reads what it sees."""
    moved = e * (c * seen.pixels + 3 * b * k * c * n**2 + b * c * pixels) + 60 * b * k
    computed = 2 * c * (3 * seen.first + 4 * seen.second)
    return Cost(moved, "e(BCHW + CΣS² + 3BKCN²) + 60BK", computed, "2CΣ(3NsS + 4N²s)", 2)


def filterbank(b: int, h: int, w: int, n: int, e: int) -> Cost:
    """Forward: both matrices written. Backward: their gradients read. About 20 operations an element, with exponentials."""
    moved = e * (2 * b * n * (h + w) + 2 * b) + 60 * b
    return Cost(moved, "e(2BN(H+W) + 2B) + 60B", 20 * b * n * (h + w), "20BN(H+W)", 2)


def lstm_step(b: int, i: int, h: int, e: int) -> Cost:
    """Weights and biases are read forward, weights backward, the gradients of both written; gates [B, 4h] are kept between."""
    weights = 4 * h * (i + h)
    moved = e * (3 * weights + 12 * h + b * (3 * i + 19 * h))
    return Cost(moved, "e(12h(I+h) + 12h + B(3I + 19h))", 6 * b * weights, "24Bh(I+h)", 2)


def draw(b: int, t: int, image: tuple[int, int, int], z: int, read_size: int, write_size: int, weights: int, e: int) -> Cost:
    """All glimpses. `weights` counts the matrices: read in each pass, their gradients written. Windows are dense, as above."""
    c, h, w = image
    windows = read(b, 2 * c, h, w, read_size, e).operations + write(b, c, h, w, write_size, e).operations
    moved = e * (3 * weights + b * (2 * c * h * w + 2 * t * z))
    return Cost(moved, "e(3 weights + B(2CHW + 2TZ))", t * (6 * b * weights + windows), "T(6B weights + read + write)", 8 * t)


def classifier(b: int, config: ClassifierConfig, weights: int, e: int) -> Cost:
    """All glimpses. Images get no gradient: of the read's products above, F_Y^T (NHW) is left out. Windows are dense.

    Launches: head, read and LSTM forward; the LSTM's, its inputs' and the window's gradient backward.
    """
    (c, h, w), n, t = config.image_shape, config.read_size, config.glimpses
    moved = e * (3 * weights + b * c * h * w)
    windows = 2 * b * c * (3 * n * h * w + 3 * n * n * w)
    operations = t * (6 * b * weights + windows)
    return Cost(moved, "e(3 weights + BCHW)", operations, "T(6B weights + 2BC(3NHW + 3N²W))", 6 * t)


def sample(b: int, config: DRAWConfig, e: int = 4) -> Cost:
    """The decoder's weights and the noise read, images written; two launches for the products, one for the write."""
    c, height, width = config.image_shape
    h, z, n = config.hidden_size, config.latent_size, config.write_size
    windows = 2 * b * c * (n * height * width + n * n * width) if n else 0
    weights = 4 * h * (z + h) + h * (config.patch_numel + (5 if n else 0))
    moved = e * (weights + b * (c * height * width + config.glimpses * z))
    operations = config.glimpses * (2 * b * weights + windows)
    return Cost(moved, "e(weights + B(CHW + TZ))", operations, "T(2B weights + write)", 3 * config.glimpses)
