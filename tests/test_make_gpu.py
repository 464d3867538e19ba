"""`make gpu`, as far as a machine without a GPU shows: its steps, what it keeps, what it refuses, what it warms up."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_benchmarks import RESULT, run_pytest

from benchmarks import gpu, kernels, report, warm, wide
from benchmarks.cases import DEVICE
from benchmarks.checkout import ROOT


def test_gpu_says_in_one_line_that_there_is_none(tmp_path, capsys):
    assert gpu.main(["--out", str(tmp_path / "results")], no_gpu=lambda: "torch sees no GPU here") == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "make gpu needs a machine with a GPU: torch sees no GPU here\n"
    assert not (tmp_path / "results").exists()


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU")
def test_this_machine_has_no_gpu():
    assert gpu.gpu() == "torch sees no GPU here"


def fake_steps(folder: Path, workers: int) -> list[gpu.Step]:
    python = [sys.executable, "-c"]
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(sys.argv[2])"
    environment = {"device": "Some GPU", "cuda": "13.0", "triton": "3.6.0", "cpu": "a CPU", "cores": 2, "threads": 2}
    environment |= {"python": "3.12.3", "torch": "2.11.0", "fastdraw": "0.1.0", "commit": "0123456789ab"}
    figures = json.dumps(RESULT) + "\n" + '{"title": "cut o'
    return [
        gpu.Step("environment", [*python, write, str(folder / "environment.json"), json.dumps(environment)], 30),
        gpu.Step("ceilings", [*python, write, str(folder / "ceilings.json"), '{"copy, GB/s": 3000.0}'], 30),
        gpu.Step("tests", [*python, "print('1 failed'); raise SystemExit(1)"], 30),
        gpu.Step("benchmarks", [*python, write, str(folder / "benchmarks.jsonl"), figures], 30),
        gpu.Step("absent tool", ["compute-sanitizer-of-another-name"], 30, program="compute-sanitizer-of-another-name"),
        gpu.Step("absent package", [*python, "raise SystemExit(1)"], 30, needs=("a_package_of_another_name",)),
    ]


def test_gpu_writes_a_report_though_steps_fail(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "steps", fake_steps)
    assert gpu.main(["--out", str(tmp_path)], no_gpu=lambda: None) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "report.json", "report.md"]
    written = json.loads((tmp_path / "report.json").read_text())
    status = {step["name"]: step["status"] for step in written["steps"]}
    expected = ["passed", "passed", "failed", "passed", "left out", "left out"]
    assert list(status.values()) == expected
    # The figures cut off while they were written are dropped, those before them are kept.
    assert [result["title"] for result in written["results"]] == [RESULT["title"]]
    text = (tmp_path / "report.md").read_text()
    for part in ("Some GPU", "| copy, GB/s | 3000 |", "5.00x", "## tests: exit status 1", "1 failed", "is not installed"):
        assert part in text
    assert "===== tests" in (tmp_path / "log.txt").read_text()
    last = capsys.readouterr().out
    assert "5.00x" in last
    assert "a_package_of_another_name is not installed" in last


def test_a_step_that_nobody_knows_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(gpu, "steps", fake_steps)
    assert gpu.main(["--out", str(tmp_path), "--only", "benchmark of"], no_gpu=lambda: None) == 2
    assert capsys.readouterr().err.startswith("--only: expected words of environment, ceilings, tests")


def test_gpu_passes_where_nothing_failed(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "steps", fake_steps)
    assert gpu.main(["--out", str(tmp_path), "--only", "ceilings", "absent"], no_gpu=lambda: None) == 0


def test_a_step_that_hangs_is_ended_with_all_it_started(tmp_path):
    """The grandchild holds the output open and would outlive its parent."""
    pid_file = tmp_path / "pid"
    hang = (
        "import pathlib, subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))\n"
        "print('started', flush=True)\n"
        "time.sleep(600)\n"
    )
    start = time.monotonic()
    done = gpu.run(gpu.Step("hangs", [sys.executable, "-c", hang], 6), tmp_path / "log.txt", seconds_left=100)
    assert time.monotonic() - start < 60
    assert (done["status"], done["reason"], done["tail"]) == ("failed", "out of time after 6 s", ["started"])
    assert gone(int(pid_file.read_text()))


def gone(pid: int) -> bool:
    """Ended, or a zombie that nobody has asked about."""
    for _ in range(50):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.1)
    return False


def test_a_step_without_time_is_left_out(tmp_path):
    step = gpu.Step("late", [sys.executable, "-c", "pass"], 60)
    assert gpu.run(step, tmp_path / "log.txt", seconds_left=1)["status"] == "left out"
    # Cut short by the end of all time, not by its own limit: no verdict.
    slow = gpu.Step("slow", [sys.executable, "-c", "import time; time.sleep(600)"], 60)
    assert gpu.run(slow, tmp_path / "log.txt", seconds_left=5)["status"] == "left out"


def test_the_real_steps_name_files_that_exist(tmp_path):
    found = gpu.steps(tmp_path, workers=1)
    assert len({step.name for step in found}) == len(found)
    for step in found:
        for argument in step.command:
            if argument.endswith(".py"):
                assert (ROOT / argument).is_file(), argument
            if argument.startswith("benchmarks."):
                assert (ROOT / argument.replace(".", "/")).with_suffix(".py").is_file(), argument
        assert step.limit <= 300
    # Names are words of a shell's, which `make gpu ONLY=...` hands over as they are.
    assert all(name.replace(" ", "").replace(",", "").isalnum() for name in (step.name for step in found))
    # The truth about the chip, then about the kernels, then their times.
    names = [step.name for step in found]
    assert names[:3] == ["environment", "probe", "ceilings"]
    expected = [
        "tests of models and training",
        "tests of operators",
        "warm",
        "benchmarks of steps",
        "memcheck",
        "slow compilers",
    ]
    assert [name for name in names if name in expected] == expected
    files = {argument for step in found for argument in step.command}
    marked = {path.name for path in (ROOT / "tests").glob("test_*.py") if "mark.gpu" in path.read_text()}
    marked |= {"test_gpu_operators.py", "test_gpu_models.py", "test_gpu_training.py"}
    # A test about other tests.
    assert {f"tests/{name}" for name in marked} - {"tests/test_make_gpu.py"} <= files


@pytest.mark.parametrize("name", ["slow compilers", "memory over 10,000 steps"])
def test_what_a_step_selects_is_there(tmp_path, name):
    """-k with a word that no test has any more would leave all of them out."""
    step = next(step for step in gpu.steps(tmp_path, workers=1) if step.name.startswith(name))
    done = run_pytest("--collect-only", *step.command[step.command.index("pytest") + 1 :])
    chosen = [line.split("::")[1] for line in done.stdout.splitlines() if "::" in line]
    assert chosen, done.stdout + done.stderr
    assert any("slow" in test for test in chosen) == (name == "slow compilers")
    assert any("memory_does_not" in test for test in chosen) == name.startswith("memory")


def test_the_report_of_nothing_can_be_written(tmp_path):
    report.write(tmp_path, report.Report())
    assert "could not be described" in (tmp_path / "report.md").read_text()


CANNOT = f"print('nvcc was not found'); raise SystemExit({gpu.CANNOT_RUN})"


def test_a_step_that_cannot_run_here_is_left_out_and_says_why(tmp_path):
    done = gpu.run(gpu.Step("probe", [sys.executable, "-c", CANNOT], 60), tmp_path / "log.txt", seconds_left=100)
    assert (done["status"], done["reason"]) == ("left out", "nvcc was not found")


def test_a_second_run_keeps_what_the_first_one_found(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "steps", fake_steps)
    gpu.main(["--out", str(tmp_path)], no_gpu=lambda: None)
    gpu.main(["--out", str(tmp_path), "--only", "absent package", "tests"], no_gpu=lambda: None)
    written = json.loads((tmp_path / "report.json").read_text())
    assert [step["name"] for step in written["steps"]][:2] == ["environment", "ceilings"]
    assert [result["title"] for result in written["results"]] == [RESULT["title"]]
    assert written["environment"]["commit"] == "0123456789ab"
    # Without --only it starts anew.
    monkeypatch.setattr(gpu, "steps", lambda *_, **__: [])
    assert report.earlier(tmp_path / "nowhere") == report.Report()
    # Another commit's figures are no part of this one's.
    before = report.earlier(tmp_path)
    now = report.Report(environment={**before.environment, "commit": "another"})
    assert report.joined(before, now) == now
    assert report.joined(before, report.Report()).results == before.results


def test_kernels_are_counted_and_read_from_ncu():
    table = kernels.collected({"a": [1.0, 1.0, 4.0], "b": [10.0]})
    assert table == {"b": {"calls": 1, "us": 10.0, "us in all": 10.0}, "a": {"calls": 3, "us": 1.0, "us in all": 6.0}}
    assert [line.split() for line in kernels.lines(table)][1:] == [["b", "1", "10", "10"], ["a", "3", "1", "6"]]
    text = (
        "==PROF== Connected to process 1\n"
        '"ID","Kernel Name","gpu__time_duration.sum","launch__registers_per_thread",'
        '"sm__throughput.avg.pct_of_peak_sustained_elapsed"\n'
        '"","","ns","register/thread","%"\n'
        '"0","linear_kernel","2,000","64","10.5"\n'
        '"1","linear_kernel","4,000","64","n/a"\n'
    )
    assert kernels.counters(text) == {"linear_kernel": {"calls": 2, "us": 3.0, "registers": 64.0, "SM %": 10.5}}
    assert kernels.counters("==ERROR== no permission") == {}


@pytest.mark.skipif(DEVICE == "cuda", reason="the small step is for a CPU")
def test_a_step_is_profiled(capsys, tmp_path):
    assert kernels.main([str(tmp_path / "kernels.json")]) == 0
    (table,) = json.loads((tmp_path / "kernels.json").read_text()).values()
    assert sum(row["calls"] for row in table.values()) > 10
    assert "B=4, float32" in capsys.readouterr().out


def test_warming_up_runs_tasks_side_by_side_and_names_what_failed():
    python = [sys.executable, "-c"]
    commands = {
        "good": [*python, "print('done')"],
        "bad": [*python, "print('working'); raise SystemExit('no such kernel')"],
        "slow": [*python, "import time; time.sleep(600)"],
    }
    start = time.monotonic()
    failed = warm.run_all(commands, workers=2, limit=10)
    assert failed == {"bad": "no such kernel", "slow": "not done after 10 s"}
    assert time.monotonic() - start < 200


def test_tasks_that_warm_up_run_what_benchmarks_time(monkeypatch):
    names = list(warm.tasks())
    assert set(wide.CASES) <= set(names)
    monkeypatch.setattr(warm, "FEW", 1)
    tiny = {name: (o, s.__class__(2, 1, 20, 20, 3, s.window), d, ()) for name, (o, s, d, _) in wide.CASES.items()}
    monkeypatch.setattr(wide, "CASES", tiny)
    for name in ("step 128 bfloat16 rebuilding", "read, many", "write, many, half", "sequence bfloat16"):
        warm.tasks()[name]()


def test_what_the_sanitizer_watches_runs():
    """In a process of its own: it switches off the allocator's cache for the whole of it."""
    code = (
        "from benchmarks import checkout; checkout.activate(); from benchmarks import sanitize; sanitize.main('cpu', 'aten')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=gpu.environment())
    assert done.stdout == "every operator ran, forward and backward\n", done.stderr
