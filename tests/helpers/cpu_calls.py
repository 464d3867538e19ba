"""Every function of a CPU backend, called once on the same inputs."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from fastdraw.kernels import cpu

BUILT = cpu.unavailable() is None
needs_library = pytest.mark.skipif(not BUILT, reason=str(cpu.unavailable()))
# Large enough for the C++ kernels to look for what a window sees: several tiles, of which the last is narrower than a vector;
# and more channels than tasks are wanted, with N above a vector.
LARGE = [(1, 2, 300, 515, 5), (1, 17, 67, 65, 19)]


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, height, width, size = shape
    scale = torch.tensor([0.7, 0.7, 1.0, 0.7, 0.7], dtype=torch.float64)
    params = torch.randn(batch, 5, dtype=torch.float64) * scale
    image = torch.randn(batch, channels, height, width, dtype=torch.float64)
    return params, image, torch.randn(batch, channels, size, size, dtype=torch.float64)


def kernel_results(kernels: ModuleType, params: Tensor, image: Tensor, patch: Tensor) -> dict[str, Tensor]:
    size, height, width = patch.shape[2], image.shape[2], image.shape[3]
    read_image, read_params = kernels.read_backward(patch, image, params, 1, True)
    write_patch, write_params = kernels.write_backward(image, patch, params, -1)
    y, x, gamma = kernels.filterbank(params, size, height, width)
    grads = [torch.linspace(-1, 1, t.numel(), dtype=torch.float64).view_as(t).to(t.dtype) for t in (y, x, gamma)]
    return {
        "read": kernels.read(image, params, size, 1), "read image": read_image, "read params": read_params,
        "write": kernels.write(patch, params, height, width, -1), "write patch": write_patch, "write params": write_params,
        "y": y, "x": x, "gamma": gamma,
        "filterbank params": kernels.filterbank_backward(*grads, params, size, height, width),
    }  # fmt: skip


def lstm_inputs(batch: int, features: int, hidden: int, dtype: torch.dtype) -> list[Tensor]:
    sizes = [(batch, features), (batch, hidden), (batch, hidden), (4 * hidden, features), (4 * hidden, hidden)]
    tensors = [torch.randn(size, dtype=torch.float64) / (1 if i < 3 else hidden**0.5) for i, size in enumerate(sizes)]
    tensors += [torch.randn(4 * hidden, dtype=torch.float64) for _ in range(2)]
    # The cell state is kept wider than half precision.
    return [t.to(torch.float32 if i == 2 and dtype.itemsize == 2 else dtype) for i, t in enumerate(tensors)]
