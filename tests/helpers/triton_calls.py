"""The Triton kernels of read and write, called directly, by the rule."""

from __future__ import annotations

import torch
from kernel_calls import check_results, inputs, kernel_results
from torch import Tensor

from fastdraw.kernels import triton as kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def check(shape: tuple[int, ...], params: Tensor, power: int, dtype: torch.dtype, params_dtype: torch.dtype) -> None:
    """Every result of the kernels for random images and patches of (B, C, H, W, N)."""
    _, image, patch = inputs(shape)
    given = (params.to(params_dtype), image.to(dtype), patch.to(dtype))
    on_device = [tensor.to(DEVICE) for tensor in given]
    actual = kernel_results(kernels, *on_device, power)
    check_results(actual, *given, power, rounds_filters=dtype in (torch.float16, torch.bfloat16))
    skipped, alone = kernels.read_backward(on_device[2], on_device[1], on_device[0], power, False)
    assert skipped is None
    assert torch.equal(alone, actual["read params"])
