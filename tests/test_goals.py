"""Goals beside figures and floors, and the report that shows them: on figures that are made up."""

from __future__ import annotations

import json
from dataclasses import replace

from test_benchmarks import RESULT

from benchmarks import goals, kernels, memory, report, wide
from benchmarks.checkout import ROOT
from benchmarks.models import mnist
from benchmarks.test_steps import TITLE
from fastdraw.profile import figures


def result(title: str, rows: dict[str, float | None], **fields) -> dict:
    """A case's figures as the race writes them."""
    made = [figures.row(name, [] if median is None else [median]) for name, median in rows.items()]
    return {**RESULT, "title": title, "rows": made, "product operations": None, **fields}


def made_up() -> list[dict]:
    """Figures that meet some goals and miss others, by amounts that are easily told. No machine's."""
    found = [
        result(
            goals.STEP,
            {
                "GraphedStep, bfloat16": 2e-3,
                "GraphedStep, float32": 4e-3,
                "reference": 100e-3,
                "reference in a graph, float32": 10e-3,
            },
        ),
        result(
            goals.COMPILERS[0],
            {"GraphedStep, bfloat16": 2e-3, "jax.jit of lax.scan, float32": 8e-3, "jax.jit of lax.scan, tf32": 6e-3},
        ),
        result(goals.COMPILERS[1], {"GraphedStep, bfloat16": 2e-3, "torch.compile reduce-overhead, float32": None}),
        result(goals.COMPILERS[2], {"GraphedStep, bfloat16": 2.5e-3, "torch.compile reduce-overhead, bfloat16": 5e-3}),
        result(goals.FORWARD, {"fastdraw triton, bfloat16": 64 * 6e-6, "reference": 1e-2}),
        result(goals.LARGE, {"GraphedStep, bfloat16": 4e-3, "GraphedStep, tf32": 1e-3}, **{"product operations": 1.6e12}),
        result(
            goals.MEMORY, {"fastdraw": 60.0, "fastdraw, bfloat16, rebuild": 20.0, "reference": 100.0}, unit="B", floor=None
        ),
    ]
    operator, shape, dtype, _ = wide.CASES["read, many"]
    moved = wide.least_bytes(operator, shape, dtype)
    # Half of a copy's rate of 2 TB/s; five times as fast as dense products.
    found.append(result(wide.title(operator, shape, dtype), {"fastdraw triton": moved / 1e12, "reference": 5 * moved / 1e12}))
    return found


CEILINGS = {"product in bfloat16, GFLOP/s": 800_000.0, "copy of 1024 MiB, GB/s": 1900.0, "copy of 1 MiB, GB/s": 9000.0}
LIMITS = {"copy of 1 GiB by a kernel, GB/s": 2000.0, "dependent node: waits, then lets the next begin, us": 1.0}


def test_goals_are_met_or_missed_by_so_much():
    found = {goal.name: goal for goal in goals.goals(made_up(), CEILINGS, LIMITS)}
    text = {name: (None if goal.figure is None else goal.text(goal.figure), goal.verdict) for name, goal in found.items()}
    assert text["training step against eager reference"] == ("50.0x", "met")
    # The peer at its best, in either case, against what was measured beside it.
    assert text["against torch.compile reduce-overhead"] == ("2.00x", "missed by 20.0 %")
    assert text["against jax.jit of lax.scan"] == ("3.00x", "met")
    assert text["forward per glimpse"] == ("6.00 us", "met")
    assert text["training step, B=128"] == ("2.00 ms", "missed by 25.0 %")
    # 1.6 TFLOP in 4 ms is 400 of 800 TFLOP/s; the row in tf32, however quick, is no bfloat16.
    assert text["B=2048: share of the bfloat16 rate, of the whole step"] == ("50.0 %", "met")
    assert text["read 65536x1x28x28, N=12: share of a copy's rate"] == ("50.0 %", "missed by 28.6 %")
    assert text["read 65536x1x28x28, N=12: against dense products"] == ("5.00x", "met")
    assert text["write 256x3x1024x1024, N=32: share of a copy's rate"] == (None, "not measured")
    assert text["memory that a step adds, fastdraw, of eager's"] == ("60.0 %", "missed by 20.0 %")
    assert text["memory that a step adds, fastdraw, bfloat16, rebuild, of eager's"] == ("20.0 %", "met")
    assert found["forward per glimpse"].floor == "5 launches of 1.00 us each: 5.00 us"
    assert found["training step, B=128"].floor == "768 launches of 1.00 us each: 768 us"
    assert found["read 65536x1x28x28, N=12: share of a copy's rate"].floor.endswith("at 2000 GB/s: 348 us")
    assert len(found) == 16


def test_goals_name_cases_that_are_measured():
    """A title that changed would leave a goal unmeasured for ever."""
    assert f"{TITLE} 128, T={mnist().glimpses}" == goals.STEP
    source = (ROOT / "benchmarks" / "test_steps.py").read_text()
    for title in goals.COMPILERS:
        name = title.removeprefix(f"{TITLE}, ").removesuffix(f" 128, T={mnist().glimpses}")
        assert f'"{{TITLE}}, {name}"' in source
    assert f"{TITLE} 2048, T={mnist().glimpses}" == goals.LARGE
    assert f"forward of DRAW MNIST 128, T={mnist().glimpses}" == goals.FORWARD
    assert f"memory of DRAW MNIST {memory.SETTINGS['MNIST'][1]}, T=64" == goals.MEMORY
    assert {"fastdraw", "fastdraw, bfloat16, rebuild", "reference"} <= set(memory.CASES[0][2])
    assert set(goals.WIDE) <= set(wide.CASES)


def test_goals_without_any_figure():
    assert {goal.verdict for goal in goals.goals([], {}, {})} == {"not measured"}


def test_the_report_of_a_whole_run(tmp_path):
    table = kernels.collected({"cell_forward_kernel": [2.0, 3.0, 4.0], "copy": [1.0]})
    whole = report.Report(
        [{"name": "probe", "status": "passed", "seconds": 1.0, "tail": ["done"], "reason": ""}],
        ceilings=CEILINGS,
        results=made_up(),
        probe={"values": LIMITS, "problems": {"cluster barrier of 16 blocks, one cluster": "no cluster of this size fits"}},
        kernels={"B=128, bfloat16": table},
        counters=table,
        choices={
            "step of DRAW MNIST 128, bfloat16": [figures.row("as it is", [2e-3]), figures.row("no dependent launches", [4e-3])]
        },
    )
    report.write(tmp_path, whole)
    text = (tmp_path / "report.md").read_text()
    for part in (
        "| training step, B=128 | at most 1.60 ms | 2.00 ms | missed by 25.0 % | 768 launches of 1.00 us each: 768 us |",
        "| against jax.jit of lax.scan | at least 2.50x | 3.00x | met |",
        "| cluster barrier of 16 blocks, one cluster | not measured: no cluster of this size fits |",
        "| copy of 1 GiB by a kernel, GB/s | 2000 |",
        "cell_forward_kernel",
        "no dependent launches          4.00 ms  0.500x",
    ):
        assert part in text, part
    written = json.loads((tmp_path / "report.json").read_text())
    assert {goal["verdict"] for goal in written["goals"]} >= {"met", "not measured", "missed by 25.0 %"}
    assert report.earlier(tmp_path) == whole
    last = report.summary(whole)
    assert "missed by 25.0 %" in last
    assert len(last) < 12_000
    # However long it gets, its end is what is kept.
    long = report.summary(replace(whole, results=made_up() * 60))
    assert len(long) < 12_000
    assert long.endswith(last[-200:])
