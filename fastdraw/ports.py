"""Weights trained by other ports of DRAW: those whose maths is the paper's load, the others are refused by name and reason.

A layer that has the right shape may still mean something else: where a port counts pixels from 0, say, its weights would load
and then draw wrongly. docs/coming-from-other-ports.md says more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fastdraw import checks, reference
from fastdraw.config import DRAWConfig
from fastdraw.state_dict import StateDictError, check_names
from fastdraw.text import short

_CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
_LAYER = ("weight", "bias")


class _Port(NamedTuple):
    """`layers`: the port's layers by fastdraw's; several of them are one of fastdraw's, cut along the outputs.

    `initial`: its first canvas and states, where it learns them. `change` makes the same outputs of weights that mean
    something else, in place, where that can be done exactly. `prefix`: what stands before all names in the port's own files.
    """

    name: str
    layers: dict[str, tuple[str, ...]]
    initial: Mapping[str, str] = MappingProxyType({})
    change: Callable[[dict[str, Tensor], DRAWConfig], None] | None = None
    prefix: str = ""

    @property
    def names(self) -> set[str]:
        return {layer for layers in self.layers.values() for layer in layers} | set(self.initial.values())


class _Refused(NamedTuple):
    """`marks`: beginnings of names, all of which only this port has."""

    name: str
    marks: tuple[str, ...]
    reason: str


def _from_zero_and_log_variance(new: dict[str, Tensor], config: DRAWConfig) -> None:
    """Of a port whose filters are symmetric around (A+1)/2 (g~+1), as the paper's, but whose pixels count from 0: everything
    stands one pixel further, which is 2/(A+1) of g~. And of latents whose log variance is given: half of it is log sigma."""
    _, height, width = config.image_shape
    for layer in ("read_attention", "write_attention"):
        if (bias := new.get(f"{layer}.bias")) is not None:
            bias[0] += 2 / (width + 1)
            bias[1] += 2 / (height + 1)
    for kind in _LAYER:
        new[f"latent.{kind}"][config.latent_size :] /= 2


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
    _Port(
        "nine-k/DRAW without attention",
        {
            "encoder": ("encoder_cell",),
            "decoder": ("decoder_cell",),
            "latent": ("mu_matrix", "sigma_matrix"),
            "patch": ("writer_matrix",),
        },
        {"initial_canvas": "c_0", "initial_encoder": "h_0_enc", "initial_decoder": "h_0_dec"},
    ),
    _Port(
        "the port on Lightning with reader_attn and writer_attn",
        {
            "encoder": ("encoder",),
            "decoder": ("decoder",),
            "latent": ("sampler",),
            "patch": ("writer",),
            "read_attention": ("reader_attn",),
            "write_attention": ("writer_attn",),
        },
        {"initial_canvas": "canvas_init", "initial_encoder": "h_enc_init", "initial_decoder": "h_dec_init"},
        _from_zero_and_log_variance,
        "model.",
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
        "nine-k/DRAW with attention",
        ("read_attention_params_matrices.",),
        f"{_FROM_ZERO}; it reads the image twice and never the error image; its exponent takes sigma for sigma^2",
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
    """Loads into `model` what another port of DRAW saved, if that port computes what the paper says, or what it computes can
    be made of its weights exactly.

        model = fastdraw.DRAW((1, 28, 28), glimpses=32, hidden_size=256, latent_size=100, read_size=2, write_size=5)
        saved = torch.load("state_checkpoint.pt", weights_only=True)
        fastdraw.load_port_weights(model, saved["model_state_dicts"][0])

    model       a DRAW of the size that the port's model had. The number of glimpses, and whether attention was used, do not
                show in the weights: give what the port was run with.
    state_dict  the port's: from kamenbliznashki/generative_models; from Natsu6767/Generating-Devanagari-Using-DRAW or
                nine-k/DRAW, trained without attention; or from the port on Lightning whose layers are reader_attn and
                writer_attn. Where a port begins with zero states and a zero canvas, so will `model`.

    Outputs then are the port's to rounding, but where a filter stands outside the image: docs/coming-from-other-ports.md says
    how far ports whose normaliser has an epsilon differ there.

    Raises ValueError for weights of a port that computes something else, naming it and the reason, for weights of no known
    port, for those of another size and for NaN or infinity, naming the first; `model` is left as it was. TypeError for what
    is no state_dict.
    """
    if not isinstance(model, reference.DRAW):
        raise checks.expected("model", "a fastdraw.DRAW", model, TypeError)
    if not isinstance(state_dict, Mapping | nn.Module):
        raise checks.expected("state_dict", "a mapping of names to tensors", state_dict, TypeError)
    _check_whole(state_dict)
    check_names(state_dict)
    names = sorted(state_dict)
    for refused in _REFUSED:
        if all(any(name.startswith(mark) for name in names) for mark in refused.marks):
            raise StateDictError(
                f"state_dict: expected weights that mean what the paper's do, got those of {refused.name}: {refused.reason}"
            )
    for port in _PORTS:
        for prefix in {port.prefix, ""}:
            bare = {name.removeprefix(prefix): value for name, value in state_dict.items() if name.startswith(prefix)}
            if len(bare) == len(names) and _first(bare) == port.names:
                return _load(model, bare, port)
    _check_prefix(names)
    known = ", ".join(port.name for port in _PORTS)
    came = short(", ".join(names[:4]) + (", ..." if len(names) > 4 else "")) if names else "nothing"
    raise StateDictError(f"state_dict: expected the weights of a port with the paper's maths ({known}), got {came}")


def _first(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names}


def _check_whole(saved: Mapping[str, Any] | nn.Module) -> None:
    """Refuses the whole of what a port saved, and says which part of it to give."""
    if isinstance(saved, nn.Module):
        return
    for key, value in saved.items():
        inner, index = (value[0], "[0]") if isinstance(value, list | tuple) and value else (value, "")
        if key == "model_state_dicts" or (isinstance(inner, Mapping) and any(isinstance(v, Tensor) for v in inner.values())):
            where = f'saved["{short(key)}"]{"[0]" if key == "model_state_dicts" else index}'
            raise StateDictError(f"state_dict: expected {where}, got the whole of what the port saved")
        if isinstance(inner, nn.Module):
            where = f'saved["{short(key)}"]{index}.state_dict()'
            raise StateDictError(f"state_dict: expected {where}, got the whole of what the port saved")


def _check_prefix(names: list[str]) -> None:
    """Refuses a known port's names with more before them, as DataParallel, torch.compile and Lightning put it there."""
    bare, prefix = names, ""
    while len(first := _first(bare)) == 1 and all("." in name for name in bare):
        prefix += f"{min(first)}."
        bare = [name.removeprefix(f"{min(first)}.") for name in bare]
        marks = [refused.marks for refused in _REFUSED]
        known = any(_first(bare) == port.names for port in _PORTS)
        if known or any(all(any(name.startswith(mark) for name in bare) for mark in those) for those in marks):
            name = short(prefix)
            raise StateDictError(
                f"state_dict: expected a port's own names, got {short(names[0])}: take {name} away from them, as in "
                f'{{name.removeprefix("{name}"): value for name, value in state_dict.items()}}'
            )


