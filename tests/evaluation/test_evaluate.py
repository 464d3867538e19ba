"""Bounds of -log p(x): against integrals over the latents, where there are few enough, and against each other."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.nn.functional import binary_cross_entropy_with_logits

from fastdraw import DRAW, reference
from fastdraw.evaluation import Mean, likelihood
from fastdraw.evaluation.bound import log_ratio
from fastdraw.runs.held_out import evaluation_noise

SHAPE = (1, 5, 4)


def tiny(kind: type = DRAW, glimpses: int = 2, latent_size: int = 1) -> reference.DRAW:
    """A model with strong weights: sigma is far from 1, so that single samples are noisy and bounds not tight."""
    torch.manual_seed(0)
    model = kind(SHAPE, glimpses, 6, latent_size, 2, 3).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.7)
    return model


def pictures(n: int) -> Tensor:
    return torch.randint(0, 2, (n, *SHAPE), generator=torch.Generator().manual_seed(1), dtype=torch.uint8) * 255


def nodes(count: int = 150) -> tuple[Tensor, Tensor]:
    """Points [T=2, N, 1] and weights [N] of the mean over two standard normal numbers: Gauss and Hermite's rule."""
    points, weights = np.polynomial.hermite_e.hermegauss(count)
    weights = weights / math.sqrt(2 * math.pi)
    grid = np.stack(np.meshgrid(points, points, indexing="ij")).reshape(2, -1, 1)
    return torch.from_numpy(grid), torch.from_numpy(np.outer(weights, weights).ravel())


