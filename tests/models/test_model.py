"""fastdraw.DRAW against the reference, and in every place where a module of PyTorch is put."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_draw import SMALL, gradients, inputs, pair

import fastdraw
from fastdraw import DRAW, DRAWConfig, reference
from fastdraw.testing import TOLERANCE, error


@pytest.mark.parametrize("sizes", [(2, 3), (None, 3), (2, None), (None, None), (1, 1)])
def test_outputs_and_gradients_are_the_references(backend: str, sizes: tuple) -> None:
    model, other = pair(**SMALL, read_size=sizes[0], write_size=sizes[1])
    x, noise = inputs(model)
    for ours, theirs in zip(model(x, noise), other(x, noise), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)
    for ours, theirs in zip(gradients(model, x, noise), gradients(other, x, noise), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    for method, arguments in [("sample", (3, noise)), ("reconstruct", (x, noise))]:
        ours, ours_trajectory = getattr(model, method)(*arguments, return_trajectory=True)
        theirs, theirs_trajectory = getattr(other, method)(*arguments, return_trajectory=True)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(ours, getattr(model, method)(*arguments))
        torch.testing.assert_close(ours_trajectory.canvases, theirs_trajectory.canvases)
        torch.testing.assert_close(torch.sigmoid(ours_trajectory.canvases[-1]), ours)
        for kind, size in [("write_windows", sizes[1]), ("read_windows", sizes[0] if method == "reconstruct" else None)]:
            windows, expected = getattr(ours_trajectory, kind), getattr(theirs_trajectory, kind)
            assert (windows is None) == (size is None)
            if windows is not None:
                assert windows.sigma.shape == (3, 3)
                torch.testing.assert_close(tuple(windows), tuple(expected))


def test_float32_gradients_of_a_long_sequence_are_within_budget(backend: str) -> None:
    configuration = {"glimpses": 64, "hidden_size": 32, "latent_size": 10, "read_size": 2, "write_size": 5}
    torch.manual_seed(3)
    exact_model, _ = pair(torch.float64, std=0.15, **configuration)
    model, naive = DRAW(**configuration), reference.DRAW(**configuration)
    for other in (model, naive):
        other.load_state_dict(exact_model.state_dict())
    exact_model.load_state_dict({name: value.double() for name, value in model.state_dict().items()})
    x, noise = inputs(model, batch=4)
    names = ["x", "noise", *model.state_dict()]
    exact = gradients(exact_model, x.double(), noise.double())
    ours, theirs = ([error(g, e) for g, e in zip(gradients(m, x, noise), exact, strict=True)] for m in (model, naive))
    # One tensor's naive error is one draw of how 64 glimpses amplify rounding; the worst of all of them is the budget.
    budget = max(theirs) + TOLERANCE[torch.float32]
    assert max(theirs) < 1e-3, "the case itself is too ill-conditioned to tell anything"
    assert all(got <= budget for got in ours), dict(zip(names, zip(ours, theirs, strict=True), strict=True))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    image_shape=st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12)),
    glimpses=st.integers(1, 4),
    hidden_size=st.integers(1, 20),
    latent_size=st.integers(1, 9),
    read_size=st.none() | st.integers(1, 6),
    write_size=st.none() | st.integers(1, 6),
    batch=st.integers(0, 4),
)
def test_any_configuration(backend: str, batch: int, **configuration) -> None:
    model, other = pair(**configuration)
    x, noise = inputs(model, batch)
    torch.testing.assert_close(model(x, noise).canvas, other(x, noise).canvas)
    assert model(x, noise).kl.shape == (configuration["glimpses"], batch)


@pytest.mark.parametrize("sizes", [(2, 5), (None, None), (None, 5)])
def test_state_dict_is_as_documented(sizes: tuple) -> None:
    model = DRAW((3, 8, 9), 4, 16, 10, *sizes)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    reads = 3 * 8 * 9 if sizes[0] is None else 3 * sizes[0] ** 2
    writes = 3 * 8 * 9 if sizes[1] is None else 3 * sizes[1] ** 2
    expected = {
        "encoder.weight_ih": (64, 2 * reads + 16),
        "encoder.weight_hh": (64, 16),
        "encoder.bias_ih": (64,),
        "encoder.bias_hh": (64,),
        "decoder.weight_ih": (64, 10),
        "decoder.weight_hh": (64, 16),
        "decoder.bias_ih": (64,),
        "decoder.bias_hh": (64,),
        "latent.weight": (20, 16),
        "latent.bias": (20,),
        "patch.weight": (writes, 16),
        "patch.bias": (writes,),
        "initial_canvas": (3, 8, 9),
        "initial_encoder": (16,),
        "initial_decoder": (16,),
    }
    for size, name in zip(sizes, ("read_attention", "write_attention"), strict=True):
        if size is not None:
            expected |= {f"{name}.weight": (5, 16), f"{name}.bias": (5,)}
    assert shapes == expected


def test_noise_is_fresh_for_every_glimpse_image_and_dimension() -> None:
    """With the encoder's output at zero the latent is the noise: its sample must be white in every direction."""
    model = DRAW((1, 4, 4), glimpses=50, hidden_size=4, latent_size=30)
    noise = model._check_noise(None, 40, model.initial_canvas)
    assert noise.shape == (50, 40, 30)
    flat = noise.flatten()
    # A value shared along any axis would repeat; 60,000 normal floats do so by chance a few times at most.
    assert len(flat.unique()) > 0.99 * len(flat)
    for axis in range(3):
        rows = noise.movedim(axis, 0).flatten(1)
        correlation = torch.corrcoef(rows).fill_diagonal_(0).abs().max()
        assert correlation < 6 / rows.shape[1] ** 0.5
    x = torch.rand(2, 1, 4, 4)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    assert not torch.equal(model(x).kl, model(x).kl)


