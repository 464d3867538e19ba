"""Every function of a backend's kernels, called once, by the rule of fastdraw/testing.py against the reference."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from types import ModuleType

import pytest
import torch
from operators import moderate_params
from torch import Tensor

from fastdraw import reference
from fastdraw.kernels import cpu
from fastdraw.ops.contract import wide_dtype
from fastdraw.testing import check, leaves, nudged

needs_library = pytest.mark.skipif(cpu.unavailable() is not None, reason=str(cpu.unavailable()))
# Large enough for the C++ kernels to look for what a window sees: several tiles, of which the last is narrower than a vector;
# and more channels than tasks are wanted, with N above a vector.
LARGE = [(1, 2, 300, 515, 5), (1, 17, 67, 65, 19)]


def inputs(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """(B, C, H, W, N) -> params, image and patch in float64; each patch and image also serves as the other's gradient."""
    batch, channels, height, width, size = shape
    image = torch.randn(batch, channels, height, width, dtype=torch.float64)
    return moderate_params(batch), image, torch.randn(batch, channels, size, size, dtype=torch.float64)


def kernel_results(kernels: ModuleType, params: Tensor, image: Tensor, patch: Tensor, power: int = 1) -> dict[str, Tensor]:
    """power: of gamma in the read; the write has the other one."""
    size, height, width = patch.shape[2], image.shape[2], image.shape[3]
    read_image, read_params = kernels.read_backward(patch, image, params, power, True)
    write_patch, write_params = kernels.write_backward(image, patch, params, -power)
    y, x, gamma = kernels.filterbank(params, (size, size), height, width)
    return {
        "read": kernels.read(image, params, (size, size), power), "read image": read_image, "read params": read_params,
        "write": kernels.write(patch, params, height, width, -power), "write patch": write_patch, "write params": write_params,
        "y": y, "x": x, "gamma": gamma,
        "filterbank params": kernels.filterbank_backward(*_slopes(y, x, gamma), params, (size, size), height, width),
    }  # fmt: skip


def _slopes(*bank: Tensor) -> list[Tensor]:
    """Gradients for a filterbank, the same in every dtype."""
    return [torch.linspace(-1, 1, t.numel(), dtype=torch.float64).view_as(t).to(t) for t in bank]


def reference_results(
    params: Tensor, image: Tensor, patch: Tensor, power: int = 1, slopes: Sequence[Tensor] | None = None
) -> dict[str, Tensor]:
    """The derivatives of L = gamma^power sum_c <P_c, F_Y I_c F_X^T>: to the patch it is the read, to the image the write.
    slopes: gradients for the filterbank, if not those of kernel_results."""
    params, image, patch = leaves((params, image, patch), (params.dtype, image.dtype, patch.dtype))
    y, x, gamma = reference.filterbank(params, patch.shape[2], (image.shape[2], image.shape[3]))
    wide = torch.promote_types(y.dtype, image.dtype)
    glimpse = y[:, None].to(wide) @ image.to(wide) @ x[:, None].to(wide).mT
    forms = [(gamma**one * (glimpse * patch.to(wide)).sum((1, 2, 3))).sum() for one in (power, -power)]
    read, read_image, read_params = torch.autograd.grad(forms[0], (patch, image, params), retain_graph=True)
    write_patch, write, write_params = torch.autograd.grad(forms[1], (patch, image, params), retain_graph=True)
    return {
        "read": read, "read image": read_image, "read params": read_params,
        "write": write, "write patch": write_patch, "write params": write_params,
        "y": y, "x": x, "gamma": gamma,
        "filterbank params": torch.autograd.grad((y, x, gamma), params, slopes or _slopes(y, x, gamma))[0],
    }  # fmt: skip


def check_glimpse(
    kernels: ModuleType, params: Tensor, image: Tensor, patch: Tensor, power: int = 1, device: str = "cpu"
) -> None:
    actual = kernel_results(kernels, *(tensor.to(device) for tensor in (params, image, patch)), power)
    check_results(actual, params, image, patch, power)


