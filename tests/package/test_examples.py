"""The examples run as they stand, for a few steps, and learn in them."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fastdraw

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(folder: Path, script: str, *args: str, **variables: str) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", **variables}
    command = [sys.executable, str(EXAMPLES / script), *args]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_training_loop(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    out = run(tmp_path, "train_draw.py", "110")
    nats = [float(text) for text in re.findall(r"(?:step \d+|test): ([\d.]+) nats", out)]
    assert len(nats) == 4
    # The mean image, which training starts from, is worth about 164.
    assert nats[0] > 155
    assert nats[-1] < 150
    model = fastdraw.DRAW.from_pretrained(tmp_path / "draw-digits")
    assert model.sample(2).shape == (2, 1, 28, 28)


def test_lightning(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    pytest.importorskip("lightning")
    (nats,) = re.findall(r"test: ([\d.]+) nats", run(tmp_path, "lightning_draw.py", "110"))
    assert float(nats) < 150


def test_glimpses_in_another_model(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    out = run(tmp_path, "glimpse_classifier.py", "200")
    first, *_, last = (float(nats) for nats in re.findall(r"cross-entropy ([\d.]+) nats", out))
    assert last < first - 0.5
    (error,) = re.findall(r"test: error ([\d.]+) %", out)
    # Guessing is wrong nine times out of ten.
    assert float(error) < 70


def test_something_small_in_a_large_image(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    out = run(tmp_path, "foveated_classifier.py", "60", "--side", "160")
    errors = dict(re.findall(r"(\w+): test error ([\d.]+) %", out))
    # Where it looks was learned; of the whole image as many numbers tell next to nothing.
    assert float(errors["glimpses"]) < 45
    assert float(errors["downsampled"]) > 60


def test_the_readmes_picture(tmp_path: Path) -> None:
    pytest.importorskip("PIL")
    checkpoint = pytest.importorskip("fastdraw.runs.checkpoint")
    torch.manual_seed(0)
    model = fastdraw.DRAW((1, 12, 12), glimpses=8, hidden_size=4, latent_size=2, read_size=2, write_size=3)
    checkpoint.save_checkpoint(tmp_path, checkpoint.Checkpoint(model.config, model.state_dict()))
    run(tmp_path, "drawing.py", str(tmp_path), "picture.png")
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")


def cell_by_cell(sources: list[str]) -> tuple[list[Any], dict[str, Any]]:
    """What each cell of a notebook shows, the value of its last expression, and all names at the end."""
    names: dict[str, Any] = {"__name__": "notebook"}
    shown = []
    for source in sources:
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "cell", "exec"), names)
        shown.append(None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    return shown, names


def test_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """From its first cell to its last, in fewer steps: what it says and keeps of its results is what it computes."""
    pytest.importorskip("sklearn")
    notebook = json.loads((EXAMPLES / "start.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    kinds = [kind for output in outputs for kind in output.get("data", {output["output_type"]})]
    assert "error" not in kinds
    assert kinds.count("image/png") == 2
    kept = "\n".join("".join(output.get("text", output.get("data", {}).get("text/plain", ""))) for output in outputs)
    text = " ".join(" ".join("".join(cell["source"]) for cell in notebook["cells"]).split())

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NOTEBOOK_STEPS", "110")
    shown, got = cell_by_cell(["".join(cell["source"]) for cell in cells])
    said = capsys.readouterr().out
    # Up to the first step nothing hangs on how many follow: it is what is kept.
    loss, *sizes = shown[1]
    assert f"tensor({loss:.1f}" in kept
    assert all(repr(size) in kept for size in sizes)
    assert (
        re.findall(r"step 0: .*", said) == re.findall(r"step 0: .*", kept) == [f"step 0: {got['nats'][0]:.1f} nats per image"]
    )
    # What is kept of the rest is of as many steps as it takes by itself, and better than these few.
    (steps,) = re.findall(r'"NOTEBOOK_STEPS", "(\d+)"', text)
    assert [int(step) for step in re.findall(r"step (\d+):", kept)] == list(range(0, int(steps), int(steps) // 5))
    results = [re.findall(r"test: ([\d.]+) (?:nats|%)", printed) for printed in (said, kept)]
    assert results[0] == [f"{got['held_out']:.1f}", f"{100 * got['wrong']:.1f}"]
    assert all(float(full) < float(few) for few, full in zip(*results, strict=True))
    # It learns: the mean image, from which drawing starts, is worth about 164.
    assert got["held_out"] < 150
    assert f"{len(got['images']):,} real handwritten digits" in text
    assert f"{('Five', 'Six', 'Seven')[len(got['samples']) - 5]} new digits" in text
    # "Nobody tells it where the digit is": the first window is the same for all images, later ones follow the digit.
    test, windows = got["test"][:, 0], got["windows"]
    assert f"{('two', 'three', 'four')[len(windows) - 2]} patches of 12x12" in text
    assert (windows[0] == windows[0][0]).all()
    found = fastdraw.reference.window(windows[-1], 12, tuple(test.shape[1:]))
    for centre, axis in ((found.centre_x, 1), (found.centre_y, 2)):
        profile = test.sum(axis)
        place = (profile * torch.arange(profile.shape[1])).sum(1) / profile.sum(1)
        # Of windows that see nothing of it, 0 give or take 0.07 for 180 images.
        assert torch.corrcoef(torch.stack([centre, place]))[0, 1] > 0.4
    for picture in ("drawing.png", "looking.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
