"""What is fastdraw.DRAW's own: its bound, noise, weights and presets; test_models.py has what models share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from small_models import inputs, pair, results

import fastdraw
from fastdraw import DRAW, DRAWConfig


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
    noise = model._check_noise(None, 40, None, None)
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
    model, _ = pair(read_size=2, write_size=3)
    x, noise = inputs(model).values()
    out = model(x, noise)
    bernoulli = torch.distributions.Bernoulli(logits=out.canvas)
    x_binary = x.round()
    binary = model(x_binary, noise)
    log_likelihood = torch.distributions.Bernoulli(logits=binary.canvas).log_prob(x_binary).flatten(1).sum(1)
    torch.testing.assert_close(binary.reconstruction, -log_likelihood)
    torch.testing.assert_close(out.loss, (out.reconstruction + out.kl.sum(0)).mean())
    cross_entropy = -(x * bernoulli.logits - torch.nn.functional.softplus(bernoulli.logits)).flatten(1).sum(1)
    torch.testing.assert_close(out.reconstruction, cross_entropy)


@pytest.fixture
def one_process_group(tmp_path: Path) -> Iterator[None]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def test_distributed_data_parallel(one_process_group: None) -> None:
    model, _ = pair("draw", torch.float32)
    given = inputs(model)
    torch.nn.parallel.DistributedDataParallel(model)(**given).loss.backward()
    expected = results(model, given)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[f"gradient to {name}"])


def test_the_sampler_has_gradients_too(backend: str) -> None:
    model, other = pair()
    noise, found = inputs(model)["noise"], []
    for m in (model, other):
        leaf = noise.clone().requires_grad_()
        m.sample(3, leaf).square().sum().backward()
        found.append({"noise": leaf.grad, **{name: p.grad for name, p in m.named_parameters()}})
    for name, theirs in found[1].items():
        if theirs is None:
            # What does not take part in sampling has no gradient in the reference, and a zero one here.
            assert found[0][name] is None or not found[0][name].any(), name
        else:
            torch.testing.assert_close(found[0][name], theirs)


@pytest.mark.parametrize("name", ["canvas", "kl"])
def test_gradients_of_kl_and_canvas_alone(backend: str, name: str) -> None:
    models, grads = pair(), []
    x, noise = inputs(models[0]).values()
    for m in models:
        leaf = x.clone().requires_grad_()
        out = getattr(m(leaf, noise), name)
        grads += torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), leaf)
    torch.testing.assert_close(*grads)


def test_presets_are_table_3() -> None:
    assert fastdraw.presets["mnist"] == DRAWConfig((1, 28, 28), 64, 256, 100, 2, 5)
    assert fastdraw.presets["mnist-no-attention"] == DRAWConfig((1, 28, 28), 64, 256, 100, None, None)
    assert fastdraw.presets["svhn"] == DRAWConfig((3, 54, 54), 32, 800, 100, 12, 12)
    assert fastdraw.presets["cifar10"] == DRAWConfig((3, 32, 32), 64, 400, 200, 5, 5)
    for config in fastdraw.presets.values():
        assert DRAWConfig(**config.to_dict()) == config
        assert DRAW.from_config(config).config == config
