"""What a new model starts from: its weights, its forget gates, and its first canvas."""

from __future__ import annotations

import torch
from torch import nn

from fastdraw import data
from fastdraw.train.kinds import Config, Model, kind
from fastdraw.train.options import TrainOptions
from fastdraw.train.randomness import generator

#: Means of pixels are kept this far from 0 and 1, so that the first canvas is certain of nothing (logits of at most 4.6).
MEAN_MARGIN = 0.01
#: Images that the mean is taken of where they are made anew for each batch.
MEAN_MADE = 2000


def new_model(config: Config, options: TrainOptions, splits: data.Splits) -> Model:
    """A model on the CPU, decided by the options' seed alone; no trace is left on torch's own generators."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator(options.seed, "weights").initial_seed())
        model = kind(options.task or "draw").model.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if options.weight_std is not None and parameter.dim() == 2:
                    parameter.normal_(std=options.weight_std)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.LSTMCell):
                # Rows i, f, g, o.
                module.bias_ih.view(4, -1)[1] += options.forget_bias
        if options.task == "draw":
            model.initial_canvas.copy_(_canvas(options, splits, model.initial_canvas))
    return model


def _canvas(options: TrainOptions, splits: data.Splits, like: torch.Tensor) -> torch.Tensor:
    """Logits [C, H, W]."""
    if options.initial_canvas != "mean":
        return torch.full_like(like, 0.0 if options.initial_canvas == "zero" else float(options.initial_canvas))
    images = splits.train
    if splits.make is not None:
        images = images[torch.linspace(0, len(images) - 1, min(MEAN_MADE, len(images))).long()]
        images = splits.make(images, generator(options.seed, "mean image", 0, images.device))
    # float64 holds the sum of any number of pixels exactly.
    mean = sum(part.sum(0, dtype=torch.float64) for part in images.split(4096)) / (255 * len(images))
    return torch.logit(mean.float(), eps=MEAN_MARGIN)
