"""The windows, read and write, LSTM step and KL of the specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from fastdraw.outputs import FilterBank, Window

#: Bounds put on params, (g~x, g~y, log sigma^2, log delta~, log gamma), so that no finite input overflows to NaN. They lie
#: where float32 cannot tell the results apart any more; gradients are zero beyond them.
PARAM_LIMITS = (1e30, 1e30, 60.0, 60.0, 60.0)
#: Exponents of the filters are cut here: exp(-1e4) is zero in every dtype, and infinity times zero never arises.
EXPONENT_LIMIT = 1e4


def _limited(params: Tensor) -> list[Tensor]:
    """The columns of params, within PARAM_LIMITS, in a dtype that a window can be told in."""
    params = params if params.dtype in (torch.float32, torch.float64) else params.float()
    return [column.clamp(-limit, limit) for column, limit in zip(params.unbind(-1), PARAM_LIMITS, strict=True)]


def window(params: Tensor, size: int, image_size: tuple[int, int]) -> Window:
    """Equations 21 to 24: the window that raw `params` [B, 5] mean for N = `size` filters on a (height, width) image."""
    height, width = image_size
    g_x, g_y, log_sigma2, log_delta, log_gamma = _limited(params)
    centre_x = (width + 1) / 2 * (g_x + 1) - 1  # (22), 0-based
    centre_y = (height + 1) / 2 * (g_y + 1) - 1  # (23), 0-based
    # One filter has no stride: it stands at the centre.
    delta = (max(height, width) - 1) / (size - 1) * log_delta.exp() if size > 1 else torch.zeros_like(log_delta)  # (24)
    return Window(centre_x, centre_y, delta, (log_sigma2 / 2).exp(), log_gamma.exp())  # (21)


def _rows(centre: Tensor, delta: Tensor, precision: Tensor, size: int, length: int) -> Tensor:
    """[B, N, length]: Gaussian rows along one axis (19, 20, 25, 26), an exact softmax over pixels."""
    i = torch.arange(size, dtype=centre.dtype, device=centre.device)
    mu = centre[:, None] + (i - (size - 1) / 2) * delta[:, None]  # (19, 20), 0-based
    a = torch.arange(length, dtype=centre.dtype, device=centre.device)
    # The softmax's maximum stands at the pixel nearest to mu. Taking it out of -(a - mu)^2 / 2 sigma^2 by
    # (a - mu)^2 - (nearest - mu)^2 = (a - nearest)(a + nearest - 2 mu) leaves no large terms to cancel.
    nearest = mu.detach().round().clamp(0, length - 1)[..., None]
    step = a - nearest
    exponent = step * (step + 2 * (nearest - mu[..., None])) * (0.5 * precision[:, None, None])
    f = torch.exp(-exponent.clamp(max=EXPONENT_LIMIT))
    return f / f.sum(-1, keepdim=True)  # (25, 26)


def filterbank(params: Tensor, size: int, image_size: tuple[int, int]) -> FilterBank:
    """Equations 19 to 26: params [B, 5] -> y [B, N, H], x [B, N, W], gamma [B]."""
    w = window(params, size, image_size)
    # 1 / sigma^2, not by way of sigma, the gradient of whose inverse overflows.
    precision = (-_limited(params)[2]).exp()
    y = _rows(w.centre_y, w.delta, precision, size, image_size[0])
    x = _rows(w.centre_x, w.delta, precision, size, image_size[1])
    return FilterBank(y, x, w.gamma)


def read(image: Tensor, params: Tensor, size: int) -> Tensor:
    """Equation 27 for one image: [B, C, H, W] -> [B, C, N, N], gamma F_Y image F_X^T. params [B, K, 5]: -> [B, K, C, N, N]."""
    if params.dim() == 3:
        patches = read(image.repeat_interleave(params.shape[1], 0), params.flatten(0, 1), size)
        return patches.view(*params.shape[:2], *patches.shape[1:])
    y, x, gamma = filterbank(params, size, (image.shape[2], image.shape[3]))
    patch = y[:, None] @ image.to(y.dtype) @ x[:, None].mT
    return (gamma[:, None, None, None] * patch).to(image.dtype)


def write(patch: Tensor, params: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Equation 29: patch [B, C, N, N] -> [B, C, H, W], 1/gamma F_Y^T patch F_X. [B, K, C, N, N]: summed over K."""
    if params.dim() == 3:
        wide = patch.to(torch.promote_types(patch.dtype, torch.float32))
        images = write(wide.flatten(0, 1), params.flatten(0, 1), image_size)
        return images.view(*params.shape[:2], *images.shape[1:]).sum(1).to(patch.dtype)
    y, x, _ = filterbank(params, patch.shape[2], image_size)
    image = y[:, None].mT @ patch.to(y.dtype) @ x[:, None]
    # 1 / gamma, not by way of gamma, the gradient of whose inverse overflows.
    inverse = (-_limited(params)[4]).exp()
    return (image * inverse[:, None, None, None]).to(patch.dtype)


def lstm_step(
    x: Tensor, state: tuple[Tensor, Tensor], weight_ih: Tensor, weight_hh: Tensor, bias_ih: Tensor, bias_hh: Tensor
) -> tuple[Tensor, Tensor]:
    """LSTM with forget gates, weights as nn.LSTMCell lays them out: rows i, f, g, o. Gives (h, c)."""
    h, c = state
    gates = linear(x, weight_ih, bias_ih) + linear(h, weight_hh, bias_hh)
    i, f, g, o = gates.chunk(4, dim=1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def kl_divergence(mu: Tensor, log_sigma: Tensor) -> Tensor:
    """Equation 11 for one glimpse, nats per image: KL of N(mu, sigma^2) from N(0, 1), summed over latent dimensions."""
    return 0.5 * (mu**2 + (2 * log_sigma).exp() - 2 * log_sigma - 1).sum(-1)


class Operators(NamedTuple):
    """What a model's loop over glimpses computes windows and plain LSTM layers by."""

    read: Callable[[Tensor, Tensor, int], Tensor]
    write: Callable[[Tensor, Tensor, tuple[int, int]], Tensor]
    lstm_step: Callable[..., tuple[Tensor, Tensor]]


def lstm_weights(cell: nn.LSTMCell) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """In the order in which `lstm_step` takes them."""
    return cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh


def stack_windows(params: list[Tensor], size: int | None, image_size: tuple[int, int]) -> Window | None:
    """The windows that T tensors of params mean, fields [T, B]; None without attention, or where nothing was read."""
    return None if size is None or not params else window(torch.stack(params), size, image_size)
