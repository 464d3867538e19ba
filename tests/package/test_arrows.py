"""The house's parts stand on each other in one order: nothing imports what stands above it, inside functions either."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
#: Each imports of the others only what stands before it. What surrounds the models comes last, in a line for each storey.
ORDER = (
    *("_version", "env", "text", "installed", "shell", "files", "products", "testing", "ops.contract", "dispatch"),
    *("scalars", "checks", "config", "outputs", "layers", "calls", "weights", "pretrained", "state_dict", "capture", "data"),
    *("reference", "kernels", "ops", "boxes", "pyramid"),
    *("sharing", "ports", "graphed", "model", "classifier", "glimpse", "fastdraw"),
    "runs",
    *("evaluation", "view"),
    *("train", "profile"),
    "cli",
    "__main__",
)


def modules(root: Path) -> dict[str, Path]:
    found = {}
    for package, folder in (("fastdraw", root / "fastdraw"), ("fastdraw.kernels", root / "kernels")):
        for path in folder.rglob("*.py"):
            name = ".".join([package, *path.relative_to(folder).with_suffix("").parts])
            found[name.removesuffix(".__init__")] = path
    return found


def part(module: str) -> str:
    if module == "fastdraw.ops.contract":
        return "ops.contract"
    return module.split(".")[1] if "." in module else module


def imported(tree: ast.AST, known: dict[str, Path]) -> Iterator[str]:
    """Names of modules, but for those that only type checkers look at."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                yield name if (name := f"{node.module}.{alias.name}") in known else node.module
        yield from imported(node, known)


def upward(root: Path) -> list[str]:
    """Every import that goes up, or to a part that has no place."""
    known, found = modules(root), []
    for module, path in known.items():
        for name in imported(ast.parse(path.read_text()), known):
            if name.split(".")[0] == "fastdraw" and part(name) != part(module):
                places = [ORDER.index(p) if p in ORDER else -1 for p in (part(module), part(name))]
                if min(places) < 0 or places[0] < places[1]:
                    found.append(f"{module} imports {name}")
    return found


def test_no_arrow_runs_back_up() -> None:
    assert upward(ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "from fastdraw.train.options import TrainOptions",
        "from fastdraw import view",
        "import fastdraw.evaluation.bound",
        "def f():\n    from fastdraw.view.picture import flat",
        "import fastdraw.unheard_of",
    ],
)
def test_one_that_did_would_be_found(line: str, tmp_path: Path) -> None:
    for name in ("runs/held_out.py", "train/options.py", "view/__init__.py"):
        path = tmp_path / "fastdraw" / name
        path.parent.mkdir(parents=True)
        path.write_text(line if name.startswith("runs") else "")
    assert len(upward(tmp_path)) == 1
