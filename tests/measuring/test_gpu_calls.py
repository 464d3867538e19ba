"""The two calls to a machine with a GPU, as far as one without shows: nothing that fails takes anything with it."""

from __future__ import annotations

import io
import json
import shlex
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from inner_pytest import run_pytest

from benchmarks.cases import DEVICE
from benchmarks.checkout import ROOT
from benchmarks.gpu import __main__ as command
from benchmarks.gpu import figures, processes, race, report, rows, train
from benchmarks.gpu.figures import Figures, Step
from benchmarks.reproduce import __main__ as reproduce


@pytest.mark.skipif(DEVICE == "cuda", reason="there is a GPU")
@pytest.mark.parametrize("call", ["figures", "train"])
def test_a_machine_without_a_gpu_is_told_in_one_line(tmp_path, capsys, call):
    assert command.main([call, "--out", str(tmp_path / "results")]) == 2
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "a machine with a GPU is needed: torch sees no GPU here\n")
    assert not (tmp_path / "results").exists()


def test_steps_stand_alone(tmp_path, monkeypatch, capsys):
    def breaks(limit: float) -> tuple[str, bool]:
        raise RuntimeError("a cable is loose")

    def measures(limit: float) -> tuple[str, bool]:
        call.write({"case": "step", "row": "reference", "ready": 1.0, "wrong": None})
        call.write({"case": "step", "row": "GraphedStep, bfloat16", "ready": 1.0, "wrong": "result 3 is off"})
        for ms in (40.0, 50.0, 60.0):
            call.write({"case": "step", "row": "reference", "ms": ms})
            call.write({"case": "step", "row": "GraphedStep, bfloat16", "ms": ms / 20})
        call.write({"case": "B=128", "kernels": {"canvas": {"calls": 64, "us": 2.5, "us in all": 160.0}}})
        processes.append(call.out / report.FIGURES, '{"case": "cut o')
        return "measured", True

    call = Figures(tmp_path, "0123abc", tiny=True)
    long = Step("long", 5, lambda limit: (f"{limit:.0f}", True))
    steps = [Step("breaks", 50, breaks), Step("measures", 50, measures), long]
    monkeypatch.setattr(Figures, "steps", lambda self: steps)
    assert call(60) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.jsonl", "report.json", "report.md"]
    written = json.loads((tmp_path / "report.json").read_text())
    assert [step["status"] for step in written["steps"]] == ["failed", "passed", "passed"]
    assert written["cases"]["step"]["reference"]["median"] == 50.0
    text, shown = (tmp_path / "report.md").read_text(), capsys.readouterr().out
    for part in ("RuntimeError: a cable is loose", "20.0x", "WRONG: result 3 is off"):
        assert part in text
        assert part in shown
    assert "| 2.500 |" in text
    assert "| canvas | 64 | 2.50 | 160 |" in text
    # Nothing is begun that no time is left for.
    assert Figures(tmp_path, None, tiny=True)(5, only=["long"]) == 0
    assert json.loads((tmp_path / "report.json").read_text())["steps"][0]["word"] == "no time was left"


#: What stands for rows: one that answers, one that ends while it is asked, one that never gets ready, one that cannot begin.
ROW = """
import sys, time
from benchmarks.gpu.processes import answers
answer = answers()
name = sys.argv[1]
print("this goes to the log", name)
if name == "never":
    time.sleep(600)
if name == "cannot":
    raise SystemExit("no such kernel")
answer(ready=0.1, wrong="off" if name == "wrong" else None)
for number, _ in enumerate(sys.stdin):
    if name == "ends" and number == 1:
        raise SystemExit("out of memory")
    answer(ms=1.0 + number)
"""


def test_a_row_that_fails_takes_nothing_with_it(monkeypatch):
    monkeypatch.setattr(race, "python", lambda module, case, row: [sys.executable, "-c", ROW, row])
    monkeypatch.setattr(race, "TURNS", 3)
    monkeypatch.setattr(race, "TAKING_TURNS", 2.0)
    found, log = [], []
    names = ("good", "ends", "never", "cannot", "wrong")
    assert race.race([("case", name) for name in names], 8.0, found.append, log.append) == 4
    turns = {name: [r["ms"] for r in found if r["row"] == name and "ms" in r] for name in names}
    assert turns == {"good": [1.0, 2.0, 3.0], "ends": [1.0], "never": [], "cannot": [], "wrong": [1.0, 2.0, 3.0]}
    failed = {r["row"]: r["failed"] for r in found if "failed" in r}
    assert failed["ends"] == "exit status 1: out of memory"
    assert failed["cannot"] == "exit status 1: no such kernel"
    assert failed["never"].startswith("not ready after")
    assert all(f"this goes to the log {name}" in "".join(log) for name in names)
    # Alternating: no row takes its second turn before all have taken their first.
    order = [r["row"] for r in found if "ms" in r and r["ms"] <= 2]
    assert sorted(order[:3]) == ["ends", "good", "wrong"]


@pytest.mark.parametrize("case", rows.ROWS)
def test_rows_are_variants_of_their_case(case):
    for name in rows.ROWS[case]:
        first = rows.made(case, name, True).variants[0]
        assert first.name.split()[0].rstrip(",") == name.split()[0].rstrip(",")
        assert first.name.rsplit(", ")[-1] == name.rsplit(", ")[-1]


