"""A peer: a whole training step in JAX, with clipping and Adam in the same jit, and weights that are given away to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from fastdraw.config import DRAWConfig
from fastdraw.profile import jax_draw

#: Adam's, as in torch.
BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-8


def training_step(
    config: DRAWConfig, state: Mapping[str, Tensor], x: Tensor, noise: Tensor, clip: float, precision: str
) -> Callable[[], list[Any]]:
    """A compiled step: called, it gives loss, kl and the gradients to all weights in the state_dict's order, as JAX's arrays.

    The learning rate is zero, and no constant of the compiler's, so that every step computes the same and leaves nothing out.
    precision: JAX's for float32 products, "highest" or, in tf32 on a GPU, "default". Raises ModuleNotFoundError without JAX,
    RuntimeError where x is on a GPU and JAX has none.
    """
    import jax
    import jax.numpy as jnp

    array = jax_draw.arrays_beside(x)
    value_and_grad = jax.value_and_grad(jax_draw.loss_function(config), has_aux=True)
    each = jax.tree_util.tree_map

    def step(held: tuple[Any, ...], rate: Any, x: Any, noise: Any) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        weights, first, second, count = held
        (loss, kl), grads = value_and_grad(weights, x, noise)
        norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree_util.tree_leaves(grads)))
        grads = each(lambda g: g * jnp.minimum(1.0, clip / (norm + 1e-6)), grads)
        count = count + 1
        first = each(lambda m, g: BETA_1 * m + (1 - BETA_1) * g, first, grads)
        second = each(lambda v, g: BETA_2 * v + (1 - BETA_2) * g * g, second, grads)
        scale_1, scale_2 = 1 - BETA_1**count, 1 - BETA_2**count
        weights = each(lambda w, m, v: w - rate * (m / scale_1) / (jnp.sqrt(v / scale_2) + EPSILON), weights, first, second)
        return (weights, first, second, count), (loss, kl, grads)

    compiled = jax.jit(step, donate_argnums=0)
    weights = {name: array(tensor) for name, tensor in state.items()}
    zeros = [each(jnp.zeros_like, weights) for _ in range(2)]
    held: list[Any] = [(weights, *zeros, jnp.zeros(()))]
    rate, x_array, noise_array = jnp.zeros(()), array(x), array(noise)

    def run() -> list[Any]:
        with jax.default_matmul_precision(precision):
            held[0], (loss, kl, grads) = jax.block_until_ready(compiled(held[0], rate, x_array, noise_array))
        return [loss, kl, *(grads[name] for name in state)]

    return run
