"""One HTML page in which a person scrubs through the glimpses. It holds everything and loads nothing."""

from __future__ import annotations

import base64
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from fastdraw.checks import check_tensor, expected
from fastdraw.installed import needs_extra
from fastdraw.outputs import Window
from fastdraw.text import printable
from fastdraw.view import picture, rectangles
from fastdraw.view.record import Record

if TYPE_CHECKING:
    from PIL.Image import Image

#: Images are shown in at most so many pixels along each side; larger ones are made smaller.
LARGEST = 128
#: Bytes of frames beyond which they are stored with a loss that the eye hardly sees.
EXACT = 3_000_000


@dataclass(frozen=True)
class Group:
    """Images of one kind, which the page shows together.

    name, about: a word or two for the choice, and a sentence or two for whoever sees it for the first time.
    record:      what happened in each glimpse. Without frames the page shows the images themselves.
    write_size, read_size: N of the windows that there are.
    curve:       [T, n], a number a glimpse for each image, with its name and unit; None: no curve.
    notes:       what is said of each image while it is chosen, n of them.
    """

    name: str
    about: str
    record: Record
    write_size: int | None = None
    read_size: int | None = None
    curve: Tensor | None = None
    curve_name: str = ""
    curve_unit: str = ""
    notes: Sequence[str] = ()


def save_page(groups: Sequence[Group], path: str | os.PathLike[str], title: str = "DRAW", facts: str = "") -> None:
    """Writes an HTML page of the groups' images: a slider, arrow keys, windows, patches and curves, on a desk or a phone.

    The page is one file that needs no network, no server and no fonts of its own. title: of the browser's tab. facts: a line
    below the page's heading; both are plain text.

    Writes and raises as `save_grid` does.
    """
    with needs_extra("drawing pictures"):
        import PIL  # noqa: F401
    if not isinstance(groups, (list, tuple)) or not all(isinstance(g, Group) and isinstance(g.record, Record) for g in groups):
        raise expected("groups", "a list of Group", groups, TypeError)
    if not groups:
        raise expected("groups", "at least one", groups)
    size = sum(part.numel() for g in groups for part in (g.record.frames, g.record.images) if part is not None)
    data = {"title": printable(title), "facts": printable(facts), "groups": [_group(g, exact=size <= EXACT) for g in groups]}
    # "<" could end the element that holds the text.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    page = _part("page.html").replace("/*STYLE*/", _part("page.css"), 1).replace("/*SCRIPT*/", _part("page.js"), 1)
    page = page.replace("__DATA__", text, 1)
    picture.save(path, lambda file: file.write(page.encode()))


def _part(name: str) -> str:
    return resources.files("fastdraw.view").joinpath("page", name).read_text(encoding="utf-8")


def _group(g: Group, exact: bool) -> dict[str, Any]:
    r = g.record
    frames, images = r.frames, r.images
    shown = images[None] if frames is None and images is not None else frames
    if shown is None:
        raise expected("record", "frames or images", r)
    _, n, _, height, width = check_tensor("frames", shown, "T", "n", "C", "H", "W").shape
    found = {"write": _boxes(r.write_windows, g.write_size), "read": _boxes(r.read_windows, g.read_size)}
    steps = max(len(shown), *(len(boxes) for boxes in found.values() if boxes is not None), 1)
    sheets: dict[str, list[dict[str, Any]]] = {}
    if frames is not None:
        sheets["frames"] = _sheets(_shrunk(frames), exact)
    if images is not None:
        sheets["image"] = _sheets(_shrunk(images[None]), exact)
    for name, patches in (("seen", r.read), ("error", r.error), ("written", r.written)):
        if patches is not None:
            sheets[name] = _sheets(patches if name == "seen" else _signed(patches), exact=True)
    items: list[dict[str, Any]] = []
    for i in range(n):
        item: dict[str, Any] = {"name": f"image {i + 1}", "note": printable(g.notes[i]) if g.notes else ""}
        item |= {name: made[i] for name, made in sheets.items()}
        item |= {name: [_numbers(box) for box in boxes[:, i]] for name, boxes in found.items() if boxes is not None}
        if g.curve is not None:
            item["curve"] = [round(float(value), 4) for value in g.curve[:, i]]
        items.append(item)
    curve = None
    if g.curve is not None:
        top = float(g.curve.max())
        curve = {"name": g.curve_name, "unit": g.curve_unit, "top": top if top > 0 else 1.0, "digits": 2}
    size = [int(height), int(width)]
    return {
        "name": printable(g.name),
        "about": printable(g.about),
        "size": size,
        "steps": int(steps),
        "curve": curve,
        "items": items,
    }


def _boxes(found: Window | None, size: int | None) -> np.ndarray | None:
    shape = (0, 0) if found is None else (int(found.sigma.shape[0]), int(found.sigma.shape[1]))
    return rectangles.to_numpy("windows", found, "size", size, shape)


def _numbers(box: np.ndarray) -> list[float] | None:
    """Centre x, centre y, half the side, sigma, as the page takes them; None where they are not finite."""
    return [round(float(value), 2) for value in box] if np.isfinite(box).all() else None


def _shrunk(images: Tensor) -> Tensor:
    """[T, n, C, H, W] with no side above LARGEST."""
    *front, height, width = images.shape
    factor = LARGEST / max(height, width)
    if factor >= 1:
        return images
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    small = torch.nn.functional.interpolate(images.flatten(0, 1), size, mode="area")
    return small.view(*front, *size)


def _signed(patches: Tensor) -> Tensor:
    """Numbers round zero as shades round grey; all but the largest twentieth of them are told apart."""
    largest = patches.abs().flatten().double().quantile(0.95) if patches.numel() < 2**24 else patches.abs().max()
    return (0.5 + 0.5 * patches / largest.clamp(min=1e-12)).clamp(0, 1)


def _coded(image: Image, kind: str, options: dict[str, Any]) -> str:
    return base64.b64encode(picture.encoded(lambda file: image.save(file, kind, **options))).decode()


def _sheets(cells: Tensor, exact: bool) -> list[dict[str, Any]]:
    """[T, n, C, h, w] in [0, 1] -> for each of n images its T cells in one picture, as a data URL."""
    from PIL import Image as images

    steps, n, channels, height, width = cells.shape
    columns = math.ceil(math.sqrt(steps))
    made = []
    for i in range(n):
        sheet = np.zeros((math.ceil(steps / columns) * height, columns * width, 3), np.uint8)
        for t, pixels in enumerate(picture.to_bytes("images", cells[:, i].clamp(0, 1))):
            top, left = t // columns * height, t % columns * width
            sheet[top : top + height, left : left + width] = pixels
        image = images.fromarray(sheet[..., 0] if channels == 1 else sheet)
        kind, options = ("PNG", {"optimize": True}) if exact else ("JPEG", {"quality": 90, "subsampling": 0})
        src = f"data:image/{kind.lower()};base64,{_coded(image, kind, options)}"
        made.append({"src": src, "columns": columns, "cells": int(steps), "height": int(height), "width": int(width)})
    return made
