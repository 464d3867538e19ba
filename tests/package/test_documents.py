"""What README and docs/ show is so: every block of Python runs, and every command has the options it is shown with."""

from __future__ import annotations

import argparse
import importlib.util
import pkgutil
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from documents import PAGES, ROOT, commands, named, python_blocks

import fastdraw

B = 2


def small(**changes: Any) -> fastdraw.DRAW:
    return fastdraw.DRAW(**{"glimpses": 2, "hidden_size": 8, "latent_size": 4, **changes})


def for_readme(folder: Path) -> dict[str, Any]:
    other = torch.nn.LSTMCell(6, 16)
    return {
        "x": torch.rand(B, 1, 28, 28),
        "batches": torch.rand(1, B, 1, 28, 28),
        "layer": torch.nn.Linear(16, 5),
        "image": torch.rand(B, 3, 64, 64),
        "state": torch.randn(B, 16),
        **dict(zip(("w_ih", "w_hh", "b_ih", "b_hh"), other.parameters(), strict=True)),
        "inputs": torch.rand(B, 6),
        "h": torch.rand(B, 16),
        "c": torch.rand(B, 16),
        "several": torch.zeros(B, 4, 5),
        "seven": torch.zeros(B, 7),
        "boxes": torch.tensor([8.0, 8, 40, 24]).expand(B, 3, 4),
        "few": torch.tensor([[8.0, 8, 40, 24]]),
        "index": torch.tensor([1]),
        "pictures": torch.rand(B, 1, 100, 100),
        "labels": torch.tensor([3, 9]),
    }


def for_ports(folder: Path) -> dict[str, Any]:
    sizes = {"z_linear": 200, "write_linear": 25, "read_attention_linear": 5, "write_attention_linear": 5}
    port = torch.nn.ModuleDict({name: torch.nn.Linear(256, size) for name, size in sizes.items()})
    port["encoder"], port["decoder"] = torch.nn.LSTMCell(2 * 2**2 + 256, 256), torch.nn.LSTMCell(100, 256)
    torch.save({"model_state_dicts": [port.state_dict()]}, folder / "state_checkpoint.pt")
    return {}


def for_crops(folder: Path) -> dict[str, Any]:
    image = torch.rand(B, 3, 64, 64)
    box = torch.tensor([8.0, 8, 40, 24])
    return {
        "image": image,
        "H": 64,
        "W": 64,
        "photograph": image.mul(255).byte(),
        "boxes": box.expand(B, 3, 4),
        "box": box.expand(B, 4),
        "few": box.expand(1, 4),
        "index": torch.tensor([1]),
    }


def for_sharing(folder: Path) -> dict[str, Any]:
    from fastdraw.runs.checkpoint import Checkpoint, save_checkpoint

    model = small()
    (folder / "runs" / "mnist").mkdir(parents=True)
    save_checkpoint(folder / "runs" / "mnist", Checkpoint(model.config, model.state_dict()))
    return {"model": model}


#: What a page's blocks take for granted: names, and files in the folder that they run in.
GIVEN: dict[str, Callable[[Path], dict[str, Any]]] = {
    "README.md": for_readme,
    "docs/coming-from-other-ports.md": for_ports,
    "docs/crops.md": for_crops,
    "docs/sharing.md": for_sharing,
}
#: Blocks that cannot run here, each with a comment above it that says why: a new one has to be counted.
NOT_RUN = {"docs/sharing.md": 1}
WITH_PYTHON = [page for page in PAGES if python_blocks(page)]


@pytest.mark.parametrize("page", WITH_PYTHON, ids=named)
def test_blocks_of_python_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    given: dict[str, Any] = {"torch": torch, "fastdraw": fastdraw, **GIVEN.get(named(page), lambda _: {})(tmp_path)}
    left = 0
    for block in python_blocks(page):
        # Errors name the page and its line.
        code = compile("\n" * (block.line - 1) + block.text, named(page), "exec", dont_inherit=True)
        if block.reason is None:
            exec(code, given)
        left += block.reason is not None
    assert left == NOT_RUN.get(named(page), 0)


class Parsed(Exception):
    """The command's options were understood; nothing of it is run."""


