"""Layers are modules: whatever stands in a layer's place computes, in fastdraw's models as in the reference's."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from changed_layers import CHANGES, MODELS, SAME_LOSS, build, everything, inputs, plain_loss, scaled, told
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.flop_counter import FlopCounterMode

import fastdraw
from fastdraw import evaluation, layers, reference

CASES = [(name, change) for name in ("draw", "classifier") for change in CHANGES]
CASES += [
    (name, change) for name in ("conditional", "decoder") for change in ("adapter of an LSTM", "no bias", "spectral_norm")
]


@pytest.mark.parametrize(("name", "change"), CASES)
def test_whatever_a_layer_is_computes_as_in_the_reference(name: str, change: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        actual = everything(build(fastdraw, name, change), name)
        texts = told(caught)
        expected = everything(build(reference, name, change), name)
        assert told(caught) == texts
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)
    assert len(texts) == CHANGES[change][1], texts
    assert change in SAME_LOSS or abs(actual["loss 0"] - plain_loss(name)) > 1e-4


def counted(layer: nn.Module, calls: list[str]) -> list[Any]:
    return [
        layer.register_forward_pre_hook(lambda *_: calls.append("forward pre")),
        layer.register_forward_hook(lambda *_: calls.append("forward")),
        layer.register_full_backward_pre_hook(lambda *_: calls.append("backward pre")),
        layer.register_full_backward_hook(lambda *_: calls.append("backward")),
    ]


@pytest.mark.parametrize("name", MODELS)
def test_hooks_are_called_once_a_glimpse_until_they_are_removed(backend: str, name: str) -> None:
    for module in (fastdraw, reference):
        for layer in MODELS[name][2:]:
            model, calls = build(module, name), []
            hooks = counted(getattr(model, layer), calls)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                model(**inputs(name)[0]).loss.backward()
                model(**inputs(name)[0])
            assert len(told(caught)) == (module is fastdraw)
            glimpses = 1 if layer == "output" else 4
            assert [calls.count(k) for k in ("forward pre", "forward", "backward pre", "backward")] == [
                *(2 * glimpses, 2 * glimpses),
                *(glimpses, glimpses),
            ]
            for hook in hooks:
                hook.remove()
            assert layers.weights(model, model.layer_kinds()) is not None
            assert model(**inputs(name)[0]).loss.item() == pytest.approx(plain_loss(name))
            assert len(calls) == 6 * glimpses


def test_generating_calls_its_own_layers_alone() -> None:
    model, calls = build(fastdraw, "draw"), []
    _, noise = inputs("draw")
    images = model.sample(3, noise)
    counted(model.encoder, calls)
    counted(model.read_attention, calls)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(model.sample(3, noise), images, rtol=0, atol=0)
    counted(model.decoder, calls)
    with pytest.warns(UserWarning, match=r"DRAW calls its layers .* encoder has .* decoder has a forward pre-hook: remove it"):
        torch.testing.assert_close(model.sample(3, noise), images)
    assert calls == ["forward pre", "forward"] * 4
    del model.encoder, model.latent
    torch.testing.assert_close(model.sample(3, noise), images)


def test_hooks_for_all_modules_are_called_and_those_that_only_track_them_leave_the_kernels() -> None:
    model, calls = build(fastdraw, "draw"), []
    hook = nn.modules.module.register_module_forward_hook(lambda module, *_: calls.append(type(module).__name__))
    try:
        with pytest.warns(UserWarning, match="There are hooks for all modules: remove them"):
            model(**inputs("draw")[0])
    finally:
        hook.remove()
    assert calls.count("LSTMCell") == 8
    with warnings.catch_warnings(), FlopCounterMode(display=False):
        warnings.simplefilter("error")
        build(fastdraw, "draw")(**inputs("draw")[0])


@pytest.mark.parametrize("change", ["pruned", "older weight_norm", "weight_norm", "orthogonal", "adapter", "no bias"])
def test_training_goes_on_with_the_weights_of_each_step(change: str) -> None:
    losses = []
    for module in (fastdraw, reference):
        model = build(module, "draw", change)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        for _ in range(3):
            optimizer.zero_grad()
            out = model(**inputs("draw")[0])
            out.loss.backward()
            optimizer.step()
        losses.append(out.loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-8)


def test_a_pruned_initial_state_is_the_present_one_in_methods_too() -> None:
    model = build(fastdraw, "draw")
    prune.l1_unstructured(model, "initial_canvas", 0.5)
    _, noise = inputs("draw")
    model.sample(3, noise)
    scaled(model, "initial_canvas_orig", 3)
    expected = build(reference, "draw")
    with torch.no_grad():
        expected.initial_canvas.copy_(model.initial_canvas_orig * model.initial_canvas_mask)
    torch.testing.assert_close(model.sample(3, noise), expected.sample(3, noise))


@pytest.mark.parametrize("change", ["adapter of an LSTM", "forward hook", "no bias", "spectral_norm", "orthogonal"])
def test_copies_and_bounds(change: str) -> None:
    model, (given, _) = build(fastdraw, "draw", change).eval(), inputs("draw")
    expected = model(**given).loss
    torch.testing.assert_close(copy.deepcopy(model)(**given).loss, expected, rtol=0, atol=0)
    if change in ("adapter of an LSTM", "no bias"):
        torch.testing.assert_close(pickle.loads(pickle.dumps(model))(**given).loss, expected, rtol=0, atol=0)
    images = (given["x"].detach() * 255).byte()
    bounds = [
        evaluation.likelihood(one, images, 2, 0, binarize=False, samples=2).importance
        for one in (model, build(reference, "draw", change).eval())
    ]
    assert bounds[0].mean == pytest.approx(bounds[1].mean, rel=1e-6)


@pytest.mark.parametrize("change", ["forward hook", "initial state"])
def test_compiled_in_one_graph(change: str) -> None:
    kind, sizes, lstm, linear = MODELS["classifier"]
    model = getattr(fastdraw, kind)(**{**sizes, "glimpses": 2})
    CHANGES[change][0](model, lstm, linear)
    x = torch.rand(2, 1, 12, 12)
    graphs: list[Any] = []
    compiled = torch.compile(model, fullgraph=True, backend=lambda graph, _: graphs.append(graph) or graph)
    torch.testing.assert_close(compiled(x).logits, model(x).logits)
    assert ("fastdraw.classification" in graphs[0].code) != CHANGES[change][1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("change", ["adapter", "adapter of an LSTM", "forward hook", "pruned"])
def test_half_precision_of_called_layers_has_states_in_float32(change: str, dtype: torch.dtype) -> None:
    given, noise = inputs("draw")
    given = {key: value.detach().float() for key, value in given.items()}
    for module in (fastdraw, reference):
        exact = build(module, "draw", change).float()(**given).loss
        half = build(module, "draw", change).to(dtype)
        with torch.autocast("cpu", dtype):
            outs = [build(module, "draw", change).float()(**given)]
        outs.append(half(**given))
        for out in outs:
            assert {value.dtype for value in out} == {torch.float32}
            torch.testing.assert_close(out.loss, exact, rtol=1e-2, atol=0)
        out.loss.backward()
        assert half.sample(2, noise[:, :2].float()).dtype == torch.float32


@pytest.mark.filterwarnings("ignore:.*calls its layers")
def test_weights_of_several_dtypes_compute_in_the_widest_beside_called_layers() -> None:
    given, _ = inputs("draw")
    given = {key: value.detach().float() for key, value in given.items()}
    expected = build(fastdraw, "draw", "adapter").float()(**given).loss
    for name in ("initial_canvas", "encoder.weight_ih", "decoder.weight_hh", "latent.weight"):
        model = build(fastdraw, "draw", "adapter").float()
        parameter = model.get_parameter(name)
        parameter.data = parameter.data.bfloat16()
        if name == "latent.weight":
            model.latent.bias.data = model.latent.bias.data.bfloat16()
        torch.testing.assert_close(model(**given).loss, expected, rtol=1e-2, atol=0)
    model.latent.bias.data = model.latent.bias.data.float()
    with pytest.raises(ValueError, match=r"latent.weight: expected torch.float32, as the layer's others are"):
        model(**given)


@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization")
@pytest.mark.parametrize("name", ["draw", "classifier"])
def test_dynamically_quantised(name: str) -> None:
    given = {key: value.detach().float() if value.is_floating_point() else value for key, value in inputs(name)[0].items()}
    results = []
    for module in (fastdraw, reference):
        model = torch.ao.quantization.quantize_dynamic(build(module, name).float(), dtype=torch.qint8)
        results.append(model(**given))
    torch.testing.assert_close(tuple(results[0]), tuple(results[1]))
    torch.testing.assert_close(results[0].loss, build(fastdraw, name).float()(**given).loss, rtol=0.1, atol=0)
    assert results[0].loss.item() != build(fastdraw, name).float()(**given).loss.item()


def test_hooks_of_state_dicts() -> None:
    model, other = build(fastdraw, "draw"), build(fastdraw, "draw")
    model.register_state_dict_post_hook(lambda module, state, prefix, _: state.update(patch_t=state.pop("patch.weight").mT))

    def back(module: nn.Module, state: dict[str, Tensor], *_: Any) -> None:
        state["patch.weight"] = state.pop("patch_t").mT

    other.register_load_state_dict_pre_hook(back)
    scaled(other, "patch.weight", 2)
    other.load_state_dict(model.state_dict())
    torch.testing.assert_close(other.patch.weight, model.patch.weight, rtol=0, atol=0)
    # A shape that only the hook makes right.
    other.patch.register_load_state_dict_pre_hook(
        lambda module, state, prefix, *_: state.update({f"{prefix}bias": state[f"{prefix}bias"][0]})
    )
    state = model.state_dict()
    other.load_state_dict({**state, "patch.bias": state["patch.bias"][None]})
