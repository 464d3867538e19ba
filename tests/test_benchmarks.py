"""`pytest --benchmark`: what runs, is proven, written, refused."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks import table, timing
from benchmarks.cases import read_case
from benchmarks.checkout import ROOT
from benchmarks.conftest import prove
from benchmarks.gpu.processes import environment
from benchmarks.large import large_case
from fastdraw.profile import cost, figures
from fastdraw.profile.timing import Variant

#: One quick case, measured as briefly as can be.
QUICK = ["--benchmark", "--benchmark-max-time=0.001", "--benchmark-min-rounds=2", "-k", "read-128x1x28x28x2-float32"]


def run_pytest(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments]
    # It must not take itself for a worker of the pytest that runs this test.
    own = {name: value for name, value in environment().items() if not name.startswith("PYTEST_")}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=own)


def collected(*arguments: str) -> set[str]:
    """The files of the tests that would run."""
    done = run_pytest("--collect-only", "-q", *arguments)
    return {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}


def test_without_the_flag_no_benchmark_runs():
    assert collected("tests/test_reference.py") == {"tests/test_reference.py"}
    # Named outright, it is still left out.
    assert collected("benchmarks/test_operators.py") == set()
    assert collected("benchmarks", "tests/test_reference.py") == {"tests/test_reference.py"}


def test_with_the_flag_nothing_but_benchmarks_runs():
    everything = {f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("test_*.py")}
    assert len(everything) >= 3
    assert collected("--benchmark") == everything
    assert collected("--benchmark", "tests/test_reference.py") == set()
    assert collected("--benchmark", "benchmarks/test_model.py") == {"benchmarks/test_model.py"}


def test_the_flag_goes_together_with_pytest_benchmarks_own_options(tmp_path):
    """--benchmark is not taken for an abbreviation of them, their files are written, and runs can be compared."""
    storage = f"--benchmark-storage={tmp_path}"
    first = run_pytest(*QUICK, storage, "--benchmark-autosave", f"--benchmark-json={tmp_path / 'all.json'}")
    assert first.returncode == 0, first.stdout + first.stderr
    (saved,) = json.loads((tmp_path / "all.json").read_text())["benchmarks"]
    (fastdraw_row, *_), rows = saved["extra_info"]["rows"], saved["extra_info"]["rows"]
    assert {"reference", "fastdraw aten"} <= {row["name"] for row in rows}
    # What pytest-benchmark keeps is the very figure of the table, not the time that its own clock would have shown.
    assert saved["stats"]["median"] == pytest.approx(fastdraw_row["median"])
    assert saved["stats"]["rounds"] == fastdraw_row["turns"] >= 2
    assert all(row["turns"] == fastdraw_row["turns"] for row in rows)
    second = run_pytest(*QUICK, storage, "--benchmark-compare")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "(NOW)" in second.stdout
    assert "(0001" in second.stdout


def test_the_table_comes_last_with_ratios_and_the_log_holds_the_figures(tmp_path):
    log = tmp_path / "figures.jsonl"
    done = run_pytest(*QUICK, f"--benchmark-log={log}")
    assert done.returncode == 0, done.stdout + done.stderr
    (result,) = map(json.loads, log.read_text().splitlines())
    for text in table.block(result):
        assert text in done.stdout
    assert "e(3BCHW + 2BCN²) + 60B" in done.stdout
    assert f"torch {torch.__version__}" in done.stdout
    assert "1.00x" in done.stdout


def test_refused_together_with_workers():
    pytest.importorskip("xdist")
    done = run_pytest("--benchmark", "-n", "2")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "one process" in done.stderr


def test_a_wrong_variant_is_not_timed():
    """A variant whose values or gradients are off by a thousandth is named before any clock runs."""
    case = read_case(2, 1, 9, 7, 3)
    right = case.variants[0]
    assert prove(case) == {}
    for index in range(3):

        def wrong(k: int, index: int = index) -> list[torch.Tensor]:
            values = right.step(k)
            return [value * 1.001 if i == index else value for i, value in enumerate(values)]

        case.variants[0] = right._replace(step=wrong)
        (reason,) = prove(case).values()
        assert f"result {index}" in reason
    # So is a peer's.
    case.variants[0] = right
    case.variants.append(Variant("a peer", wrong))
    assert list(prove(case)) == ["a peer"]
    # A case that is too large is proven by a smaller one.
    large = replace(case, variants=[], twin=case)
    assert list(prove(large)) == ["a peer"]


def test_the_others_figures_are_kept_where_one_of_fastdraws_is_wrong(monkeypatch):
    """The table has all that could be measured, the wrong variant has none, and the test is red."""
    import benchmarks.conftest as own

    case = read_case(2, 1, 9, 7, 3)
    right = case.variants[0]
    case.variants[0] = right._replace(step=lambda k: [value * 1.001 for value in right.step(k)])
    recorded = []
    monkeypatch.setattr(own, "record", lambda result, *_: recorded.append(result))
    monkeypatch.setattr(own, "take_turns", lambda _, runners, __: {r.name: [1.0] for r in runners})
    with pytest.raises(AssertionError, match=rf"^{right.name}: AssertionError: .*result 0"):
        own.race.__wrapped__(None, None)(case)
    (result,) = recorded
    rows = {row["name"]: row for row in result["rows"]}
    assert rows[right.name]["median"] is None
    assert "result 0" in rows[right.name]["note"]
    assert rows["reference"]["median"] == 1.0


def test_turns_alternate():
    order: list[str] = []

    class Fake:
        note, turn_seconds = "", 0.1

        def __init__(self, name: str) -> None:
            self.name = name

        def turn(self) -> float:
            order.append(self.name)
            return 0.5 if self.name == "a" else 0.25

        def eager(self) -> None:
            return None

    class Pedantic:
        """pytest-benchmark's, reduced to what is relied on: setup, then the clock around the call."""

        shown: list[float]

        def pedantic(self, target, setup, rounds):
            self.shown = []
            for _ in range(rounds):
                setup()
                start = timing.clock()
                target()
                self.shown.append(timing.clock() - start)

    from benchmarks.conftest import take_turns

    class Config:
        def getoption(self, name):
            return {"benchmark_max_time": "0.4", "benchmark_min_rounds": 1}[name]

    benchmark = Pedantic()
    times = take_turns(benchmark, [Fake("a"), Fake("b")], Config())
    assert order == ["b", "a"] * 4
    assert times == {"a": [0.5] * 4, "b": [0.25] * 4}
    assert benchmark.shown == pytest.approx([0.5] * 4)


