"""`pytest --benchmark`: what runs, is proven, written, refused."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from inner_pytest import run_pytest

import fastdraw
from benchmarks import clock, pair, plot
from benchmarks.cases.operators import read_case
from benchmarks.checkout import ROOT
from fastdraw.profile import figures, measure, table

#: One quick case, measured as briefly as can be.
QUICK = ["--benchmark", "--benchmark-max-time=0.001", "--benchmark-min-rounds=2", "-k", "read-128x1x28x28x2-float32"]


def collected(*arguments: str) -> set[str]:
    """The files of the tests that would run."""
    done = run_pytest("--collect-only", "-q", *arguments)
    return {line.split("::")[0] for line in done.stdout.splitlines() if "::" in line}


def test_with_the_flag_benchmarks_run_and_without_it_tests():
    """What the other one would run is left out where it is named outright."""
    assert collected("benchmarks/test_operators.py", "tests/ops/test_reference.py") == {"tests/ops/test_reference.py"}
    assert collected("--benchmark", "tests/ops/test_reference.py") == set()
    everything = {f"benchmarks/{path.name}" for path in (ROOT / "benchmarks").glob("test_*.py")}
    assert len(everything) >= 3
    assert collected("--benchmark") == everything


def test_the_flag_goes_together_with_pytest_benchmarks_own_options(tmp_path):
    """--benchmark is not taken for an abbreviation of them, their files are written, the log too, and runs compared."""
    storage, log = f"--benchmark-storage={tmp_path}", tmp_path / "figures.jsonl"
    files = [f"--benchmark-json={tmp_path / 'all.json'}", f"--benchmark-log={log}"]
    first = run_pytest(*QUICK, storage, "--benchmark-autosave", *files)
    assert first.returncode == 0, first.stdout + first.stderr
    (saved,) = json.loads((tmp_path / "all.json").read_text())["benchmarks"]
    (fastdraw_row, *_), rows = saved["extra_info"]["rows"], saved["extra_info"]["rows"]
    assert {"reference", "fastdraw aten"} <= {row["name"] for row in rows}
    # What pytest-benchmark keeps is the very figure of the table, not the time that its own clock would have shown.
    assert saved["stats"]["median"] == pytest.approx(fastdraw_row["median"])
    assert saved["stats"]["rounds"] == fastdraw_row["turns"] >= 2
    assert all(row["turns"] == fastdraw_row["turns"] for row in rows)
    (result,) = map(json.loads, log.read_text().splitlines())
    text = first.stdout[first.stdout.index("fastdraw's benchmarks") :]
    for part in (result["title"], "e(3BCHW + 2BCN²) + 60B", f"torch {torch.__version__}", "1.00x"):
        assert part in text
    for row in result["rows"]:
        assert row["name"] in text
        assert figures.time_text(row["median"]) in text
    second = run_pytest(*QUICK, storage, "--benchmark-compare")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "(NOW)" in second.stdout
    assert "(0001" in second.stdout


def test_refused_together_with_workers():
    pytest.importorskip("xdist")
    done = run_pytest("--benchmark", "-n", "2")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "one process" in done.stderr


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


class Fake:
    """A variant that notes its turns."""

    note, turn_seconds = "", 0.1

    def __init__(self, name: str, order: list[str]) -> None:
        self.name, self.order = name, order

    def turn(self) -> float:
        self.order.append(self.name)
        return 0.5 if self.name == "a" else 0.25

    def eager(self) -> None:
        return None


def test_turns_alternate():
    from benchmarks.conftest import take_turns

    order: list[str] = []
    shown: list[float] = []

    def pedantic(target, setup, rounds):
        """pytest-benchmark's, reduced to what is relied on: setup, then the clock around the call."""
        for _ in range(rounds):
            setup()
            start = clock.clock()
            target()
            shown.append(clock.clock() - start)

    config = SimpleNamespace(getoption={"benchmark_max_time": "0.4", "benchmark_min_rounds": 1}.get)
    times = take_turns(SimpleNamespace(pedantic=pedantic), [Fake("a", order), Fake("b", order)], config)
    assert order == ["b", "a"] * 4
    assert times == {"a": [0.5] * 4, "b": [0.25] * 4}
    assert shown == pytest.approx([0.5] * 4)


