"""DRAW in JAX, from the paper's equations: `lax.scan` over glimpses under `jit(value_and_grad)`, as one writes it there.

A peer for the benchmarks. Weights come from the state_dict of `fastdraw.reference.DRAW`, and loss, KL and gradients are held
against it before anything is timed. Pixels and filters count from 0, as in the reference. Needs JAX (the extra `bench`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from fastdraw.config import DRAWConfig

#: JAX would take three quarters of a GPU's memory at its first call, and leave too little for the others.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

Arrays = dict[str, Any]


def filterbank(params: Any, size: int, image_size: tuple[int, int]) -> tuple[Any, Any, Any]:
    """Equations 21 to 26 for params [B, 5]: F_Y [B, N, H], F_X [B, N, W], gamma [B, 1, 1, 1]."""
    import jax
    import jax.numpy as jnp

    height, width = image_size

    def rows(centre: Any, delta: Any, sigma: Any, length: int) -> Any:
        """[B, N, length]: equations 19, 20, 25, 26, a softmax over pixels."""
        mu = centre[:, None] + (jnp.arange(size) - (size - 1) / 2) * delta[:, None]
        squares = (jnp.arange(length) - mu[..., None]) ** 2
        return jax.nn.softmax(-squares / (2 * sigma[:, None, None] ** 2), axis=-1)

    g_x, g_y, log_sigma2, log_delta, log_gamma = params.T
    centre_x = (width + 1) / 2 * (g_x + 1) - 1
    centre_y = (height + 1) / 2 * (g_y + 1) - 1
    delta = (max(height, width) - 1) / max(size - 1, 1) * jnp.exp(log_delta)
    sigma = jnp.exp(log_sigma2 / 2)
    return rows(centre_y, delta, sigma, height), rows(centre_x, delta, sigma, width), jnp.exp(log_gamma)[:, None, None, None]


def loss_function(config: DRAWConfig) -> Callable[[Arrays, Any, Any], tuple[Any, Any]]:
    """(weights, x [B, C, H, W], noise [T, B, Z]) -> (loss in nats per image, kl [T, B]), with attention on both sides."""
    import jax
    import jax.numpy as jnp
    from jax.nn import sigmoid

    channels, height, width = config.image_shape
    read_size, write_size = config.read_size, config.write_size
    assert read_size is not None
    assert write_size is not None

    def linear(inputs: Any, w: Arrays, name: str) -> Any:
        return inputs @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def lstm(inputs: Any, h: Any, c: Any, w: Arrays, name: str) -> tuple[Any, Any]:
        gates = inputs @ w[f"{name}.weight_ih"].T + w[f"{name}.bias_ih"]
        gates = gates + h @ w[f"{name}.weight_hh"].T + w[f"{name}.bias_hh"]
        i, f, g, o = jnp.split(gates, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c

    def loss(w: Arrays, x: Any, noise: Any) -> tuple[Any, Any]:
        batch = x.shape[0]

        def glimpse(state: tuple[Any, ...], noise_t: Any) -> tuple[tuple[Any, ...], Any]:
            canvas, h_enc, c_enc, h_dec, c_dec = state
            x_hat = x - sigmoid(canvas)  # (3)
            f_y, f_x, gamma = filterbank(linear(h_dec, w, "read_attention"), read_size, (height, width))
            images = jnp.concatenate([x, x_hat], 1)
            r = gamma * (f_y[:, None] @ images @ f_x[:, None].mT)  # (4), (27)
            h_enc, c_enc = lstm(jnp.concatenate([r.reshape(batch, -1), h_dec], 1), h_enc, c_enc, w, "encoder")  # (5)
            mu, log_sigma = jnp.split(linear(h_enc, w, "latent"), 2, axis=1)  # (1), (2)
            z = mu + jnp.exp(log_sigma) * noise_t  # (6)
            kl = 0.5 * (mu**2 + jnp.exp(2 * log_sigma) - 2 * log_sigma - 1).sum(1)  # (11)
            h_dec, c_dec = lstm(z, h_dec, c_dec, w, "decoder")  # (7)
            patch = linear(h_dec, w, "patch").reshape(batch, channels, write_size, write_size)  # (28)
            f_y, f_x, gamma = filterbank(linear(h_dec, w, "write_attention"), write_size, (height, width))
            canvas = canvas + f_y[:, None].mT @ patch @ f_x[:, None] / gamma  # (8), (29)
            return (canvas, h_enc, c_enc, h_dec, c_dec), kl

        def start(name: str) -> Any:
            return jnp.broadcast_to(w[name], (batch, *w[name].shape))

        zero = jnp.zeros((batch, config.hidden_size), x.dtype)
        state = (start("initial_canvas"), start("initial_encoder"), zero, start("initial_decoder"), zero)
        (canvas, *_), kl = jax.lax.scan(glimpse, state, noise)
        # -log D(x | c_T) of a Bernoulli with logits c_T (9).
        reconstruction = (jax.nn.softplus(canvas) - x * canvas).sum((1, 2, 3))
        return (reconstruction + kl.sum(0)).mean(), kl  # (10), (12)

    return loss


def arrays_beside(x: Tensor) -> Callable[[Tensor], Any]:
    """What makes JAX's arrays of tensors, on the kind of device that x is on. Raises RuntimeError where JAX has none."""
    import jax

    platforms = {device.platform for device in jax.devices()}
    if x.is_cuda and "gpu" not in platforms:
        raise RuntimeError(f"JAX has no GPU here, only {', '.join(sorted(platforms))}")
    device = jax.devices("gpu" if x.is_cuda else "cpu")[0]
    return lambda tensor: jax.device_put(tensor.detach().cpu().numpy(), device)


def training_step(config: DRAWConfig, state: Mapping[str, Tensor], x: Tensor, noise: Tensor) -> Callable[[], list[Tensor]]:
    """A compiled step: called, it gives loss, kl and the gradients to all weights in the state_dict's order.

    Raises ModuleNotFoundError without JAX, RuntimeError where x is on a GPU and JAX has none.
    """
    import jax

    array = arrays_beside(x)
    weights = {name: array(tensor) for name, tensor in state.items()}
    x_array, noise_array = array(x), array(noise)
    compiled = jax.jit(jax.value_and_grad(loss_function(config), has_aux=True))

    def step() -> list[Tensor]:
        # Without this float32 products would run in tf32 on a GPU, as torch's do not.
        with jax.default_matmul_precision("highest"):
            (loss, kl), grads = jax.block_until_ready(compiled(weights, x_array, noise_array))
        return [torch.from_dlpack(result) for result in (loss, kl, *(grads[name] for name in state))]

    return step
