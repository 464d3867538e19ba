"""The C++ library in a process: threads, fork, OpenMP runtimes, the choice of matrix products, and what is said without it."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from commands import python
from kernel_calls import LARGE, inputs, kernel_results, lstm_inputs, needs_library
from levels import levels

from fastdraw.kernels import cpu
from fastdraw.kernels.cpu import gemm, library
from fastdraw.kernels.cpu.sizes import LstmSizes, PackSizes, PeakSizes, named
from fastdraw.testing import check


@needs_library
@pytest.mark.parametrize("shape", [(37, 2, 28, 28, 5), LARGE[0], (3, 1, 260, 1100, 3)])
def test_same_bits_for_any_number_of_threads(shape: tuple[int, ...]) -> None:
    low = [t.float() for t in inputs(shape)]
    several = 0.5 * torch.randn(shape[0], 4, 5)
    tensors = lstm_inputs(33, 20, 70, torch.float32)
    products = torch.randn(33, 280)
    kept = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 2):
            torch.set_num_threads(threads)
            results.append(kernel_results(cpu, *low))
            results[-1]["several windows"] = cpu.read(low[1], several, (4, 4), 1)
            results[-1]["written"] = cpu.write(results[-1]["several windows"], several, *shape[2:4], -1)
            sizes = named(LstmSizes, batch=33, hidden=70, threads=threads)
            outputs = [products.clone(), torch.empty(33, 70), torch.empty(33, 70)]
            pointers = [t.data_ptr() for t in (outputs[0], products, *tensors[5:7], tensors[2], *outputs[1:])]
            assert cpu.kernels(torch.float32).lstm_forward(sizes, *pointers) == 0
            results[-1] |= {str(i): t for i, t in enumerate(outputs)}
    finally:
        torch.set_num_threads(kept)
    for other in results[1:]:
        assert all(torch.equal(other[name], result) for name, result in results[0].items())


@pytest.mark.parametrize("level", levels())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_peak_counts_what_its_threads_did(level: int, dtype: torch.dtype) -> None:
    functions, operations = library.functions(dtype, level), ctypes.c_int64()
    assert functions is not None

    def counted(rounds: int, threads: int) -> int:
        sizes = named(PeakSizes, rounds=rounds, threads=threads)
        assert functions.peak(sizes, ctypes.addressof(operations)) == 0
        return operations.value

    # Two operations for each of a dozen vectors at least, of 16 bytes at least, bfloat16 as float32 at least.
    each = counted(1, 1)
    assert each % 2 == 0
    assert each >= 2 * 12 * 16 // max(4, dtype.itemsize)
    assert counted(1000, 3) == 3000 * each
    # Rounds are done and not left out: a hundred thousand of them are no call that comes back at once.
    start = time.thread_time_ns()
    counted(100_000, 1)
    assert time.thread_time_ns() - start > 10_000


@needs_library
def test_fewer_threads_are_asked_for_after_long_waits_and_all_again_later(tmp_path: Path) -> None:
    """Where other programs keep a team's threads from running: two such waits halve the team, for a while."""
    source = Path(library.env.library() or library.FOLDER / "libfastdraw_cpu.so")
    copy = ctypes.CDLL(shutil.copy(source, tmp_path / "copy.so"))  # It has threads of its own.
    asked: list[int] = []

    @ctypes.CFUNCTYPE(None, ctypes.CFUNCTYPE(None, ctypes.c_void_p), ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    def region(body: Callable[[int], None], data: int, threads: int, flags: int) -> None:
        asked.append(threads)
        body(data)
        time.sleep(0.005)  # for a thread that has no task any more

    copy.fastdraw_kernels.restype = ctypes.POINTER(ctypes.c_void_p)
    copy.fastdraw_set_parallel_region(ctypes.cast(region, ctypes.c_void_p))
    pack = library.PieceFunctions._field_defaults["pack"](copy.fastdraw_kernels(0)[2 * len(library.Kernels._fields)])
    weight, packed = torch.randn(256, 8), torch.empty(512 * 9)

    def call() -> None:
        sizes = named(PackSizes, order=0, outputs=256, depth=8, backward=0, split=8, first_row=8, threads=8)
        assert pack(sizes, weight.data_ptr(), 0, packed.data_ptr()) == 0

    for _ in range(30):
        call()
    assert asked[:2] == [8, 8]
    assert set(asked) == {8, 4, 2}  # and one, which needs no team
    asked.clear()
    time.sleep(1)
    call()
    assert asked == [8]


@needs_library
def test_python_threads_do_not_disturb_each_other() -> None:
    """Calls run without the interpreter's lock: each thread has its own scratch, of its own shape."""
    cases = [[t.float() for t in inputs(shape)] for shape in ((40, 1, 28, 28, 5), (9, 3, 33, 20, 12), (64, 1, 8, 8, 2))]
    expected = [kernel_results(cpu, *case) for case in cases]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda i: kernel_results(cpu, *cases[i % 3]), range(60)))
    for i, result in enumerate(results):
        assert all(torch.equal(result[name], exact) for name, exact in expected[i % 3].items())


