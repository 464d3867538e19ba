"""A model's layers as modules. Kernels take their weights and call nothing, which is the same model only where a layer is no
more than its weights: `weights` gives them there, and None elsewhere, where calls.py calls each layer once a glimpse.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules import module as torch_modules
from torch.nn.utils import parametrize

from fastdraw import checks

#: What a layer may be, and which of its attributes are its weights.
KINDS = {nn.Linear: ("weight", "bias"), nn.LSTMCell: ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
#: As it was when this was imported: some tools put another in its place, for every layer.
_FORWARD: dict[type[nn.Module], Callable[..., Any]] = {kind: kind.forward for kind in KINDS}
#: Tensors that are their numbers and nothing else, and those that stand for them while a graph is made.
PLAIN = (nn.Parameter, Tensor)
_TRACED = (FakeTensor, FunctionalTensor)
#: Global hooks of torch's own that ask which module runs, and change nothing.
_TRACKERS = ("torch.utils.module_tracker", "torch.distributed._tools.mod_tracker")
_HOOKS = {
    "_forward_pre_hooks": "a forward pre-hook",
    "_forward_hooks": "a forward hook",
    "_backward_pre_hooks": "a backward pre-hook",
    "_backward_hooks": "a backward hook",
}
#: What some hooks of torch's are for, by their class.
_TOOLS = {
    "BasePruningMethod": ("is pruned", "make it permanent with torch.nn.utils.prune.remove"),
    "WeightNorm": (
        "is normalised by the older weight_norm",
        "torch.nn.utils.parametrizations.weight_norm in its place keeps the speed",
    ),
    "SpectralNorm": (
        "is normalised by the older spectral_norm",
        "torch.nn.utils.parametrizations.spectral_norm in its place keeps the speed",
    ),
}


def plain(layer: Any, kind: type[nn.Module]) -> bool:
    """Whether calling the layer is the maths of `kind` on its weights and nothing more. Parametrised weights are tensors as
    well once they are read; a pass reads them once (`once`)."""
    if type(layer) is not kind and not _parametrised(layer, kind):
        return False
    return not (
        layer._forward_hooks
        or layer._forward_pre_hooks
        or layer._backward_hooks
        or layer._backward_pre_hooks
        or not own_forward(layer, kind)
    )


def own_forward(layer: Any, kind: type[nn.Module]) -> bool:
    """Whether it has its class's forward, and its class the one that torch gave it; the compiler does not see the latter."""
    mine = layer.__dict__
    return not ("forward" in mine or "_call_impl" in mine) and (
        torch.compiler.is_compiling() or kind.forward is _FORWARD[kind]
    )


def _parametrised(layer: Any, kind: type[nn.Module]) -> bool:
    """torch gives such a layer a class of its own, below its kind."""
    return isinstance(layer, kind) and type(layer).__bases__ == (kind,) and parametrize.is_parametrized(layer)


def watched() -> bool:
    """Whether hooks for all modules are there."""
    return bool(
        torch_modules._global_forward_hooks
        or torch_modules._global_forward_pre_hooks
        or torch_modules._global_backward_hooks
        or torch_modules._global_backward_pre_hooks
    ) and any(_global_hooks())


def _global_hooks() -> list[Any]:
    tables = [getattr(torch_modules, f"_global{name}") for name in _HOOKS]
    return [hook for table in tables for hook in table.values() if getattr(hook, "__module__", "") not in _TRACKERS]


def weights(model: nn.Module, layers: dict[str, type[nn.Module]]) -> list[Tensor] | None:
    """The weights of these layers of `model`, by name and kind, in their order; None where one is more than its weights."""
    if watched():
        return None
    there = [model._modules.get(name) for name in layers]
    # All before the first is read: reading a parametrised weight may change what it is computed from.
    if not all(map(plain, there, layers.values())):
        return None
    found = []
    for layer, kind in zip(there, layers.values(), strict=True):
        own: Any = layer._parameters  # type: ignore[union-attr]
        for key in KINDS[kind]:
            tensor = own.get(key)
            if tensor is None:
                # Parametrised ones, and the views that FSDP puts there, are no parameters.
                tensor = getattr(layer, key, None)
            if type(tensor) not in PLAIN and not isinstance(tensor, _TRACED):
                return None
            found.append(tensor)
    return found


