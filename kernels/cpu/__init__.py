"""The kernels in C++ for the CPU: read, write and filterbank whole, and of the LSTM step what is not a matrix product."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import torch
from torch import Tensor

from fastdraw.ops.contract import patch_dtype, wide_dtype

from ..images import strides
from .gemm import product
from .library import check, kernels
from .library import table as table
from .library import unavailable as unavailable
from .pages import prefer_large, read_buffer
from .sizes import FilterbankSizes, LstmSizes, SeenSizes, WholeSizes, WindowsSizes, named

#: Images of at most so many pixels are read whole, one window each; for larger ones what a window sees is found first.
SMALL = 64 * 64
#: Bytes of pixels that windows see, below which a read keeps nothing for its gradient.
LEAST_SEEN = 2 << 20
#: The kinds of pixels that the kernels for large images widen themselves, by their numbers in window.h.
_KINDS = {torch.bfloat16: 1, torch.float16: 2, torch.uint8: 3}


def _address(tensor: Tensor, *dtypes: torch.dtype) -> int:
    """Where a tensor's numbers begin, if they are what the C++ takes them for. Whether there are as many as its shape says is
    asked before by the operator, which knows the tensor's name."""
    if tensor.dtype not in dtypes or not tensor.is_cpu:
        raise TypeError(f"expected a CPU tensor of {' or '.join(map(str, dtypes))}, got {tensor.dtype} on {tensor.device}")
    address = tensor.data_ptr()
    if address == 0 and tensor.numel():
        raise ValueError(f"expected a tensor in memory, got one of shape {tuple(tensor.shape)} whose memory was released")
    return address


def _made_strides(shape: tuple[int, ...], form: torch.memory_format) -> tuple[int, ...]:
    """Of an image that `_image` made."""
    _, channels, height, width = shape
    if form == torch.channels_last and channels > 1 and height * width > 1:
        return channels * height * width, 1, channels * width, channels
    return channels * height * width, height * width, width, 1


