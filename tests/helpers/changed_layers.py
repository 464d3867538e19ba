"""Models whose layers are more than their weights, in every way that there is, and all that they compute."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

import fastdraw

SIZES = {"image_shape": (1, 12, 12), "glimpses": 4, "hidden_size": 16, "latent_size": 5, "read_size": 3, "write_size": 4}
CLASSIFIER = {"image_shape": (1, 12, 12), "glimpses": 4, "hidden_size": 16, "read_size": 3, "num_classes": 5}
#: Classes of fastdraw and of the reference, their sizes, and an LSTM and a linear layer of theirs.
MODELS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "draw": ("DRAW", SIZES, "encoder", "patch"),
    "decoder": ("DRAW", {**SIZES, "read_size": None, "write_size": None}, "decoder", "latent"),
    "conditional": ("DRAW", {**SIZES, "num_classes": 5}, "decoder", "write_attention"),
    "classifier": ("DRAWClassifier", CLASSIFIER, "lstm", "output"),
}


def sizes_of(layer: Any) -> tuple[int, int]:
    linear = isinstance(layer, nn.Linear)
    return (layer.in_features, layer.out_features) if linear else (layer.input_size, layer.hidden_size)


class LowRank(nn.Module):
    """An adapter, as LoRA's: a layer and a product of low rank beside it."""

    def __init__(self, base: Any) -> None:
        super().__init__()
        columns, rows = sizes_of(base)
        dtype = next(base.parameters()).dtype
        self.base, self.down = base, nn.Parameter(torch.linspace(-0.3, 0.4, 2 * columns, dtype=dtype).view(2, -1))
        self.up = nn.Parameter(torch.linspace(-0.4, 0.3, 2 * rows, dtype=dtype).view(-1, 2))

    @property
    def weight(self) -> Tensor:
        return self.base.weight

    @property
    def bias(self) -> Tensor:
        return self.base.bias

    def forward(self, x: Tensor, *state: Any) -> Any:
        more = x @ self.down.T @ self.up.T
        if not state:
            return self.base(x) + more
        h, c = self.base(x, *state)
        return h + more, c


class Doubled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


class Leaky(nn.LSTMCell):
    def forward(self, x: Tensor, state: Any = None) -> Any:
        h, c = super().forward(x, state)
        return h + 0.1 * state[0], c


def replaced(kind: type, base: Any, **options: Any) -> nn.Module:
    """A layer of this class with what it has of the weights of `base`."""
    new = kind(*sizes_of(base), **options).to(next(base.parameters()).dtype)
    new.load_state_dict({name: tensor for name, tensor in base.state_dict().items() if name in new.state_dict()})
    return new


def scaled(model: nn.Module, name: str, by: float) -> None:
    with torch.no_grad():
        model.get_parameter(name).mul_(by)


def own_forward(layer: Any) -> None:
    layer.forward = lambda x: 2 * nn.functional.linear(x, layer.weight, layer.bias)


def halved(_: nn.Module, grads: Any, *__: Any) -> Any:
    return tuple(None if grad is None else grad / 2 for grad in grads)