def check_results(
    actual: dict[str, Tensor], params: Tensor, image: Tensor, patch: Tensor, power: int = 1, rounds_filters: bool = False
) -> None:
    """rounds_filters: the kernels multiply filters in the image's dtype, as the reference does with params of that dtype."""
    wide, *data = (tensor.double() for tensor in (params, image, patch))
    naive, dtypes = reference_results(params, image, patch, power), []
    for name, result in actual.items():
        assert result.dtype == naive[name].dtype, f"{name}: {result.dtype}, expected {naive[name].dtype}"
        # A gradient is no finer than the dtype it is given in; a filterbank knows of no image.
        given = image.dtype if name.startswith(("read", "write")) else params.dtype
        dtypes.append(max((given, result.dtype), key=lambda dtype: torch.finfo(dtype).eps))
    rivals = [naive]
    if rounds_filters:
        half = reference_results(*(tensor.to(image.dtype) for tensor in (params, image, patch)), power)
        rivals.append({name: half[name] if name.startswith(("read", "write")) else naive[name] for name in naive})
    # As in `prove`: many filters on few pixels hang on the last bits of mu, which any arithmetic rounds, and a gradient that
    # all but vanishes beside its terms on theirs.
    exact = reference_results(wide, *data, power)
    slopes = _slopes(exact["y"], exact["x"], exact["gamma"])
    moved = (reference_results(*one[:3], power, one[3:]) for one in nudged([wide, *data, *slopes], image.dtype, 0))
    check(actual, exact, chain(rivals, moved), dtypes, str(tuple(image.shape)))


def lstm_inputs(batch: int, features: int, hidden: int, dtype: torch.dtype) -> list[Tensor]:
    sizes = [(batch, features), (batch, hidden), (batch, hidden), (4 * hidden, features), (4 * hidden, hidden)]
    tensors = [torch.randn(size, dtype=torch.float64) / (1 if i < 3 else hidden**0.5) for i, size in enumerate(sizes)]
    tensors += [torch.randn(4 * hidden, dtype=torch.float64) for _ in range(2)]
    # The cell state is kept wider than half precision.
    return [t.to(wide_dtype(dtype) if i == 2 else dtype) for i, t in enumerate(tensors)]


def check_lstm_step(kernels: ModuleType, shape: tuple[int, int, int], dtype: torch.dtype, device: str = "cpu") -> None:
    """New states, and gradients of both of them, of h alone and of c alone."""
    tensors = lstm_inputs(*shape, dtype)
    grads = [torch.randn_like(state) for state in tensors[1:3]]

    def specification(to: torch.dtype | None, used: list[bool]) -> list[Tensor]:
        x, h, c, *weights = leaves(tensors, [to or tensor.dtype for tensor in tensors])
        outputs = reference.lstm_step(x, (h, c), *weights)
        pairs = [(out, grad.to(out)) for out, grad, wanted in zip(outputs, grads, used, strict=True) if wanted]
        found = torch.autograd.grad([out for out, _ in pairs], [x, h, c, *weights[:3]], [grad for _, grad in pairs])
        return [*outputs, *found]

    x, h, c, *weights = given = [tensor.to(device) for tensor in tensors]
    h_new, c_new, gates = kernels.lstm_step(*given)
    assert (h_new.dtype, c_new.dtype, gates.dtype) == (dtype, c.dtype, c.dtype)
    for used in ([True, True], [True, False], [False, True]):
        wanted = [grad.to(device) if one else None for grad, one in zip(grads, used, strict=True)]
        found = kernels.lstm_step_backward(*wanted, gates, c, c_new, x, h, *weights[:2])
        assert [grad.dtype for grad in found] == [dtype, dtype, c.dtype, dtype, dtype, dtype]
        exact, naive = specification(torch.float64, used), specification(None, used)
        check([h_new, c_new, *found], exact, [naive], dtype, f"gradients of h and c: {used}")
