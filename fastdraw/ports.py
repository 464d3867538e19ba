"""Weights trained by other ports of DRAW: those whose maths is the paper's load, the others are refused by name and reason.

A layer that has the right shape may still mean something else: where a port counts pixels from 0, say, its weights would load
and then draw wrongly. docs/coming-from-other-ports.md says more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastdraw import checks, reference
from fastdraw.state_dict import StateDictError

_CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_LAYER = ("weight", "bias")


class _Port(NamedTuple):
    """`layers`: the port's layers by fastdraw's; several of them are one of fastdraw's, cut along the outputs."""

    name: str
    layers: dict[str, tuple[str, ...]]


class _Refused(NamedTuple):
    """`marks`: beginnings of names, all of which only this port has."""

    name: str
    marks: tuple[str, ...]
    reason: str


_PORTS = (
    _Port(
        "kamenbliznashki/generative_models",
        {
            "encoder": ("encoder",),
            "decoder": ("decoder",),
            "latent": ("z_linear",),
            "patch": ("write_linear",),
            "read_attention": ("read_attention_linear",),
            "write_attention": ("write_attention_linear",),
        },
    ),
    _Port(
        "Natsu6767/Generating-Devanagari-Using-DRAW without attention",
        {"encoder": ("encoder",), "decoder": ("decoder",), "latent": ("fc_mu", "fc_sigma"), "patch": ("fc_write",)},
    ),
)

_FROM_ZERO = "it counts pixels and filters from 0 around centres that count from 1, so its windows stand elsewhere"
_ONE_HEAD = "one layer places both the read and the write window"
_SQUARED = "the exponent of its filters is -((a - mu) / 2 sigma^2)^2, which is another width"

_REFUSED = (
    _Refused(
        "Natsu6767/Generating-Devanagari-Using-DRAW",
        ("fc_attention.", "fc_mu."),
        f"{_FROM_ZERO}; {_ONE_HEAD} (trained without attention, it loads once fc_attention is taken out)",
    ),
    _Refused(
        "czm0/draw_pytorch and its copies (chenzhaomin123, HolyChen, ShuaiyiHuang)",
        ("dec_linear.", "dec_w_linear."),
        f"{_FROM_ZERO}; {_ONE_HEAD}; {_SQUARED}",
    ),
    _Refused(
        "ericjang/draw",
        ("mu/", "sigma/"),
        f"with attention {_FROM_ZERO}, and {_SQUARED}; its LSTM's gates are in the order i, g, f, o, and it adds 1 to f",
    ),
    _Refused(
        "jbornschein/draw",
        ("/drawmodel/",),
        f"{_FROM_ZERO}; its centres are (g~ + 1) W / 2 and its filters' sums carry 1e-4; its LSTM has peepholes",
    ),
)


def load_port_weights(model: reference.DRAW, state_dict: Mapping[str, Any]) -> None:
    """Loads into `model` what another port of DRAW saved, if that port computes what the paper says.

        model = fastdraw.DRAW((1, 28, 28), glimpses=32, hidden_size=256, latent_size=100, read_size=2, write_size=5)
        saved = torch.load("state_checkpoint.pt", weights_only=True)
        fastdraw.load_port_weights(model, saved["model_state_dicts"][0])

    model       a DRAW of the size that the port's model had. The number of glimpses, and whether attention was used, do not
                show in the weights: give what the port was run with.
    state_dict  the port's: from kamenbliznashki/generative_models, or from Natsu6767/Generating-Devanagari-Using-DRAW trained
                without attention. Ports begin with zero states and a zero canvas, and so will `model`.

    Outputs then are the port's to rounding, but for the 1e-8 that kamenbliznashki's adds to the sums of its filters.

    Raises ValueError for weights of a port that computes something else, naming it and the reason, for weights of no known
    port, and for those of another size, naming the first; `model` is left as it was. TypeError for what is no state_dict.
    """
    if not isinstance(model, reference.DRAW):
        raise checks.expected("model", "a fastdraw.DRAW", model, TypeError)
    if not isinstance(state_dict, Mapping):
        raise checks.expected("state_dict", "a mapping of names to tensors", state_dict, TypeError)
    if "model_state_dicts" in state_dict:
        raise StateDictError('state_dict: expected saved["model_state_dicts"][0], got the whole of what the port saved')
    names = sorted(map(str, state_dict))
    for refused in _REFUSED:
        if all(any(name.startswith(mark) for name in names) for mark in refused.marks):
            raise StateDictError(
                f"state_dict: expected weights that mean what the paper's do, got those of {refused.name}: {refused.reason}"
            )
    for port in _PORTS:
        if {name.partition(".")[0] for name in names} == {layer for layers in port.layers.values() for layer in layers}:
            return _load(model, state_dict, port)
    known = ", ".join(port.name for port in _PORTS)
    came = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "nothing"
    raise StateDictError(f"state_dict: expected the weights of a port with the paper's maths ({known}), got {came}")


def _load(model: reference.DRAW, state_dict: Mapping[str, Any], port: _Port) -> None:
    own = model.state_dict()
    # Zero where the port has nothing: its first states and its first canvas.
    new = {name: torch.zeros_like(tensor) for name, tensor in own.items() if name.startswith("initial_")}
    known = set()
    for layer, theirs in port.layers.items():
        for kind in _CELL if layer in ("encoder", "decoder") else _LAYER:
            names = [f"{other}.{kind}" for other in theirs]
            known.update(names)
            # A port may make layers that it does not use, for attention that it was run without.
            if (name := f"{layer}.{kind}") in own:
                new[name] = _joined(state_dict, names, own[name], model)
    if extra := set(state_dict) - known:
        raise StateDictError(f"state_dict: expected the weights of {port.name}, got {min(map(str, extra))} as well")
    if missing := own.keys() - new.keys():
        raise StateDictError(f"model: expected one that the weights of {port.name} fill, got one with {min(missing)}")
    model.load_state_dict(new)


def _joined(state_dict: Mapping[str, Any], names: list[str], own: Tensor, model: reference.DRAW) -> Tensor:
    """The port's tensors `names`, one below the other, if together they are what `own` is."""
    shape = (own.shape[0] // len(names), *own.shape[1:])
    for name in names:
        tensor = state_dict.get(name)
        if not isinstance(tensor, Tensor) or tensor.shape != shape or not tensor.is_floating_point():
            came = "nothing" if tensor is None else checks.describe(tensor)
            raise StateDictError(f"state_dict: expected {name} of shape {tuple(shape)} for {model.config}, got {came}")
    return torch.cat([state_dict[name].to(own) for name in names])
