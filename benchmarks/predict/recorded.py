"""The launches of a step, in their order, without a device: the step itself on the meta device, whose tensors have shapes and
no memory. What the kernels' launchers would launch is noted down, and so is every operator of torch's own that is a kernel.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.nn.utils import clip_grad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fastdraw
from fastdraw import dispatch
from fastdraw.kernels import triton as kernels
from fastdraw.kernels.triton import launch as launching
from fastdraw.kernels.triton import pieces
from fastdraw.kernels.triton.launch import Launch


class Setting(NamedTuple):
    """model: a preset's name; what: "train", "forward" (without gradients) or "sample"."""

    model: str
    batch: int
    precision: str = "bfloat16"
    what: str = "train"

    @property
    def name(self) -> str:
        return f"{self.model} {self.what} B={self.batch} {self.precision}"


class Torch(NamedTuple):
    """A kernel of torch's own: bytes read and written, and of a product its operations and the operands' dtype."""

    name: str
    bytes: int
    operations: int = 0
    dtype: str = ""


AUTOCAST = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": None, "tf32": None}
#: Operators that give memory or look at numbers, and are no kernels.
_NO_KERNELS = ("empty", "lift_fresh", "detach", "_local_scalar_dense", "record_function", "alias")
_PRODUCTS = ("mm", "addmm", "addmm_")


def recorded(setting: Setting) -> list[Launch | Torch]:
    """Everything that one step of this setting launches, in its order."""
    noted: list[Launch | Torch] = []
    with _on_meta(noted.append, setting.precision):
        step = _step(setting)
        # The optimiser makes its state in the first step.
        step()
        noted.clear()
        with _Noting(noted, setting.precision == "tf32"):
            step()
    return noted


def _step(setting: Setting) -> Callable[[], Any]:
    """A training step is GraphedStep's, which runs plainly where there is no CUDA device."""
    classifies = setting.model in fastdraw.classifier_presets
    with torch.device("meta"):
        model: Any
        if classifies:
            model = fastdraw.DRAWClassifier.from_config(fastdraw.classifier_presets[setting.model])
        else:
            model = fastdraw.DRAW.from_config(fastdraw.presets[setting.model])
        x = torch.empty(setting.batch, *model.config.image_shape)
        known: dict[str, Any] = {"labels": torch.zeros(setting.batch, dtype=torch.int64)} if classifies else {}
    if setting.what == "train":
        step = fastdraw.GraphedStep(model, torch.optim.Adam(model.parameters(), foreach=True), example=x, clip=10.0)
        return lambda: step(x, **known)
    if setting.what == "sample":
        return torch.no_grad()(lambda: model.sample(setting.batch))
    return torch.no_grad()(lambda: model(x, **known))


@contextmanager
def _on_meta(note: Callable[[Launch | Torch], None], precision: str) -> Iterator[None]:
    """Tensors on the meta device are taken for CUDA tensors, and launches are noted down."""
    half, before = AUTOCAST[precision], torch.get_float32_matmul_precision()
    replaced: list[tuple[Any, str, Any]] = [
        (dispatch, "pieces", lambda name, device_type: pieces),
        (dispatch, "kernels", lambda name, device_type: kernels),
        # torch knows no autocast on the meta device.
        (torch.amp, "is_autocast_available", lambda device: True),
        (torch, "is_autocast_enabled", lambda *device: half is not None),
        (torch, "get_autocast_dtype", lambda *device: half),
        # Norms of many gradients are a few kernels together, as on a CUDA device.
        (clip_grad, "_has_foreach_support", lambda tensors, device: True),
    ]
    ours = [module for name, module in sys.modules.items() if name.startswith(kernels.__name__)]
    replaced += [(module, "run", note) for module in ours if getattr(module, "run", None) is launching.run]
    # On a CUDA device torch multiplies half precision into float32 in one kernel.
    replaced += [(module, "wide_product", _wide_product(note)) for module in ours if hasattr(module, "wide_product")]
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with ExitStack() as stack:
            for owner, name, function in replaced:
                stack.enter_context(mock.patch.object(owner, name, function))
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _wide_product(note: Callable[[Launch | Torch], None]) -> Callable[[Tensor, Tensor], Tensor]:
    def product(a: Tensor, b: Tensor) -> Tensor:
        out = a.new_empty(a.shape[0], b.shape[1], dtype=torch.float32)
        note(_product("mm", a, b, [out], torch.get_float32_matmul_precision() == "high"))
        return out

    return product


def _product(name: str, a: Tensor, b: Tensor, others: list[Tensor], tf32: bool) -> Torch:
    dtype = "tf32" if tf32 and a.dtype == torch.float32 else str(a.dtype).split(".")[-1]
    sizes = f"{a.shape[-2]}x{a.shape[-1]}x{b.shape[-1]}"
    return Torch(f"{name} {sizes}", _bytes([a, b, *others]), 2 * a.numel() * b.shape[-1], dtype)


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


class _Noting(TorchDispatchMode):
    """Notes down torch's operators, and goes inside fastdraw's own, which on this device would give shapes alone."""

    def __init__(self, noted: list[Launch | Torch], tf32: bool) -> None:
        super().__init__()
        self.noted, self.tf32 = noted, tf32

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "fastdraw":
            with self:
                return func._op_dk(torch._C.DispatchKey.CompositeExplicitAutograd, *args, **(kwargs or {}))
        given = _tensors((args, kwargs))
        out = func(*args, **(kwargs or {}))
        made, name = _tensors(out), func.__name__.split(".")[0]
        memory = {tensor.untyped_storage()._cdata for tensor in given}
        fresh = any(tensor.untyped_storage()._cdata not in memory for tensor in made)
        if (fresh or func._schema.is_mutable) and not any(word in func.__name__ for word in _NO_KERNELS):
            self.noted.append(self._kernel(name, given, made))
        return out

    def _kernel(self, name: str, given: list[Tensor], made: list[Tensor]) -> Torch:
        if name not in _PRODUCTS:
            return Torch(name, _bytes([*given, *made]))
        a, b = given[1:3] if name.startswith("addmm") else given[:2]
        return _product(name, a, b, [given[0], *made] if name.startswith("addmm") else made, self.tf32)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]
