"""The cases of whole models: a training step and sampling with the paper's sizes, in every way that is at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

import fastdraw
from benchmarks import gemms, stepwise
from benchmarks.cases import DEVICE, Case, fastdraw_backends
from fastdraw import reference
from fastdraw.config import DRAWConfig
from fastdraw.profile import cost, jax_draw
from fastdraw.profile.timing import Variant

#: Weights larger than initial ones, so that windows move and every gradient is of a size to be compared.
_STD = 0.05
HALF = (torch.bfloat16, torch.float16)


def gradients(out: reference.DRAWOutput, weights: Sequence[Tensor]) -> list[Tensor]:
    return [out.loss.detach(), out.kl.detach(), *torch.autograd.grad(out.loss, weights)]


def with_weights(model: Any, state: dict[str, Tensor]) -> Any:
    model.load_state_dict(state)
    return model.to(DEVICE)


def rounded(state: dict[str, Tensor], rounding: float) -> dict[str, Tensor]:
    """Every weight moved by this share of itself, up or down: what rounding it may do."""
    return {name: tensor * (1 + rounding * torch.randn_like(tensor).sign()) for name, tensor in state.items()}


class Problem:
    """Weights, images and noise that all variants of a case share."""

    def __init__(self, config: DRAWConfig, batch: int) -> None:
        torch.manual_seed(0)
        self.config, self.batch = config, batch
        yardstick = reference.DRAW.from_config(config)
        for parameter in yardstick.parameters():
            torch.nn.init.normal_(parameter, std=_STD)
        self.state = yardstick.state_dict()
        self.numel = sum(parameter.numel() for parameter in yardstick.parameters() if parameter.dim() == 2)
        self.x = torch.rand(batch, *config.image_shape, device=DEVICE)
        self.noise = torch.randn(config.glimpses, batch, config.latent_size, device=DEVICE)

    def step(self, model: reference.DRAW, autocast: torch.dtype | None = None) -> Callable[[], list[Tensor]]:
        weights = list(with_weights(model, self.state).parameters())

        def run() -> list[Tensor]:
            with torch.autocast(DEVICE, autocast, enabled=autocast is not None):
                out = model(self.x, self.noise)
            return gradients(out, weights)

        return run

    def exact(self, rounding: float = 0.0) -> list[Tensor]:
        model = reference.DRAW.from_config(self.config).double()
        with_weights(model, rounded({name: tensor.double() for name, tensor in self.state.items()}, rounding))
        return gradients(model(self.x.double(), self.noise.double()), list(model.parameters()))

    def rivals(self, dtype: torch.dtype) -> list[list[Tensor]]:
        if dtype not in HALF:
            return []
        eager = self.step(reference.DRAW.from_config(self.config), dtype)()
        return [eager, *(self.exact(torch.finfo(dtype).eps / 2) for _ in range(3))]


def _plain(step: Callable[[], Any]) -> Callable[[int], Any]:
    """Variants of a model have one set of inputs."""
    return lambda _: step()


def own_variants(problem: Problem) -> list[Variant]:
    """fastdraw's, in float32 and under bfloat16 autocast."""
    first, *others = fastdraw_backends()
    variants = []
    for backend, autocast, canvas_memory in [
        (first, None, "keep"),
        (first, torch.bfloat16, "keep"),
        (first, torch.bfloat16, "rebuild"),
        *((backend, None, "keep") for backend in others),
    ]:
        name = f"fastdraw {backend}" + (", bfloat16" if autocast else "") + (", rebuild" if canvas_memory == "rebuild" else "")
        model = fastdraw.DRAW(**problem.config.to_dict(), canvas_memory=canvas_memory)
        step = _plain(problem.step(model, autocast))
        variants.append(Variant(name, step, backend, dtype=autocast or torch.float32))
    return variants


def eager_variants(problem: Problem) -> list[Variant]:
    config, bfloat16 = problem.config, torch.bfloat16
    return [
        Variant("reference", _plain(problem.step(reference.DRAW.from_config(config))), dtype=torch.float32),
        Variant("reference, bfloat16", _plain(problem.step(reference.DRAW.from_config(config), bfloat16)), dtype=bfloat16),
    ]


