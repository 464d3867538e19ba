"""What `python -m benchmarks.tune` tunes: kernels with the rows that they take their tiles from, and how a row is timed."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch

from fastdraw.products import float32_products
from fastdraw.profile.timing import captured, runner, take_turns

#: A kernel's launches in one graph, and replays of it.
LAUNCHES, REPLAYS = 100, 7

Table = dict[tuple[str, str], tuple[Any, ...]]
#: (table, key) -> the subject and the row that is proposed for it.
Changes = dict[tuple[int, tuple[str, str]], tuple["Subject", Any]]


class Timing(NamedTuple):
    """seconds of one launch; None where `problem` says why there is none."""

    seconds: float | None
    registers: int | None = None
    spills: int | None = None
    problem: str = ""


class Subject(NamedTuple):
    """A kernel's row: `table[key][index]`; launch() gives what the launcher makes of the tables as they are now."""

    name: str
    table: Table
    key: tuple[str, str]
    index: int
    launch: Callable[[], Any]

    @property
    def present(self) -> Any:
        return self.table[self.key][self.index]

    @contextmanager
    def with_row(self, row: Any) -> Iterator[None]:
        from fastdraw.kernels.triton import handles

        before = self.table[self.key]
        self.table[self.key] = (*before[: self.index], row, *before[self.index + 1 :])
        handles.forget()
        try:
            yield
        finally:
            self.table[self.key] = before
            handles.forget()


def piece_subjects(setting: str, batch: int | None, precision: str) -> list[Subject]:
    """The kernels of a glimpse of one of aot_pieces.MODELS, forward and backward, that have rows."""
    from fastdraw.kernels.triton import aot_pieces, piece_tables

    shape = aot_pieces.MODELS[setting]
    aot_pieces.MODELS["tuned"] = shape if batch is None else shape._replace(batch=batch)
    dtype = aot_pieces.DTYPES[precision]
    kind = "tf32" if precision == "tf32" else "ieee"
    operands = precision if precision == "tf32" else "ieee" if precision == "float32" else "half"

    def canvas(kernel: str, few: str = "few") -> tuple[Table, str, str]:
        """The table that this kernel's launch takes its row from."""
        if piece_tables.canvas_blocks(kernel, shape.read_size, shape.write_size, shape, kind).small:
            return piece_tables.SMALL_CANVAS_ROWS, kernel, few
        more = f"{kernel}_more"
        own = more if few == "rebuild" and (more, kind) in piece_tables.CANVAS_ROWS else kernel
        return piece_tables.CANVAS_ROWS, own, kind

    tables = {
        "cell": (piece_tables.PRODUCT_ROWS, "cell", operands),
        "cell, two places": (piece_tables.PRODUCT_ROWS, "cell", operands),
        "latent": (piece_tables.PRODUCT_ROWS, "latent", operands),
        "linear": (piece_tables.PRODUCT_ROWS, "linear", operands),
        "cell_backward, head": (piece_tables.PRODUCT_ROWS, "cell_backward", operands),
        "cell_backward, latent": (piece_tables.PRODUCT_ROWS, "cell_backward", operands),
        "latent_backward": (piece_tables.PRODUCT_ROWS, "latent_backward", operands),
        "input_backward": (piece_tables.PRODUCT_ROWS, "input_backward", operands),
        "canvas": canvas("canvas"),
        "canvas_backward": canvas("canvas_backward"),
        "canvas_backward, rebuild and x": canvas("canvas_backward", "rebuild"),
    }

    def launches() -> dict[str, Any]:
        with float32_products("high" if precision == "tf32" else "highest"):
            found = [*aot_pieces.product_launches("tuned", dtype, kind), *aot_pieces.canvas_launches("tuned", dtype, kind)]
        return dict(found)

    return _subjects(tables, launches)


def glimpse_subjects(setting: str, batch: int | None, precision: str) -> list[Subject]:
    """read, write and their gradients at one of aot.GLIMPSES."""
    from fastdraw.kernels.triton import aot, tables

    shape = aot.GLIMPSES[setting]
    shape = shape if batch is None else (batch, *shape[1:])
    kind = "ieee" if precision == "float32" else "tf32"
    dtype = torch.float32 if precision == "tf32" else getattr(torch, precision)
    names = ("read", "write", "window_grad", "write_grad")
    rows = {name: (tables.WINDOW_ROWS, name, kind) for name in names}
    return _subjects(rows, lambda: dict(aot.glimpse_launches(shape, dtype, kind)))


