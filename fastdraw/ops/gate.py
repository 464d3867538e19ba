"""What every operator asks of the tensors that it is given, before anything goes to a kernel: a kernel takes addresses and
sizes, and looks at nothing else.

A tensor's shape says nothing of the memory behind it, which may be released, on another device, or too small; a model's layer
may have been replaced; and what autograd saved may come back as something else, from hooks that store it with a loss.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fastdraw import checks
from fastdraw.ops import direct

#: Of weights, images and patches.
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def common_dtype(tensors: Iterable[Tensor | None]) -> torch.dtype:
    """The widest of theirs, in which every number of theirs can be told."""
    dtype = None
    for tensor in tensors:
        if tensor is not None and tensor.dtype != dtype:
            dtype = tensor.dtype if dtype is None else torch.promote_types(dtype, tensor.dtype)
    assert dtype is not None
    return dtype


def converted(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`tensor.to(dtype)`, which reads memory without asking whether it is there; where tracers and transforms hold the tensor,
    its memory is theirs."""
    if tensor.dtype == dtype:
        return tensor
    if not torch.compiler.is_compiling() and not direct.wrapped(tensor):
        checks.check_memory(name, tensor)
    return tensor.to(dtype)


def check(name: str, tensor: Tensor, like: Tensor, shape: Sequence[int], dtypes: Sequence[torch.dtype] | None = None) -> None:
    """A tensor of this shape, in memory, on the device of `like`, of one of these dtypes, or of any floating one."""
    if tensor.shape != shape:
        raise checks.expected(name, f"shape {list(shape)}", tensor)
    if tensor.device != like.device:
        raise checks.expected(name, f"a tensor on {like.device}", tensor)
    if tensor.dtype not in dtypes if dtypes else not tensor.is_floating_point():
        what = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes) if dtypes else "floating-point"
        raise checks.expected(name, f"a {what} tensor", tensor, TypeError)
    checks.check_memory(name, tensor)


def check_layers(
    paths: Sequence[str],
    layers: Sequence[Tensor | None],
    shapes: Sequence[tuple[int, ...] | None],
    device: torch.device,
) -> None:
    """A model's layers as large as its configuration says, and where the input is: any may have been replaced.

    paths: where the model keeps each. A shape of None: of a layer that is not looked at."""
    for path, tensor, shape in zip(paths, layers, shapes, strict=True):
        if shape is not None and (tensor is None or tensor.shape != shape):
            raise checks.expected(path, f"a tensor of shape {list(shape)}", tensor)
        if tensor is not None and tensor.device != device:
            raise checks.expected(path, f"a tensor on {device}", tensor)


def kept(tape: Any, form: Mapping[str, tuple[tuple[int, ...], torch.dtype]], like: Tensor) -> Any:
    """A tape that autograd kept, contiguous. It comes back through hooks, which may store it as something else than what
    `form` says of its fields."""
    for name, (sizes, dtype) in form.items():
        check(f"tape_{name}", getattr(tape, name), like, sizes, (dtype,))
    return tape._make(tensor.contiguous() for tensor in tape)