#: What is done to a model's LSTM layer and to its linear one; `slow` where layers are called one by one from then on.
CHANGES: dict[str, tuple[Callable[[Any, str, str], Any], bool]] = {
    "forward hook": (lambda m, lstm, linear: getattr(m, lstm).register_forward_hook(lambda _, i, o: (o[0] / 2, o[1])), True),
    "forward pre-hook": (lambda m, _, linear: getattr(m, linear).register_forward_pre_hook(lambda _, i: (i[0] / 2,)), True),
    "backward hook": (lambda m, _, linear: getattr(m, linear).register_full_backward_hook(halved), True),
    "backward pre-hook": (lambda m, lstm, _: getattr(m, lstm).register_full_backward_pre_hook(halved), True),
    "adapter": (lambda m, _, linear: setattr(m, linear, LowRank(getattr(m, linear))), True),
    "adapter of an LSTM": (lambda m, lstm, _: setattr(m, lstm, LowRank(getattr(m, lstm))), True),
    "subclass": (lambda m, _, linear: setattr(m, linear, replaced(Doubled, getattr(m, linear))), True),
    "subclass of an LSTM": (lambda m, lstm, _: setattr(m, lstm, replaced(Leaky, getattr(m, lstm))), True),
    "sequence": (lambda m, _, linear: setattr(m, linear, nn.Sequential(nn.Dropout(0.3), getattr(m, linear))), True),
    "no bias": (lambda m, _, linear: setattr(m, linear, replaced(nn.Linear, getattr(m, linear), bias=False)), True),
    "LSTM without bias": (lambda m, lstm, _: setattr(m, lstm, replaced(nn.LSTMCell, getattr(m, lstm), bias=False)), True),
    "forward of its own": (lambda m, _, linear: own_forward(getattr(m, linear)), True),
    "pruned": (
        lambda m, _, linear: [prune.l1_unstructured(getattr(m, linear), "weight", 0.5), scaled(m, f"{linear}.weight_orig", 3)],
        True,
    ),
    "older weight_norm": (
        lambda m, lstm, _: [nn.utils.weight_norm(getattr(m, lstm), "weight_hh"), scaled(m, f"{lstm}.weight_hh_g", 3)],
        True,
    ),
    "older spectral_norm": (lambda m, _, linear: nn.utils.spectral_norm(getattr(m, linear)), True),
    "compiled layer": (lambda m, _, linear: setattr(m, linear, torch.compile(getattr(m, linear), backend="eager")), True),
    # Weights that are tensors once they are read stay with the kernels.
    "weight_norm": (lambda m, lstm, _: parametrizations.weight_norm(getattr(m, lstm), "weight_hh"), False),
    "spectral_norm": (lambda m, _, linear: parametrizations.spectral_norm(getattr(m, linear)), False),
    "orthogonal": (lambda m, lstm, _: parametrizations.orthogonal(getattr(m, lstm), "weight_hh"), False),
    "own parametrisation": (
        lambda m, _, linear: parametrize.register_parametrization(getattr(m, linear), "bias", nn.Softplus(), unsafe=True),
        False,
    ),
    "initial state": (lambda m, *_: parametrize.register_parametrization(m, m.states[0], nn.Softplus(), unsafe=True), False),
}
#: Those after which the loss is the same: backward hooks, and what is only another way to hold a weight.
SAME_LOSS = ("backward hook", "backward pre-hook", "compiled layer", "weight_norm", "initial state")


def build(module: Any, name: str, change: str | None = None) -> Any:
    kind, sizes, lstm, linear = MODELS[name]
    torch.manual_seed(0)
    model = getattr(module, kind)(**sizes).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    if change is not None:
        CHANGES[change][0](model, lstm, linear)
    return model


def inputs(name: str) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(1)
    x, noise, labels = torch.rand(3, 1, 12, 12).double(), torch.randn(4, 3, 5).double(), torch.tensor([1, 0, 4])
    given: dict[str, Tensor] = {"x": x.requires_grad_()}
    if name != "classifier":
        given["noise"] = noise
    if name in ("conditional", "classifier"):
        given["labels"] = labels
    return given, noise


def everything(model: Any, name: str) -> dict[str, Tensor | None]:
    """What a model's methods give, and all gradients, twice, since the first may change what the second uses."""
    found: dict[str, Tensor | None] = {}
    given, noise = inputs(name)
    known = {"labels": given["labels"]} if name == "conditional" else {}
    torch.manual_seed(2)
    for turn in range(2):
        model.zero_grad()
        out = model(**given)
        out.loss.backward()
        found |= {f"{key} {turn}": value for key, value in out._asdict().items()}
        found |= {f"gradient of {key} {turn}": parameter.grad for key, parameter in model.named_parameters()}
        found[f"gradient of x {turn}"], given["x"].grad = given["x"].grad, None
        for method in (model.train(), model.eval()):
            if name == "classifier":
                found[f"attend {turn}"], found[f"predict {turn}"] = method.attend(given["x"])[0], method.predict(given["x"])
            else:
                found[f"sample {turn}"] = method.sample(3, noise, **known)
                found[f"reconstruct {turn}"] = method.reconstruct(given["x"], noise, **known)
        model.train()
    return found


@cache
def plain_loss(name: str) -> float:
    return build(fastdraw, name)(**inputs(name)[0]).loss.item()


def told(caught: list[warnings.WarningMessage]) -> list[str]:
    return [text for warning in caught if "calls its layers glimpse by glimpse" in (text := str(warning.message))]
