"""Everything there is to see of a trained run, as `fastdraw view` writes it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw.runs.parallel import in_order
from fastdraw.runs.run import Run
from fastdraw.view import pictures
from fastdraw.view.attention import save_attention, save_attention_film
from fastdraw.view.drawing import save_drawing, save_strip
from fastdraw.view.grid import save_grid, save_pairs
from fastdraw.view.neighbours import nearest
from fastdraw.view.plot import save_kl
from fastdraw.view.record import Record, look, record
from fastdraw.view.webpage import Group, save_page

#: Images whose KL per glimpse is averaged, and how many go through the model at once.
KL_IMAGES, BATCH = 1000, 100
#: Numbers in all the canvases that a picture keeps at once; of large images fewer are shown.
MOST = 30_000_000
#: Rows of pictures that have a row an image.
ROWS = 6


def samples(run: Run, folder: Path, count: int) -> list[Path]:
    path = folder / "samples.png"
    drawn = list(pictures.drawn(run.model, count, run.seed, together=run.together))
    if drawn:
        save_grid(torch.cat(drawn), path, columns=pictures.columns(run.model, count))
    return [path]


def nearest_images(run: Run, folder: Path, count: int) -> list[Path]:
    return beside_nearest(run, pictures.draw(run.model, count, run.seed), folder / "nearest.png")


def beside_nearest(run: Run, drawn: Tensor, path: Path) -> list[Path]:
    """Samples, each beside the training image that it comes closest to."""
    training = run.finished("train")
    save_pairs(drawn, training[nearest(drawn, training)].float() / 255, path)
    return [path]


def drawing(run: Run, folder: Path, count: int) -> list[Path]:
    _, trajectory = pictures.draw_slowly(run.model, _fitting(run, count), run.seed)
    paths = [folder / "drawing.gif", folder / "drawing.mp4"]
    for path in paths:
        save_drawing(trajectory, path, write_size=run.config.write_size)
    return paths


@torch.inference_mode()
def strip(run: Run, folder: Path, count: int) -> list[Path]:
    x, labels = run.images(_fitting(run, min(count, ROWS)))
    _, trajectory = run.model.reconstruct(x, run.noise("windows", len(x)), return_trajectory=True, **run.given(labels))
    path = folder / "windows.png"
    save_strip(trajectory, path, write_size=run.config.write_size, read_size=run.config.read_size, images=x)
    return [path]


@torch.inference_mode()
def reconstructions(run: Run, folder: Path, count: int) -> list[Path]:
    x, labels = run.images(count)
    path = folder / "reconstructions.png"
    save_pairs(x, run.model.reconstruct(x, run.noise("reconstructions", len(x)), **run.given(labels)), path)
    return [path]


@torch.inference_mode()
def kl(run: Run, folder: Path, count: int) -> list[Path]:
    x, labels = run.images(KL_IMAGES)
    noise, given, together = run.noise("kl", len(x)), run.given(labels), run.together

    def parts() -> Iterator[tuple[torch.Tensor]]:
        for start in range(BATCH * together.rank, len(x), BATCH * together.size):
            rows = slice(start, start + BATCH)
            yield (run.model(x[rows], noise[:, rows], **{name: value[rows] for name, value in given.items()}).kl,)

    path, found = folder / "kl.png", torch.cat([part for (part,) in in_order(together, parts())], 1)
    if together.is_first:
        save_kl(found, path, f"{run.splits.name}, {run.split} images")
    return [path]


def attention(run: Run, folder: Path, count: int) -> list[Path]:
    x, found, notes = _attended(run, count)
    paths = [folder / f"attention.{suffix}" for suffix in ("png", "gif", "mp4")]
    few = type(found)(*(field[:, :ROWS] for field in found))
    save_attention(x[:ROWS], few, paths[0], run.config.read_size, notes[:ROWS])
    for path in paths[1:]:
        save_attention_film(x, found, path, run.config.read_size)
    return paths


def page(run: Run, folder: Path, count: int) -> list[Path]:
    c, path = run.config, folder / "page.html"
    about = [run.data_name or run.file.name, f"{c.glimpses} glimpses"]
    sizes = {"read": c.read_size, "write": getattr(c, "write_size", None)}
    about += [f"{verb} {size}x{size}" for verb, size in sizes.items() if size is not None]
    groups = _attention_group(run, count) if run.task == "classify" else _draw_groups(run, count)
    save_page(groups, path, f"DRAW: {run.data_name or run.file.name}", " · ".join(about))
    return [path]


def _fitting(run: Run, count: int) -> int:
    return max(1, min(count, MOST // (run.config.glimpses * math.prod(run.config.image_shape))))


def _draw_groups(run: Run, count: int) -> list[Group]:
    config, groups, count = run.config, [], _fitting(run, count)
    writes = "writes through the red one" if config.write_size is not None else "writes to all of the canvas"
    if run.has_data:
        x, labels = run.images(count)
        r = record(run.model, x, run.noise("page", len(x)), **run.given(labels))
        reads = "reads through the blue window" if config.read_size is not None else "reads all of the image"
        about = f"Images of the {run.split} set, drawn again: each glimpse {reads}, then {writes}."
        sizes = (config.write_size, config.read_size)
        groups.append(Group("Reconstructions", about, r, *sizes, r.kl, "KL of this glimpse", "nats"))
    labels = pictures.classes(run.model, count)
    given = {} if labels is None else {"labels": labels}
    r = record(run.model, None, run.noise("samples", count), **given)
    notes = [] if labels is None else [f"Class {label}" for label in labels.tolist()]
    about = f"Images drawn from nothing but noise: each glimpse {writes.replace('red one', 'red window')}."
    groups.append(Group("Samples", about, r, config.write_size, None, r.moved, "Mean change of a pixel", "%", notes))
    return groups


def _attention_group(run: Run, count: int) -> list[Group]:
    x, found, notes = _attended(run, count)
    x = x.cpu().double()
    seen = look(x[None].expand(len(found.sigma), *x.shape), found, run.config.read_size)
    still = Record(x, read_windows=found, read=seen)
    about = "Where the classifier looks before it tells the class: in each glimpse through the blue window."
    return [Group("Attention", about, still, None, run.config.read_size, notes=notes)]


@torch.inference_mode()
def _attended(run: Run, count: int):
    x, labels = run.images(count)
    logits, found = run.model.attend(x)
    told = logits.argmax(1).tolist()
    notes = [f"says {one}" for one in told]
    if labels is not None:
        notes = [f"{note}, is {label}" for note, label in zip(notes, labels.tolist(), strict=True)]
    return x, found, notes


class Picture(NamedTuple):
    """draw(run, folder, count) gives the files it wrote.

    data: whether it needs the data set: yes; no; or more, where it shows more with it. shared: whether all of the run's
    processes draw it together, of which the first one writes; few images are the first one's alone.
    """

    draw: Callable[[Run, Path, int], list[Path]]
    data: str
    shared: bool = False


#: What can be drawn of a model, by task and name, in the order in which it is.
PICTURES: dict[str, dict[str, Picture]] = {
    "draw": {
        "samples": Picture(samples, "no", shared=True),
        "drawing": Picture(drawing, "no"),
        "reconstructions": Picture(reconstructions, "yes"),
        "windows": Picture(strip, "yes"),
        "kl": Picture(kl, "yes", shared=True),
        "nearest": Picture(nearest_images, "yes"),
        "page": Picture(page, "more"),
    },
    "classify": {"attention": Picture(attention, "yes"), "page": Picture(page, "yes")},
}
