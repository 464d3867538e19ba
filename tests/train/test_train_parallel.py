"""Several processes train as one does: the same gradients, one set of files, one end for all."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from forge import Forge
from training import arguments, lines, records, run, wait_until

from fastdraw.runs.parallel import Processes, ProcessLost, attempt, launched, lost
from fastdraw.train import load_checkpoint

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")

#: One step by two processes, each with its half of the batch, of each kind of model: whole, in parts, and by torch's own DDP.
GRADIENTS = """
import sys, torch
import torch.distributed as dist
from fastdraw import DRAW, DRAWClassifier, GraphedStep
dist.init_process_group("gloo")
rank, half = dist.get_rank(), slice(3 * dist.get_rank(), 3 * dist.get_rank() + 3)
saved = torch.load(sys.argv[1], weights_only=True)
x, noise, labels = saved["x"][half], saved["noise"][:, half], saved["labels"][half]
out = {}
for name, parts in (("draw", 1), ("draw", 2), ("classify", 1), ("classify", 3)):
    draw = name == "draw"
    model = (DRAW((1, 8, 7), 3, 8, 4) if draw else DRAWClassifier((1, 8, 7), 3, 8, 3, 5)).double()
    model.load_state_dict(saved[name])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = GraphedStep(model, optimizer, x, clip=0.5, accumulate=parts, process_group=dist.group.WORLD)
    given = {"noise": noise} if draw else {"labels": labels}
    norm = step(x, **given).gradient_norm
    out[f"{name}{parts}"] = [p.grad for p in model.parameters()] + [norm]
    out[f"{name}{parts} weights"] = [p.detach() for p in model.parameters()]
model = DRAW((1, 8, 7), 3, 8, 4).double()
model.load_state_dict(saved["draw"])
wrapped = torch.nn.parallel.DistributedDataParallel(model)
wrapped(x, noise).loss.backward()
out["ddp"] = [p.grad for p in model.parameters()]
torch.save(out, f"{sys.argv[1]}.{rank}")
# Both are done with each other; ending the group has been seen to wait for ever where the other process was quicker.
dist.barrier()
"""


def test_gradients_of_two_processes_are_those_of_one(forge: Forge, tmp_path: Path) -> None:
    from fastdraw import DRAW, DRAWClassifier, GraphedStep

    draw, classifier = DRAW((1, 8, 7), 3, 8, 4).double(), DRAWClassifier((1, 8, 7), 3, 8, 3, 5).double()
    x, noise = torch.rand(6, 1, 8, 7, dtype=torch.float64), torch.randn(3, 6, 4, dtype=torch.float64)
    labels = torch.randint(0, 5, (6,))
    file = tmp_path / "inputs"
    weights = {"draw": draw.state_dict(), "classify": classifier.state_dict()}
    torch.save({"x": x, "noise": noise, "labels": labels, **weights}, file)
    script = tmp_path / "gradients.py"
    script.write_text(GRADIENTS)
    started = forge.together([str(script), str(file)], tmp_path / "log", script=True)
    assert [forge.wait(process) for process in started] == [0, 0], (tmp_path / "log.0").read_text()
    outs = [torch.load(f"{file}.{rank}", weights_only=True) for rank in (0, 1)]
    draw(x, noise).loss.backward()
    assert_close(outs[0]["ddp"], [p.grad for p in draw.parameters()])
    for model, names in ((draw, ("draw1", "draw2")), (classifier, ("classify1", "classify3"))):
        given: dict[str, torch.Tensor] = {"noise": noise} if model is draw else {"labels": labels}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        norm = GraphedStep(model, optimizer, x, clip=0.5)(x, **given).gradient_norm
        for name in names:
            assert_close(outs[0][name], [*(p.grad for p in model.parameters()), norm])
            assert_close(outs[0][f"{name} weights"], list(model.parameters()))
            # Bit for bit: they would drift apart otherwise.
            assert all(torch.equal(a, b) for a, b in zip(*(out[f"{name} weights"] for out in outs), strict=True))


def assert_close(ours: list[torch.Tensor], theirs: list[torch.Tensor | None]) -> None:
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_two_processes_train_like_one(forge: Forge, tmp_path: Path) -> None:
    """The same batches, noise and averages: float32's rounding, which Adam carries on, is all that differs."""
    changes: dict[str, Any] = {"steps": 30, "ema": 0.9, "accumulate": 5, "schedule": "cosine"}
    run(tmp_path / "one", **changes)
    started = forge.together(arguments(tmp_path / "two", **changes), tmp_path / "log")
    assert [forge.wait(process) for process in started] == [0, 0], (tmp_path / "log.0").read_text()
    said = "".join((tmp_path / f"log.{rank}").read_text() for rank in (0, 1))
    assert said.count("training") == 1
    assert "2 processes of 1 threads" in said
    assert len(list((tmp_path / "two").glob("events.out.tfevents*"))) == 1
    ours, theirs = records(tmp_path / "two"), records(tmp_path / "one")
    assert [(r["step"], r["split"]) for r in ours] == [(r["step"], r["split"]) for r in theirs]
    for r, s in zip(ours, theirs, strict=True):
        assert r["nats"] == pytest.approx(s["nats"], rel=2e-3)
        assert r["gradient_norm"] == pytest.approx(s["gradient_norm"], rel=1e-2) if r["split"] == "train" else True
    # One process goes on where two stopped.
    assert run(tmp_path / "two", resume=True, steps=40).step == 40


