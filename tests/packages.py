"""Builds the sdist and, out of it, the wheel; installs each where nothing is but what it asks for, and uses it there.

    python tests/packages.py [FOLDER]     leaves both in FOLDER, if one is named

Nothing is fetched: the environments get torch, numpy and triton, with what those need, as links to the packages of the Python
that runs this. So what an extra brings is missing there, as it is after a plain `pip install`.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def needed(*names: str) -> set[str]:
    """These distributions and all that they need here, without extras."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in found:
            continue
        found.add(name)
        for text in metadata.requires(name) or ():
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                waiting.append(wanted.name)
    return found


def environment(folder: Path, *names: str) -> Path:
    """An environment with links to these distributions and what they need; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    for name in needed(*names):
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution.locate_file(top))))
    return folder / "bin" / "python"


def said(*command: str | Path, cwd: Path, code: int = 0) -> str:
    done = subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}"
    return done.stdout


def build(folder: Path) -> list[Path]:
    """[sdist, wheel]; the wheel is made of the sdist."""
    backend = "import sys, setuptools.build_meta as b; print(b.build_sdist(sys.argv[1]))"
    said(sys.executable, "-c", backend, folder, cwd=ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "--no-index")
    said(*pip, "-w", folder, sdist, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    return [sdist, wheel]


def use(package: Path, folder: Path) -> str:
    """Installs the package and uses it; what it says."""
    own = [Requirement(text) for text in metadata.requires("fastdraw-torch") or ()]
    names = [r.name for r in own if r.marker is None or r.marker.evaluate({"extra": ""})]
    python = environment(folder / "environment", *names, *(["setuptools"] if package.suffix == ".gz" else []))
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-build-isolation", "--no-index")
    said(*pip, package, cwd=folder)
    out = said(python, ROOT / "tests" / "smoke.py", cwd=folder)
    assert 'pip install "fastdraw-torch[train]"' in said(python, "-m", "fastdraw", "train", cwd=folder, code=2)
    return out


def main(out: Path | None) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        made = folder / "packages"
        made.mkdir()
        for package in build(made):
            if package.suffix == ".whl":
                assert re.fullmatch(r"fastdraw_torch-[\d.]+-py3-none-(?!any)\w+\.whl", package.name), package.name
                names = zipfile.ZipFile(package).namelist()
                assert "fastdraw/kernels/cpu/libfastdraw_cpu.so" in names
                for part in ("model.safetensors", "config.json", "README.md"):
                    assert f"fastdraw/pretrained/mnist/{part}" in names
                assert not [name for name in names if name.endswith((".cpp", ".h", "levels.txt"))]
            place = folder / package.suffix
            place.mkdir()
            print(package.name, use(package, place), sep="\n")
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                (out / package.name).write_bytes(package.read_bytes())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python tests/packages.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="leaves both there")
    main(parser.parse_args().folder)
