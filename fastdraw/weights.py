"""Weights in safetensors files from anywhere: read whole, and checked against the configuration that they are said to be of.

Nothing is pickled, so opening a file never runs code. Each function takes the kind of ValueError that its caller raises. What
is written goes through the same checks as what is read, before any file is touched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastdraw.checks import expected
from fastdraw.files import utf8_name
from fastdraw.text import short

#: What weights may be stored in.
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
#: Numbers that a model may keep of one image's glimpses: a tebibyte of them in float32.
MOST = 1 << 38
#: Names that torch's tools give to weights, and what makes plain ones of them.
_TOOLS = (
    (re.compile(r"(^|\.)parametrizations\."), "torch.nn.utils.parametrize.remove_parametrizations"),
    (re.compile(r"_(orig|mask)$"), "torch.nn.utils.prune.remove"),
    (re.compile(r"_[gv]$"), "torch.nn.utils.remove_weight_norm"),
)


def read(file: Path, error: type[ValueError] = ValueError) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A safetensors file's tensors, on the CPU, and its metadata. Raises `error` for a torn file or one of another kind."""
    from safetensors import SafetensorError, safe_open

    try:
        with utf8_name(file) as name, safe_open(name, framework="pt", device="cpu") as opened:
            # Cloned: the tensors would otherwise be views of a mapped file that somebody may cut short.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
            return tensors, opened.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError, LookupError, RuntimeError, AttributeError, MemoryError) as came:
        raise error(f"{file}: expected a whole safetensors file, got {short(came)}") from came


def metadata(file: Path) -> dict[str, str]:
    """A safetensors file's metadata alone; empty where it is no such file."""
    from safetensors import SafetensorError, safe_open

    try:
        with utf8_name(file) as name, safe_open(name, framework="pt", device="cpu") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError):
        return {}


def shapes(file: Path, specification: Any, config: Any, error: type[ValueError] = ValueError) -> dict[str, tuple[int, ...]]:
    """The weights of `specification` that `config` means, made without memory: a hostile file may claim any size."""
    try:
        with torch.device("meta"):
            model = specification.from_config(config)
    except (RuntimeError, OverflowError, TypeError) as came:
        raise error(f"{file}: expected a model's configuration, got sizes that no memory holds") from came
    # The number of glimpses shows in no weight.
    glimpses, (channels, height, width) = config.glimpses, config.image_shape
    if glimpses * (getattr(config, "latent_size", 1) + config.hidden_size) + channels * height * width > MOST:
        raise error(f"{file}: expected a model's configuration, got sizes that no memory holds")
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def check(
    file: Path,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, tuple[int, ...]],
    error: type[ValueError] = ValueError,
    what: str = "",
) -> None:
    """Raises `error` unless `tensors` are of exactly these names and shapes, and finite floats. `what` stands before names."""
    extra = min(map(str, tensors.keys() - shapes.keys()), default=None)
    why = next(
        (f": {tool} makes plain weights of it" for name, tool in _TOOLS if extra is not None and name.search(extra)), ""
    )
    for name, shape in shapes.items():
        tensor, full = tensors.get(name), f"{what}.{name}" if what else name
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape or tensor.dtype not in DTYPES:
            came = "nothing" if tensor is None else _described(tensor)
            came += f" but {short(extra)}{why}" if tensor is None and why else ""
            raise error(f"{file}: expected {full} to be floats of shape {shape}, got {came}")
        if tensor.is_meta or tensor.layout != torch.strided:
            raise error(f"{file}: expected {full} to hold values, got a tensor on {tensor.device} laid out as {tensor.layout}")
        if not torch.isfinite(tensor).all():
            raise error(f"{file}: expected finite numbers in {full}, got NaN or infinity")
    if extra is not None:
        raise error(f"{file}: expected the {what or 'weights'} that its configuration means, got {short(extra)} as well{why}")


def _described(value: object) -> str:
    return f"{value.dtype} of shape {tuple(value.shape)}" if isinstance(value, Tensor) else short(type(value).__name__)


def plain(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: on the CPU, contiguous, each in memory of its own."""
    made: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        if (place := tensor.untyped_storage().data_ptr()) in seen:
            tensor = tensor.clone()
        seen.add(place)
        made[name] = tensor
    return made


def check_path(name: str, value: Any) -> str:
    """A path as text. Raises TypeError for anything else."""
    if not isinstance(value, (str, os.PathLike)) or not isinstance(path := os.fspath(value), str):
        raise expected(name, "a path", value, TypeError)
    return path


def check_device(name: str, value: Any) -> torch.device:
    """A device that there is. Raises TypeError or ValueError."""
    if not isinstance(value, (str, int, torch.device)) or isinstance(value, bool):
        raise expected(name, "a device", value, TypeError)
    try:
        device = torch.device(value)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError, OverflowError) as error:
        raise expected(name, f"a device that this PyTorch finds ({short(error)})", value) from None
    return device
