"""The C++ library built with AddressSanitizer and UndefinedBehaviorSanitizer, and tests/fuzz.py at every instruction set that
this machine has: `python tests/sanitize.py [SECONDS [CALLS [tests]]]`, of fuzzing each; with `tests` the C++ kernels' tests
too, which take minutes. Ends with 1 at the first fault.

Masked loads of vectors escape AddressSanitizer, so level 0, which has none, is the one that sees most.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import runpy
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES, BUILT = ROOT / "kernels" / "cpu", ROOT / "build" / "sanitized"
FLAGS = [
    *("-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno"),
    *("-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
    # At each access, where AddressSanitizer looks as well: a third of the time that compiling takes.
    "-fno-sanitize=null,object-size,alignment,vptr",
]


def compiler() -> str | None:
    """GNU's: its runtimes are shared libraries that a Python which knows nothing of them can be started with."""
    return next((found for name in ("g++", "c++") if (found := shutil.which(name)) and runtimes(found)), None)


def runtimes(cxx: str) -> list[str]:
    names = ("libasan.so", "libubsan.so", "libstdc++.so")
    found = [
        subprocess.run([cxx, f"-print-file-name={name}"], capture_output=True, text=True).stdout.strip() for name in names
    ]
    return found if all(os.path.isabs(path) for path in found) else []


def build(cxx: str) -> Path:
    """The library, unless it is there from sources of the same bytes."""
    sources = runpy.run_path(str(SOURCES / "sources.py"))["digest"](SOURCES)
    made_from = hashlib.sha256(" ".join([cxx, *FLAGS, sources]).encode())
    library = BUILT / f"{made_from.hexdigest()[:16]}.so"
    if library.exists():
        return library
    shutil.rmtree(BUILT, ignore_errors=True)
    BUILT.mkdir(parents=True)
    levels = ["baseline"]
    if platform.machine() in ("x86_64", "AMD64"):
        levels += (SOURCES / "levels.txt").read_text().splitlines()
    names = [level.split()[0] for level in levels]

    def compile_level(level: str) -> None:
        name, *more = level.split()
        source = ["-c", str(SOURCES / "kernels.cpp"), "-o", str(BUILT / f"{name}.o")]
        subprocess.run([cxx, *FLAGS, *more, f"-DFASTDRAW_LEVEL={name}", *source], check=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(compile_level, levels))
    objects = [str(BUILT / f"{name}.o") for name in names]
    has = [f"-DFASTDRAW_SOURCES={sources}", *(f"-DFASTDRAW_HAS_{name}" for name in names)]
    subprocess.run([cxx, *FLAGS, *has, "-shared", str(SOURCES / "library.cpp"), *objects, "-o", str(library)], check=True)
    return library


def run(library: Path, preload: list[str], level: int, seconds: str, calls: str, tests: bool) -> bool:
    environment = {
        **os.environ,
        "FASTDRAW_LIBRARY": str(library),
        "FASTDRAW_LEVEL": str(level),
        "LD_PRELOAD": " ".join(preload),
        # Python and torch leave much to the end of the process. A limit on address space would end it at once.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1:handle_segv=1:hard_rss_limit_mb=6000",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "2",
    }
    commands = [["tests/fuzz.py", seconds, calls, str(level << 20)]]
    if tests:
        files = [
            str(ROOT / "tests" / name)
            for name in ("kernels/test_cpu_kernels.py", "kernels/test_cpu_pieces.py", "ops/test_gate.py")
        ]
        commands.append(["-m", "pytest", "-n", "0", "-q", *files, "-k", "not aten"])
    for command in commands:
        done = subprocess.run([sys.executable, *command], env=environment, cwd=ROOT, text=True, capture_output=True)
        print(f"level {level}: {' '.join(done.stdout.splitlines()[-1:])}", flush=True)
        if done.returncode:
            print(done.stdout[-4000:], done.stderr[-8000:])
            return False
    return True


def main(seconds: str, calls: str, tests: bool) -> int:
    from fastdraw.kernels import cpu

    cxx = compiler()
    if cxx is None:
        print("no GNU compiler with sanitizers is at hand: nothing was run")
        return 0
    library = build(cxx)
    levels = [0]
    for level in (1, 2):
        try:
            cpu.table(level)
        except RuntimeError:
            continue
        levels.append(level)
    preload = runtimes(cxx)
    with ThreadPoolExecutor(len(levels)) as pool:
        fine = list(pool.map(lambda level: run(library, preload, level, seconds, calls, tests), levels))
    return 0 if all(fine) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python tests/sanitize.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("seconds", nargs="?", default="12")
    parser.add_argument("calls", nargs="?", default="inf")
    parser.add_argument("tests", nargs="?", choices=["tests"], help="the C++ kernels' tests, too")
    said = parser.parse_args()
    sys.exit(main(said.seconds, said.calls, said.tests is not None))
