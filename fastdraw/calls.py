"""A model's layers, called once a glimpse as the reference does, with whatever their forward, hooks and wrappers do."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from fastdraw import checks
from fastdraw.layers import KINDS, PLAIN, check_whole, layer_of, own_forward, reason, watched
from fastdraw.text import short


class LayerError(ValueError, RuntimeError):
    """A layer that does not do what the model has it for: a ValueError, and the RuntimeError that torch's modules raise."""


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
        self.plain = {name: not watched() and reason(name, self.layers[name], kind) is None for name, kind in layers.items()}
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
    return type(layer) is kind and not layer._forward_pre_hooks and own_forward(layer, kind)


def _check_weight(name: str, tensor: Any, shape: tuple[int, ...] | None, like: Tensor) -> None:
    check_whole(name, tensor)
    if not isinstance(tensor, Tensor):
        raise checks.expected(name, "a tensor", tensor, TypeError)
    if shape is not None and tensor.shape != shape:
        raise checks.expected(name, f"a tensor of shape {list(shape)}", tensor)
    if tensor.device != like.device:
        raise checks.expected(name, f"a tensor on {like.device}", tensor)
    if type(tensor) in PLAIN and not torch.compiler.is_compiling() and not _transforms():
        checks.check_memory(name, tensor)


#: Not public, so it may go: then memory is not looked at.
_transforms: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
