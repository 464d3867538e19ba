"""The C++ kernels for 64-bit ARM, on a machine of another kind: cross-compiled, and their tests run by an emulator.

    python tests/arm.py [FOLDER [PYTEST ARGUMENTS]]

FOLDER (build/arm) is filled once with Debian's Python for arm64 and torch's wheel, 5 GB with what it asks for. Needed, as
Debian names them: g++-aarch64-linux-gnu, qemu-user, and apt-get that knows arm64 (dpkg --add-architecture arm64; apt-get
update). The tests that compare every kernel with the reference take a quarter of an hour.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = (
    *("python3.11", "python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1", "libstdc++6"),
    *("zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5", "libsqlite3-0", "libncursesw6", "libtinfo6"),
    *("libreadline8", "libdb5.3", "libuuid1", "libcrypt1", "libgomp1"),
)
TORCH = (f"torch=={torch.__version__.split('+')[0]}", "numpy", "safetensors", "pytest", "pytest-xdist", "hypothesis")
#: A core with NEON and without SVE, as torch's own libraries look it up: the emulator shows them the host's.
CORE, CORE_ID = "neoverse-n1", "0x00000000413fd0c1"
CPUINFO = """processor\t: {}
Features\t: fp asimd aes pmull sha1 sha2 crc32 atomics fphp asimdhp asimdrdm asimddp
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x3
CPU part\t: 0xd0c
CPU revision\t: 1

"""
TESTS = ["tests/kernels/test_cpu_kernels.py", "tests/kernels/test_cpu_pieces.py", "-k", "not aten"]


def run(*command: str, **more: object) -> None:
    subprocess.run(command, check=True, **more)  # type: ignore[call-overload]


def make_system(folder: Path) -> None:
    """Python and the C library of an ARM machine, and what torch reads of its cores."""
    packages, root = folder / "packages", folder / "root"
    packages.mkdir(parents=True, exist_ok=True)
    run("apt-get", "download", "-qq", *(f"{name}:arm64" for name in PACKAGES), cwd=packages)
    for package in packages.glob("*.deb"):
        run("dpkg-deb", "-x", str(package), str(root))
    for core in range(os.cpu_count() or 1):
        registers = root / f"sys/devices/system/cpu/cpu{core}/regs/identification"
        registers.mkdir(parents=True, exist_ok=True)
        (registers / "midr_el1").write_text(CORE_ID + "\n")
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/cpuinfo").write_text("".join(CPUINFO.format(core) for core in range(os.cpu_count() or 1)))


def install(folder: Path) -> None:
    platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in range(17, 36)] + ["--platform=manylinux2014_aarch64"]
    where = ("--target", str(folder / "site"), "--python-version", "3.11", "--implementation", "cp", "--only-binary=:all:")
    run(sys.executable, "-m", "pip", "install", "-q", *where, *platforms, *TORCH)


def build(folder: Path) -> Path:
    system = ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64", "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++")
    made = str(folder / "cmake")
    run("cmake", "-S", str(ROOT), "-B", made, *system, f"-DFASTDRAW_OUTPUT={folder}", stdout=subprocess.DEVNULL)
    run("cmake", "--build", made, stdout=subprocess.DEVNULL)
    return folder / "libfastdraw_cpu.so"


def vector_instructions(library: Path) -> tuple[int, int]:
    """How many of the library's multiply-adds take whole vectors, and how many single numbers."""
    listing = subprocess.run(["aarch64-linux-gnu-objdump", "-d", library], capture_output=True, text=True, check=True).stdout
    return len(re.findall(r"\tfmla\tv", listing)), len(re.findall(r"\tfn?madd\t", listing))


def main(folder: str, arguments: list[str]) -> int:
    where = (ROOT / folder).resolve()
    if not (where / "root").exists():
        make_system(where)
    if not (where / "site").exists():
        install(where)
    library = build(where)
    whole, single = vector_instructions(library)
    print(f"{library.name}: {whole} multiply-adds of vectors, {single} of single numbers", flush=True)
    environment = {**os.environ, "PYTHONPATH": str(where / "site"), "FASTDRAW_LIBRARY": str(library)}
    python = ("qemu-aarch64", "-cpu", CORE, "-L", str(where / "root"), str(where / "root/usr/bin/python3.11"))
    options = ("-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider")
    return subprocess.run([*python, *options, *(arguments or TESTS)], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python tests/arm.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", nargs="?", default="build/arm", help="what is filled once: 5 GB; default: build/arm")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of pytest; default: the kernels' tests")
    said = parser.parse_args()
    sys.exit(main(said.folder, said.arguments))
