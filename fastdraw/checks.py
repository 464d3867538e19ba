"""What a user's input must be, tensors above all; sentences as scalars.py makes them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from fastdraw import env
from fastdraw.scalars import check_size, describe, expected


def check_glimpses(glimpses: Any, own: int) -> int:
    """Glimpses of one call: the model's own where none are named."""
    return own if glimpses is None else check_size("glimpses", glimpses)


def check_pair(name: str, value: Any) -> tuple[int, int]:
    """(height, width), each a whole number of at least 1."""
    if not isinstance(value, (tuple, list, torch.Size)) or len(value) != 2:
        raise expected(name, "(height, width)", value)
    return check_size(name, value[0]), check_size(name, value[1])


def check_sides(name: str, value: Any) -> tuple[int, int]:
    """(height, width) of a patch, from one whole number for both or from a pair, each at least 1."""
    if isinstance(value, (tuple, list, torch.Size)):
        return check_pair(name, value)
    side = check_size(name, value)
    return side, side


def check_tensor(name: str, value: Any, *shape: int | str) -> Tensor:
    """A floating-point tensor of this shape; a letter stands for any length, and is used in the message."""
    if not isinstance(value, Tensor):
        raise expected(name, "a tensor", value, TypeError)
    if not value.is_floating_point():
        raise expected(name, "a floating-point tensor", value, TypeError)
    found = value.shape
    fits = len(found) == len(shape)
    # Not a generator, which takes as long as all else here: small glimpses show it.
    for wanted, length in zip(shape, found):  # noqa: B905
        if isinstance(wanted, int) and wanted != length:
            fits = False
    if not fits:
        raise expected(name, f"shape [{', '.join(map(str, shape))}]", value)
    return value


def check_image(image: Any) -> Tensor:
    """[B, C, H, W] to be read: floating-point, or bytes."""
    if isinstance(image, Tensor) and not image.is_floating_point():
        if image.dtype != torch.uint8:
            raise expected("image", "a floating-point or uint8 tensor", image, TypeError)
        if image.dim() != 4:
            raise expected("image", "shape [B, C, H, W]", image)
        return image
    return check_tensor("image", image, "B", "C", "H", "W")


def check_memory(name: str, tensor: Tensor) -> None:
    """Its numbers lie in memory that is there: strided, and within a storage large enough."""
    try:
        room = tensor.untyped_storage().nbytes()
    except (RuntimeError, NotImplementedError):
        raise expected(name, "a strided tensor, with memory", tensor) from None
    if room < tensor.nbytes or tensor.storage_offset() or not tensor.is_contiguous():
        _check_extent(name, tensor, room)


def _check_extent(name: str, tensor: Tensor, room: int) -> None:
    """The same for any strides."""
    if tensor.numel() == 0:
        return
    last = sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    needed = tensor.itemsize * (tensor.storage_offset() + last + 1)
    if room < needed:
        raise ValueError(
            f"{name}: expected {needed} bytes of memory behind {describe(tensor)}, got {room}: it was released or resized"
        )


def check_same(attribute: str, first: str, one: Tensor, second: str, other: Tensor) -> None:
    """Two arguments must agree in device or dtype."""
    if getattr(one, attribute) != getattr(other, attribute):
        raise ValueError(
            f"{second}: expected the {attribute} of {first} ({getattr(one, attribute)}), got {getattr(other, attribute)}"
        )


def check_params(params: Any, *before: int | str) -> Tensor:
    """[*before, 5], or 7 numbers where stride and sigma are of their own for x and y."""
    own = isinstance(params, Tensor) and params.dim() > 0 and params.shape[-1] == 7
    return check_tensor("params", params, *before, 7 if own else 5)


def check_windows(params: Any, batch: int | str = "B") -> Tensor:
    """[B, 5], or [B, K, 5] for K windows of each image; 7 as above."""
    several = isinstance(params, Tensor) and params.dim() == 3
    return check_params(params, batch, *(("K",) if several else ()))


def values_are_checked(tensor: Tensor) -> bool:
    """Whether to look into a tensor: by default only where looking costs no device synchronisation, and never where it has no
    values, or where what is seen would become part of a graph."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or tensor.is_meta or isinstance(tensor, FakeTensor):
        return False
    if torch._C._get_dispatch_mode(torch._C._TorchDispatchModeKey.PROXY) is not None:
        return False
    if not env.check_values(default=tensor.device.type == "cpu"):
        return False
    # Nothing can be read while a step is captured. GraphedStep looks at each batch before it replays.
    return tensor.device.type != "cuda" or not torch.cuda.is_current_stream_capturing()


def _plain(tensor: Tensor) -> Tensor:
    """What torch.func's transforms have wrapped: under vmap, the tensors of all calls."""
    while torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        tensor = torch._C._functorch.get_unwrapped(tensor)
    return tensor


