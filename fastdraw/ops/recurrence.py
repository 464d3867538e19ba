"""All glimpses of DRAW: a loop over the operators, behind the seam where one operator for the whole sequence will stand."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from fastdraw.config import DRAWConfig
from fastdraw.ops.lstm import lstm_step
from fastdraw.ops.read import read
from fastdraw.ops.write import write
from fastdraw.reference import Recurrence, Trajectory, kl_divergence, stack_windows

LSTMWeights = tuple[Tensor, Tensor, Tensor, Tensor]
LinearWeights = tuple[Tensor, Tensor]


class Weights(NamedTuple):
    """Everything learned, as plain tensors. LSTM: (weight_ih, weight_hh, bias_ih, bias_hh); linear: (weight, bias)."""

    encoder: LSTMWeights
    decoder: LSTMWeights
    latent: LinearWeights
    patch: LinearWeights
    read_attention: LinearWeights | None
    write_attention: LinearWeights | None
    initial_canvas: Tensor
    initial_encoder: Tensor
    initial_decoder: Tensor


def recurrence(
    x: Tensor | None, noise: Tensor, weights: Weights, config: DRAWConfig, return_trajectory: bool = False
) -> Recurrence:
    """Equations 3 to 8 and 11 for all T glimpses; with x None, 13 to 15, where noise itself is the latent sample.

    x      [B, C, H, W] or None;  noise [T, B, Z].
    Gives Recurrence(canvas [B, C, H, W] logits, kl [T, B] nats or None, trajectory or None), equal to the reference's.
    """
    batch = noise.shape[1]
    attends = x is not None and config.read_size is not None
    head = _joined_heads(weights, attends)
    h_enc, c_enc = _initial_state(weights.initial_encoder, batch)
    h_dec, c_dec = _initial_state(weights.initial_decoder, batch)
    canvas = weights.initial_canvas.expand(batch, *config.image_shape)
    _, _, next_read = _split(linear(h_dec, *head), config)
    kl, canvases, read_params, write_params = [], [], [], []
    for t in range(config.glimpses):
        z = noise[t]
        if x is not None:
            r = torch.cat([x, x - torch.sigmoid(canvas)], 1)
            if config.read_size is not None:
                read_params.append(next_read)
                r = read(r, next_read, config.read_size)
            h_enc, c_enc = lstm_step(torch.cat([r.flatten(1), h_dec], 1), (h_enc, c_enc), *weights.encoder)
            mu, log_sigma = linear(h_enc, *weights.latent).to(canvas.dtype).chunk(2, dim=1)
            z = mu + log_sigma.exp() * noise[t]
            kl.append(kl_divergence(mu, log_sigma))
        h_dec, c_dec = lstm_step(z, (h_dec, c_dec), *weights.decoder)
        patch, params, next_read = _split(linear(h_dec, *head), config)
        if config.write_size is None:
            update = patch
        else:
            write_params.append(params)
            update = write(patch, params, config.image_shape[1:])
        canvas = canvas + update
        if return_trajectory:
            canvases.append(canvas)
    trajectory = None
    if return_trajectory:
        write_windows = stack_windows(write_params, config.write_size, config.image_shape[1:])
        read_windows = stack_windows(read_params, config.read_size, config.image_shape[1:])
        trajectory = Trajectory(torch.stack(canvases), write_windows, read_windows)
    return Recurrence(canvas, torch.stack(kl) if kl else None, trajectory)


def _joined_heads(weights: Weights, attends: bool) -> LinearWeights:
    """All layers of the decoder's state as one product: the patch, its window, and the window of the next read."""
    heads = [weights.patch]
    if weights.write_attention is not None:
        heads.append(weights.write_attention)
    if attends and weights.read_attention is not None:
        heads.append(weights.read_attention)
    return torch.cat([weight for weight, _ in heads]), torch.cat([bias for _, bias in heads])


def _split(outputs: Tensor, config: DRAWConfig) -> tuple[Tensor, Tensor, Tensor]:
    """The joined heads' outputs: patch [B, C, N, N] (or [B, C, H, W]), params of the write, params of the next read."""
    channels, height, width = config.image_shape
    sides = (height, width) if config.write_size is None else (config.write_size, config.write_size)
    patch = outputs[:, : config.patch_numel].reshape(-1, channels, *sides)
    windows = outputs[:, config.patch_numel :]
    first = 0 if config.write_size is None else 5
    return patch, windows[:, :first], windows[:, first:]


def _initial_state(h: Tensor, batch: int) -> tuple[Tensor, Tensor]:
    return h.expand(batch, -1), h.new_zeros(batch, h.shape[0])