def infer(model: reference.DRAW, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Reconstruction [B] and KL [T, B] by the model's forward, and log p(z) - log q(z | x) [B]."""
    out = model(x, noise)
    latent = model.recurrence(x, noise).latent
    assert latent is not None
    return out.reconstruction, out.kl, log_ratio(latent, noise)


def test_mu_and_log_sigma_are_the_references_and_give_the_kl(backend: str) -> None:
    model, other = tiny(latent_size=3), tiny(reference.DRAW, latent_size=3)
    x, noise = pictures(4).double() / 255, torch.randn(2, 4, 3, dtype=torch.float64)
    _, ours = model.reconstruct(x, noise, return_trajectory=True)
    _, theirs = other.reconstruct(x, noise, return_trajectory=True)
    assert ours.mu.shape == ours.log_sigma.shape == (2, 4, 3)
    torch.testing.assert_close((ours.mu, ours.log_sigma), (theirs.mu, theirs.log_sigma), rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        latent = model.recurrence(x, noise).latent
    torch.testing.assert_close(latent, torch.cat([ours.mu, ours.log_sigma], -1), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(reference.kl_divergence(ours.mu, ours.log_sigma), model(x, noise).kl)
    _, drawn = model.sample(4, noise, return_trajectory=True)
    assert drawn.mu is None
    assert drawn.log_sigma is None


def test_the_weights_are_the_ratio_of_the_densities() -> None:
    torch.manual_seed(2)
    mu, log_sigma, noise = torch.randn(3, 5, 4, 7, dtype=torch.float64)
    q = Normal(mu, log_sigma.exp())
    z = mu + log_sigma.exp() * noise
    expected = (Normal(0.0, 1.0).log_prob(z) - q.log_prob(z)).sum((0, 2))
    torch.testing.assert_close(log_ratio(torch.cat([mu, log_sigma], -1), noise), expected, rtol=1e-12, atol=1e-12)


def test_one_sample_differs_from_the_bound_by_a_term_of_mean_zero() -> None:
    """-log w - bound = sum of mu sigma e + (sigma^2 - 1)(e^2 - 1) / 2, for the same noise e: zero in the mean over e_t, which
    mu_t and sigma_t do not depend on. So K = 1 equals the bound in expectation, whatever T and Z are."""
    model = tiny(glimpses=5, latent_size=3)
    x, noise = pictures(6).double() / 255, torch.randn(5, 6, 3, dtype=torch.float64)
    reconstruction, kl, ratio = infer(model, x, noise)
    mu, log_sigma = model.recurrence(x, noise).latent.chunk(2, -1)
    sigma = log_sigma.exp()
    term = (mu * sigma * noise + (sigma**2 - 1) * (noise**2 - 1) / 2).sum((0, 2))
    torch.testing.assert_close(reconstruction - ratio, reconstruction + kl.sum(0) + term, rtol=1e-10, atol=1e-10)
    assert term.abs().min() > 0.01


def test_against_integrals_over_all_latents() -> None:
    """T = 2, Z = 1: the expected bound, the expected estimate of one sample, and -log p(x) itself, by quadrature."""
    model, image = tiny(), pictures(1)
    x = image.double() / 255
    noise, weights = nodes()
    many = x.expand(noise.shape[1], *SHAPE)
    with torch.no_grad():
        reconstruction, kl, ratio = infer(model, many, noise)
        bound, single = weights @ (reconstruction + kl.sum(0)), weights @ (reconstruction - ratio)
        # By the decoder alone: p(x) is the mean of D(x | c_T) over the prior.
        canvas = model.recurrence(None, noise).canvas
        drawn = binary_cross_entropy_with_logits(canvas, many, reduction="none").flatten(1).sum(1)
        exact = -(weights.log() - drawn).logsumexp(0)
        # And by importance weights: p(x) is their mean, too.
        weighted = -(weights.log() + ratio - reconstruction).logsumexp(0)
    torch.testing.assert_close(single, bound, rtol=1e-8, atol=0.0)
    torch.testing.assert_close(weighted, exact, rtol=1e-6, atol=0.0)
    assert bound > exact + 0.1

    # 4,000 images are 4,000 draws of the noise for the same image: means with known errors.
    same = image.expand(4000, *SHAPE)
    results = {samples: likelihood(model, same, 4000, 3, False, samples) for samples in (1, 8, 64)}
    for result in results.values():
        assert_near(result.bound, float(bound))
    assert_near(results[1].importance, float(bound))
    means = [float(bound), *(results[samples].importance.mean for samples in (8, 64)), float(exact)]
    assert means == sorted(means, reverse=True)
    (many_samples,) = [likelihood(model, image, 20_000, 4, False, 20_000).importance.mean]
    assert abs(many_samples - float(exact)) < 0.02


def assert_near(mean: Mean, exact: float) -> None:
    assert mean.standard_error is not None
    assert abs(mean.mean - exact) < 4 * mean.standard_error
    # And the error is small against what is measured, so that this can fail.
    assert mean.standard_error < 0.05 * exact


def test_the_bound_is_the_models() -> None:
    model, images = tiny(glimpses=3, latent_size=4).float(), pictures(10)
    result = likelihood(model, images, 4, 7, True)
    # With more samples the last batch, of two images, is computed together with others.
    assert likelihood(model, images, 4, 7, True, samples=3).bound.mean == pytest.approx(result.bound.mean, rel=1e-6)
    assert result.images == 10
    noise = torch.cat(
        [evaluation_noise(model.config, 7, start, n, torch.device("cpu")) for start, n in ((0, 4), (4, 4), (8, 2))], 1
    )
    out = model(images.float() / 255, noise)
    assert result.bound.mean == pytest.approx(out.loss.item(), rel=1e-5)
    kls = [part.mean for part in result.kl_per_glimpse]
    torch.testing.assert_close(torch.tensor(kls), out.kl.mean(1), rtol=1e-5, atol=1e-6)
    assert sum(kls) == pytest.approx(result.kl.mean)
    errors = out.kl.std(1) / math.sqrt(10)
    torch.testing.assert_close(
        torch.tensor([part.standard_error for part in result.kl_per_glimpse]), errors, rtol=1e-4, atol=1e-6
    )


def test_how_many_are_computed_at_once_changes_nothing() -> None:
    """One batch either way: 6 images with one, or with all nine, of their samples at a time."""
    model, images = tiny(latent_size=3), pictures(6)
    few, many = (likelihood(model, images, size, 1, True, samples=9) for size in (6, 60))
    assert few.importance.mean == pytest.approx(many.importance.mean, rel=1e-10)
    assert few.effective_samples == pytest.approx(many.effective_samples, rel=1e-10)
    assert 1 < few.effective_samples < 9
    assert few.bound == many.bound


def test_equal_weights_all_count_and_one_image_has_no_error() -> None:
    """With mu = log sigma = 0 the posterior is the prior, and with no writing every sample draws the same."""
    model = tiny()
    for parameter in (*model.latent.parameters(), *model.patch.parameters()):
        torch.nn.init.zeros_(parameter)
    result = likelihood(model, pictures(1), 5, 0, False, samples=5)
    assert result.effective_samples == pytest.approx(5)
    assert result.bound.mean == pytest.approx(result.importance.mean)
    assert result.kl.mean == pytest.approx(0, abs=1e-12)
    assert result.bound.standard_error is None
    assert str(result.kl) == "0.00"


def test_autocast_and_progress() -> None:
    model, images = tiny(latent_size=3).float(), pictures(6)
    told: list[int] = []
    exact = likelihood(model, images, 4, 1, True, 3, between=told.append)
    # Four images, three times one sample; two images, two samples at once and then one.
    assert told == [0, 4, 8, 12, 16]
    rough = likelihood(model, images, 4, 1, True, 3, autocast=torch.bfloat16)
    assert rough.bound.mean != exact.bound.mean
    assert rough.bound.mean == pytest.approx(exact.bound.mean, rel=0.05)


def test_a_class_conditional_model_is_told_the_classes(backend: str) -> None:
    model, images = DRAW(SHAPE, 3, 6, 2, 2, 3, num_classes=4), pictures(7)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    result = likelihood(model, images, 3, 7, True, 2, labels)
    assert result.bound.mean == pytest.approx(likelihood(model, images, 3, 7, True, 1, labels).bound.mean, rel=1e-6)
    assert result.importance.mean != likelihood(model, images, 3, 7, True, 2, labels.flip(0)).importance.mean
    at_once = likelihood(model, images, 14, 7, True, 2, labels)
    one_by_one = likelihood(model, images, 7, 7, True, 2, labels)
    assert at_once.importance.mean == pytest.approx(one_by_one.importance.mean, rel=1e-6)
    with pytest.raises(ValueError, match="labels: expected class numbers"):
        likelihood(model, images, 3, 7, True)
    with pytest.raises(ValueError, match="labels: expected none"):
        likelihood(tiny(), images, 3, 7, True, labels=labels)


@pytest.mark.parametrize(
    ("samples", "size", "message"), [(0, 5, "samples: expected at least 1"), (1, 0, "batch_size: expected at")]
)
def test_bad_numbers_are_refused(samples: int, size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        likelihood(tiny(), pictures(2), size, 0, True, samples)