def _subjects(tables: dict[str, tuple[Table, str, str]], launches: Callable[[], dict[str, Any]]) -> list[Subject]:
    """Of each launch the row that it takes: the one without which it is another launch, or none."""
    found = []
    for name in launches():
        if name not in tables or tables[name][1:] not in tables[name][0]:
            continue
        table, kernel, kind = tables[name]
        for index in range(len(table[kernel, kind])):
            subject = Subject(name, table, (kernel, kind), index, lambda name=name: launches()[name])
            if _used(subject):
                found.append(subject)
    return found


def _used(subject: Subject) -> bool:
    """Whether another number of warps in this row reaches the launch."""
    odd = 32
    with subject.with_row(subject.present._replace(num_warps=odd)):
        return subject.launch().num_warps == odd


def materialised(launch: Any, device: str) -> Any:
    """The launch with tensors on the device in place of those without memory; the same numbers every time."""
    generator = torch.Generator(device).manual_seed(0)
    made: dict[int, torch.Tensor] = {}

    def real(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            # Its own memory, of the extent that its strides span.
            found = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
            made[id(tensor)] = found.copy_(torch.randn(tensor.shape, generator=generator, device=device) * 0.1)
        return made[id(tensor)]

    arguments = {n: real(v) if isinstance(v, torch.Tensor) else v for n, v in launch.arguments.items()}
    return launch._replace(arguments=arguments)


def run(launch: Any) -> Any:
    """As kernels/triton/launch.py runs it; gives what Triton compiled."""
    from fastdraw.kernels.triton.dependent import dependent
    from fastdraw.kernels.triton.launch import dependence

    how = {**launch.options(nvidia=torch.version.hip is None), **dependence(launch, dependent())}
    return launch.kernel[launch.grid](**launch.arguments, **how)


def results(launch: Any) -> list[torch.Tensor]:
    """All of a launch's tensors after it has run once."""
    run(launch)
    return [v.clone() for v in launch.arguments.values() if isinstance(v, torch.Tensor) and v.is_floating_point()]


def same(ones: Sequence[torch.Tensor], others: Sequence[torch.Tensor]) -> bool:
    """To rounding, which another order of a sum changes: by the size of each tensor as a whole, half precision by its own."""
    for one, other in zip(ones, others, strict=True):
        limit = 0.02 if one.dtype in (torch.bfloat16, torch.float16) else 2e-3
        a, b = one.double(), other.double()
        if not (a - b).norm() <= limit * b.norm() + 1e-6:
            return False
    return True


def on_device(subject: Subject) -> Callable[[Any], Timing]:
    """Measures candidates of one subject on the CUDA device, each against the present row's results."""
    expected: list[torch.Tensor] = []
    seen: dict[Any, Timing] = {}

    def measure(row: Any) -> Timing:
        with subject.with_row(row):
            launch = subject.launch()
        # A tile that is larger than there is anything for is cut to what there is: another row, the same launch.
        constants = tuple(sorted((k, str(v)) for k, v in launch.arguments.items() if k.isupper()))
        key = (constants, launch.grid, launch.num_warps, launch.num_stages)
        if key not in seen:
            seen[key] = timed(launch)
        return seen[key]

    def timed(launch: Any) -> Timing:
        try:
            launch = materialised(launch, "cuda")
            found = results(launch)
            if not expected:
                expected.extend(found)
            compiled = run(launch)
            figures = (getattr(compiled, "n_regs", None), getattr(compiled, "n_spills", None))
            if not same(found, expected):
                return Timing(None, *figures, problem="its results are not the present row's")
            return Timing(_graph_seconds(lambda: run(launch)), *figures)
        # Whatever the compiler or the device says: too much shared memory, a tile that it cannot lay out.
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            return Timing(None, problem=f"{type(error).__name__}: {lines[0]}"[:120])

    return measure


def _graph_seconds(launch: Callable[[], Any]) -> float:
    replayed = captured(lambda: [launch() for _ in range(LAUNCHES)], launch)
    return statistics.median([replayed(1) / LAUNCHES for _ in range(REPLAYS + 2)][2:])


def confirmed(changes: Changes, batch: int, precision: str) -> dict[str, float]:
    """Seconds of a training step with the rows as they are, and as proposed, by turns."""
    from benchmarks.cases import models, steps

    problem = models.Problem(models.mnist(), batch, "cuda")
    runners = {}
    for name, chosen in (("present", {}), ("proposed", changes)):
        with ExitStack() as stack:
            for subject, row in chosen.values():
                stack.enter_context(subject.with_row(row))
            variant = steps.graphed(problem, name, steps.own, precision, "triton")
            # Captured while these rows hold.
            runners[name] = runner(variant, 1, "cuda")
    return {name: statistics.median(each) for name, each in take_turns(list(runners.values()), 15).items()}