@pytest.mark.skipif(DEVICE == "cuda", reason="the small sizes are for a CPU")
def test_the_first_call_from_its_beginning_to_its_end(tmp_path, capsys, monkeypatch):
    """Rows are proven and take turns in processes of their own, kernels are counted, all is reported and little is left."""
    monkeypatch.setitem(rows.ROWS, "large", rows.ROWS["large"][1:])
    said = ["figures", "--tiny", "--out", str(tmp_path), "--commit", "0123abc", "--only", "kernels", "large"]
    assert command.main(said) == 0, (tmp_path / "log.txt").read_text()
    assert [step["name"] for step in json.loads((tmp_path / "report.json").read_text())["steps"]] == [
        *("environment", "kernels", "large batch")
    ]
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["figures.jsonl", "log.txt", "report.json", "report.md"]
    assert sum(path.stat().st_size for path in files) < 1 << 20
    whole = json.loads((tmp_path / "report.json").read_text())
    assert whole["environment"]["commit"] == "0123abc"
    assert set(whole["cases"]["large"]) == set(rows.ROWS["large"])
    for name, row in whole["cases"]["large"].items():
        assert row["turns"] == race.DRY_TURNS
        assert row["wrong"] is None
        assert name.startswith("torch.mm") or row["operations"] > 0
    assert sum(row["calls"] for row in whole["kernels"]["B=4, float32"].values()) > 10
    assert "2 of 2 rows measured and right" in capsys.readouterr().out


def test_a_process_that_hangs_is_ended_with_all_it_started(tmp_path):
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
    assert processes.call([sys.executable, "-c", hang], 4) == (None, "started\n")
    assert time.monotonic() - start < 60
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


def test_what_the_tests_of_a_call_select_is_there():
    """-k with words that no test has any more would leave all of them out."""
    paths = ["tests/gpu/test_gpu_models.py", "tests/gpu/test_gpu_training.py"]
    done = run_pytest("--collect-only", "-q", "-k", figures._MODELS, *paths)
    chosen = [line for line in done.stdout.splitlines() if "::" in line]
    assert {line.split("::")[0] for line in chosen} == set(paths)
    assert not any("memory_does" in line or "inductor" in line for line in chosen)
    assert len(figures.triton_tests()) >= 5


def test_what_the_sanitizer_watches_runs():
    """In a process of its own: it switches off the allocator's cache for the whole of it."""
    code = "from benchmarks.gpu import sanitize; sanitize.main('cpu', 'aten')"
    own = processes.environment()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, env=own)
    assert done.stdout == "every operator ran, forward and backward\n", done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """What a tiny training call leaves, and its state."""
    folder = tmp_path_factory.mktemp("call")
    images = np.random.default_rng(0).integers(0, 256, (60, 98), dtype=np.uint8)
    (folder / "data").mkdir()
    whole = {
        "train": images,
        "valid": images[:20],
        "test": images[:20],
        "shape": np.array([[n, 784] for n in (60, 20, 20)], np.int32),
    }
    np.savez(folder / "data" / "binarized_mnist.npz", **whole)
    # Time enough for a busy machine to begin in: training takes all it is given, the evaluation only what it needs.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "TESTING", 60.0)
        patch.setattr(train, "GRACE", 20.0)
        call(folder, "72", "--commit", "0123abc")
    return folder


def call(folder: Path, seconds: str, *options: str) -> int:
    paths = ["--out", str(folder / "out"), "--state", str(folder / "state"), "--data-dir", str(folder / "data")]
    return command.main(["train", "--tiny", "--seconds", seconds, "--samples", "2", *paths, *options])


@pytest.mark.slow
def test_training_ends_with_the_test_images(trained, tmp_path):
    out = trained / "out"
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.safetensors", "log.txt", "run.tgz"]
    train.unpacked(out, tmp_path)
    plan, seed = json.loads((tmp_path / "plan.json").read_text()), tmp_path / "mnist" / "seed-0"
    tested = json.loads((seed / "test.json").read_text())
    # A machine that others slow down meanwhile takes fewer steps than were planned, and tests what it has.
    assert 0 < tested["step"] <= plan["steps"]
    assert plan["commit"] == "0123abc"
    assert tested["samples"] == 2
    assert tested["result"]["images"] == 20
    # Drawn and reported where there is time for it; no step is taken again, and those that are left are.
    said = shlex.split(train.reproduced(tmp_path))[3:]
    said[said.index("DATA")] = str(trained / "data")
    assert reproduce.main([*said, "--samples", "2"]) == 0
    after = json.loads((seed / "test.json").read_text())
    assert after["step"] == plan["steps"]
    assert after == tested or tested["step"] < plan["steps"]
    assert (tmp_path / "mnist" / "results.md").exists()


@pytest.mark.parametrize("kind", ["../out", "/tmp/out", "link", "device", "folder/../../out", "blank"])
def test_an_archive_that_no_call_packed_is_refused(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(train, "UNPACKED", 100_000)
    (tmp_path / "call").mkdir()
    member = tarfile.TarInfo("a" if kind in ("link", "device", "blank") else kind)
    member.type = {"link": tarfile.SYMTYPE, "device": tarfile.CHRTYPE}.get(kind, tarfile.REGTYPE)
    member.linkname, member.size = str(tmp_path) if kind == "link" else "", 10**6 if kind == "blank" else 0
    with tarfile.open(tmp_path / "call" / "run.tgz", "w:gz") as archive:
        archive.addfile(member, io.BytesIO(bytes(member.size)))
    with pytest.raises(ValueError, match=r"run\.tgz: expected"):
        train.unpacked(tmp_path / "call", tmp_path / "folder" / "own")
    assert [path.name for path in tmp_path.rglob("*")] == ["call", "run.tgz"]
