"""The weights that training starts from."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fastdraw.model import DRAW

#: Means of pixels are kept this far from 0 and 1, so that the first canvas is certain of nothing (logits of at most 4.6).
MEAN_MARGIN = 0.01
#: Standard deviation of the weights that move the windows: both start in the middle, spanning the image.
WINDOW_STD = 0.01
#: The first strokes are this much fainter than the states behind them.
STROKE_SCALE = 0.1


@torch.no_grad()
def initialise(model: DRAW, images: Tensor | None) -> None:
    """Sets all weights, from torch's generator; with `images` (uint8 [n, C, H, W]) the first canvas is their mean's logit.

    DRAW begins beside a trap: while the latents say nothing of the image, the decoder learns to shut their noise out, and what
    it shuts out cannot learn to say anything. With N(0, 0.01^2) everywhere nats rest at the mean image's for hundreds of
    steps. So the states are of ordinary size from the start (variance 1 / inputs), their strokes faint, the windows wide; and
    since the canvas has the mean image already, the first thing left to learn is the image at hand.
    """
    for name, parameter in model.named_parameters():
        if parameter.dim() != 2:
            nn.init.zeros_(parameter)
            continue
        std = WINDOW_STD if "attention" in name else 1 / math.sqrt(parameter.shape[1])
        nn.init.normal_(parameter, std=STROKE_SCALE * std if name.startswith("patch") else std)
    nn.init.zeros_(model.initial_canvas)
    if images is not None:
        model.initial_canvas.copy_(torch.logit(images.float().mean(0) / 255, eps=MEAN_MARGIN))
