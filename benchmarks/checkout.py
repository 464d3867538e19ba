"""Makes this checkout importable as it stands, without installing it: fastdraw.kernels lies in kernels/, beside fastdraw/."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


class _Kernels(MetaPathFinder):
    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname != "fastdraw.kernels":
            return None
        folder = ROOT / "kernels"
        return spec_from_file_location(fullname, folder / "__init__.py", submodule_search_locations=[str(folder)])


def activate() -> None:
    """Safe to call twice. An installed fastdraw.kernels is still found first, since this finder is asked last."""
    if not any(isinstance(finder, _Kernels) for finder in sys.meta_path):
        sys.meta_path.append(_Kernels())
    # tests/ has the error budget (budget.py), which benchmarks hold every kernel to before they time it.
    for folder in (ROOT / "tests", ROOT):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