def parse_fastdraw(words: list[str]) -> None:
    import typer

    from fastdraw.cli import _app
    from fastdraw.cli.train import spelled

    group: Any = typer.main.get_command(_app())
    assert words[0] in group.commands, f"expected one of {', '.join(group.commands)}"
    if words[1:] not in ([], ["--help"]):
        group.commands[words[0]].make_context(words[0], (spelled(words) if words[0] == "train" else words)[1:])


def parse_module(module: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if module in ("fastdraw", "fastdraw.__main__"):
        parse_fastdraw(words)
        return
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"no module {module}"
    if spec.submodule_search_locations is not None:
        spec = importlib.util.find_spec(f"{module}.__main__")
        assert spec is not None, f"{module} is no command"
    assert spec.origin is not None
    parse_script(Path(spec.origin), words, monkeypatch, module)


def parse_script(path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, module: str | None = None) -> None:
    assert path.is_file(), f"no file {path}"
    source = path.read_text(encoding="utf-8")
    assert '__name__ == "__main__"' in source or "parse_args" in source, f"{path} does nothing when it is run"
    if "parse_args" not in source:
        # It looks at words by itself, if at any.
        assert "sys.argv" in source or not words, f"{path} takes nothing"
        return
    if not words:
        # The name alone, in a sentence, of what wants more to run.
        return
    monkeypatch.setattr("sys.argv", [str(path), *words])
    with pytest.raises(Parsed):
        runpy.run_module(module, run_name="__main__") if module else runpy.run_path(str(path), run_name="__main__")


def parse_pytest(words: list[str]) -> None:
    for word in words:
        if "/" in word and not word.startswith("-"):
            assert (ROOT / word).exists(), f"no {word}"


def parse_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        assert re.search(rf"(?m)\b{name}\b" if is_variable else rf"(?m)^{name}:", makefile), f"nothing in Makefile for {word}"


def parse(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    while "=" in words[0] or words[0] == "srun":
        words = words[1:]
    tool, *rest = words
    if tool == "fastdraw":
        parse_fastdraw(rest)
    elif tool == "pytest":
        parse_pytest(rest)
    elif tool == "make":
        parse_make(rest)
    elif "-m" in rest:
        # Python's own options, or torchrun's, stand before; a shell's words behind || and && are its own.
        at = rest.index("-m")
        ends = next((i for i, word in enumerate(rest) if word in ("||", "&&", ";")), len(rest))
        if rest[at + 1] != "timeit":
            parse_module(rest[at + 1], rest[at + 2 : ends], monkeypatch)
    elif rest[0] != "-c":
        parse_script(ROOT / rest[0], rest[1:], monkeypatch)


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=named)
def test_commands_have_the_options_that_are_shown(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT)
    original = argparse.ArgumentParser.parse_args

    def parsed(self: argparse.ArgumentParser, *given: Any, **options: Any) -> None:
        original(self, *given, **options)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)
    wrong = []
    for words in commands(page):
        try:
            parse(words, monkeypatch)
        except (Exception, SystemExit, pytest.fail.Exception) as error:
            wrong.append(f"{' '.join(words)}: {error!r}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_names_and_files_that_are_spoken_of_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = []
    for name in sorted(set(re.findall(r"(?<![\w/.-])fastdraw(?:\.[A-Za-z]\w*)+(?![\w/])", text))):
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError):
            missing.append(name)
    # What was at a commit may be gone.
    path = r"(?<![\w/.-])(?:fastdraw|kernels|benchmarks|tests|docs|examples)/[\w/.-]*\w(?!\S*\s+of commit)"
    paths = re.findall(path, text)
    missing += [path for path in sorted(set(paths)) if not (ROOT / path).exists()]
    assert not missing


def test_the_api_page_has_every_public_name() -> None:
    """As what it is: not as the module of the same name, whose inner functions would stand there too."""
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = re.findall(r"^::: fastdraw\.([\w.]+)$", text, re.MULTILINE)
    spoken = re.findall(r"`fastdraw\.(\w+)`", text)
    assert {name.split(".")[-1] for name in named} | set(spoken) == set(fastdraw.__all__) - {"__version__"}
    for name in named:
        assert not (ROOT / "fastdraw" / "ops" / f"{name}.py").exists(), f"fastdraw.{name} is a module to the site's tool"
