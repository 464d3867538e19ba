"""Peers of fastdraw: DRAW as a loop over one function of a glimpse, compiled, or built on the kernel of nn.LSTMCell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastdraw import reference
from fastdraw.config import DRAWConfig

LSTM = Callable[..., tuple[Tensor, Tensor]]


def one_glimpse(
    model: reference.DRAW,
    lstm: LSTM,
    x: Tensor,
    noise: Tensor,
    canvas: Tensor,
    encoder: tuple[Tensor, Tensor],
    decoder: tuple[Tensor, Tensor],
) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor]:
    """Equations 3 to 8 and 11, line for line those of the reference: canvas, states (h, c), kl."""
    r = _read(model, x, x - torch.sigmoid(canvas), decoder[0])
    encoder = lstm(torch.cat([r, decoder[0]], 1), encoder, *reference.lstm_weights(model.encoder))
    # Under autocast sums and the latent layer's results are float32, as the reference has them.
    mu, log_sigma = model.latent(encoder[0]).to(noise.dtype).chunk(2, dim=1)
    z = mu + log_sigma.exp() * noise
    decoder = lstm(z, decoder, *reference.lstm_weights(model.decoder))
    return canvas + _write(model, decoder[0]), encoder, decoder, reference.kl_divergence(mu, log_sigma)


def _read(model: reference.DRAW, x: Tensor, x_hat: Tensor, h_dec: Tensor) -> Tensor:
    """Equations 17, or 21 and 27."""
    images, size = torch.cat([x, x_hat], 1), model.config.read_size
    if size is None:
        return images.flatten(1)
    return model.operators.read(images, model.read_attention(h_dec), size).flatten(1)


def _write(model: reference.DRAW, h_dec: Tensor) -> Tensor:
    """Equations 18, or 21, 28 and 29."""
    (channels, height, width), size = model.config.image_shape, model.config.write_size
    w = model.patch(h_dec)
    if size is None:
        return w.view(-1, channels, height, width)
    return model.operators.write(w.view(-1, channels, size, size), model.write_attention(h_dec), (height, width))


class StepwiseDRAW(reference.DRAW):
    """The reference with `glimpse`, one_glimpse or a compiled form of it, called T times."""

    glimpse: Callable[..., Any] = staticmethod(one_glimpse)
    lstm: LSTM = staticmethod(reference.lstm_step)

    def recurrence(
        self, x: Tensor | None, noise: Tensor, return_trajectory: bool = False, labels: Tensor | None = None
    ) -> reference.Recurrence:
        batch = noise.shape[1]
        # Contiguous, with gradients and each a tensor of its own, like all later ones: the compiler would make another
        # version for the first glimpse.
        canvas = self.initial_canvas.expand(batch, *self.config.image_shape).contiguous()
        encoder, decoder = (
            (h.expand(batch, -1).contiguous(), h.new_zeros(batch, self.config.hidden_size, requires_grad=True))
            for h in (self.initial_encoder, self.initial_decoder)
        )
        kl = []
        for t in range(self.config.glimpses):
            canvas, encoder, decoder, kl_t = self.glimpse(self, self.lstm, x, noise[t], canvas, encoder, decoder)
            kl.append(kl_t)
        return reference.Recurrence(canvas, torch.stack(kl), None)


def with_lstm_cell(config: DRAWConfig) -> StepwiseDRAW:
    """The LSTM's pointwise part in one kernel on CUDA, as nn.LSTMCell has it."""
    model = StepwiseDRAW.from_config(config)
    model.lstm = torch.lstm_cell
    return model


def with_compiled_glimpse(config: DRAWConfig) -> StepwiseDRAW:
    model = StepwiseDRAW.from_config(config)
    model.glimpse = torch.compile(one_glimpse, dynamic=False, fullgraph=True)
    return model
