"""Packages and where they lie, and the C++ kernels; everything else stands in pyproject.toml.

FASTDRAW_BUILD=0 leaves the C++ kernels out. FASTDRAW_BUILD=1 makes it an error if they cannot be built; otherwise fastdraw is
installed without them, and kernels/cpu/not_built.txt says why.

FASTDRAW_HOME is the repository's address, FASTDRAW_REF the tag or branch: where they are told, the metadata has addresses, and
README's links and pictures lead there from a package index.
"""

import os
import platform
import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent.resolve()
SOURCES = ROOT / "kernels" / "cpu"
HOME, REF = os.environ.get("FASTDRAW_HOME", "").rstrip("/"), os.environ.get("FASTDRAW_REF") or "main"
KERNELS = "fastdraw.kernels.cpu.libfastdraw_cpu"


class PlainWheel(bdist_wheel):
    """Tagged for what it holds: a library for one platform with a plain C interface, which no Python version is part of."""

    def get_tag(self) -> "tuple[str, str, str]":
        return "py3", "none", super().get_tag()[2]


class BuildKernels(build_ext):
    """Builds the C++ kernels by CMake, or by the compiler alone where there is no CMake."""

    def get_ext_filename(self, fullname: str) -> str:
        # A plain C interface, which no Python version is part of.
        return str(Path(*fullname.split("."))) + ".so"

    def run(self) -> None:
        super().run()
        if self.inplace:
            # An editable install: setuptools has copied the library beside its sources, and the reason goes the same way.
            built = Path(self.build_lib, *KERNELS.split(".")[:-1], "not_built.txt")
            put_reason(SOURCES, built.read_text() if built.exists() else None)

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.build_lib, self.get_ext_filename(ext.name)).resolve()
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        reason = build(target, Path(self.build_temp).resolve())
        put_reason(target.parent, reason)
        if reason:
            # What an earlier editable install left must not stand in for what was not built now.
            if self.editable_mode:
                (SOURCES / target.name).unlink(missing_ok=True)
            if os.environ.get("FASTDRAW_BUILD") == "1":
                raise RuntimeError(f"FASTDRAW_BUILD=1, but {reason}")
            self.warn(reason)


def put_reason(folder: Path, reason: "str | None") -> None:
    path = folder / "not_built.txt"
    path.write_text(reason) if reason else path.unlink(missing_ok=True)


def build(target: Path, temp: Path) -> "str | None":
    """Builds the library, or says in one sentence why there is none."""
    if os.environ.get("FASTDRAW_BUILD") == "0":
        return "the C++ kernels were left out at install time by FASTDRAW_BUILD=0"
    if os.name != "posix":
        return "the C++ kernels are built on Linux and macOS only"
    candidates = [os.environ["CXX"]] if os.environ.get("CXX") else ["c++", "g++", "clang++"]
    compiler = next((c for c in candidates if shutil.which(shlex.split(c)[0])), None)
    if compiler is None:
        return "no C++ compiler was at hand at install time"
    shutil.rmtree(temp, ignore_errors=True)
    temp.mkdir(parents=True)
    if shutil.which("cmake"):
        configure = ["cmake", "-S", str(ROOT), "-B", str(temp), f"-DFASTDRAW_OUTPUT={target.parent}"]
        if run(configure) is None and run(["cmake", "--build", str(temp), "--parallel"]) is None and target.exists():
            return None
    error = compile_directly(shlex.split(compiler), target, temp)
    return f"the C++ kernels could not be compiled at install time: {error}" if error else None


def compile_directly(compiler: "list[str]", target: Path, temp: Path) -> "str | None":
    """What CMakeLists.txt says, for machines that have a compiler and no CMake, or none that works."""
    flags = ["-std=c++17", "-O3", "-DNDEBUG", "-fPIC", "-fvisibility=hidden", "-ffp-contract=fast", "-fno-math-errno"]
    levels = ["baseline"]
    if platform.machine() in ("x86_64", "AMD64", "amd64"):
        levels += (SOURCES / "levels.txt").read_text().splitlines()
    digest = runpy.run_path(str(SOURCES / "sources.py"))["digest"](SOURCES)
    objects, has = [], [f"-DFASTDRAW_SOURCES={digest}"]
    for level in levels:
        name, *extra = level.split()
        objects.append(str(temp / f"kernels_{name}.o"))
        has.append(f"-DFASTDRAW_HAS_{name}")
        source = [f"-DFASTDRAW_LEVEL={name}", "-c", str(SOURCES / "kernels.cpp"), "-o", objects[-1]]
        if error := run([*compiler, *flags, *extra, *source]):
            return error
    return run([*compiler, *flags, *has, "-shared", str(SOURCES / "library.cpp"), *objects, "-o", str(target)])


def run(command: "list[str]") -> "str | None":
    """None, or the first line in which the command complains."""
    try:
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    except OSError as error:
        return str(error)
    if result.returncode == 0:
        return None
    print(result.stdout)
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line.lower()), lines[-1] if lines else f"{command[0]} failed")


def described() -> str:
    """README, its links and pictures absolute where the repository's address is known."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    if not HOME:
        return text

    def absolute(link: "re.Match[str]") -> str:
        return f"{link[1]}({HOME}/{'raw' if link[1].startswith('!') else 'blob'}/{REF}/{link[2]})"

    return re.sub(r"(!?\[[^\]]*\])\((?!https?:|#)([^)\s]+)\)", absolute, text)


def addresses() -> "dict[str, str]":
    if not HOME:
        return {}
    pages = {"Documentation": "docs", "Changelog": "CHANGELOG.md"}
    return {"Source": HOME, "Issues": f"{HOME}/issues", **{name: f"{HOME}/blob/{REF}/{at}" for name, at in pages.items()}}


setup(
    long_description=described(),
    long_description_content_type="text/markdown",
    project_urls=addresses(),
    py_modules=["fastdraw_command"],
    packages=[
        *find_packages(include=["fastdraw", "fastdraw.*"]),
        # No Python in it: the page's own files.
        "fastdraw.view.page",
        "fastdraw.kernels",
        "fastdraw.kernels.cpu",
        "fastdraw.kernels.triton",
    ],
    package_dir={"fastdraw.kernels": "kernels"},
    package_data={"fastdraw": ["py.typed"], "fastdraw.view.page": ["*"], "fastdraw.pretrained": ["*/*"]},
    exclude_package_data={"fastdraw.kernels.cpu": ["*.cpp", "*.h", "levels.txt", ".gitignore"]},
    ext_modules=[Extension(KERNELS, sources=[], optional=True)],
    cmdclass={"bdist_wheel": PlainWheel, "build_ext": BuildKernels},
)
