"""The processes of one run: `torchrun --nproc-per-node 2 -m fastdraw train ...` starts several, each with its share of every
batch; without it there is one.

All of them compute the same run: what a row of a batch is given hangs on its place in the batch, not on the process that makes
it (see `randomness`). So the number of processes changes a run's numbers by rounding alone. Only the first one writes.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from fastdraw.runs.signals import Interrupted

T = TypeVar("T")

#: How long processes wait for each other: one machine may read and decode its images in a minute, another in hours. One that
#: ended is noticed at once, whatever this is.
TIMEOUT = timedelta(hours=6)
#: And for all to come at the start.
MEETING = timedelta(minutes=10)


class ProcessLost(RuntimeError):
    """Another process of the run is gone, or failed and said so itself. The run's last checkpoint is whole."""


class Processes:
    """rank: this one's number, 0 the first; size: how many there are. Without torchrun 0 and 1, and nothing is ever sent."""

    def __init__(self, group: dist.ProcessGroup | None) -> None:
        self.group = group
        self.rank = 0 if group is None else dist.get_rank(group)
        self.size = 1 if group is None else dist.get_world_size(group)
        # Of those on this machine, which share its cores.
        self.here = 1 if group is None else int(os.environ.get("LOCAL_WORLD_SIZE", self.size))

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def rows(self, batch: int) -> slice:
        """This process's part of a batch, which `size` divides."""
        share = batch // self.size
        return slice(self.rank * share, (self.rank + 1) * share)

    def threads(self) -> int:
        """Cores for each process of this machine; what torch took for itself where there is only one."""
        if self.here == 1:
            return torch.get_num_threads()
        # torchrun sets OMP_NUM_THREADS to 1, so torch does not know.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(1, cores // self.here)

    def mean(self, values: Tensor) -> Tensor:
        """The mean of `values` over the processes."""
        return values if self.group is None else self._sum(values) / self.size

    def largest(self, number: int) -> int:
        """The largest of the numbers that the processes give."""
        if self.group is None:
            return number
        value = torch.tensor(number)
        with lost():
            dist.all_reduce(value, dist.ReduceOp.MAX, group=self.group)
        return int(value)

    def wait(self) -> None:
        """Until all are here."""
        self.largest(0)

    def broadcast(self, value: T) -> T:
        """The first process's value, small and picklable, on all."""
        if self.group is None:
            return value
        box: list[Any] = [value]
        with lost():
            dist.broadcast_object_list(box, 0, group=self.group, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, picklable, on all, in their order."""
        if self.group is None:
            return [value]
        values: list[Any] = [None] * self.size
        with lost():
            dist.all_gather_object(values, value, group=self.group)
        return values

    def to_first(self, value: T) -> list[T]:
        """The values of all processes, picklable, in the first; nothing in the others."""
        if self.group is None:
            return [value]
        values: list[Any] | None = [None] * self.size if self.is_first else None
        with lost():
            dist.gather_object(value, values, 0, group=self.group)
        return values or []

    def agree(self, seen: Mapping[str, object]) -> None:
        """Raises ValueError where a process sees something else under one of the names than the first one does, in it and in
        the first; ProcessLost in the others."""
        every = self.gather((socket.gethostname(), {name: str(value) for name, value in seen.items()}))
        host, first = every[0]
        for rank, (other, its) in enumerate(every):
            for name, value in first.items():
                if its.get(name) != value:
                    if self.rank not in (0, rank):
                        raise ProcessLost(f"process {rank} of this run, on {other}, differs from the first and says in what")
                    raise ValueError(
                        f"{name}: expected the same in all processes of this run, {value} as in the first one on {host}, "
                        f"got {its.get(name)} in process {rank} on {other}"
                    )

    def first(self, function: Callable[[], T]) -> T:
        """What the first process's `function()` gives, on all; the others wait. An interruption there is one everywhere."""
        if self.group is None:
            return function()
        if not self.is_first:
            box: tuple[str, Any] = ("", None)
            outcome, value = self.broadcast(box)
            if outcome == "interrupted":
                raise Interrupted(value)
            if outcome != "done":
                raise ProcessLost("the first process of this run failed")
            return value
        try:
            value = function()
        except BaseException as error:
            self.broadcast(("interrupted", error.signum) if isinstance(error, Interrupted) else ("failed", None))
            raise
        return self.broadcast(("done", value))[1]

    def _sum(self, values: Tensor) -> Tensor:
        values = values.clone()
        with lost():
            dist.all_reduce(values, group=self.group)
        return values


#: What there is without torchrun.
ALONE = Processes(None)


def in_order(together: Processes, parts: Iterable[tuple[Tensor, ...]]) -> Iterator[tuple[Tensor, ...]]:
    """What all processes make of `held_out`, in the order of its batches, on all of them; one alone has each as it comes.

    An interruption of one, while it makes its `parts`, is one of all, once they have made theirs.
    """
    if together.group is None:
        yield from parts
        return
    came, own = 0, []
    try:
        own = [tuple(tensor.cpu() for tensor in part) for part in parts]
    except Interrupted as error:
        came = error.signum
    if came := together.largest(came):
        raise Interrupted(came)
    shares = together.gather(own)
    yield from (share[i] for i in range(len(shares[0])) for share in shares if i < len(share))


def local_rank() -> int:
    """Which of this machine's processes this is: the number of its CUDA device."""
    return int(os.environ.get("LOCAL_RANK", 0)) if launched() else 0


def rank() -> int:
    """Which of the run's processes this is, 0 where there is only one; known before they are joined."""
    return int(os.environ["RANK"]) if launched() else 0


def launched() -> bool:
    """Whether torchrun, or whatever sets the same variables, started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ


@contextmanager
def processes(cuda: bool) -> Iterator[Processes]:
    """Joins the other processes; a group that the caller's program has made already is used and left as it is."""
    mine = not (dist.is_available() and dist.is_initialized())
    if mine and not launched():
        yield Processes(None)
        return
    if mine:
        with lost():
            # Gloo in any case: control messages are read by the host.
            store, rank, size = next(dist.rendezvous("env://", timeout=MEETING))
            store = dist.PrefixStore(attempt(store, rank, size), store)
            backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
            dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield Processes(dist.group.WORLD)
    finally:
        if mine:
            dist.destroy_process_group()


def attempt(store: dist.Store, rank: int, size: int) -> str:
    """A name for what these processes of one run do together, which all of them give, and none of those before them.

    torchrun keeps one store over all restarts, so that what a dead process left there would be taken for its successor's. Nor
    do restarts tell: each agent counts its own. So the first process calls those that answer, until one of every rank has.
    Raises ProcessLost where not all come within MEETING.
    """
    mine, here = uuid.uuid4().hex, set[int]()
    until = time.monotonic() + MEETING.total_seconds()
    if rank > 0:
        store.set(f"fastdraw/{rank}", mine)
    while time.monotonic() < until:
        if rank > 0:
            if store.check([f"fastdraw/{mine}"]):
                called = store.get(f"fastdraw/{mine}").decode()
                store.set(f"fastdraw/{called}/{rank}", "here")
                if store.check([f"fastdraw/{called}/all"]):
                    return called
        else:
            for other in set(range(1, size)) - here:
                if store.check([f"fastdraw/{mine}/{other}"]):
                    here.add(other)
                elif store.check([f"fastdraw/{other}"]):
                    # Perhaps a dead one's name, and later that of a successor.
                    store.set(f"fastdraw/{store.get(f'fastdraw/{other}').decode()}", mine)
            if len(here) == size - 1:
                store.set(f"fastdraw/{mine}/all", "")
                return mine
        time.sleep(0.01)
    raise ProcessLost(f"not all {size} processes of this run came within {MEETING.seconds // 60} minutes")


@contextmanager
def lost() -> Iterator[None]:
    """Around whatever talks to other processes: says so when one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        # Gloo's errors have no type of their own.
        known = dist.is_available() and isinstance(error, dist.DistError)
        if not known and not any(name in str(error) for name in ("gloo", "Gloo", "NCCL")):
            raise
        raise ProcessLost("lost the connection to another process of this run, which says why itself") from error
