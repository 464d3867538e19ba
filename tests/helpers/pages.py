"""A page of a few images in a few glimpses, and what it holds."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastdraw import reference
from fastdraw.view import Group, Record, record, save_page

#: Glimpses and images.
T, N = 12, 4


def model_with_windows(**sizes: Any) -> reference.DRAW:
    """Windows that move and patches that show, without training."""
    torch.manual_seed(3)
    model = reference.DRAW((1, 12, 16), glimpses=T, hidden_size=8, latent_size=4, **{"read_size": 3, "write_size": 2, **sizes})
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "attention" in name:
                parameter.copy_(0.7 * torch.randn(parameter.shape))
            if name == "patch.weight":
                parameter.mul_(60)
    return model


def two_records() -> tuple[Record, Record]:
    """Of reconstructions, and of samples."""
    model = model_with_windows()
    x = torch.rand(N, 1, 12, 16)
    return record(model, x, torch.randn(T, N, 4)), record(model, None, torch.randn(T, N, 4))


def write_page(records: tuple[Record, Record], path: Path) -> Path:
    read, drawn = records
    notes = [f"Class {i}" for i in range(N)]
    groups = [
        Group("Reconstructions", "Drawn again.", read, 2, 3, read.kl, "KL", "nats"),
        Group("Samples", "Drawn from noise.", drawn, 2, None, drawn.moved, "Change", "%", notes),
    ]
    save_page(groups, path, "DRAW: a test", "a fact")
    return path


def held(page: Path) -> Any:
    """What the page's script is given."""
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def cells(sheet: dict[str, Any]) -> np.ndarray:
    """uint8 [T, h, w, 3] out of a data URL."""
    data = base64.b64decode(sheet["src"].partition(",")[2])
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    height, width, columns = sheet["height"], sheet["width"], sheet["columns"]
    places = [divmod(t, columns) for t in range(sheet["cells"])]
    return np.stack([pixels[r * height : (r + 1) * height, c * width : (c + 1) * width] for r, c in places])