def peers(problem: Problem) -> list[Variant]:
    """All float32. What cannot run here says why in the table."""
    config = problem.config

    def jax_step() -> Callable[[], list[Tensor]]:
        return jax_draw.training_step(config, problem.state, problem.x, problem.noise)

    def compiled_glimpse() -> Callable[[], list[Tensor]]:
        return problem.step(stepwise.with_compiled_glimpse(config))

    cells = problem.step(stepwise.with_lstm_cell(config))
    return [
        Variant("nn.LSTMCell", _plain(cells), dtype=torch.float32),
        Variant("torch.compile, a glimpse", stepwise.Timed(compiled_glimpse), dtype=torch.float32),
        Variant("jax.jit of lax.scan", stepwise.Timed(jax_step), dtype=torch.float32, captured=False),
    ]


def products(problem: Problem) -> list[Variant]:
    def variant(name: str, dtype: torch.dtype) -> Variant:
        # Made when first called, so that libraries are compared once the machine has warmed up.
        run = cache(partial(gemms.training_products, problem.config, problem.batch, dtype, DEVICE))
        return Variant(f"products alone, {name}", lambda _: run()(), dtype=dtype, products=True)

    return [variant("float32", torch.float32), variant("bfloat16", torch.bfloat16)]


def training_case(config: DRAWConfig, title: str, batch: int, variants: Callable[[Problem], list[Variant]]) -> Case:
    """A training step without the optimiser, which is the same for all."""
    problem = Problem(config, batch)
    assert config.read_size is not None
    assert config.write_size is not None
    sizes = (config.image_shape, config.latent_size, config.read_size, config.write_size)
    return Case(
        f"{title} {batch}, T={config.glimpses}",
        "forward and backward of a training step, gradients to all weights",
        torch.float32,
        "float32",
        cost.draw(batch, config.glimpses, *sizes, problem.numel, 4),
        variants(problem),
        problem.exact,
        sets=1,
        input_bytes=problem.x.nbytes + problem.noise.nbytes,
        rivals=problem.rivals,
        batch=batch,
        glimpses=config.glimpses,
    )


def mnist(glimpses: int = 64) -> DRAWConfig:
    return DRAWConfig((1, 28, 28), glimpses, 256, 100, 2, 5)


def mnist_case(batch: int = 128) -> Case:
    def variants(problem: Problem) -> list[Variant]:
        return [*own_variants(problem), *eager_variants(problem), *peers(problem), *products(problem)]

    return training_case(mnist(), "DRAW MNIST", batch, variants)


def compiled_whole_case(glimpses: int, batch: int = 128) -> Case:
    """torch.compile of the reference as it stands: it unrolls the loop, so only few glimpses can be waited for."""
    mode = "reduce-overhead" if DEVICE == "cuda" else None

    def variants(problem: Problem) -> list[Variant]:
        def compiled() -> Callable[[], list[Tensor]]:
            model = reference.DRAW.from_config(problem.config)
            step = problem.step(model)
            model.recurrence = torch.compile(model.recurrence, dynamic=False, mode=mode)
            return lambda: [result.clone() for result in step()]

        name = "torch.compile, all glimpses" + (f', mode="{mode}"' if mode else "")
        whole = Variant(name, stepwise.Timed(compiled), dtype=torch.float32, captured=mode is None)
        return [own_variants(problem)[0], eager_variants(problem)[0], whole]

    return training_case(mnist(glimpses), "DRAW MNIST", batch, variants)


def sampling_case(config: DRAWConfig, title: str, batch: int) -> Case:
    """`model.sample`: images from the prior, the decoder alone, no gradients."""
    problem = Problem(config, batch)

    def variant(name: str, kind: type[reference.DRAW], backend: str | None = None) -> Variant:
        model = with_weights(kind.from_config(config), problem.state)

        def sample(_: int) -> list[Tensor]:
            with torch.no_grad():
                return [model.sample(batch, problem.noise)]

        return Variant(name, sample, backend)

    def exact() -> list[Tensor]:
        model = with_weights(reference.DRAW.from_config(config), problem.state).double()
        with torch.no_grad():
            return [model.sample(batch, problem.noise.double())]

    variants = [variant(f"fastdraw {backend}", fastdraw.DRAW, backend) for backend in fastdraw_backends()]
    variants.append(variant("reference", reference.DRAW))
    return Case(
        f"sample {title} {batch}, T={config.glimpses}",
        "images from the prior, without gradients",
        torch.float32,
        "float32",
        cost.sample(batch, config),
        variants,
        exact,
        sets=1,
        input_bytes=problem.noise.nbytes,
        batch=batch,
        glimpses=config.glimpses,
    )
