"""What rows of a batch are given hangs on their place in it, and not on how many processes there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from training import SMALL

from fastdraw.data.composed import CLUTTERED_60, Composer
from fastdraw.runs.parallel import Processes
from fastdraw.runs.randomness import BLOCK, normal_rows, permuted, uniform_rows
from fastdraw.train import TrainOptions
from fastdraw.train.batches import AHEAD, Batches

CPU = torch.device("cpu")


@pytest.mark.parametrize("n", [1, 2, 3, 10, 16, 17, 1000, 4097])
def test_the_order_is_a_permutation(n: int) -> None:
    """Each image once, whatever part of it is asked for; another one for each seed and epoch."""
    whole = permuted(0, "order", 0, np.arange(n), n)
    assert sorted(whole.tolist()) == list(range(n))
    some = np.array([n - 1, 0, n // 2])
    assert permuted(0, "order", 0, some, n).tolist() == whole[some].tolist()
    if n >= 1000:
        for seed, epoch in ((1, 0), (0, 1)):
            other = permuted(seed, "order", epoch, np.arange(n), n)
            assert (other == whole).mean() < 0.01
        # Neighbours end up anywhere: a third of n apart on the average, with a standard error of 0.24 n / sqrt(n).
        apart = np.abs(np.diff(whole)).mean() / n
        assert abs(apart - 1 / 3) < 5 * 0.24 / np.sqrt(n)


def test_all_places_are_as_likely() -> None:
    """Where image 0 stands in 2,000 orders of 8 images: 250 times in each place, give or take four standard deviations."""
    places = [int(np.flatnonzero(permuted(seed, "order", 0, np.arange(8), 8) == 0)[0]) for seed in range(2000)]
    assert np.abs(np.bincount(places, minlength=8) - 250).max() < 4 * np.sqrt(250)


@pytest.mark.parametrize("draw", [normal_rows, uniform_rows])
@pytest.mark.parametrize("threads", [1, 2])
def test_rows_are_those_of_one_process(draw: Any, threads: int) -> None:
    batch = 3 * BLOCK + 4
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        whole = draw(0, "noise", 7, slice(0, batch), batch, (5, 3), CPU)
        for size in (2, 4, 5, 20, 100):
            share = batch // size
            parts = [draw(0, "noise", 7, slice(r * share, (r + 1) * share), batch, (5, 3), CPU) for r in range(size)]
            assert torch.equal(torch.cat(parts), whole)
    finally:
        torch.set_num_threads(before)
    assert not torch.equal(whole[:BLOCK], whole[BLOCK : 2 * BLOCK])
    assert not torch.equal(draw(0, "noise", 8, slice(0, batch), batch, (5, 3), CPU), whole)


def test_moments() -> None:
    x = normal_rows(0, "noise", 0, slice(0, 4000), 4000, (25,), CPU).double()
    assert abs(x.mean()) < 5 / 316
    assert abs(x.var() - 1) < 5 * 2**0.5 / 316
    u = uniform_rows(0, "noise", 0, slice(0, 4000), 4000, (25,), CPU).double()
    assert abs(u.mean() - 0.5) < 5 * 12**-0.5 / 316
    assert u.min() >= 0
    assert u.max() < 1


def process(rank: int, size: int) -> Processes:
    made = Processes(None)
    made.rank, made.size = rank, size
    return made


@pytest.mark.parametrize("makes", [False, True], ids=["binarised", "composed"])
def test_batches_are_those_of_one_process(makes: bool) -> None:
    """Order, binarisation and composed pictures of every share, over the end of an epoch and of a look ahead."""
    images = torch.randint(0, 256, (500, 1, 28, 28), dtype=torch.uint8)
    labels = torch.arange(500)
    # Each image's number is among its pixels, in black and white.
    images[:, 0, 0, :9] = (255 * (labels[:, None] >> torch.arange(9) & 1)).byte()
    make = Composer(CLUTTERED_60, images) if makes else None

    def batches(rank: int, size: int) -> Batches:
        return Batches(images, labels, make, 100, True, 3, CPU, process(rank, size))

    one = batches(0, 1)
    for size in (2, 5, 50):
        each = [batches(rank, size) for rank in range(size)]
        for step in (0, 4, 5, AHEAD - 1, AHEAD) if size == 2 else (5,):
            whole, parts = one(step), [b(step) for b in each]
            assert torch.equal(torch.cat([p.images for p in parts]), whole.images)
            assert torch.equal(torch.cat([p.labels for p in parts]), whole.labels)  # type: ignore[misc]
            assert makes or torch.equal((whole.images[:, 0, 0, :9] * 2.0 ** torch.arange(9)).sum(1).long(), whole.labels)
    epoch = torch.cat([one(step).labels for step in range(5, 10)])  # type: ignore[misc]
    assert sorted(epoch.tolist()) == list(range(500))


def test_binarisation_is_certain_of_black_and_white() -> None:
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 1, 1, 3).repeat(4000, 1, 1, 1)
    x = Batches(images, None, None, 4000, True, 0, CPU, process(0, 1))(0).images
    assert x[..., 0].sum() == 0
    assert x[..., 1].sum() == 4000
    # A fifth, give or take five standard errors.
    assert abs(x[..., 2].mean() - 0.2) < 5 * 0.4 / 4000**0.5


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without torch.distributed")
def test_messages_of_a_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """One for all gradients, and two small ones: the step's figures, and whether a signal came."""
    import torch.distributed as dist
    from torch.testing._internal.distributed.fake_pg import FakeStore

    from fastdraw.runs.signals import Interruptions
    from fastdraw.train.display import Silent
    from fastdraw.train.loop import Run
    from fastdraw.train.setup import prepare

    run = Run(prepare(TrainOptions(**{**SMALL, "out": str(tmp_path), "batch_size": 32}), None, Processes(None)), Silent())
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    try:
        run.processes.group, run.processes.size = dist.group.WORLD, 8
        sent: list[int] = []
        send = dist.all_reduce

        def counted(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            sent.append(tensor.nbytes)
            return send(tensor, *args, **kwargs)

        monkeypatch.setattr(dist, "all_reduce", counted)
        run._check(Interruptions())
        run.step()
    finally:
        run.close()
        dist.destroy_process_group()
    weights = sum(p.nbytes for p in run.model.parameters())
    assert sent == [8, weights, 32]
