"""One row of a table in a process of its own: `python3 -m benchmarks.gpu.rows CASE ROW [--tiny]`.

It makes the step, holds its results against float64 by the tests' rule, and says that it is ready; then it takes one
turn for each line on its standard input, and answers with its milliseconds. A row that fails takes nothing with it, rows
get ready at the same time, and turns of all rows still alternate. A row whose results are wrong is timed all the same.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

from benchmarks.gpu.processes import answers

#: Side of the square product that says what the chip's bfloat16 rate is.
SIDE = 8192
#: Rows by case. Names are those of the variants in steps.py.
ROWS: dict[str, tuple[str, ...]] = {
    "step": (
        "GraphedStep, bfloat16",
        "GraphedStep, float32",
        "GraphedStep, tf32",
        "reference",
        "nn.LSTMCell in a graph, float32",
        "nn.LSTMCell in a graph, bfloat16",
        "reference in a graph, float32",
        "reference in a graph, bfloat16",
    ),
    "forward": ("fastdraw, bfloat16", "fastdraw, float32", "fastdraw, tf32", "reference"),
    "large": ("GraphedStep, bfloat16", "GraphedStep, tf32", f"torch.mm {SIDE}, bfloat16"),
    "peers": (
        "GraphedStep, bfloat16",
        "GraphedStep, float32",
        "jax.jit of lax.scan, float32",
        "jax.jit of lax.scan, tf32",
        "torch.compile reduce-overhead, float32",
    ),
}
#: Seconds that a compiler may take; the race that the row is in has a limit of its own.
COMPILE_LIMIT = 100.0


def batch(case: str, tiny: bool) -> int:
    return (2048 if case == "large" else 128) if not tiny else (6 if case == "large" else 4)


def main(case_name: str, name: str, tiny: bool) -> None:
    answer = answers()
    from benchmarks.cases import DEVICE
    from benchmarks.proof import prove
    from fastdraw.profile.measure import reason
    from fastdraw.profile.timing import runner

    case = made(case_name, name, tiny)
    began = time.perf_counter()
    variant = case.variants[0]
    wrong = prove(case) if variant.proven else {}
    first = getattr(variant.step, "first_seconds", None)
    run = runner(variant, 1, DEVICE)
    if DEVICE == "cuda":
        import torch

        torch.cuda.empty_cache()
    answer(
        ready=round(time.perf_counter() - began, 1),
        wrong=reason(wrong[variant.name]) if variant.name in wrong else None,
        first=first,
        note=run.note,
        operations=case.product_operations,
    )
    for _ in sys.stdin:
        answer(ms=1e3 * run.turn())


def made(case_name: str, name: str, tiny: bool):
    """The case with this row, and the reference that it is proven beside."""
    from benchmarks.cases import steps
    from benchmarks.cases.models import Problem, mnist

    config, size = mnist(2 if tiny else 64), batch(case_name, tiny)

    def variants(problem: Problem) -> list:
        if name.startswith("torch.mm"):
            return [_product(64 if tiny else SIDE), steps.pair(problem)[1]]
        makers: list[Callable] = [steps.step_variants, steps.large_variants, steps.jax_variants]
        makers.append(lambda p: [steps.compiled(p, "reduce-overhead", "float32", COMPILE_LIMIT)])
        found = [variant for make in makers for variant in make(problem)]
        return [next(v for v in found if v.name == name), next(v for v in found if v.name == "reference")]

    if case_name == "forward":
        case = steps.forward_case(config, "forward", size)
        reference = next(v for v in case.variants if v.name == "reference")
        own = next(v for v in case.variants if v.name == name or (name[:8] == v.name[:8] and v.name.endswith(name[8:])))
        case.variants = [own, reference]
    else:
        case = steps.step_case(config, case_name, size, variants)
    if case.variants[0].name == case.variants[1].name:
        del case.variants[1]
    return case


def _product(side: int):
    """A square product of torch's in bfloat16, on random numbers: zeros run faster."""
    import torch

    from benchmarks.cases import DEVICE
    from fastdraw.profile.timing import Variant

    a, b = (torch.randn(side, side, device=DEVICE).to(torch.bfloat16) for _ in range(2))

    def step(_: int) -> list[torch.Tensor]:
        with torch.no_grad():
            return [torch.mm(a, b)]

    return Variant(f"torch.mm {SIDE}, bfloat16", step, dtype=torch.bfloat16, proven=False, captured=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.gpu.rows", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("case", choices=list(ROWS))
    parser.add_argument("row", help="one of the case's")
    parser.add_argument("--tiny", action="store_true", help="sizes that a CPU carries")
    said = parser.parse_args()
    main(said.case, said.row, said.tiny)