@needs_library
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_one_openmp_runtime() -> None:
    """Loading and running the library maps no OpenMP runtime beside the one that torch brought, and that one is used."""
    code = """
import os, re, torch
def runtimes():
    with open("/proc/self/maps") as maps:
        return {line.split()[-1] for line in maps if re.search(r"lib([gi]?omp|iomp5)[^/]*$", line)}
before = runtimes()
from fastdraw.kernels import cpu
assert cpu.unavailable() is None
torch.set_num_threads(2)
threads = len(os.listdir("/proc/self/task"))
cpu.read(torch.rand(256, 1, 28, 28), torch.zeros(256, 5), (12, 12), 1)
assert len(os.listdir("/proc/self/task")) == threads + 1
assert runtimes() == before and len(before) == 1, (before, runtimes())
"""
    python(code, OMP_NUM_THREADS="1")


@needs_library
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_work_after_fork() -> None:
    """A data loader's worker is forked from a process whose threads it does not have."""
    code = """
import os, sys, torch
from fastdraw.kernels import cpu
torch.set_num_threads(2)
image, params = torch.rand(256, 1, 28, 28), torch.zeros(256, 5)
# Compared as bytes: torch's own comparison would wait in the child for threads that it does not have.
def read():
    return cpu.read(image, params, (12, 12), 1).numpy().tobytes()
expected = read()
child = os.fork()
if child == 0:
    os._exit(0 if read() == expected else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert read() == expected
"""
    python(code)


@pytest.mark.parametrize("choice", ["mkl", "onednn"])
@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
def test_products(monkeypatch: pytest.MonkeyPatch, layout: str, choice: str) -> None:
    monkeypatch.setattr(gemm, "chosen", lambda: choice if gemm._has_onednn() else "mkl")
    a, b = torch.randn(160, 170), torch.randn(170, 180)
    assert a.shape[0] * b.numel() >= gemm._SMALL
    left = a.t().contiguous().t() if layout == "tn" else a
    right = b.t().contiguous().t() if layout == "nt" else b
    exact = a.double() @ b.double()
    check([gemm.product(left, right)], [exact], [[a @ b]], torch.float32)
    with torch.backends.mkldnn.flags(enabled=False):
        assert torch.equal(gemm.product(left, right), torch.mm(left, right))


def test_the_choice_of_products(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        for choice, expected in {"mkl": {"mkl"}, "onednn": {"onednn"}, "auto": {"mkl", "onednn"}}.items():
            gemm.chosen.cache_clear()
            monkeypatch.setenv("FASTDRAW_GEMM", choice)
            assert gemm.chosen() in (expected if gemm._has_onednn() else {"mkl"})
        gemm.chosen.cache_clear()
        monkeypatch.setenv("FASTDRAW_GEMM", "fast")
        with pytest.raises(ValueError, match="FASTDRAW_GEMM: expected one of auto, mkl, onednn, got 'fast'"):
            gemm.chosen()
    finally:
        gemm.chosen.cache_clear()


def test_the_reason_for_a_missing_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    load = library.load.__wrapped__
    assert load() == (None, "the C++ kernels are not built here; pip install -e . in the checkout builds them")
    (tmp_path / "not_built.txt").write_text("no C++ compiler was at hand at install time\n")
    assert load() == (None, "no C++ compiler was at hand at install time")
    (tmp_path / "libfastdraw_cpu.so").write_text("not a library")
    opened, reason = load()
    assert opened is None
    assert reason.startswith("the C++ kernels do not load: ")


@needs_library
def test_a_library_of_other_sources_is_not_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After a pull nobody may have built it anew, and its functions may take other arguments: that crashed."""
    built, sources = (Path(__file__).parents[2] / "kernels" / "cpu").resolve(), [".cpp", ".h", ".txt"]
    if not (built / "library.cpp").exists():
        pytest.skip("the sources are not here")
    for path in (path for path in built.iterdir() if path.suffix in sources):
        shutil.copy(path, tmp_path)
    shutil.copy(library.env.library() or library.FOLDER / "libfastdraw_cpu.so", tmp_path / "libfastdraw_cpu.so")
    monkeypatch.delenv("FASTDRAW_LIBRARY", raising=False)
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    load = library.load.__wrapped__
    assert load()[1] is None
    with (tmp_path / "canvas.h").open("a") as header:
        header.write("// Changed.\n")
    opened, reason = load()
    assert opened is None
    assert "built of other sources" in reason
    # Of an installed wheel, which has no sources.
    for path in tmp_path.glob("*"):
        if path.suffix in sources:
            path.unlink()
    assert load()[1] is None
