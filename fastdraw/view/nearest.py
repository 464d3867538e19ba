"""The training image that each sample comes closest to, as in figure 6 of the paper."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdraw.checks import check_tensor, expected

#: Training images compared at once.
CHUNK = 4096
#: The closest by a fast product, among which exact distances decide.
CANDIDATES = 4


def nearest(samples: Tensor, training: Tensor) -> Tensor:
    """For each sample the number of the training image at the smallest pixelwise L2 distance, int64 [n]; the first of equals.

    samples:  float [n, C, H, W] in [0, 1].
    training: uint8 [N, C, H, W], values 0 to 255 standing for 0 to 1; N at least one.

    Raises ValueError or TypeError naming the argument.
    """
    check_tensor("samples", samples, "n", "C", "H", "W")
    if not isinstance(training, Tensor) or training.dtype != torch.uint8:
        raise expected("training", "a uint8 tensor", training, TypeError)
    if training.shape[1:] != samples.shape[1:] or len(training) == 0:
        raise expected("training", f"at least one image of {list(samples.shape[1:])}", training)
    s = samples.flatten(1).float()
    parts = []
    for start in range(0, len(training), CHUNK):
        t = _floats(training[start : start + CHUNK], s.device)
        # |s - t|^2 but for |s|^2, which is the same for all t.
        distance = t.square().sum(1) - 2 * (s @ t.T)
        best = distance.topk(min(CANDIDATES, len(t)), dim=1, largest=False)
        parts.append((best.values, best.indices + start))
    values, rows = torch.cat([v for v, _ in parts], 1), torch.cat([r for _, r in parts], 1)
    rows = rows.gather(1, values.argsort(1)[:, :CANDIDATES]).sort(1).values
    exact = torch.stack(
        [
            (_floats(training[c.to(training.device)], s.device) - one).double().square().sum(1)
            for c, one in zip(rows, s, strict=True)
        ]
    )
    return rows.gather(1, exact.argmin(1, keepdim=True)).squeeze(1)


def _floats(images: Tensor, device: torch.device) -> Tensor:
    return images.to(device).flatten(1).float() / 255
