"""The examples run as they stand, for a few steps, and learn in them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

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


def test_the_notebook(tmp_path: Path) -> None:
    """From its first cell to its last, as a script: it has no magics. As it is kept, it was run in order, to its end."""
    pytest.importorskip("sklearn")
    notebook = json.loads((EXAMPLES / "start.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [kind for cell in cells for output in cell["outputs"] for kind in output.get("data", {output["output_type"]})]
    assert "error" not in kinds
    assert kinds.count("image/png") == 2
    (tmp_path / "cells.py").write_text("\n\n".join("".join(cell["source"]) for cell in cells), encoding="utf-8")
    out = run(tmp_path, str(tmp_path / "cells.py"), NOTEBOOK_STEPS="110")
    first, *_, last = (float(nats) for nats in re.findall(r"([\d.]+) nats per image", out))
    assert last < first - 10
    (error,) = re.findall(r"([\d.]+) % told wrong", out)
    # Guessing is wrong nine times out of ten.
    assert float(error) < 90
    for picture in ("drawing.png", "looking.png"):
        assert (tmp_path / picture).read_bytes().startswith(b"\x89PNG")
