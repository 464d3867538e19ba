"""The cases of whole models: a training step and sampling with the paper's sizes, in every way that is at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

import fastdraw
from benchmarks.cases import DEVICE, fastdraw_backends, stepwise
from benchmarks.cases.products import training_products
from fastdraw import reference
from fastdraw.config import DRAWConfig
from fastdraw.profile import cost
from fastdraw.profile.cases import Case, jax_variant, training_case
from fastdraw.profile.models import Problem, with_weights
from fastdraw.profile.shapes import MNIST, Drawing
from fastdraw.profile.timing import Timed, Variant


def variant(problem: Problem, name: str, model: Any, half: bool = False, backend: str | None = None) -> Variant:
    """A step of the model, under bfloat16 autocast where `half` is said. Variants of a model have one set of inputs."""
    step = problem.step(model, torch.bfloat16 if half else None)
    dtype = torch.bfloat16 if half else torch.float32
    return Variant(name + (", bfloat16" if half else ""), lambda _: step(), backend, dtype=dtype)


def own_variants(problem: Problem) -> list[Variant]:
    """fastdraw's, in float32 and under bfloat16 autocast."""
    first, *others = fastdraw_backends()
    config, model = problem.config, fastdraw.DRAW.from_config
    rebuilding = variant(problem, f"fastdraw {first}", model(config, canvas_memory="rebuild"), True, first)
    return [
        *(variant(problem, f"fastdraw {first}", model(config), half, first) for half in (False, True)),
        rebuilding._replace(name=f"{rebuilding.name}, rebuild"),
        *(variant(problem, f"fastdraw {backend}", model(config), False, backend) for backend in others),
    ]


def eager_variants(problem: Problem) -> list[Variant]:
    return [variant(problem, "reference", problem.specification.from_config(problem.config), half) for half in (False, True)]


def peers(problem: Problem) -> list[Variant]:
    """All float32. What cannot run here says why in the table."""
    return [
        variant(problem, "nn.LSTMCell", stepwise.with_lstm_cell(problem.config)),
        _compiled("torch.compile, a glimpse", lambda: problem.step(stepwise.with_compiled_glimpse(problem.config))),
        jax_variant(problem),
    ]


def _compiled(name: str, make: Callable[[], Callable[[], list[Tensor]]], captured: bool = True) -> Variant:
    return Variant(name, Timed(make), dtype=torch.float32, captured=captured)


def products_alone(problem: Problem) -> list[Variant]:
    def variant(name: str, dtype: torch.dtype) -> Variant:
        # Made when first called, so that libraries are compared once the machine has warmed up.
        run = cache(partial(training_products, problem.config, problem.batch, dtype, DEVICE))
        return Variant(f"products alone, {name}", lambda _: run()(), dtype=dtype, products=True)

    return [variant("float32", torch.float32), variant("bfloat16", torch.bfloat16)]


def model_case(config: DRAWConfig, title: str, batch: int, variants: Callable[[Problem], list[Variant]]) -> Case:
    """A training step without the optimiser, which is the same for all."""
    problem = Problem(config, batch, DEVICE)
    return training_case(problem, f"{title} {batch}, T={config.glimpses}", Drawing(batch, config).cost(4), variants(problem))


def mnist(glimpses: int = 64) -> DRAWConfig:
    return replace(MNIST, glimpses=glimpses)


def mnist_case(batch: int = 128) -> Case:
    def variants(problem: Problem) -> list[Variant]:
        return [*own_variants(problem), *eager_variants(problem), *peers(problem), *products_alone(problem)]

    return model_case(mnist(), "DRAW MNIST", batch, variants)


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
        return [own_variants(problem)[0], eager_variants(problem)[0], _compiled(name, compiled, captured=mode is None)]

    return model_case(mnist(glimpses), "DRAW MNIST", batch, variants)


def sampling_case(config: DRAWConfig, title: str, batch: int) -> Case:
    """`model.sample`: images from the prior, the decoder alone, no gradients."""
    problem = Problem(config, batch, DEVICE)

    def variant(name: str, kind: type[reference.DRAW], backend: str | None = None) -> Variant:
        model = with_weights(kind.from_config(config), problem.state, DEVICE)

        def sample(_: int) -> list[Tensor]:
            with torch.no_grad():
                return [model.sample(batch, problem.noise)]

        return Variant(name, sample, backend)

    def exact() -> list[Tensor]:
        model = with_weights(reference.DRAW.from_config(config), problem.state, DEVICE).double()
        with torch.no_grad():
            return [model.sample(batch, problem.noise.double())]

    variants = [variant(f"fastdraw {backend}", fastdraw.DRAW, backend) for backend in fastdraw_backends()]
    variants.append(variant("reference", reference.DRAW))
    return Case(
        f"sample {title} {batch}, T={config.glimpses}",
        "images from the prior, without gradients",
        "float32",
        DEVICE,
        cost.sample(batch, config),
        variants,
        exact,
        input_bytes=problem.noise.nbytes,
        batch=batch,
        glimpses=config.glimpses,
    )
