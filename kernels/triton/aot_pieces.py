"""The recurrence's pieces as cases for ahead-of-time compilation (aot.py): launches with tensors on the meta device."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from fastdraw.ops.contract import Shape
from fastdraw.products import float32_products

from . import tiles
from .canvas import canvas_launch
from .canvas_backward import canvas_backward_launch
from .cell import cell_backward_launch, cell_launch
from .latent import input_backward_launch, latent_backward_launch, latent_launch
from .launch import Launch
from .linear import linear_launch
from .piece_tables import kl_parts

#: The paper's models (Shape: T, B, C, H, W, h, Z, read N, write N), and sizes that are multiples of nothing.
MODELS = {
    "mnist": Shape(64, 128, 1, 28, 28, 256, 100, 2, 5),
    "svhn": Shape(32, 32, 3, 54, 54, 800, 100, 12, 12),
    "cifar": Shape(64, 1024, 3, 32, 32, 400, 200, 5, 5),
    "large": Shape(8, 32, 3, 100, 100, 256, 16, 2, 8),
    "narrow": Shape(3, 2047, 1, 33, 17, 35, 7, 3, 4),
    "wide": Shape(3, 8, 1, 100, 90, 16, 4, 32, 17),
    "without": Shape(64, 128, 1, 28, 28, 256, 100, 0, 0),
}


#: Shapes and dtypes whose products are compiled ("tf32": float32 under torch's switch): one for each row of the tables.
PRODUCTS = (
    ("mnist", "bfloat16"),
    ("mnist", "float32"),
    ("mnist", "tf32"),
    ("cifar", "float16"),
    ("cifar", "float32"),
    ("cifar", "tf32"),
    ("narrow", "float32"),
)
#: The same for the kernels around the canvas, which compute in float32.
CANVASES = (
    ("mnist", "bfloat16"),
    ("large", "float32"),
    ("cifar", "float32"),
    ("svhn", "float32"),
    ("svhn", "tf32"),
    ("wide", "float32"),
    ("wide", "tf32"),
    ("without", "bfloat16"),
)
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "tf32": torch.float32}


def piece_cases(target: str) -> Iterator[tuple[str, Launch]]:
    """(name, launch) for every kernel of the pieces; there is no tf32 on AMD."""
    for cases, launches in ((PRODUCTS, product_launches), (CANVASES, canvas_launches)):
        for model, dtype in cases:
            if target == "gfx942" and dtype == "tf32":
                continue
            kind = {"gfx942": "hip", "sm_100": "ieee, sm_100"}.get(target, "ieee")
            kind = "tf32" if dtype == "tf32" else kind
            with float32_products("high" if dtype == "tf32" else "highest"):
                found = list(launches(model, DTYPES[dtype], kind))
            for name, launch in found:
                yield f"{name}, {dtype}, {model}", launch


def _state(*sizes: int) -> Tensor:
    return torch.empty(sizes, dtype=torch.float32, device="meta")


def product_launches(model: str, dtype: torch.dtype, kind: str) -> Iterator[tuple[str, Launch]]:
    """Every launch with a product of one glimpse of this model, forward and backward, with operands of this dtype."""
    s = MODELS[model]
    b, h, z, r = s.batch, s.hidden, s.latent, s.read_numel
    columns = s.patch_numel + 5 * bool(s.write_size) + 5 * bool(s.read_size)

    def operand(*sizes: int) -> Tensor:
        return torch.empty(sizes, dtype=dtype, device="meta")

    encoder_in, decoder_in, gates, bias = operand(b, r + 2 * h), operand(b, z + h), operand(b, 4 * h), operand(4 * h)
    encoder, decoder, latent, head = (operand(*n) for n in ((4 * h, r + 2 * h), (4 * h, z + h), (2 * z, h), (columns, h)))
    c, latents, h_dec, grad_latent = _state(b, h), _state(b, 2 * z), decoder_in[:, z:], operand(b, 2 * z)
    kl = _state(kl_parts(b, z, h, tiles.kind(dtype)), b)
    places = [h_dec, encoder_in[:, r : r + h]]
    sampled = (latents, _state(b, z), _state(b), grad_latent)
    input_backward = input_backward_launch(gates, decoder, decoder_in, sampled, sampled[1])
    launches = {
        "cell": cell_launch(encoder_in, encoder, bias, c, gates, c, places[1:]),
        "cell, two places": cell_launch(decoder_in, decoder, bias, c, gates, c, places),
        "cell, a bias of each image": cell_launch(encoder_in, encoder, _state(b, 4 * h), c, gates, c, places[1:]),
        "latent": latent_launch(h_dec, latent, bias, sampled[1], latents, decoder_in, kl),
        "linear": linear_launch(h_dec, head, bias, _state(b, columns)),
        "cell_backward, head": cell_backward_launch(operand(b, columns), head, places, gates, c, c, c, gates),
        "cell_backward, latent": cell_backward_launch(grad_latent, latent, places[:1], gates, c, c, c, gates),
        "latent_backward": input_backward or latent_backward_launch(gates, decoder, decoder_in, sampled, sampled[1]),
        "input_backward": input_backward_launch(gates, encoder, encoder_in),
    }
    for name, launch in launches.items():
        if launch is not None:
            yield name, launch


def canvas_launches(model: str, dtype: torch.dtype, kind: str) -> Iterator[tuple[str, Launch]]:
    """The launches around the canvas; dtype is that of the read. All of them for one model, the largest for the others."""
    s = MODELS[model]
    columns = s.patch_numel + 5 * bool(s.write_size) + 5 * bool(s.read_size)
    head, canvas, r = (
        _state(s.batch, columns),
        _state(*s.image),
        torch.empty(s.batch, s.read_numel, dtype=dtype, device="meta"),
    )
    grads, grad_x = (r, canvas, torch.empty_like(head, dtype=dtype)), canvas if s.read_size else None
    yield "canvas", canvas_launch(head, canvas, canvas, canvas, r, s, True, kind)
    yield "canvas_backward, rebuild and x", canvas_backward_launch(head, canvas, canvas, *grads, grad_x, s, True, True, kind)
    if model == "svhn":
        yield "canvas_backward", canvas_backward_launch(head, canvas, canvas, *grads, None, s, True, False, kind)
    if model == "mnist":
        yield "canvas, the last", canvas_launch(head, canvas, canvas, None, None, s, True, kind)
        yield "canvas_backward", canvas_backward_launch(head, canvas, canvas, *grads, None, s, True, False, kind)
        first = canvas_backward_launch(head, canvas, canvas, *grads, None, s, False, False, kind)
        yield "canvas_backward, the first read", first