def test_markdown_has_a_cell_for_every_variant():
    rows = [figures.row("fastdraw triton", [2e-3]), figures.row("reference", [10e-3])]
    rows.append(figures.row("torch.compile", [], note="RuntimeError: no compiler"))
    least = {"bytes": 2_000_000, "bytes_formula": "e(3BCHW)", "operations": 3_000_000_000, "operations_formula": "2BC"}
    result = {
        "title": "read",
        "measured": "both",
        **least,
        "floor": 1e-3,
        "floor_by": "bytes",
        "batch": None,
        "glimpses": None,
    }
    for row in rows:
        row |= measure.rates(result, row["median"])
    result["rows"] = rows
    other = {"title": "another", "measured": "both", "rows": [figures.row("reference", [1.0])]}
    lines = table.markdown([result, other]).splitlines()
    assert lines[2:] == [
        "| read | 1.00 ms (bytes) | 2.00 ms (5.00x) | 10.0 ms | not measured |",
        "| another |  |  | 1.00 s |  |",
    ]
    least = "at least 2.00 MB = e(3BCHW), 3.00 GFLOP = 2BC: 1.00 ms by bytes"
    assert table.roofline([result]).splitlines()[2] == f"| read | 2.00 ms | {least} | 1.00 | 1500 | 50 % |"
    result |= {"batch": 128, "glimpses": 64}
    rows[0] |= measure.rates(result, 2e-3) | {"products": 0.5, "compile": 12.0}
    assert "| fastdraw triton | 2.00 ms | 5.00x | 31.2 | 64000 | 0.50 | 12.0 s |" in table.markdown([result])
    rows = [figures.row("fastdraw", [2.0**20]), figures.row("reference", [4 * 2.0**20])]
    memory = {"title": "memory", "measured": "peak", "unit": "B", "rows": rows}
    assert "| fastdraw | 1.00 MiB | 0.25 |" in table.markdown([memory])


def test_the_readmes_plot_is_made_of_a_log(tmp_path):
    pytest.importorskip("matplotlib")
    rows = [
        {"name": "reference", "median": 0.4},
        {"name": "fastdraw native", "median": 0.1},
        {"name": "nn.LSTMCell", "median": 0.3},
    ]
    rows.append({"name": "jax.jit of lax.scan", "median": None})
    lines = [{"title": "another", "rows": []}, {"title": plot.TITLE, "rows": rows, "machine": "this one"}]
    (tmp_path / "log").write_text("\n".join(map(json.dumps, lines)))
    plot.main([str(tmp_path / "log"), "--out", str(tmp_path)])
    kept = json.loads((tmp_path / "step.json").read_text())
    # What did not run is left out, and so is what the plot has no bar for.
    assert kept == {"machine": "this one", "milliseconds": {"reference": 400.0, "fastdraw native": 100.0}}
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG")
    (tmp_path / "log").write_text("")
    with pytest.raises(ValueError, match="expected one case"):
        plot.main([str(tmp_path / "log"), "--out", str(tmp_path)])


def test_the_figures_that_readme_says_are_those_of_its_plot():
    times = json.loads((ROOT / "docs" / "step.json").read_text())["milliseconds"]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (said,) = re.findall(r"!\[A training step in ms: ([^\]]*)\]\(docs/step.png\)", text)
    assert sorted(map(int, re.findall(r"\d\d\d+", said))) == sorted(round(time) for time in times.values())
    eager, own, half = (times[name] for name in ("reference", "fastdraw native", "fastdraw native, bfloat16"))
    for text_of in (f"eager | {eager / own:.1f}x |", f"float32 | {eager / half:.1f}x |"):
        assert text_of in text


def test_two_versions_take_turns_and_the_ratio_is_that_of_a_turn(capsys):
    asked = []

    class Version:
        def __init__(self, name: str, answers: list[str]) -> None:
            self.name, self.answers = name, iter(answers)

        def ask(self, case: str) -> str:
            asked.append(self.name)
            return next(self.answers)

    # The machine got slower by and by; the new version took half as long all the same.
    pair.race([Version("old", ["1", "2", "4"]), Version("new", ["0.5", "1", "2"])], ["case"], 3)
    assert asked == ["old", "new", "new", "old", "old", "new"]
    assert "0.500 (0.500 to 0.500)" in capsys.readouterr().out
    pair.race([Version("old", ["1"]), Version("new", ["TypeError: read() got none"])], ["case"], 3)
    assert "not measured: TypeError: read() got none" in capsys.readouterr().out


@pytest.mark.parametrize("case", ["read 1x1x28x28 N=5 alone", "write 128x1x28x28 N=5", "sample 1"])
@pytest.mark.parametrize("kind", ["fastdraw", "eager"])
def test_cases_of_pairs_are_computed_by_either(case, kind, monkeypatch, capsys):
    monkeypatch.setattr("sys.path", ["its folder", *sys.path])
    monkeypatch.setattr("sys.stdin", [f"{case}\n", "no such case\n"])
    monkeypatch.chdir(Path(fastdraw.__file__).parents[1])
    threads = torch.get_num_threads()
    try:
        pair.answer(kind, 1)
    finally:
        torch.set_num_threads(threads)
    seconds, refused = capsys.readouterr().out.splitlines()
    assert 0 < float(seconds) < 60
    assert refused == "KeyError: 'no such case'"
