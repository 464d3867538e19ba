"""The error budget every kernel is held to, and the odd shapes and windows it is held to it on."""

from __future__ import annotations

import torch
from torch import Tensor

#: float64 has no wider yardstick: its tolerance allows for cancellation in sums, and still shows a float32 in between.
TOLERANCE = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 1e-2}


def error(actual: Tensor, exact: Tensor) -> float:
    """The largest difference, relative to the largest magnitude of the exact result."""
    assert actual.shape == exact.shape, f"shape {tuple(actual.shape)}, expected {tuple(exact.shape)}"
    if exact.numel() == 0:
        return 0.0
    # Where the result is: images of many megapixels are compared on a device in no time.
    exact = exact.detach().double().to(actual.device)
    return float((actual.detach().double() - exact).abs().max() / exact.abs().max().clamp(min=1e-30))


def assert_within_budget(name: str, actual: Tensor, naive: Tensor, exact: Tensor, dtype: torch.dtype) -> None:
    """error(actual) <= error(the reference in the same dtype) + tolerance, both against float64."""
    assert_errors_within_budget(name, error(actual, exact), error(naive, exact), dtype)


def assert_errors_within_budget(name: str, got: float, naive: float, dtype: torch.dtype) -> None:
    """The tolerance is relative to the larger of the exact result and the naive error, which is the naive result's own size
    where rounding decides everything."""
    allowed = naive + TOLERANCE[dtype] * max(1.0, naive)
    # Written so that a NaN fails.
    assert got <= allowed, f"{name}: error {got:.3g} exceeds the budget {allowed:.3g} ({dtype})"


#: (B, C, H, W, N), each with what it is there for.
GLIMPSES = [
    (1, 1, 1, 1, 1),  # the smallest of everything
    (2, 1, 28, 28, 2),  # the paper's MNIST read
    (2, 1, 28, 28, 5),  # the paper's MNIST write
    (1, 3, 54, 54, 12),  # the paper's SVHN
    (3, 2, 17, 33, 7),  # primes, and one over a power of two; height and width differ
    (2, 3, 5, 64, 1),  # one filter, which has no stride; width a power of two
    (1, 1, 65, 9, 64),  # as many filters as the issue asks for, more than the image is wide
    (1, 5, 31, 1, 3),  # one pixel wide
]

#: Rows of params (g~x, g~y, log sigma^2, log delta~, log gamma), each with what it is there for.
WINDOWS = [
    (0.0, 0.0, 0.0, 0.0, 0.0),  # the whole image
    (0.3, -0.4, -1.0, -0.7, 0.5),  # an ordinary window
    (0.1, 0.1, 30.0, 0.0, 0.0),  # sigma far above the image: uniform filters
    (0.1, 0.1, -30.0, 0.0, 0.0),  # sigma far below a pixel: nearest pixel
    (40.0, -40.0, 0.0, 0.0, 0.0),  # far outside
    (1e6, -1e6, -30.0, 3.0, 0.0),  # further than float32 counts pixels
    (-0.5, 0.5, 0.0, 5.0, 20.0),  # filters mostly outside, a large factor
    (0.0, 0.2, -2.0, -30.0, -20.0),  # all filters in one place, a small factor
    (1e38, -1e38, 1e38, -1e38, -1e38),  # beyond every limit
]