def _as(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    return tensor if tensor.dtype == dtype else tensor.to(dtype)


def filterbank(params: Tensor, size: Sequence[int], height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    batch, dtype = params.shape[0], wide_dtype(params.dtype)
    params = _as(params, dtype)
    rows, columns = size
    y = torch.empty((batch, rows, height), dtype=dtype)
    x = torch.empty((batch, columns, width), dtype=dtype)
    gamma = torch.empty((batch,), dtype=dtype)
    sizes = named(FilterbankSizes, batch, height, width, rows, columns, params.shape[1], torch.get_num_threads())
    check(kernels(dtype).filterbank(sizes, _address(params, dtype), y.data_ptr(), x.data_ptr(), gamma.data_ptr()))
    return y, x, gamma


def filterbank_backward(
    grad_y: Tensor, grad_x: Tensor, grad_gamma: Tensor, params: Tensor, size: Sequence[int], height: int, width: int
) -> Tensor:
    wide = _as(params, wide_dtype(params.dtype))
    grad_y, grad_x, grad_gamma = (_as(t, wide.dtype).contiguous() for t in (grad_y, grad_x, grad_gamma))
    out = torch.empty_like(wide)
    sizes = named(FilterbankSizes, wide.shape[0], height, width, *size, wide.shape[1], torch.get_num_threads())
    pointers = (_address(t, wide.dtype) for t in (wide, grad_y, grad_x, grad_gamma, out))
    check(kernels(wide.dtype).filterbank_backward(sizes, *pointers))
    return _as(out, params.dtype)


def _through_windows(
    shape: tuple[int, ...],
    size: Sequence[int],
    power: int,
    params: Tensor,
    image: Tensor | None,
    patch: Tensor | None,
    image_out: Tensor | None,
    patch_out: Tensor | None,
    params_out: Tensor | None,
    kept: Tensor | None = None,
    form: torch.memory_format = torch.contiguous_format,
) -> None:
    """Read, write and their gradients: what is given, and what is to be filled. Of one dtype, but an image may be narrower.

    shape: the image's, [B, C, H, W]. kept: what a read leaves for its gradient to params, filled where that is not asked for.
    form: how image_out lies.
    """
    batch, channels, height, width = shape
    rows, columns, numbers = *size, params.shape[-1]
    functions, threads = kernels(params.dtype), torch.get_num_threads()
    # Narrower pixels are widened where they are read, but for small images, which are widened whole.
    kind = 0 if image is None else _KINDS.get(image.dtype, 0)
    small = (
        height * width <= SMALL
        and params.dim() == 2
        and (image is None or image.is_contiguous())
        and (image_out is None or image_out.is_contiguous())
    )
    if small and kind and image is not None:
        image = image.to(params.dtype)
    dtype = params.dtype
    pointers = (
        _address(params, dtype),
        0 if image is None else _address(image, dtype, *(() if small else _KINDS)),
        0 if patch is None else _address(patch, dtype),
        *(0 if t is None else t.data_ptr() for t in (image_out, patch_out, params_out)),
    )
    if small:
        sizes = named(WholeSizes, batch, channels, height, width, rows, columns, power, numbers, threads)
        return check(functions.whole(sizes, *pointers))
    windows = 1 if params.dim() == 2 else params.shape[1]
    from_image, from_channel, from_row, from_pixel = (0, 0, 0, 0) if image is None else strides(image)
    to_image, to_channel, to_row, to_pixel = (0, 0, 0, 0) if image_out is None else _made_strides(shape, form)
    keeps = int(kept is not None and params_out is None)
    kept_numel = 0 if kept is None else kept.numel() // (batch * windows)
    sizes = named(
        WindowsSizes, batch, windows, channels, height, width, rows, columns, power, numbers, kind,
        from_image, from_channel, from_row, from_pixel, to_image, to_channel, to_row, to_pixel, keeps, kept_numel, threads,
    )  # fmt: skip
    return check(functions.windows(sizes, *pointers, 0 if kept is None else _address(kept, dtype)))


def _pixels(image: Tensor, dtype: torch.dtype) -> Tensor:
    """What the kernels read: narrower pixels as they are, where they go with float32."""
    return image if image.dtype == dtype or (dtype == torch.float32 and image.dtype in _KINDS) else image.to(dtype)


def _image(shape: tuple[int, ...], dtype: torch.dtype, form: torch.memory_format, like: Tensor | None = None) -> Tensor:
    if like is not None and like.dtype == dtype and like.is_contiguous():
        # Takes half the time, which shows where images are small.
        image = torch.empty_like(like)
    else:
        image = torch.empty(shape, dtype=dtype, memory_format=form)
    # A large image is new memory: what costs is that the kernel hands it out page by page.
    if shape[2] * shape[3] > SMALL:
        prefer_large(image)
    return image


def read(image: Tensor, params: Tensor, size: Sequence[int], power: int, kept: Tensor | None = None) -> Tensor:
    dtype, shape = wide_dtype(image.dtype), image.shape
    params = _as(params, dtype)
    several = () if params.dim() == 2 else (params.shape[1],)
    patch = torch.empty((shape[0], *several, shape[1], *size), dtype=dtype)
    _through_windows(shape, size, power, params, _pixels(image, dtype), None, None, patch, None, kept)
    return _as(patch, patch_dtype(image.dtype))


def keeps(image: Tensor, params: Tensor, size: Sequence[int]) -> Tensor | None:
    """For five maps as large as a patch, of which the gradient is made without a pixel (window_read.h). None for small images,
    and where it would not pay.

    A backward pass without it makes the maps anew, and saves four of them in the forward pass; asking takes 0.05 ms, and new
    memory some 0.15 ms a MiB.
    """
    _, channels, height, width = image.shape
    dtype = wide_dtype(image.dtype)
    most = params.shape[:-1].numel() * channels * height * width * dtype.itemsize
    if height * width <= SMALL or most < LEAST_SEEN:
        return None
    window, found = _as(params, dtype).contiguous(), (ctypes.c_int64 * 2)()
    count, numbers = window.shape[:-1].numel(), window.shape[-1]
    sizes = named(SeenSizes, count, channels, height, width, *size, numbers)
    check(kernels(dtype).seen_pixels(sizes, window.data_ptr(), ctypes.addressof(found)))
    each, pixels = found
    if 2 * count * each > channels * pixels or pixels * channels * dtype.itemsize < LEAST_SEEN:
        return None
    return read_buffer((count, each), dtype)


def read_backward(
    grad_patch: Tensor,
    image: Tensor,
    params: Tensor,
    power: int,
    need_image: bool,
    form: torch.memory_format = torch.contiguous_format,
    kept: Tensor | None = None,
) -> tuple[Tensor | None, Tensor]:
    dtype, shape = wide_dtype(image.dtype), image.shape
    window, patch = _as(params, dtype), _as(grad_patch, dtype)
    grad_params = torch.empty_like(window)
    grad_image = _image(shape, dtype, form, image) if need_image else None
    _through_windows(
        shape, patch.shape[-2:], power, window, _pixels(image, dtype), patch, grad_image, None, grad_params, kept, form
    )
    return None if grad_image is None else _as(grad_image, image.dtype), _as(grad_params, params.dtype)


def write(
    patch: Tensor,
    params: Tensor,
    height: int,
    width: int,
    power: int,
    form: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    dtype = wide_dtype(patch.dtype)
    shape = (patch.shape[0], patch.shape[-3], height, width)
    image = _image(shape, dtype, form)
    _through_windows(shape, patch.shape[-2:], power, _as(params, dtype), None, _as(patch, dtype), image, None, None, form=form)
    return _as(image, patch.dtype)


def write_backward(
    grad_image: Tensor, patch: Tensor, params: Tensor, power: int, need_patch: bool = True
) -> tuple[Tensor | None, Tensor]:
    dtype = wide_dtype(patch.dtype)
    window, wide = _as(params, dtype), _as(patch, dtype)
    grad_params = torch.empty_like(window)
    grad_patch = torch.empty_like(wide) if need_patch else None
    image = _pixels(grad_image, dtype)
    _through_windows(image.shape, patch.shape[-2:], power, window, image, wide, None, grad_patch, grad_params)
    return None if grad_patch is None else _as(grad_patch, patch.dtype), _as(grad_params, params.dtype)


def lstm_step(
    x: Tensor, h: Tensor, c: Tensor, weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = c.dtype
    gates, recurrent = _as(product(x, weight_ih.t()), dtype), _as(product(h, weight_hh.t()), dtype)
    bias_ih, bias_hh = _as(bias_ih, dtype), _as(bias_hh, dtype)
    h_new, c_new = torch.empty_like(c), torch.empty_like(c)
    sizes = named(LstmSizes, batch=c.shape[0], hidden=c.shape[1], threads=torch.get_num_threads())
    tensors = (gates, recurrent, bias_ih, bias_hh, c, h_new, c_new)
    check(kernels(dtype).lstm_forward(sizes, *[_address(t, dtype) for t in tensors]))
    return _as(h_new, x.dtype), c_new, gates


def lstm_step_backward(
    grad_h: Tensor | None,
    grad_c: Tensor | None,
    gates: Tensor,
    c: Tensor,
    c_new: Tensor,
    x: Tensor,
    h: Tensor,
    weight_ih: Tensor,
    weight_hh: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = c.dtype
    grad_h = None if grad_h is None else _as(grad_h, dtype)
    grad_c = None if grad_c is None else _as(grad_c, dtype)
    grad_gates, grad_c_old = torch.empty_like(gates), torch.empty_like(c)
    grad_bias = torch.empty((gates.shape[1],), dtype=dtype)
    sizes = named(LstmSizes, batch=c.shape[0], hidden=c.shape[1], threads=torch.get_num_threads())
    tensors = (grad_h, grad_c, gates, c, c_new, grad_gates, grad_c_old, grad_bias)
    check(kernels(dtype).lstm_backward(sizes, *[0 if t is None else _address(t, dtype) for t in tensors]))
    grad = _as(grad_gates, x.dtype)
    return (
        product(grad, weight_ih),
        product(grad, weight_hh),
        grad_c_old,
        product(grad.t(), x),
        product(grad.t(), h),
        _as(grad_bias, x.dtype),
    )
