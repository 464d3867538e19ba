"""A model's layers as modules. Kernels take their weights and call nothing, which is the same model only where a layer is no
more than its weights: `weights` gives them there, and None elsewhere. There `Calls` calls each layer once a glimpse, as the
reference does, with whatever its forward, its hooks and its wrappers do.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch._subclasses.functional_tensor import FunctionalTensor
from torch.nn.modules import module as torch_modules
from torch.nn.utils import parametrize

from fastdraw import checks
from fastdraw.text import short

#: What a layer may be, and which of its attributes are its weights.
KINDS = {nn.Linear: ("weight", "bias"), nn.LSTMCell: ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
#: As it was when this was imported: some tools put another in its place, for every layer.
_FORWARD: dict[type[nn.Module], Callable[..., Any]] = {kind: kind.forward for kind in KINDS}
#: Tensors that are their numbers and nothing else, and those that stand for them while a graph is made.
_PLAIN = (nn.Parameter, Tensor)
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


class LayerError(ValueError, RuntimeError):
    """A layer that does not do what the model has it for: a ValueError, and the RuntimeError that torch's modules raise."""


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
        or not _own_forward(layer, kind)
    )


def _own_forward(layer: Any, kind: type[nn.Module]) -> bool:
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
            if type(tensor) not in _PLAIN and not isinstance(tensor, _TRACED):
                return None
            found.append(tensor)
    return found


def _reason(name: str, layer: nn.Module, kind: type[nn.Module]) -> tuple[str, str] | None:
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
        _check_whole(f"{name}.{key}", tensor)
        if type(tensor) not in _PLAIN and not isinstance(tensor, _TRACED):
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
        _check_whole(name, getattr(model, name))
    # To generate, some may be missing.
    there = {name: layer for name in model.layer_kinds() if (layer := getattr(model, name, None)) is not None}
    reasons = [(name, _reason(name, layer, model.layer_kinds()[name])) for name, layer in there.items()]
    told = [f"{name} {reason[0]}: {reason[1]}." for name, reason in reasons if reason is not None]
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


def state_dtype(model: nn.Module) -> torch.dtype:
    """Of states and results: float64 where any weight is, and float32 otherwise."""
    return torch.float64 if any(p.dtype == torch.float64 for p in model.parameters()) else torch.float32