def _load(model: reference.DRAW, state_dict: Mapping[str, Any], port: _Port) -> None:
    own = model.state_dict()
    # Zero where the port has nothing: its first states and its first canvas.
    new = {name: torch.zeros_like(tensor) for name, tensor in own.items() if name.startswith("initial_")}
    for name, other in port.initial.items():
        new[name] = _reshaped(state_dict, other, own[name], model)
    known = set(port.initial.values())
    for layer, theirs in port.layers.items():
        for kind in _CELL if layer in ("encoder", "decoder") else _LAYER:
            names = [f"{other}.{kind}" for other in theirs]
            known.update(names)
            # A port may make layers that it does not use, for attention that it was run without.
            if (name := f"{layer}.{kind}") in own:
                new[name] = _joined(state_dict, names, own[name], model)
    if extra := set(state_dict) - known:
        raise StateDictError(f"state_dict: expected the weights of {port.name}, got {short(min(extra))} as well")
    if missing := own.keys() - new.keys():
        raise StateDictError(f"model: expected one that the weights of {port.name} fill, got one with {min(missing)}")
    if port.change is not None:
        # In float64, so that the change is rounded once.
        wide = {name: tensor.double() for name, tensor in new.items()}
        port.change(wide, model.config)
        new = wide
    model.load_state_dict({name: tensor.to(own[name]) for name, tensor in new.items()})


def _joined(state_dict: Mapping[str, Any], names: list[str], own: Tensor, model: reference.DRAW) -> Tensor:
    """The port's tensors `names`, one below the other, if together they are what `own` is."""
    shape = torch.Size((own.shape[0] // len(names), *own.shape[1:]))
    return torch.cat([_tensor(state_dict, name, (shape,), own, model) for name in names])


def _reshaped(state_dict: Mapping[str, Any], name: str, own: Tensor, model: reference.DRAW) -> Tensor:
    """A first canvas or state, which a port may keep flat, and with a batch of one."""
    shapes = own.shape, torch.Size((own.numel(),)), torch.Size((1, own.numel()))
    return _tensor(state_dict, name, shapes, own, model).view(own.shape)


def _tensor(
    state_dict: Mapping[str, Any], name: str, shapes: Sequence[torch.Size], own: Tensor, model: reference.DRAW
) -> Tensor:
    tensor = state_dict.get(name)
    if (
        not isinstance(tensor, Tensor)
        or tensor.shape not in shapes
        or not tensor.is_floating_point()
        or tensor.is_meta
        or tensor.layout != torch.strided
    ):
        came = "nothing" if tensor is None else checks.describe(tensor)
        raise StateDictError(f"state_dict: expected {name} of shape {tuple(shapes[0])} for {model.config}, got {came}")
    # Wide enough for both: a port's own weights may be of any precision.
    tensor = tensor.detach().to(own.device, torch.promote_types(own.dtype, torch.float32))
    if not torch.isfinite(tensor.to(own.dtype)).all():
        raise StateDictError(f"state_dict: expected finite numbers in {name}, got NaN or infinity")
    return tensor
