"""A model behaves as torch's own modules do: samples without a graph, device, dtype, generator, a repr that tells."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fastdraw
from fastdraw import DRAW, ClassifierConfig, DRAWClassifier, DRAWConfig, reference

SMALL: dict[str, Any] = {"image_shape": (1, 9, 8), "glimpses": 3, "hidden_size": 6, "latent_size": 2, "read_size": 2}
KINDS = [DRAW, reference.DRAW]


@pytest.mark.parametrize("kind", KINDS)
def test_samples_carry_no_graph_unless_their_noise_does(kind: Any, backend: str) -> None:
    model = kind(**SMALL)
    images, trajectory = model.sample(2, return_trajectory=True)
    assert images.numpy().shape == (2, 1, 9, 8)
    assert not trajectory.canvases.requires_grad
    assert model.sample(0).shape == (0, 1, 9, 8)
    noise = torch.randn(3, 2, 2)
    assert not model.sample(2, noise).requires_grad
    assert model.sample(2, noise.requires_grad_()).requires_grad
    with torch.no_grad():
        assert not model.sample(2, noise).requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", KINDS)
def test_a_generator_draws_everything(kind: Any) -> None:
    model, x = kind(**SMALL, num_classes=4), torch.rand(5, 1, 9, 8)
    y = torch.tensor([0, 1, 2, 3, 0])
    state = torch.get_rng_state()

    def drawn(seed: int) -> list[torch.Tensor]:
        g = torch.Generator().manual_seed(seed)
        return [
            model.sample(5, generator=g),
            model.reconstruct(x, labels=y, generator=g),
            model(x, labels=y, generator=g).loss,
        ]

    one, same, other = drawn(1), drawn(1), drawn(2)
    assert all(torch.equal(a, b) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    # The numbers that torch draws by the same generator.
    noise = torch.randn(3, 5, 2, generator=torch.Generator().manual_seed(3))
    again = model.reconstruct(x, labels=y, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again, model.reconstruct(x, noise, labels=y))
    with pytest.raises(TypeError, match=r"generator: expected a torch.Generator, got 5"):
        model.sample(1, generator=5)
    with pytest.raises(ValueError, match="generator: expected none beside noise"):
        model.sample(5, noise, generator=torch.Generator())
    with pytest.raises(ValueError, match="generator: expected one on cpu"):
        model.sample(5, generator=_Elsewhere())


class _Elsewhere(torch.Generator):
    device = torch.device("cuda", 0)  # type: ignore[assignment]


@pytest.mark.parametrize("kind", [*KINDS, DRAWClassifier, reference.DRAWClassifier])
def test_device_and_dtype_are_those_of_new_weights(kind: Any) -> None:
    config = ClassifierConfig((1, 9, 8), 2, 4, 2, 3) if "Classifier" in kind.__name__ else DRAWConfig(**SMALL)
    for made in (kind(**config.to_dict(), dtype=torch.float64), kind.from_config(config, dtype=torch.float64)):
        assert {p.dtype for p in made.parameters()} == {torch.float64}
    far = kind.from_config(config, device="meta")
    assert {p.device.type for p in far.parameters()} == {"meta"}
    torch.manual_seed(0)
    one = kind.from_config(config)
    torch.manual_seed(0)
    other = kind.from_config(config, device="cpu", dtype=torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    with pytest.raises(TypeError, match="dtype: expected a floating-point dtype"):
        kind.from_config(config, dtype=torch.int64)
    for wrong in ("mnist", None, {}):
        with pytest.raises(TypeError, match=r"config: expected a (DRAW|Classifier)"):
            kind.from_config(wrong)


def test_reprs_say_what_a_model_is() -> None:
    for name, config in {**fastdraw.presets, **fastdraw.classifier_presets}.items():
        kind: Any = DRAW if isinstance(config, DRAWConfig) else DRAWClassifier
        model = kind.from_config(config, device="meta")
        count = sum(p.numel() for p in model.parameters())
        assert config.parameter_count == count, name
        for text in (repr(model), repr(config)):
            assert f"image_shape={config.image_shape}, glimpses={config.glimpses}" in text
            assert f"{count:,} parameters" in text
        assert eval(repr(config)) == config
    conditional = DRAW(**SMALL, num_classes=5)
    assert conditional.config.parameter_count == sum(p.numel() for p in conditional.parameters())


def test_outputs_fit_one_screen() -> None:
    model, x = DRAW((3, 40, 40), glimpses=9, hidden_size=6, latent_size=30, read_size=5), torch.rand(64, 3, 40, 40)
    classified = DRAWClassifier((3, 40, 40), 9, 6, 5, 10)(x)
    _, trajectory = model.reconstruct(x, return_trajectory=True)
    for output in (
        model(x),
        trajectory,
        trajectory.write_windows,
        classified,
        fastdraw.filterbank(torch.zeros(64, 5), 5, (40, 40)),
    ):
        text = repr(output)
        assert len(text) < 24 * 80
        assert text.startswith(f"{type(output).__name__}(")
        assert all(f"{name}=" in text for name in output._fields)
    assert "canvas=<float32 tensor of shape (64, 3, 40, 40) on cpu>" in repr(model(x))


def test_presets_are_complete_and_say_which_there_are() -> None:
    from fastdraw import data

    assert set(data.names()) <= {*fastdraw.presets, *fastdraw.classifier_presets}
    for known, wrong in ((fastdraw.presets, "cluttered-mnist"), (fastdraw.classifier_presets, "mnist"), (fastdraw.presets, 5)):
        for error in (KeyError, ValueError):
            with pytest.raises(error, match=r"^preset: expected one of .*(mnist, mnist-no-attention|cluttered-mnist-60)"):
                known[wrong]  # type: ignore[index]
        assert known.get(wrong) is None  # type: ignore[call-overload]
