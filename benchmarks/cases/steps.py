"""The cases of whole training steps: forward, backward, clipping and Adam, as people run them; and of the forward pass alone.

fastdraw's are GraphedStep's. Eager PyTorch and torch.compile are launched from Python, as they are where they are used; what
can be captured as a whole is also measured in a graph. All steps are proven: the learning rate is zero, so that weights stay.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor

import fastdraw
from benchmarks.cases import DEVICE, fastdraw_backends, jax_step, products, stepwise
from benchmarks.cases.models import model_case, products_alone
from fastdraw import reference
from fastdraw.config import DRAWConfig
from fastdraw.products import float32_products
from fastdraw.profile.cases import Case
from fastdraw.profile.cost import Cost
from fastdraw.profile.models import Problem, with_weights
from fastdraw.profile.timing import Timed, Variant

#: Beyond any gradient here: clipping is computed, and changes nothing.
CLIP = 1e9
#: Seconds that a peer may take to compile. torch's tries out hundreds of kernels where it is asked to.
COMPILE_LIMIT = 75.0
#: By name in the tables: autocast's dtype, torch's setting for float32 products, the dtype whose error budget holds.
PRECISIONS: dict[str, tuple[torch.dtype | None, str, torch.dtype]] = {
    "float32": (None, "highest", torch.float32),
    "tf32": (None, "high", torch.float16),
    "bfloat16": (torch.bfloat16, "highest", torch.bfloat16),
    "float16": (torch.float16, "highest", torch.float16),
}
Model = Callable[[DRAWConfig], reference.DRAW]


def _variant(
    name: str,
    make: Callable[[], Callable[[], list[Any]]],
    precision: str,
    backend: str | None = None,
    limit: float | None = None,
) -> Variant:
    """A step that is launched by itself. limit: of what compiles, seconds for the first call; how long it took is kept."""
    autocast, float32, dtype = PRECISIONS[precision]

    @contextmanager
    def around(first: bool) -> Iterator[None]:
        with torch.autocast(DEVICE, autocast, enabled=autocast is not None), time_limit(limit if first else None):
            yield

    setting = partial(float32_products, float32)
    timed = Timed(make, around)
    step = timed if limit is not None else lambda k: timed(k)
    return Variant(f"{name}, {precision}", step, backend, setting, dtype=dtype, captured=False)


@contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """TimeoutError after so many seconds, and again every second for whoever swallows it. In the main thread only."""
    if seconds is None:
        yield
        return

    def stop(*_: Any) -> None:
        raise TimeoutError(f"took more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def graphed(problem: Problem, name: str, kind: Model, precision: str, backend: str | None = None) -> Variant:
    """GraphedStep of a model: one CUDA graph; plainly on a CPU."""

    def make() -> Callable[[], list[Tensor]]:
        model = with_weights(kind(problem.config), problem.state, DEVICE)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
        step = fastdraw.GraphedStep(model, optimizer, problem.x, clip=CLIP)

        def run() -> list[Tensor]:
            out = step(problem.x, problem.noise)
            return [out.loss, out.kl, *_gradients(model)]

        return run

    return _variant(name, make, precision, backend)


def eager(
    problem: Problem, name: str, kind: Model, precision: str, backend: str | None = None, limit: float | None = None
) -> Variant:
    """A step as one writes it: launched from Python, kernel after kernel."""

    def make() -> Callable[[], list[Tensor]]:
        model = with_weights(kind(problem.config), problem.state, DEVICE)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.0)

        def run() -> list[Tensor]:
            # What was captured by torch.compile may overwrite its results from here on.
            torch.compiler.cudagraph_mark_step_begin()
            optimizer.zero_grad(set_to_none=True)
            out = model(problem.x, problem.noise)
            out.loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            return [out.loss.detach(), out.kl.detach(), *_gradients(model)]

        return run

    return _variant(name, make, precision, backend, limit)


def _gradients(model: torch.nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


def compiled(problem: Problem, mode: str | None, precision: str, limit: float = COMPILE_LIMIT) -> Variant:
    """One function of a glimpse under torch.compile, called T times: the loop as a whole would take minutes to compile."""

    def make(config: DRAWConfig) -> reference.DRAW:
        model = stepwise.StepwiseDRAW.from_config(config)
        model.glimpse = torch.compile(stepwise.one_glimpse, dynamic=False, fullgraph=True, mode=mode)
        return model

    name = "torch.compile" + (f" {mode}" if mode else "")
    return eager(problem, name, make, precision, limit=limit)


def with_jax(problem: Problem, precision: str, limit: float = COMPILE_LIMIT) -> Variant:
    jax_precision = {"float32": "highest", "tf32": "default"}[precision]

    def make() -> Callable[[], list[Any]]:
        return jax_step.training_step(problem.config, problem.state, problem.x, problem.noise, CLIP, jax_precision)

    return _variant("jax.jit of lax.scan", make, precision, limit=limit)


def own(config: DRAWConfig) -> reference.DRAW:
    return fastdraw.DRAW.from_config(config)


def rebuilding(config: DRAWConfig) -> reference.DRAW:
    return fastdraw.DRAW(**config.to_dict(), canvas_memory="rebuild")


def pair(problem: Problem) -> list[Variant]:
    """What every case has: the one that the goals ask about most, and what ratios are taken to."""
    baseline = eager(problem, "reference", reference.DRAW.from_config, "float32")._replace(name="reference")
    return [graphed(problem, "GraphedStep", own, "bfloat16", fastdraw_backends()[0]), baseline]


def step_variants(problem: Problem) -> list[Variant]:
    """fastdraw in every precision, and the peers that have nothing to compile."""
    backend = fastdraw_backends()[0]
    plain, cells = reference.DRAW.from_config, stepwise.with_lstm_cell
    return [
        *pair(problem),
        *(graphed(problem, "GraphedStep", own, precision, backend) for precision in ("float32", "tf32", "float16")),
        graphed(problem, "GraphedStep, rebuild", rebuilding, "bfloat16", backend),
        eager(problem, f"fastdraw {backend} from Python", own, "bfloat16", backend),
        eager(problem, "reference", plain, "bfloat16"),
        graphed(problem, "reference in a graph", plain, "float32"),
        graphed(problem, "reference in a graph", plain, "bfloat16"),
        graphed(problem, "nn.LSTMCell in a graph", cells, "float32"),
        graphed(problem, "nn.LSTMCell in a graph", cells, "bfloat16"),
    ]


# Each compiler in a case of its own: one that has to be stopped takes nobody else's figures with it.


def jax_variants(problem: Problem) -> list[Variant]:
    return [*pair(problem), with_jax(problem, "float32"), with_jax(problem, "tf32")]


def large_variants(problem: Problem) -> list[Variant]:
    """A batch whose products are worth their name."""
    backend, plain = fastdraw_backends()[0], reference.DRAW.from_config
    return [
        *(graphed(problem, "GraphedStep", own, precision, backend) for precision in ("bfloat16", "tf32", "float32")),
        eager(problem, "reference", plain, "float32")._replace(name="reference"),
        eager(problem, "reference", plain, "bfloat16"),
        *products_alone(problem),
    ]


def step_case(config: DRAWConfig, title: str, batch: int, variants: Callable[[Problem], list[Variant]]) -> Case:
    case = model_case(config, title, batch, variants)
    case.measured = "a whole training step: forward, backward, clipping, Adam"
    # Its floor is that of the precision that comes first.
    case.precision = "bfloat16"
    case.product_operations = products.operations(config, batch)
    return case


def forward_case(config: DRAWConfig, title: str, batch: int) -> Case:
    """The forward pass as training runs it, which keeps what the backward pass needs."""

    def variants(problem: Problem) -> list[Variant]:
        def forward(kind: Model, precision: str) -> Callable[[int], list[Tensor]]:
            model, autocast = with_weights(kind(config), problem.state, DEVICE), PRECISIONS[precision][0]

            def run(_: int) -> list[Tensor]:
                with torch.autocast(DEVICE, autocast, enabled=autocast is not None):
                    out = model(problem.x, problem.noise)
                return [out.loss.detach(), out.kl.detach()]

            return run

        def variant(name: str, kind: Model, precision: str, backend: str | None = None) -> Variant:
            setting = partial(float32_products, PRECISIONS[precision][1])
            return Variant(name, forward(kind, precision), backend, setting, dtype=PRECISIONS[precision][2])

        backend = fastdraw_backends()[0]
        return [
            *(variant(f"fastdraw {backend}, {p}", own, p, backend) for p in ("bfloat16", "float32", "tf32", "float16")),
            variant("reference", reference.DRAW.from_config, "float32"),
        ]

    case = model_case(config, title, batch, variants)
    exact, rivals = case.exact, case.rivals
    case.exact = lambda: exact()[:2]
    case.rivals = lambda dtype: [results[:2] for results in rivals(dtype)]
    case.measured = "the forward pass of a training step, in a graph"
    (c, h, w), glimpses = config.image_shape, config.glimpses
    numbers = problem_numel(config) + batch * (c * h * w + glimpses * config.latent_size)
    operations = products.operations(config, batch) // 3
    case.cost = Cost(4 * numbers, "e(weights + B(CHW + TZ))", operations, "2TB weights", 4 * glimpses)
    case.precision = "bfloat16"
    return case


def problem_numel(config: DRAWConfig) -> int:
    return sum(layer.inputs * layer.outputs for layer in products.layers(config))