class Calls:
    """The layers of a model, called by name. What goes in has the layer's own dtype, unless autocast chooses it; what comes
    out is checked, since a layer may be anything, and is widened to the dtype of states.

    layers     their kinds, by name
    states     names of the model's own tensors, looked at as weights are
    lstm_step  computes a plain nn.LSTMCell, whose own forward would keep c in half precision
    """

    def __init__(
        self, model: nn.Module, layers: dict[str, type[nn.Module]], states: tuple[str, ...], lstm_step: Callable[..., Any]
    ) -> None:
        self.kinds, self.lstm_step, self.state = layers, lstm_step, state_dtype(model)
        self.layers = {name: layer_of(model, name) for name in layers}
        self.plain = {name: not watched() and _reason(name, self.layers[name], kind) is None for name, kind in layers.items()}
        self.dtypes = {name: _input_dtype(layer, self.state) for name, layer in self.layers.items()}
        # Whose weights are used as they lie there. Hooks before a layer, and forwards put in, may bring them from elsewhere.
        self.used = {name for name, kind in layers.items() if _uses_its_weights(self.layers[name], kind)}
        self.checked: set[str] = set()
        for name in states:
            _check_weight(name, getattr(model, name), None, getattr(model, states[0]))

    def linear(self, name: str, x: Tensor, width: int) -> Tensor:
        """x [B, n] -> [B, width]."""
        self._check_weights(name, x, ((width, x.shape[1]), (width,)))
        result = self._call(name, (self._narrow(name, x),))
        self._check(name, result, (x.shape[0], width), x)
        return result.to(self.state)

    def lstm(self, name: str, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """One step: x [B, n] and (h, c) -> (h, c), [B, h] each."""
        h, c = state
        width = h.shape[1]
        self._check_weights(name, x, ((4 * width, x.shape[1]), (4 * width, width), (4 * width,), (4 * width,)))
        x, h = self._narrow(name, x), self._narrow(name, h)
        if self.plain[name]:
            layer: Any = self.layers[name]
            own = [getattr(layer, key) for key in KINDS[nn.LSTMCell]]
            own = own if torch.is_autocast_enabled(x.device.type) else [tensor.to(x.dtype) for tensor in own]
            result: Any = self.lstm_step(x, (h, c), *own)
        else:
            result = self._call(name, (x, (h, self._narrow(name, c))))
        if not isinstance(result, (tuple, list)) or len(result) != 2:
            raise TypeError(f"{name}: expected a layer that gives (h, c), got one that gives a {type(result).__name__}")
        for part in result:
            self._check(name, part, tuple(h.shape), x)
        return result[0].to(self.state), result[1].to(self.state)

    def _narrow(self, name: str, x: Tensor) -> Tensor:
        return x if torch.is_autocast_enabled(x.device.type) else x.to(self.dtypes[name])

    def _check_weights(self, name: str, like: Tensor, shapes: tuple[tuple[int, ...], ...]) -> None:
        """Once a pass, since torch's own products take another device's weights, or released ones, for numbers."""
        if name in self.checked:
            return
        self.checked.add(name)
        if name in self.used:
            for key, shape in zip(KINDS[self.kinds[name]], shapes, strict=True):
                tensor = getattr(self.layers[name], key)
                if tensor is None:
                    continue
                _check_weight(f"{name}.{key}", tensor, shape, like)
                mixed = tensor.dtype != self.dtypes[name] and not torch.is_autocast_enabled(like.device.type)
                if mixed and not (self.plain[name] and self.kinds[name] is nn.LSTMCell):
                    raise checks.expected(f"{name}.{key}", f"{self.dtypes[name]}, as the layer's others are", tensor)

    def _call(self, name: str, args: tuple[Any, ...]) -> Any:
        layer = self.layers[name]
        if name in self.used:
            return layer(*args)
        try:
            return layer(*args)
        except (TypeError, AttributeError, NotImplementedError) as error:
            raise TypeError(self._wrong(name, error)) from error
        except RuntimeError as error:
            # Those of torch's that tell of something else, as of memory, have classes of their own.
            if type(error) is not RuntimeError:
                raise
            raise LayerError(self._wrong(name, error)) from error

    def _wrong(self, name: str, error: Exception) -> str:
        kind, layer = self.kinds[name].__name__, type(self.layers[name]).__name__
        return f"{name}: expected a layer that is called as an nn.{kind} is, got a {layer}, which says: {short(error)}"

    def _check(self, name: str, result: Any, shape: tuple[int, ...], like: Tensor) -> None:
        if not isinstance(result, Tensor):
            raise TypeError(f"{name}: expected a layer that gives a tensor, got one that gives a {type(result).__name__}")
        if result.shape != shape or result.device != like.device or not result.is_floating_point():
            raise checks.expected(name, f"a layer that gives floats of shape {list(shape)} on {like.device}", result)


def _input_dtype(layer: nn.Module, otherwise: torch.dtype) -> torch.dtype:
    """The widest of a layer's own weights; where it is made of others, that of their first weight, before adapters' others."""
    floats = {name: p.dtype for name, p in layer.named_parameters() if p.is_floating_point()}
    if not any("." in name for name in floats):
        return reduce(torch.promote_types, floats.values()) if floats else otherwise
    return next((dtype for name, dtype in floats.items() if "weight" in name), next(iter(floats.values())))


def _uses_its_weights(layer: nn.Module, kind: type[nn.Module]) -> bool:
    return type(layer) is kind and not layer._forward_pre_hooks and _own_forward(layer, kind)


def _check_whole(name: str, tensor: Any) -> None:
    if type(tensor).__name__ == "DTensor":
        raise TypeError(
            f"{name}: expected a tensor that is whole on this process, got a DTensor. fully_shard gathers it where the model"
            ' itself is called; for its methods, torch.distributed.fsdp.register_fsdp_forward_method(model, "sample")'
        )


def _check_weight(name: str, tensor: Any, shape: tuple[int, ...] | None, like: Tensor) -> None:
    _check_whole(name, tensor)
    if not isinstance(tensor, Tensor):
        raise checks.expected(name, "a tensor", tensor, TypeError)
    if shape is not None and tensor.shape != shape:
        raise checks.expected(name, f"a tensor of shape {list(shape)}", tensor)
    if tensor.device != like.device:
        raise checks.expected(name, f"a tensor on {like.device}", tensor)
    if type(tensor) in _PLAIN and not torch.compiler.is_compiling() and not _transforms():
        checks.check_memory(name, tensor)


#: Not public, so it may go: then memory is not looked at.
_transforms: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