def check_unit_interval(name: str, x: Tensor) -> None:
    """Every value in [0, 1]; NaN and infinity are refused with them."""
    x = x if torch.compiler.is_compiling() else _plain(x)
    if x.numel() == 0 or not values_are_checked(x):
        return
    check_memory(name, x)
    low, high = (float(v) for v in torch.aminmax(x.detach()))
    # Written so that NaN, which compares false, is refused too.
    if not (low >= 0.0 and high <= 1.0):
        raise ValueError(f"{name}: expected values in [0, 1], got values from {low:g} to {high:g}")


def check_where_compiled(x: Tensor | None, labels: Tensor | None = None, classes: int = 0) -> None:
    """Inside an operator: values that torch.compile did not look at, where FASTDRAW_CHECK_VALUES asks for it."""
    if env.check_values(default=False):
        if x is not None:
            check_unit_interval("x", x)
        if labels is not None:
            check_label_values(labels, classes)


def check_labels(labels: Any, batch: int, classes: int, like: Tensor) -> Tensor:
    """Class numbers: int64 [batch], from 0 to classes - 1, on the device of the weights `like`."""
    if not isinstance(labels, Tensor):
        raise expected("labels", "a tensor", labels, TypeError)
    if labels.dtype != torch.int64 or labels.shape != (batch,):
        raise expected("labels", f"an int64 tensor of shape [{batch}]", labels)
    check_same("device", "the model's weights", like, "labels", labels)
    check_label_values(labels if torch.compiler.is_compiling() else _plain(labels), classes)
    return labels


def check_label_values(labels: Tensor, classes: int) -> None:
    if labels.numel() and values_are_checked(labels):
        low, high = (int(v) for v in torch.aminmax(labels))
        if low < 0 or high >= classes:
            raise ValueError(f"labels: expected class numbers from 0 to {classes - 1}, got numbers from {low} to {high}")


def check_boxes(boxes: Any) -> None:
    """[..., 4], (x1, y1, x2, y2): finite, and no side before the other."""
    if not isinstance(boxes, Tensor):
        raise expected("boxes", "a tensor", boxes, TypeError)
    if not boxes.is_floating_point():
        raise expected("boxes", "a floating-point tensor", boxes, TypeError)
    if boxes.dim() == 0 or boxes.shape[-1] != 4:
        raise expected("boxes", "shape [..., 4], of (x1, y1, x2, y2)", boxes)
    if boxes.numel() == 0 or not values_are_checked(boxes) or torch._C._functorch.is_functorch_wrapped_tensor(boxes):
        return
    check_memory("boxes", boxes)
    values = boxes.detach()
    # In few calls where all is well; NaN compares false, and goes on.
    least, most = (values[..., 2:] - values[..., :2]).aminmax()
    if least >= 0 and most < math.inf:
        return
    # Written so that NaN, which compares false, is refused too.
    fine = (values[..., :2] <= values[..., 2:]).all(-1) & values.isfinite().all(-1)
    if not fine.all():
        place = fine.logical_not().nonzero()[0].tolist()
        box = ", ".join(f"{side:g}" for side in values[tuple(place)].tolist())
        raise ValueError(f"boxes: expected finite (x1, y1, x2, y2) with x1 <= x2 and y1 <= y2, got ({box}) at {place}")


def check_readable(name: str, tensor: Tensor) -> None:
    """Its values can be read on the host, on which what is computed hangs."""
    if tensor.is_meta or isinstance(tensor, FakeTensor):
        raise expected(name, "a tensor with values, which are read on the host", tensor)
    if not torch.compiler.is_compiling() and not torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        check_memory(name, tensor)


def check_index(index: Any, batch: int) -> None:
    """Image numbers [N] from 0 to batch - 1."""
    if not isinstance(index, Tensor):
        raise expected("index", "a tensor", index, TypeError)
    if index.dtype not in (torch.int64, torch.int32):
        raise expected("index", "an int64 or int32 tensor", index, TypeError)
    if index.dim() != 1:
        raise expected("index", "shape [N]", index)
    check_readable("index", index)
    if index.numel():
        low, high = (int(v) for v in torch.aminmax(index))
        if low < 0 or high >= batch:
            raise ValueError(f"index: expected image numbers from 0 to {batch - 1}, got numbers from {low} to {high}")


def check_generator(generator: Any, device: torch.device, noise: Any = None) -> None:
    """A generator on the model's device, and no noise beside it, which would make it idle."""
    if not isinstance(generator, torch.Generator):
        raise expected("generator", "a torch.Generator", generator, TypeError)
    if generator.device.type != device.type:
        raise ValueError(f"generator: expected one on {device}, where the model is, got one on {generator.device}")
    if noise is not None:
        raise ValueError("generator: expected none beside noise, which is what it would draw")


def check_dtype(dtype: Any) -> torch.dtype | None:
    """The dtype of new weights; None: torch's default."""
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise expected("dtype", "a floating-point dtype", dtype, TypeError)
    return dtype
