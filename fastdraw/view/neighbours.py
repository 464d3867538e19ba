"""The training image that each sample comes closest to, as in figure 6 of the paper."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdraw.checks import check_tensor, expected

#: Training images, and samples, compared at once.
CHUNK, ROWS = 4096, 256


def nearest(samples: Tensor, training: Tensor) -> Tensor:
    """For each sample the number of the training image at the smallest pixelwise L2 distance, int64 [n].

    samples:  float [n, C, H, W] in [0, 1].
    training: uint8 [N, C, H, W], values 0 to 255 standing for 0 to 1; N at least one.

    Raises ValueError or TypeError naming the argument.
    """
    check_tensor("samples", samples, "n", "C", "H", "W")
    if not isinstance(training, Tensor) or training.dtype != torch.uint8:
        raise expected("training", "a uint8 tensor", training, TypeError)
    if training.shape[1:] != samples.shape[1:] or len(training) == 0:
        raise expected("training", f"at least one image of {list(samples.shape[1:])}", training)
    # In float64 what cancels in cdist's products is far less than one step of one pixel.
    s = samples.flatten(1).double()
    least = torch.full((len(s),), torch.inf, dtype=torch.float64, device=s.device)
    found = torch.zeros(len(s), dtype=torch.int64, device=s.device)
    for start in range(0, len(training), CHUNK):
        t = training[start : start + CHUNK].to(s.device).flatten(1).double() / 255
        for at in range(0, len(s), ROWS):
            rows = slice(at, at + ROWS)
            distances, numbers = torch.cdist(s[rows], t).min(1)
            nearer = distances < least[rows]
            least[rows][nearer] = distances[nearer]
            found[rows][nearer] = numbers[nearer] + start
    return found
