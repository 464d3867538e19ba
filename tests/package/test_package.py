"""What is installed, what importing it costs, and that the version stands in one place."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

from commands import python

import fastdraw

ROOT = Path(__file__).parents[2]


def test_one_version_number() -> None:
    assert fastdraw.__version__ == version("fastdraw-torch")
    number = re.escape(fastdraw.__version__)
    tracked = [*ROOT.glob("*.toml"), *ROOT.glob("*.py"), *ROOT.glob("*.txt"), *(ROOT / "fastdraw").rglob("*.py")]
    assert [p.name for p in tracked if re.search(rf"[\"']{number}[\"']", p.read_text())] == ["_version.py"]


def test_importing_brings_in_nothing_heavy() -> None:
    """Beyond what torch imports itself."""
    code = "import sys, torch; before = set(sys.modules); import fastdraw; print(*(set(sys.modules) - before))"
    modules = {name.split(".")[0] for name in python(code).split()}
    assert modules <= {"fastdraw"}, modules - {"fastdraw"}


def test_everything_but_triton_kernels_works_without_triton() -> None:
    code = """
import sys
sys.modules["triton"] = None
import torch, fastdraw
assert "triton" in fastdraw.backends()["triton"].lower(), fastdraw.backends()
model = fastdraw.DRAW((1, 6, 5), 2, 4, 3)
model(torch.rand(2, 1, 6, 5)).loss.backward()
print("trained")
"""
    assert python(code) == "trained\n"


def test_a_checkout_that_is_not_installed_has_its_kernels(tmp_path: Path) -> None:
    """As on a machine where nothing can be installed: a copy whose own kernels are found, by import and by -m."""
    for folder in ("fastdraw", "kernels"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    code = "import fastdraw.kernels.aten as a, fastdraw; print(a.__file__); print(*fastdraw.kernels.__path__)"
    assert python(code, folder=tmp_path) == f"{tmp_path / 'kernels' / 'aten.py'}\n{tmp_path / 'kernels'}\n"
    done = subprocess.run([sys.executable, "-m", "fastdraw", "info"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fastdraw.kernels" not in done.stdout + done.stderr


def test_everything_works_without_the_native_kernels(tmp_path: Path) -> None:
    """As on a machine without a compiler: the wheel built there, unpacked and imported."""
    environment = {**os.environ, "FASTDRAW_BUILD": "0"}
    source = tmp_path / "source"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert files, "the test needs a checkout"
    for file in files:
        if (ROOT / file).exists():
            target = source / file
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((ROOT / file).read_bytes())
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    command = [*pip, "-w", str(tmp_path), str(source)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("fastdraw_torch-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for name in ("fastdraw/py.typed", "fastdraw/kernels/cpu/__init__.py", "fastdraw/kernels/triton/__init__.py"):
        assert name in names
    assert not [name for name in names if name.startswith("kernels/") or name.endswith((".cpp", ".h", ".so"))]
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = """
import torch, fastdraw
print(fastdraw.__file__)
print(fastdraw.backends()["native"])
fastdraw.DRAW((1, 6, 5), 2, 4, 3)(torch.rand(2, 1, 6, 5)).loss.backward()
"""
    where, reason = python(code, PYTHONPATH=str(tmp_path / "site")).splitlines()
    assert where.startswith(str(tmp_path))
    assert reason == "the C++ kernels were left out at install time by FASTDRAW_BUILD=0"


def test_public_names_are_documented() -> None:
    for name in fastdraw.__all__:
        value = getattr(fastdraw, name)
        if callable(value):
            assert value.__doc__, name
