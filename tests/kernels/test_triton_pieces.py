"""The recurrence's pieces in Triton, on a GPU or in Triton's interpreter: each against the plain pieces in float64 by error
budget. test_triton_recurrence.py has whole models, and how many launches a glimpse takes.
"""

from __future__ import annotations

import pytest
import torch
from piece_calls import ROLES, Arguments, check_piece, columns_of_more, missing, normal, piece_cases
from shapes import WINDOWS
from torch import Tensor

from fastdraw.kernels import aten_pieces
from fastdraw.kernels.triton import launch, piece_tables, pieces, tiles
from fastdraw.ops.glimpses import Shape
from fastdraw.products import float32_products
from fastdraw.testing import error

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]

#: (B, K, h), each with what it is there for.
LAYERS = [
    (1, 1, 1),  # the smallest of everything
    (3, 20, 17),  # primes, and one over a tile of hidden units
    (33, 33, 8),  # one over a tile of the batch, one over a tile of the depth; a whole tile of hidden units
    (2, 130, 5),  # several tiles deep, the last one not full
]
#: (B, C, H, W, read N, write N), each with what it is there for. 0 is no attention.
IMAGES = [
    (1, 1, 1, 1, 1, 1),  # the smallest of everything
    (2, 1, 28, 28, 2, 5),  # the paper's MNIST
    (1, 3, 54, 54, 12, 12),  # the paper's SVHN: colour, products by tl.dot, tiles in a loop backward
    (2, 2, 17, 33, 7, 3),  # primes, and one over a power of two; more filters in the read than in the write
    (1, 1, 40, 35, 3, 17),  # several tiles along both axes, the last ones not full; one over a tl.dot's sixteen
    (1, 2, 6, 19, 0, 1),  # a read without attention; one filter, which has no stride
    (2, 1, 5, 7, 4, 0),  # a write without attention
    (2, 2, 33, 3, 0, 0),  # neither
    (1, 1, 12, 9, 8, 4),  # as many filters as are unrolled one by one
    (1, 1, 6, 7, 33, 2),  # more filters than the kernels hold: the plain pieces
]


def check(name: str, dtype: torch.dtype, arguments: Arguments, outputs: str, operands: str, params: int = 0) -> None:
    check_piece(pieces, name, dtype, arguments, outputs, operands, params=params, device=DEVICE)