def test_what_has_no_results_is_timed_and_not_proven():
    case = large_case(1, 1, 70, 4, 0.3, image=True)
    assert [variant.name for variant in case.variants][-1] == "torch.zeros_like(image)"
    assert prove(case) == {}
    # The image gets a gradient where it is asked for: patch, image, params.
    assert [len(variant.step(0)) for variant in case.variants] == [3] * (len(case.variants) - 1) + [1]
    assert len(large_case(1, 1, 70, 4, 0.3, windows=2, channels_last=True).variants[0].step(0)) == 2


def test_costs_count_what_the_formulas_say():
    b, c, h, w, n = 3, 2, 10, 20, 4
    image, patch = b * c * h * w, b * c * n * n
    least = cost.read(b, c, h, w, n, 4)
    assert least.bytes == 4 * (3 * image + 2 * patch + 3 * 5 * b)
    # F_Y I and F_X^T; P F_X and F_Y^T; (P F_X) I^T; F_Y I and P^T.
    assert least.operations == 2 * b * c * (
        (n * h * w + n * n * w) + (n * n * w + n * h * w) + n * h * w + (n * h * w + n * n * w)
    )
    least = cost.write(b, c, h, w, n, 4)
    assert least.bytes == 4 * (2 * image + 3 * patch + 3 * 5 * b)
    # Two windows that see 6 x 6 pixels, each filter three along its axis; then with the image's gradient.
    least = cost.large_read(b, c, 2, n, 6, 3, 4, 0)
    assert least.bytes == 2 * (4 * b * c * (2 * 36 + 2 * n * n) + 4 * 3 * 5 * b)
    assert least.operations == 2 * 2 * b * c * (3 * n * 3 * 6 + 3 * n * n * 3)
    more = cost.large_read(b, c, 2, n, 6, 3, 4, h * w)
    assert more.bytes - least.bytes == 4 * image
    assert more.operations - least.operations == 2 * 2 * b * c * n * 3 * 6
    least = cost.lstm_step(128, 264, 256, 4)
    # Two products of [B, K] with [K, 4h] forward, four backward.
    assert least.operations == 3 * 2 * 128 * 1024 * (264 + 256)


@pytest.mark.parametrize(
    ("number", "text"),
    [(1.234, "1.23 s"), (0.0123, "12.3 ms"), (123.4e-6, "123 us"), (0.9999e-3, "1000 us"), (5e-9, "0.01 us")],
)
def test_times_have_three_digits(number, text):
    assert figures.time_text(number) == text


RESULT = {
    "title": "read 2x1x9x7, N=3, float32",
    "measured": "forward and backward, gradients to image and params",
    "bytes": 2_000_000,
    "bytes_formula": "e(3BCHW + 2BCN²) + 60B",
    "operations": 3_000_000_000,
    "operations_formula": "2BC(4NHW + 3N²W)",
    "floor": 1e-3,
    "floor_by": "bytes",
    "rows": [
        figures.row("fastdraw triton", [2e-3, 2e-3, 8e-3], eager=9e-3),
        figures.row("reference", [10e-3]),
        figures.row("torch.compile", [], note="RuntimeError: no compiler"),
    ],
}


def test_a_block_tells_ratio_rates_floor_and_what_was_not_measured():
    head, least, ours, naive, absent = table.block(RESULT)
    assert head.startswith(RESULT["title"])
    assert "2.00 MB = e(3BCHW + 2BCN²) + 60B; 3.00 GFLOP = 2BC(4NHW + 3N²W); floor 1.00 ms by bytes" in least
    for text in ("2.00 ms", "5.00x", "1.00 GB/s", "1.50 TFLOP/s", "50.0 % of floor", "9.00 ms from Python"):
        assert text in ours
    assert "1.00x" in naive
    assert "not measured: RuntimeError: no compiler" in absent


def test_markdown_has_a_cell_for_every_variant():
    other = {**RESULT, "title": "another", "rows": [figures.row("reference", [1.0])]}
    lines = table.markdown([RESULT, other]).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "| 2.00 ms (5.00x) | 10.0 ms | not measured |" in lines[2]
    assert "| 2.00 ms | 2.00 MB = e(3BCHW" in table.roofline([RESULT])


def test_a_bare_checkout_is_importable(tmp_path):
    """As on a machine where nothing may be installed: another folder's Python, the checkout on its path and no more."""
    code = (
        "import sys\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in finder.__module__]\n"
        "import fastdraw, fastdraw.kernels\n"
        "from benchmarks.checkout import activate\n"
        "activate(), activate()\n"
        "import fastdraw.kernels.aten\n"
        "print(fastdraw.__file__, fastdraw.kernels.aten.__file__, sep='\\n')\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.splitlines() == [str(ROOT / "fastdraw" / "__init__.py"), str(ROOT / "kernels" / "aten.py")]
