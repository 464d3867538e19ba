"""-log p(x) of DRAW, bounded from above: the paper's bound with one sample, and a tighter one from K weighted samples.

For one sample z = (z_1 .. z_T) of Q(z | x), where mu_t and sigma_t depend on z_1 .. z_{t-1} too:

    bound       -log D(x | c_T) + sum_t KL(Q(z_t | x, z_<t) || N(0, 1))                  equations 9 to 12
    log w       log D(x | c_T) + sum_t [log N(z_t; 0, 1) - log N(z_t; mu_t, sigma_t^2)]
    estimate    -log(1/K sum_k w_k)

The expected estimate falls with K, from the bound at K = 1 to -log p(x) (Burda et al. 2016, arXiv 1509.00519): the mean of
-log w is the bound, whose KL is the mean of the bracket.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from fastdraw import reference
from fastdraw.checks import check_size, expected
from fastdraw.evaluation.mean import Mean
from fastdraw.model import DRAW
from fastdraw.runs.held_out import check_held_out, evaluation_noise, held_out
from fastdraw.runs.parallel import ALONE, Processes, in_order


@dataclass(frozen=True)
class Likelihood:
    """Nats per image, averaged over `images` images; lower is better.

    bound: of one sample, the paper's figure; = reconstruction + kl. kl_per_glimpse: its T parts.
    importance: the estimate from `samples` samples. effective_samples: (sum w)^2 / sum w^2, averaged over images: how many of
    the samples count; near 1, more samples would lower the estimate further.
    """

    bound: Mean
    reconstruction: Mean
    kl: Mean
    kl_per_glimpse: list[Mean]
    importance: Mean
    samples: int
    effective_samples: float
    images: int


@torch.inference_mode()
def likelihood(
    model: DRAW,
    images: Tensor,
    batch_size: int,
    seed: int,
    binarize: bool,
    samples: int = 1,
    labels: Tensor | None = None,
    autocast: torch.dtype | None = None,
    between: Callable[[int], None] = lambda done: None,
    together: Processes = ALONE,
) -> Likelihood:
    """Both estimates for `images` (uint8 [n, C, H, W], n at least 1).

    Noise, and binarisation where asked for, depend on seed and batch_size alone, so evaluations can be compared.
    batch_size: images times samples computed at once, and at most so many images. labels [n]: for a class-conditional model.
    `between` is called before each pass with the images times samples that are done; what it raises ends the evaluation.
    together: processes that share the batches; each of them is given the whole result, the same as one process's.

    Raises ValueError or TypeError for another model, images of another shape or dtype, a number of samples, or a batch_size,
    below 1, and for labels that are missing.
    """
    check_held_out(reference.DRAW, model, images, labels)
    samples, batch_size = check_size("samples", samples), check_size("batch_size", batch_size)
    if (labels is None) != (model.config.num_classes is None):
        what = (
            "none for this model" if model.config.num_classes is None else "class numbers, which this model is conditioned on"
        )
        raise expected("labels", what, labels)
    device = model.initial_canvas.device

    def parts() -> Iterator[tuple[Tensor, ...]]:
        done = 0
        for start, x, known in held_out(images, batch_size, seed, binarize, device, labels, together):
            logs: list[Tensor] = []
            for first in range(0, samples, at_once := max(1, batch_size // len(x))):
                between(done)
                some = range(first, min(first + at_once, samples))
                noises = [evaluation_noise(model.config, seed, start, len(x), x.device, sample) for sample in some]
                reconstruction, kl, ratio = _pass(model, x, noises, known, autocast)
                if first == 0:
                    of_one = reconstruction[0], kl[:, 0]
                logs.append(ratio - reconstruction)
                done += len(x) * len(some)
            log_w = torch.cat(logs)
            effective = (2 * log_w.logsumexp(0) - (2 * log_w).logsumexp(0)).exp()
            yield of_one[0], math.log(samples) - log_w.logsumexp(0), effective, of_one[1]

    # In memory got before: small results that stay, between the passes' large ones, would keep these from using memory again.
    found = torch.empty(3 + model.config.glimpses, len(images), dtype=torch.float64, device=device)
    done = 0
    for one in in_order(together, parts()):
        found[:, done : done + len(one[0])] = torch.cat([part.reshape(-1, len(one[0])) for part in one]).to(device)
        done += len(one[0])
    reconstruction, importance, effective, kl = found.cpu().split([1, 1, 1, model.config.glimpses])
    return Likelihood(
        bound=Mean.of(reconstruction[0] + kl.sum(0)),
        reconstruction=Mean.of(reconstruction[0]),
        kl=Mean.of(kl.sum(0)),
        kl_per_glimpse=[Mean.of(part) for part in kl],
        importance=Mean.of(importance[0]),
        samples=samples,
        effective_samples=effective.mean().item(),
        images=len(images),
    )


def _pass(
    model: DRAW, x: Tensor, noises: list[Tensor], known: dict[str, Any], autocast: torch.dtype | None
) -> tuple[Tensor, Tensor, Tensor]:
    """For K samples of B images: -log D(x | c_T) [K, B], KL [T, K, B], and log p(z) - log q(z | x) [K, B]; float64."""
    samples, noise = len(noises), torch.cat(noises, 1).to(model.initial_canvas.dtype)
    x = x.repeat(samples, 1, 1, 1).to(noise.dtype)
    known = {name: tensor.repeat(samples) for name, tensor in known.items()}
    with torch.autocast(x.device.type, autocast, enabled=autocast is not None):
        canvas, kl, _, latent = model.recurrence(x, noise, **known)
        nats = binary_cross_entropy_with_logits(canvas, x.to(canvas.dtype), reduction="none").flatten(1).sum(1)
    assert kl is not None
    assert latent is not None
    ratio = log_ratio(latent, noise)
    return (
        nats.double().unflatten(0, (samples, -1)),
        kl.double().unflatten(1, (samples, -1)),
        ratio.unflatten(0, (samples, -1)),
    )


def log_ratio(latent: Tensor, noise: Tensor) -> Tensor:
    """log p(z) - log q(z | x) [B] of z = mu + sigma noise, over all glimpses: latent [T, B, 2Z], noise [T, B, Z]. float64.

    The constants of both densities cancel, and (z - mu) / sigma is the noise.
    """
    mu, log_sigma = latent.double().chunk(2, -1)
    noise = noise.double()
    z = mu + log_sigma.exp() * noise
    return (log_sigma + (noise**2 - z**2) / 2).sum((0, 2))