@pytest.fixture(params=[True, False], ids=["fused", "products"])
def fused(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both sides of the tables: products in the kernels, and torch's."""
    if not request.param:
        monkeypatch.setattr(piece_tables, "FUSED_LIMIT", dict.fromkeys(piece_tables.FUSED_LIMIT, 0))
    return request.param


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
# The last: latents in two tiles.
@pytest.mark.parametrize("sizes", [*LAYERS, (2, 4, 130)], ids=str)
@pytest.mark.parametrize("name", ROLES)
def test_products(name: str, sizes: tuple[int, ...], dtype: torch.dtype, fused: bool) -> None:
    for case in piece_cases(name, *sizes):
        check(name, dtype, *case)


def test_latents_near_the_prior(fused: bool) -> None:
    """Where sigma is nearly one, sigma^2 - 1 - log sigma^2 and its derivative all but cancel: to float32's own digits of the
    latents that the kernel made."""
    h, weight, bias = (
        torch.randn(5, 9, device=DEVICE),
        torch.randn(14, 9, device=DEVICE) * 1e-3,
        torch.zeros(14, device=DEVICE),
    )
    noise, out, z, kl = (torch.empty(size, device=DEVICE) for size in ((5, 7), (5, 14), (5, 7), (5,)))
    pieces.latent(h, weight, bias, noise.zero_(), out, z, kl)
    mu, log_sigma = out.double().split(7, 1)
    assert error(kl, ((mu**2 + torch.expm1(2 * log_sigma)) / 2 - log_sigma).sum(1)) < 1e-6
    grad_inputs, grad_latent = torch.empty(5, 7, device=DEVICE), torch.empty(5, 14, device=DEVICE)
    gates, zero = torch.zeros(5, 8, device=DEVICE), torch.zeros(8, 7, device=DEVICE)
    pieces.latent_backward(gates, zero, out, noise, torch.ones(5, device=DEVICE), grad_inputs, grad_latent, None)
    assert error(grad_latent, torch.cat([mu, torch.expm1(2 * log_sigma)], 1)) < 1e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_weight_gradient_over_many_rows(dtype: torch.dtype) -> None:
    """Several tiles of rows, and of the weight along both sides; the last ones not full."""
    for parts in ((67,), (41, 26)):
        weights = [normal(70, part) for part in parts]
        arguments = {"grad_out": normal(131, 70), "inputs": normal(131, 67), "weights": weights, "bias": normal(70)}
        check("weight_gradient", dtype, arguments, "weights bias", "grad_out inputs")


def test_chunks_of_weight_gradients_grow_with_the_batch() -> None:
    """The paper's MNIST step in half precision: all glimpses at once, and at a large batch a quarter of them."""
    for batch, glimpses in ((128, 64), (2048, 16)):
        s = Shape(64, batch, 1, 28, 28, 256, 100, 2, 5)
        assert pieces.chunk_rows(s, torch.bfloat16) // batch == glimpses


def image_case(sizes: tuple[int, ...], window: tuple[float, ...] | None = None) -> tuple[Shape, dict[str, Tensor]]:
    """A shape and what both pieces around the canvas are given."""
    batch, channels, height, width, read_size, write_size = sizes
    s = Shape(3, batch, channels, height, width, 1, 1, read_size, write_size)
    params = normal(batch, 10) * torch.tensor([0.7, 0.7, 1.0, 0.7, 0.7] * 2, dtype=torch.float64)
    if window is not None:
        params = torch.tensor([[*window, *window]] * batch, dtype=torch.float64)
    used = [params[:, :5]] * bool(write_size) + [params[:, 5:]] * bool(read_size)
    head = torch.cat([normal(batch, s.patch_numel), *used], 1)
    x = torch.rand(s.image, dtype=torch.float64)
    return s, {"head": head, "x": x, "canvas": normal(*s.image)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", IMAGES, ids=str)
def test_canvas(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    s, given = image_case(sizes)
    r = columns_of_more(missing(s.batch, s.read_numel), 0, 9)
    arguments = {
        "head": given["head"],
        "before": given["canvas"],
        "canvas": missing(*s.image),
        "s": s,
        "x": given["x"],
        "r": r,
    }
    params = given["head"].shape[1] - s.patch_numel
    check("canvas", dtype, {**arguments, "writes": True}, "canvas r", "r", params)
    if dtype == torch.float32:
        check("canvas", dtype, {**arguments, "canvas": given["canvas"], "writes": False}, "canvas r", "r", params)
        check("canvas", dtype, {**arguments, "x": None, "r": None, "writes": True}, "canvas", "", params)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("sizes", IMAGES, ids=str)
def test_canvas_backward(sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    s, given = image_case(sizes)
    grad_r, grad_x = columns_of_more(normal(s.batch, s.read_numel), 0, 3), normal(*s.image) if s.read_size else None
    arguments = {**given, "s": s, "grad_canvas": normal(*s.image), "grad_head": missing(*given["head"].shape)}
    operands, outputs = "grad_r grad_head", "grad_head grad_canvas canvas grad_x"

    def check_it(grad_r: Tensor | None, grad_x: Tensor | None, writes: bool, rebuild: bool) -> None:
        case = {**arguments, "grad_r": grad_r, "grad_x": grad_x, "writes": writes, "rebuild": rebuild}
        check("canvas_backward", dtype, case, outputs, operands, given["head"].shape[1] - s.patch_numel)

    check_it(grad_r, grad_x, writes=True, rebuild=True)
    if dtype == torch.float32:
        check_it(grad_r, None, writes=True, rebuild=False)
        check_it(None, grad_x, writes=True, rebuild=True)
        check_it(grad_r, grad_x, writes=False, rebuild=False)


@pytest.mark.parametrize("row", WINDOWS, ids=str)
def test_windows_anywhere_give_finite_numbers(row: tuple[float, ...]) -> None:
    """No finite params give NaN or infinity, in either direction."""
    s, given = image_case((1, 2, 9, 20, 3, 4), row)
    head, x, canvas = (given[name].float().to(DEVICE) for name in ("head", "x", "canvas"))
    r, grad_head = torch.empty(1, s.read_numel, device=DEVICE), torch.empty_like(head)
    after, grad_canvas = torch.empty_like(canvas), torch.randn_like(canvas)
    pieces.canvas(head, canvas, after, x, r, s, True)
    pieces.canvas_backward(head, after, x, torch.randn_like(r), grad_canvas, grad_head, None, s, True, True)
    for tensor in (r, after, grad_canvas, grad_head):
        assert tensor.isfinite().all()


def test_nan_stays_in_its_image() -> None:
    s, given = image_case((2, 1, 8, 8, 2, 3))
    head, x, canvas = (given[name].float().to(DEVICE) for name in ("head", "x", "canvas"))
    head[0, -8] = torch.nan
    r, after = torch.empty(2, s.read_numel, device=DEVICE), torch.empty_like(canvas)
    pieces.canvas(head, canvas, after, x, r, s, True)
    assert after[0].isnan().all() or r[0].isnan().any()
    assert after[1].isfinite().all()
    assert r[1].isfinite().all()


def test_tf32_follows_torchs_switch() -> None:
    """Within tf32's eleven bits and not within float32's, in a product and around the canvas; only where asked for."""
    s, given = image_case((1, 1, 28, 28, 12, 12))
    head, x, canvas = (given[name].float().to(DEVICE) for name in ("head", "x", "canvas"))
    h, weight, bias = torch.randn(20, 64, device=DEVICE), torch.randn(9, 64, device=DEVICE), torch.zeros(9, device=DEVICE)

    def errors() -> tuple[float, float]:
        out = torch.empty(20, 9, device=DEVICE)
        pieces.linear(h, weight, bias, out)
        after, r = torch.empty_like(canvas), torch.empty(1, s.read_numel, device=DEVICE)
        pieces.canvas(head, canvas, after, x, r, s, True)
        exact = torch.empty_like(r, dtype=torch.float64, device="cpu")
        wide = [tensor.double().cpu() for tensor in (head, canvas, after, x)]
        aten_pieces.canvas(*wide, exact, s, True)
        return error(out, h.double() @ weight.double().T), error(r, exact)

    with float32_products("highest"):
        assert max(errors()) < 1e-5
        assert tiles.kind(torch.float32) == "ieee"
    with float32_products("high"):
        if launch.tf32_allowed():
            assert tiles.kind(torch.float32) == "tf32"
            for one in errors():
                assert 1e-5 < one < 2e-3