def test_the_loss_is_the_bound_of_the_paper() -> None:
    model, _ = pair(**SMALL, read_size=2, write_size=3)
    x, noise = inputs(model)
    out = model(x, noise)
    bernoulli = torch.distributions.Bernoulli(logits=out.canvas)
    x_binary = x.round()
    binary = model(x_binary, noise)
    log_likelihood = torch.distributions.Bernoulli(logits=binary.canvas).log_prob(x_binary).flatten(1).sum(1)
    torch.testing.assert_close(binary.reconstruction, -log_likelihood)
    torch.testing.assert_close(out.loss, (out.reconstruction + out.kl.sum(0)).mean())
    cross_entropy = -(x * bernoulli.logits - torch.nn.functional.softplus(bernoulli.logits)).flatten(1).sum(1)
    torch.testing.assert_close(out.reconstruction, cross_entropy)


def test_copies_pickles_and_moves() -> None:
    model, _ = pair(torch.float32, **SMALL)
    x, noise = inputs(model)
    expected = model(x, noise).canvas
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    loaded = DRAW(**SMALL)
    loaded.load_state_dict(torch.load(buffer, weights_only=True))
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.to("cpu"), loaded):
        torch.testing.assert_close(other(x, noise).canvas, expected, rtol=0, atol=0)
    assert set(vars(model)) == set(vars(DRAW(**SMALL))), "state was kept on the module between calls"


def test_inference_mode_and_checkpointing(backend: str) -> None:
    model, _ = pair(torch.float32, **SMALL)
    x, noise = inputs(model)
    with torch.inference_mode():
        inferred = model(x, noise)
        model.sample(2)
    torch.testing.assert_close(inferred.loss, model(x, noise).loss.detach())
    checkpointed = torch.utils.checkpoint.checkpoint(lambda x: model(x, noise).loss, x, use_reentrant=False)
    checkpointed.backward()
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(x, noise).loss.backward()
    torch.testing.assert_close(grads, [parameter.grad for parameter in model.parameters()])


def test_torch_compile_without_a_graph_break(backend: str) -> None:
    model, _ = pair(torch.float32, **SMALL)
    x, noise = inputs(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    out = compiled(x, noise)
    torch.testing.assert_close(out.loss, model(x, noise).loss)
    out.loss.backward()
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(x, noise).loss.backward()
    torch.testing.assert_close(grads, [parameter.grad for parameter in model.parameters()])
    assert compiled(x).loss.isfinite()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(backend: str, dtype: torch.dtype) -> None:
    model, _ = pair(torch.float32, **SMALL)
    x, noise = inputs(model)
    with torch.autocast("cpu", dtype):
        out = model(x, noise)
        model.sample(2)
    assert {tensor.dtype for tensor in out} == {torch.float32}
    torch.testing.assert_close(out.loss, model(x, noise).loss, rtol=2e-2, atol=0)
    out.loss.backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


@pytest.fixture
def one_process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel(one_process_group: None) -> None:
    model, _ = pair(torch.float32, **SMALL)
    x, noise = inputs(model)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    wrapped(x, noise).loss.backward()
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    model(x, noise).loss.backward()
    torch.testing.assert_close(grads, [parameter.grad for parameter in model.parameters()])


def test_presets_are_table_3() -> None:
    assert fastdraw.presets["mnist"] == DRAWConfig((1, 28, 28), 64, 256, 100, 2, 5)
    assert fastdraw.presets["svhn"] == DRAWConfig((3, 54, 54), 32, 800, 100, 12, 12)
    assert fastdraw.presets["cifar10"] == DRAWConfig((3, 32, 32), 64, 400, 200, 5, 5)
    for config in fastdraw.presets.values():
        assert DRAWConfig(**config.to_dict()) == config
        assert DRAW.from_config(config).config == config