def reason(name: str, layer: nn.Module, kind: type[nn.Module]) -> tuple[str, str] | None:
    """What a layer is beside its weights, and the way back; None where that is nothing. A part of a weight is refused."""
    if type(layer) is not kind and not _parametrised(layer, kind):
        own = type(layer).__name__
        return (
            f"is of class {own if own != kind.__name__ else f'{type(layer).__module__}.{own}'}",
            f"put a plain nn.{kind.__name__} there (many adapters can be merged into one)",
        )
    for table, what in _HOOKS.items():
        for hook in getattr(layer, table).values():
            for tool in (_TOOLS.get(base.__name__) for base in type(hook).__mro__):
                if tool is not None:
                    return tool
            return f"has {what}", "remove it"
    if not plain(layer, kind):
        return "has a forward of its own", "delete it"
    for key in KINDS[kind]:
        if parametrize.is_parametrized(layer, key):
            continue
        tensor = getattr(layer, key, None)
        if tensor is None:
            return f"has no {key}", "give it one, of zeros"
        check_whole(f"{name}.{key}", tensor)
        if type(tensor) not in PLAIN and not isinstance(tensor, _TRACED):
            return f"has a {type(tensor).__name__} for its {key}", "put a plain tensor there"
    return None


#: What has been said of each model.
_said: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


def tell(model: Any) -> None:
    """Says once of each model which layers are more than their weights, and how to be fast again."""
    # A graph is made of what is called, and takes nothing that is said on the way.
    if torch.compiler.is_compiling():
        return
    for name in model.states:
        check_whole(name, getattr(model, name))
    # To generate, some may be missing.
    there = {name: layer for name in model.layer_kinds() if (layer := getattr(model, name, None)) is not None}
    reasons = [(name, reason(name, layer, model.layer_kinds()[name])) for name, layer in there.items()]
    told = [f"{name} {why[0]}: {why[1]}." for name, why in reasons if why is not None]
    if watched():
        told.append("There are hooks for all modules: remove them.")
    told = told or ["A parametrised weight is no plain tensor: put one there."]
    text = (
        f"{type(model).__name__} calls its layers glimpse by glimpse, since its kernels, which are faster, would use their"
        f" weights alone. To be fast again: {' '.join(told)}"
    )
    said = _said.setdefault(model, set())
    if text not in said:
        said.add(text)
        warnings.warn(text, stacklevel=2)


def layer_of(model: nn.Module, name: str) -> nn.Module:
    layer = getattr(model, name, None)
    if not isinstance(layer, nn.Module):
        raise checks.expected(name, "a layer", layer, TypeError)
    return layer


def callbacks(model: nn.Module) -> bool:
    """Whether anything of Python's is called in a pass that a graph of its kernels would leave out."""
    return watched() or any(getattr(module, table) for module in model.modules() for table in _HOOKS)


def refresh(model: nn.Module) -> None:
    """Computes the model's own tensors anew where torch's tools do that in a hook before forward, for calls of methods."""
    for hook in model._forward_pre_hooks.values():
        if any(base.__name__ in ("BasePruningMethod", "WeightNorm") for base in type(hook).__mro__):
            hook(model, None)


def once(model: nn.Module) -> AbstractContextManager[Any]:
    """In it each parametrised weight is computed once, not anew in every glimpse: a pass has one weight, as the fused one."""
    # Compiled graphs find the same computations themselves.
    if torch.compiler.is_compiling() or not any(parametrize.is_parametrized(module) for module in model.modules()):
        return nullcontext()
    return parametrize.cached()


def check_whole(name: str, tensor: Any) -> None:
    if type(tensor).__name__ == "DTensor":
        raise TypeError(
            f"{name}: expected a tensor that is whole on this process, got a DTensor. fully_shard gathers it where the model"
            ' itself is called; for its methods, torch.distributed.fsdp.register_fsdp_forward_method(model, "sample")'
        )
