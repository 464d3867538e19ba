"""Memory of one step that the next one uses again: never while a tensor uses it, and little more than was last asked for."""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from commands import python

import fastdraw
from fastdraw.kernels.cpu import pages

#: Floats: three pages and a bit.
LARGE = 3 * (2 << 20) // 4 + 5


@pytest.fixture(autouse=True)
def nothing_kept():
    pages.release()
    yield
    pages.release()


def floats(*numbers: int) -> list[torch.Tensor]:
    return pages.new_buffers([((number,), torch.float32) for number in numbers])


def test_what_is_in_use_is_not_given_again() -> None:
    (first,) = floats(LARGE)
    (second,) = floats(LARGE)
    assert first.data_ptr() != second.data_ptr()
    first.fill_(1)
    second.fill_(2)
    assert (first == 1).all()


def test_a_view_keeps_the_memory() -> None:
    (first,) = floats(LARGE)
    view = first[7:9]
    view.fill_(3)
    del first
    (second,) = floats(LARGE)
    second.fill_(2)
    assert view.tolist() == [3, 3]


def test_freed_memory_serves_the_next_call_and_is_uninitialised_to_it() -> None:
    (first,) = floats(LARGE)
    address = first.fill_(1).data_ptr()
    del first
    (second,) = floats(LARGE)
    assert second.data_ptr() == address
    # The tests' poison: a value of the step before must not hide that nobody wrote one.
    assert second.isnan().all()


def test_only_what_the_last_call_asked_for_is_kept() -> None:
    first, second = floats(LARGE, 2 * LARGE)
    assert pages.kept_bytes() == 4 * 3 * LARGE
    del first, second
    (third,) = floats(LARGE)
    assert pages.kept_bytes() == 4 * LARGE
    pages.release()
    assert pages.kept_bytes() == 4 * LARGE, "in use"
    del third
    pages.release()
    assert pages.kept_bytes() == 0


def test_a_block_serves_what_is_a_little_smaller() -> None:
    (first,) = floats(2 * LARGE)
    address = first.data_ptr()
    del first
    (half,) = pages.new_buffers([((2 * LARGE,), torch.bfloat16)])
    assert half.data_ptr() == address
    del half
    (less,) = floats(LARGE - 1)
    assert less.data_ptr() != address
    assert pages.kept_bytes() == 4 * (LARGE - 1)


def test_small_buffers_are_torchs() -> None:
    sizes = [((0, 4), torch.float32), ((3,), torch.float64), ((2, 2), torch.bfloat16)]
    tensors = pages.new_buffers(sizes)
    assert [(tuple(t.shape), t.dtype) for t in tensors] == sizes
    assert pages.kept_bytes() == 0