def test_a_signal_to_one_process_ends_all_with_a_checkpoint(forge: Forge, tmp_path: Path) -> None:
    args = arguments(tmp_path / "run", epochs=10000, checkpoint_every=100000, evaluate_every=1000)
    started = forge.together(args, tmp_path / "log")
    wait_until(lambda: lines(tmp_path / "run") >= 4)
    os.kill(started[1], signal.SIGTERM)
    assert [forge.wait(process) for process in started] == [128 + signal.SIGTERM] * 2
    step = load_checkpoint(tmp_path / "run").step
    assert step >= 20
    again = f"torchrun --nproc-per-node 2 -m fastdraw train --out {tmp_path / 'run'} --resume"
    assert (tmp_path / "log.0").read_text().splitlines()[-1] == f"stopped at step {step}; to go on: {again}"
    assert (tmp_path / "log.1").read_text() == ""


def test_a_signal_while_the_first_process_evaluates(forge: Forge, tmp_path: Path) -> None:
    """The others wait for it meanwhile: they learn of the interruption, and of nothing else."""
    args = arguments(tmp_path / "run", epochs=10000, checkpoint_every=100000, evaluate_every=1, eval_batch=1, glimpses=20)
    started = forge.together(args, tmp_path / "log")
    wait_until(lambda: lines(tmp_path / "run") >= 6)
    os.kill(started[0], signal.SIGTERM)
    assert [forge.wait(process) for process in started] == [128 + signal.SIGTERM] * 2
    assert (tmp_path / "log.1").read_text() == ""
    assert load_checkpoint(tmp_path / "run").step >= 28


def test_the_death_of_one_process_ends_all(forge: Forge, tmp_path: Path) -> None:
    started = forge.together(
        arguments(tmp_path / "run", epochs=10000, checkpoint_every=3, evaluate_every=1000), tmp_path / "log"
    )
    wait_until(lambda: lines(tmp_path / "run") >= 4)
    os.kill(started[1], signal.SIGKILL)
    assert [forge.wait(process) for process in started] == [1, -signal.SIGKILL]
    last = (tmp_path / "log.0").read_text().splitlines()[-1]
    assert last == "fastdraw: error: lost the connection to another process of this run, which says why itself"
    assert load_checkpoint(tmp_path / "run").step >= 18


def test_each_attempt_has_a_name_of_its_own() -> None:
    """In one store, as torchrun keeps it over all restarts, whatever those before left there and however many they were."""
    store, names = torch.distributed.HashStore(), set()
    for size in (3, 2, 4, 4):
        with ThreadPoolExecutor(size) as pool:
            found = []
            for rank in range(size):
                found.append(pool.submit(attempt, store, rank, size))
                # The first process finds a dead one's name before its successor has come.
                time.sleep(0.05)
            (name,) = {each.result(60) for each in found}
        assert name not in names
        names.add(name)
        for rank in range(1, 4):
            store.set(f"fastdraw/{rank}", f"dead after {name}")


def test_a_restart_finds_what_the_dead_left(forge: Forge, tmp_path: Path) -> None:
    """One store over three attempts: each process, come late, must not be taken for its predecessor, which had an address."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    args, log = {"epochs": 10000, "checkpoint_every": 5, "evaluate_every": 1000, "resume": "auto"}, tmp_path / "log"

    def start(rank: int, **changes: int) -> int:
        its = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", **where}
        return forge.start(arguments(tmp_path / "run", **{**args, **changes}), Path(f"{log}.{rank}"), **its)

    enough = 3
    for late in (1, 0):
        other = start(1 - late)
        time.sleep(0.5)
        started = other, start(late)
        wait_until(lambda enough=enough: lines(tmp_path / "run") >= enough)
        os.kill(started[0], signal.SIGKILL)
        assert [forge.wait(process) for process in started] == [-signal.SIGKILL, 1]
        enough = lines(tmp_path / "run") + 3
    step = load_checkpoint(tmp_path / "run").step
    started = start(0, steps=step + 3), start(1, steps=step + 3)
    assert [forge.wait(process) for process in started] == [0, 0], Path(f"{log}.0").read_text()


def test_what_counts_as_a_lost_process() -> None:
    with pytest.raises(ProcessLost), lost():
        raise RuntimeError("[third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error: Connection reset by peer")
    with pytest.raises(ProcessLost), lost():
        raise torch.distributed.DistBackendError("broken")
    with pytest.raises(RuntimeError, match="shapes"), lost():
        raise RuntimeError("shapes cannot be multiplied")


def test_shares_of_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = Processes(None)
    assert (alone.rows(10), alone.is_first, alone.largest(7), alone.first(lambda: 5)) == (slice(0, 10), True, 7, 5)
    alone.rank, alone.size = 2, 5
    assert alone.rows(10) == slice(4, 6)
    assert not launched()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert launched()


def test_a_batch_that_processes_cannot_share(forge: Forge, tmp_path: Path) -> None:
    started = forge.together(arguments(tmp_path / "run", batch_size=51), tmp_path / "log")
    assert [forge.wait(process) for process in started] == [2, 2]
    words = "fastdraw: error: --batch-size: expected a multiple of 2, one share for each process, got 51"
    assert (tmp_path / "log.0").read_text().splitlines()[-1] == words
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_mistake_that_the_first_process_finds(forge: Forge, tmp_path: Path) -> None:
    """The other one does not wait for it for ever."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("")
    started = forge.together(arguments(tmp_path / "run"), tmp_path / "log")
    assert [forge.wait(process) for process in started] == [2, 1]
    assert "add --resume or --overwrite" in (tmp_path / "log.0").read_text()
