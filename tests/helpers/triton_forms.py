"""The form whose derivatives the Triton kernels of read and write are, and the check of all of them against it."""

from __future__ import annotations

import torch
from torch import Tensor

from budget import assert_within_budget, error
from fastdraw import reference
from fastdraw.kernels import triton as kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def moderate_params(batch: int) -> Tensor:
    """Ordinary windows: partly outside, seldom wholly."""
    return torch.randn(batch, 5, dtype=torch.float64) * torch.tensor([0.7, 0.7, 1.0, 0.7, 0.7], dtype=torch.float64)


def form(image: Tensor, patch: Tensor, params: Tensor, power: int) -> Tensor:
    """L = gamma^power sum_c <P_c, F_Y I_c F_X^T> by the reference: every kernel is a derivative of it."""
    y, x, gamma = reference.filterbank(params, patch.shape[2], (image.shape[2], image.shape[3]))
    glimpse = y[:, None] @ image.to(y.dtype) @ x[:, None].mT
    return (gamma**power * (glimpse * patch.to(y.dtype)).sum((1, 2, 3))).sum()


def derivatives(image: Tensor, patch: Tensor, params: Tensor, power: int, dtype: torch.dtype) -> list[Tensor]:
    """dL/d image (the write), dL/d patch (the read) and dL/d params, from the reference in `dtype`."""
    leaves = [tensor.to(dtype).requires_grad_() for tensor in (image, patch, params)]
    return list(torch.autograd.grad(form(*leaves, power), leaves))


def nudged(params: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """params moved by a few roundings: where sigma is far below a pixel, everything hangs on the last bit of mu."""
    step = 4 * torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps * (1 + params.abs())
    return [params + step * torch.randn_like(params).sign() for _ in range(4)]


def check_glimpse(shape: tuple[int, ...], params: Tensor, power: int, dtype: torch.dtype, params_dtype: torch.dtype) -> None:
    """Every result of the four kernels; each patch and image also serves as the gradient of the other."""
    batch, channels, height, width, size = shape
    image = torch.randn(batch, channels, height, width, dtype=torch.float64).to(dtype)
    patch = torch.randn(batch, channels, size, size, dtype=torch.float64).to(dtype)
    params = params.to(params_dtype)
    wide = params.double()
    exact = derivatives(image, patch, wide, power, torch.float64)
    rivals = [derivatives(image, patch, params, power, dtype)]
    rivals += [derivatives(image, patch, moved, power, torch.float64) for moved in nudged(wide, dtype)]
    on_device = [tensor.to(DEVICE) for tensor in (image, patch, params)]
    i, p, w = on_device
    read_grads = kernels.read_backward(p, i, w, power, True)
    skipped, params_only = kernels.read_backward(p, i, w, power, False)
    write_grads = kernels.write_backward(i, p, w, power)
    assert skipped is None
    assert torch.equal(params_only, read_grads[1])
    results = [
        ("read", kernels.read(i, w, size, power), 1),
        ("write", kernels.write(p, w, height, width, power), 0),
        ("read's gradient to image", read_grads[0], 0),
        ("read's gradient to params", read_grads[1], 2),
        ("write's gradient to patch", write_grads[0], 1),
        ("write's gradient to params", write_grads[1], 2),
    ]
    for name, actual, which in results:
        assert actual.dtype == (params_dtype if which == 2 else dtype), name
        rival = max((results[which] for results in rivals), key=lambda n: error(n, exact[which]))
        # A gradient is no finer than the dtype it is given in.
        coarser = max((dtype, actual.dtype), key=lambda d: torch.finfo(d).eps)
        assert_within_budget(f"{name} {shape}", actual, rival, exact[which], coarser)