@pytest.mark.skipif(fastdraw.backends()["native"] is not None, reason="the C++ kernels were not built")
def test_two_models_at_once_do_not_share_a_tape() -> None:
    """Two graphs alive together, gone through backward in either order, and threads beside each other."""
    model = fastdraw.DRAW((1, 28, 28), glimpses=8, hidden_size=64, latent_size=8, read_size=2, write_size=5)
    x, noise = torch.rand(2, 128, 1, 28, 28), torch.randn(2, 8, 128, 8)
    weights = list(model.parameters())

    def gradients(i: int) -> list[torch.Tensor]:
        return list(torch.autograd.grad(model(x[i], noise[i]).loss, weights))

    alone = [gradients(0), gradients(1)]
    outs = [model(x[i], noise[i]).loss for i in range(2)]
    assert pages.kept_bytes() > 0, "the case is too small to mean anything"
    for i in (0, 1):
        assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(outs[i], weights), alone[i], strict=True))
    results: dict[int, list[torch.Tensor]] = {}

    def run(i: int) -> None:
        for _ in range(5):
            results[i] = gradients(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in (0, 1):
        assert all(torch.equal(a, b) for a, b in zip(results[i], alone[i], strict=True))


def test_reads_share_what_earlier_ones_left():
    number = (1 << 20) // 4
    several = [pages.read_buffer((number,), torch.float32) for _ in range(3)]
    places = {tensor.data_ptr() for tensor in several}
    assert len(places) == 3
    del several
    # One at a time, and still none of the others is given up.
    again = [pages.read_buffer((number,), torch.float32) for _ in range(3)]
    assert {tensor.data_ptr() for tensor in again} == places
    del again
    assert pages.kept_bytes() == 3 << 20
    pages.release()
    assert pages.kept_bytes() == 0


def test_reads_leave_no_more_than_their_share():
    number = pages.READS // 4 // 4
    many = [pages.read_buffer((number,), torch.float32) for _ in range(6)]
    assert [one is None for one in many] == [False] * 4 + [True] * 2
    assert pages.read_buffer((1,), torch.float32) is None
    assert pages.kept_bytes() == pages.READS
    # What nothing uses makes room: for one of the same size, and for a larger one.
    del many[0]
    assert pages.read_buffer((number,), torch.float32) is not None
    del many[:2]
    assert pages.read_buffer((2 * number,), torch.float32) is not None
    assert pages.kept_bytes() <= pages.READS


def test_giving_back_beside_other_calls_changes_nothing_for_good():
    done = threading.Event()

    def give_back() -> None:
        while not done.is_set():
            pages.release()

    threads = [threading.Thread(target=give_back) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(200):
        pages.read_buffer(((1 << 20) // 4,), torch.float32)
    done.set()
    for thread in threads:
        thread.join()
    kept = pages.read_buffer(((1 << 20) // 4,), torch.float32)
    del kept
    pages.read_buffer(((2 << 20) // 4,), torch.float32)
    assert pages.kept_bytes() == 3 << 20


def interrupted(call: Callable[[], object], at: int, handler: Callable[[], None]) -> int:
    """Runs the handler in the middle of the call, as a signal's would be, before instruction `at` of pages.py; says how many
    there were."""
    count = 0

    def trace(frame: types.FrameType, event: str, _: object) -> Callable | None:
        nonlocal count
        if frame.f_code.co_filename != pages.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            if count == at:
                handler()
            count += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("name", ["read_buffer", "new_buffers", "release", "kept_bytes"])
def test_a_signals_handler_may_compute_at_any_moment(name, monkeypatch):
    """At every instruction of every call: the handler asks for memory, gives back, and asks again."""
    # NaN in new memory would be gigabytes here.
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", False)
    large = (3 << 20) // 4
    calls = {
        "read_buffer": lambda: [pages.read_buffer((large,), torch.float32)],
        "new_buffers": lambda: pages.new_buffers([((large,), torch.float32), ((2 * large,), torch.float32)]),
        "release": lambda: pages.release() or [],
        "kept_bytes": lambda: [] if pages.kept_bytes() >= 0 else None,
    }
    theirs: list[torch.Tensor] = []

    def handler() -> None:
        # None where it comes in the middle of another call of the kind: then nothing more is kept.
        theirs.extend(one for one in (pages.read_buffer((70_000,), torch.float32),) if one is not None)
        theirs.extend(pages.new_buffers([((large,), torch.float32)]))
        pages.release()
        theirs.extend(pages.new_buffers([((large,), torch.float32)]))
        # Two tensors in one block would begin at the same element.
        for i, one in enumerate(theirs):
            one[0] = i

    def attempt(at: int) -> int:
        pages.release()
        # Something in use and something not, of both kinds.
        used = [pages.read_buffer((large,), torch.float32), *pages.new_buffers([((large,), torch.float32)])]
        unused = [pages.read_buffer((70_000,), torch.float32), *pages.new_buffers([((2 * large,), torch.float32)])]
        del unused
        ours: list[torch.Tensor] = []
        theirs.clear()
        count = interrupted(lambda: ours.extend(calls[name]()), at, handler)
        for i, one in enumerate([*used, *ours]):
            one[0] = 100 + i
        assert [one[0] for one in (*used, *ours)] == [100 + i for i in range(len(used) + len(ours))], at
        assert [one[0] for one in theirs] == list(range(len(theirs))), at
        return count

    count = attempt(-1)
    assert count > 20
    assert not theirs
    for at in range(count):
        attempt(at)
        assert len(theirs) >= 2
    # And nothing is lost for good.
    theirs.clear()
    pages.release()
    assert pages.kept_bytes() == 0
    kept = pages.read_buffer((large,), torch.float32)
    assert pages.kept_bytes() == kept.nbytes


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.skipif(fastdraw.backends()["native"] is not None, reason="the C++ kernels were not built")
def test_children_forked_beside_a_training_thread_compute():
    """At any moment of the other thread's step, the lock held or not."""
    code = """
import os, signal, sys, threading, torch, fastdraw
torch.set_num_threads(1)
model = fastdraw.DRAW((1, 28, 28), glimpses=2, hidden_size=64, latent_size=8, read_size=2, write_size=5)
# Noise is given: torch's own generator has a lock, which a child may find held for good.
x, noise = torch.rand(300, 1, 28, 28), torch.randn(2, 300, 8)
# Once before any fork: torch's first call of an operator holds a lock too.
model(x, noise).loss.backward()
done = threading.Event()
def train():
    while not done.is_set():
        model(x, noise).loss.backward()
thread = threading.Thread(target=train)
thread.start()
codes = set()
for _ in range(int(sys.argv[1])):
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        with torch.no_grad():
            fine = all(bool(model(x[:90], noise[:, :90]).loss.isfinite()) for _ in range(2))
        os._exit(0 if fine else 1)
    codes.add(os.waitpid(child, 0)[1])
done.set()
thread.join()
print(codes)
"""
    assert python(code, "60") == "{0}\n"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("module", ["fastdraw.kernels.cpu", "fastdraw.kernels.aten_pieces"])
def test_a_child_made_while_a_backend_is_imported_computes(module):
    code = """
import os, signal, sys, threading, time, torch, fastdraw
torch.set_num_threads(1)
started = threading.Event()
class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            started.set()
            time.sleep(0.5)
sys.meta_path.insert(0, Slow())
model = fastdraw.DRAW((1, 8, 8), glimpses=1, hidden_size=4, latent_size=2, read_size=2, write_size=2)
# It imports and does not compute: a child forked in torch's own first call of an operator waits for ever, whoever calls it.
thread = threading.Thread(target=lambda: (fastdraw.dispatch.kernels("auto", "cpu"), fastdraw.dispatch.pieces("auto", "cpu")))
thread.start()
assert started.wait(30)
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if model(torch.rand(2, 1, 8, 8), torch.randn(1, 2, 2)).loss.isfinite() else 1)
print(os.waitpid(child, 0)[1])
thread.join()
"""
    assert python(code, module) == "0\n"


@pytest.mark.skipif(fastdraw.backends()["native"] is not None, reason="the C++ kernels were not built")
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="looks into /proc")
def test_a_large_calls_scratch_is_given_back():
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    with fastdraw.backend("native"):
        fastdraw.read(torch.rand(4, 1, 8, 8), torch.zeros(4, 5), 30)
        before = resident()
        fastdraw.read(torch.rand(4, 1, 8, 8), torch.zeros(4, 5), 3000)
        fastdraw.filterbank(torch.zeros(4, 5), 12_000, (28, 28))
        assert resident() - before < 48 << 20
