"""The windows, read and write, LSTM step and KL of the specification."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def param_limits(count: int) -> tuple[float, ...]:
    """PARAM_LIMITS of params of 5 or of 7 numbers."""
    g_x, g_y, sigma, delta, gamma = PARAM_LIMITS
    return PARAM_LIMITS if count == 5 else (g_x, g_y, sigma, sigma, delta, delta, gamma)


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """(N_y, N_x)."""
    return (size, size) if isinstance(size, int | torch.SymInt) else (size[0], size[1])


class Axes(NamedTuple):
    """The columns of params, within their limits, in a dtype that a window can be told in. log_sigma2, log_delta: of x and of
    y, which are one tensor where params have one number for both."""

    g_x: Tensor
    g_y: Tensor
    log_sigma2: tuple[Tensor, Tensor]
    log_delta: tuple[Tensor, Tensor]
    log_gamma: Tensor


def _limited(params: Tensor) -> Axes:
    params = params if params.dtype in (torch.float32, torch.float64) else params.float()
    limits = param_limits(params.shape[-1])
    columns = [column.clamp(-limit, limit) for column, limit in zip(params.unbind(-1), limits, strict=True)]
    half = len(columns) // 2
    sigma, delta = columns[2 : half + 1], columns[half + 1 : -1]
    return Axes(columns[0], columns[1], (sigma[0], sigma[-1]), (delta[0], delta[-1]), columns[-1])


def stride_unit(size: Sequence[int], image_size: Sequence[int]) -> float:
    """Pixels between filters at log delta~ = 0 (24)."""
    return (max(image_size) - 1) / max(max(size) - 1, 1)


def window(params: Tensor, size: int | tuple[int, int], image_size: tuple[int, int]) -> Window:
    """Equations 21 to 24: the window that raw `params` [..., 5] or [..., 7] mean for N = `size` filters, or (N_y, N_x), on a
    (height, width) image. Of 7 numbers delta and sigma are [..., 2], of x and y."""
    height, width = image_size
    p = _limited(params)
    centre_x = (width + 1) / 2 * (p.g_x + 1) - 1  # (22), 0-based
    centre_y = (height + 1) / 2 * (p.g_y + 1) - 1  # (23), 0-based
    own, unit = params.shape[-1] == 7, stride_unit(sides(size), image_size)
    log_sigma2 = torch.stack(p.log_sigma2, -1) if own else p.log_sigma2[0]
    log_delta = torch.stack(p.log_delta, -1) if own else p.log_delta[0]
    # One filter has no stride: it stands at the centre.
    delta = unit * log_delta.exp() if max(sides(size)) > 1 else torch.zeros_like(log_delta)  # (24)
    return Window(centre_x, centre_y, delta, (log_sigma2 / 2).exp(), p.log_gamma.exp())  # (21)


def _rows(centre: Tensor, delta: Tensor, precision: Tensor, size: int, length: int) -> Tensor:
    """[B, N, length]: Gaussian rows along one axis (19, 20, 25, 26), an exact softmax over pixels."""
    i = torch.arange(size, dtype=centre.dtype, device=centre.device)
    # One filter stands at the centre, whatever the stride says, which may be NaN there.
    delta = delta if size > 1 else torch.zeros_like(delta)
    mu = centre[:, None] + (i - (size - 1) / 2) * delta[:, None]  # (19, 20), 0-based
    a = torch.arange(length, dtype=centre.dtype, device=centre.device)
    # The softmax's maximum stands at the pixel nearest to mu. Taking it out of -(a - mu)^2 / 2 sigma^2 by
    # (a - mu)^2 - (nearest - mu)^2 = (a - nearest)(a + nearest - 2 mu) leaves no large terms to cancel.
    nearest = mu.detach().round().clamp(0, length - 1)[..., None]
    step = a - nearest
    exponent = step * (step + 2 * (nearest - mu[..., None])) * (0.5 * precision[:, None, None])
    f = torch.exp(-exponent.clamp(max=EXPONENT_LIMIT))
    return f / f.sum(-1, keepdim=True)  # (25, 26)


def filterbank(params: Tensor, size: int | tuple[int, int], image_size: tuple[int, int]) -> FilterBank:
    """Equations 19 to 26: params [B, 5] or [B, 7] -> y [B, N, H], x [B, N, W], gamma [B]; N_y and N_x where size has two."""
    w, p = window(params, size, image_size), _limited(params)
    # 1 / sigma^2, not by way of sigma, the gradient of whose inverse overflows.
    if params.shape[-1] == 5:
        deltas, precisions = (w.delta, w.delta), ((-p.log_sigma2[0]).exp(),) * 2
    else:
        deltas = (w.delta[:, 0], w.delta[:, 1])
        precisions = ((-p.log_sigma2[0]).exp(), (-p.log_sigma2[1]).exp())
    rows, columns = sides(size)
    y = _rows(w.centre_y, deltas[1], precisions[1], rows, image_size[0])
    x = _rows(w.centre_x, deltas[0], precisions[0], columns, image_size[1])
    return FilterBank(y, x, w.gamma)


def read(image: Tensor, params: Tensor, size: int | tuple[int, int]) -> Tensor:
    """Equation 27 for one image: [B, C, H, W] -> [B, C, N, N], gamma F_Y image F_X^T. params [B, K, 5]: -> [B, K, C, N, N].
    size (N_y, N_x): -> [..., N_y, N_x]."""
    if params.dim() == 3:
        patches = read(image.repeat_interleave(params.shape[1], 0), params.flatten(0, 1), size)
        return patches.view(*params.shape[:2], *patches.shape[1:])
    y, x, gamma = filterbank(params, size, (image.shape[2], image.shape[3]))
    patch = y[:, None] @ image.to(y.dtype) @ x[:, None].mT
    return (gamma[:, None, None, None] * patch).to(image.dtype if image.is_floating_point() else torch.float32)


def write(patch: Tensor, params: Tensor, image_size: tuple[int, int]) -> Tensor:
    """Equation 29: patch [B, C, N, N] -> [B, C, H, W], 1/gamma F_Y^T patch F_X. [B, K, C, N, N]: summed over K."""
    if params.dim() == 3:
        wide = patch.to(torch.promote_types(patch.dtype, torch.float32))
        images = write(wide.flatten(0, 1), params.flatten(0, 1), image_size)
        return images.view(*params.shape[:2], *images.shape[1:]).sum(1).to(patch.dtype)
    y, x, _ = filterbank(params, (patch.shape[2], patch.shape[3]), image_size)
    image = y[:, None].mT @ patch.to(y.dtype) @ x[:, None]
    # 1 / gamma, not by way of gamma, the gradient of whose inverse overflows.
    inverse = (-_limited(params).log_gamma).exp()
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

    read: Callable[..., Tensor]
    write: Callable[[Tensor, Tensor, tuple[int, int]], Tensor]
    lstm_step: Callable[..., tuple[Tensor, Tensor]]


def lstm_weights(cell: nn.LSTMCell) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """In the order in which `lstm_step` takes them."""
    return cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh


def stack_windows(params: list[Tensor], size: int | None, image_size: tuple[int, int]) -> Window | None:
    """The windows that T tensors of params mean, fields [T, B]; None without attention, or where nothing was read."""
    return None if size is None or not params else window(torch.stack(params), size, image_size)
