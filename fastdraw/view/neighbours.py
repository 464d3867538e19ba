"""The training image that each sample comes closest to, as in figure 6 of the paper."""

from __future__ import annotations

import torch
from torch import Tensor

from fastdraw.checks import check_tensor, expected

#: Training images, and samples, compared at once.
CHUNK, ROWS = 4096, 256
#: The closest by a fast product, among which exact distances decide.
CANDIDATES = 4


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
    s = samples.flatten(1).float()
    # Distances do not change with the origin; with this one, little cancels in the products.
    middle = _floats(training[:CHUNK], s.device).mean(0)
    least = torch.full((len(s),), torch.inf, dtype=torch.float64, device=s.device)
    found = torch.zeros(len(s), dtype=torch.int64, device=s.device)
    for start in range(0, len(training), CHUNK):
        t = _floats(training[start : start + CHUNK], s.device)
        centred = t - middle
        squares = centred.square().sum(1)
        for at in range(0, len(s), ROWS):
            one = s[at : at + ROWS]
            # |s - t|^2 but for |s|^2, which is the same for all t.
            distances = squares - 2 * ((one - middle) @ centred.T)
            rows = distances.topk(min(CANDIDATES, len(t)), dim=1, largest=False).indices
            exact, best = (t[rows].double() - one[:, None]).square().sum(2).min(1)
            nearer = exact < least[at : at + ROWS]
            least[at : at + ROWS][nearer] = exact[nearer]
            found[at : at + ROWS][nearer] = rows.gather(1, best[:, None])[nearer, 0] + start
    return found


def _floats(images: Tensor, device: torch.device) -> Tensor:
    return images.to(device).flatten(1).float() / 255
