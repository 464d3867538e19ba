"""Read and write for N beyond one program's registers (tables.MAX_SIZE): the filterbank kernel, then torch's products.

The filterbanks are in memory here, and gradients follow the same formulas as the fused kernels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .launch import compute_dtype

#: fastdraw.kernels.triton's filterbank and filterbank_backward, given by the caller, which has them.
Filterbank = Callable[[Tensor, int, int, int], tuple[Tensor, Tensor, Tensor]]
FilterbankBackward = Callable[[Tensor, Tensor, Tensor, Tensor, int, int, int], Tensor]


def read(filterbank: Filterbank, image: Tensor, params: Tensor, size: int, power: int) -> Tensor:
    if params.dim() == 3:
        return torch.stack([read(filterbank, image, one, size, power) for one in params.unbind(1)], 1)
    dtype = compute_dtype(image)
    y, x, gamma = filterbank(params.to(dtype).contiguous(), size, image.shape[2], image.shape[3])
    patch = y[:, None] @ image.to(dtype) @ x[:, None].mT
    return (gamma.pow(power)[:, None, None, None] * patch).to(image.dtype)


def write(filterbank: Filterbank, patch: Tensor, params: Tensor, height: int, width: int, power: int) -> Tensor:
    dtype = compute_dtype(patch)
    y, x, gamma = filterbank(params.to(dtype).contiguous(), patch.shape[2], height, width)
    image = y[:, None].mT @ patch.to(dtype) @ x[:, None]
    return (gamma.pow(power)[:, None, None, None] * image).to(patch.dtype)


def window_grad(
    filterbank: Filterbank, filterbank_backward: FilterbankBackward, patch: Tensor, image: Tensor, params: Tensor, power: int
) -> Tensor:
    if params.dim() == 3:
        pairs = zip(patch.unbind(1), params.unbind(1), strict=True)
        grads = [window_grad(filterbank, filterbank_backward, part, image, one, power) for part, one in pairs]
        return torch.stack(grads, 1)
    size, (height, width), dtype = patch.shape[2], image.shape[2:], compute_dtype(image)
    wide_params = params.to(dtype).contiguous()
    y, x, gamma = filterbank(wide_params, size, height, width)
    scaled, image = patch.to(dtype) * gamma.pow(power)[:, None, None, None], image.to(dtype)
    grad_y = (scaled @ (image @ x[:, None].mT).mT).sum(1)
    grad_x = ((y[:, None].mT @ scaled).mT @ image).sum(1)
    grad_gamma = power * (grad_y * y).sum((1, 2)) / gamma
    return filterbank_backward(grad_y, grad_x, grad_gamma, wide_params, size, height, width).to(params.dtype)
