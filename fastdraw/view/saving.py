"""What `fastdraw view` and `fastdraw sample` do."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from fastdraw import view
from fastdraw.checks import check_size, expected
from fastdraw.data.arrays import check_memory
from fastdraw.data.bar import bar
from fastdraw.files import check_writable
from fastdraw.runs.device import find_device
from fastdraw.runs.fingerprint import fingerprint
from fastdraw.runs.parallel import ALONE, Processes, local_rank, processes
from fastdraw.runs.run import Run
from fastdraw.view import gallery, picture, pictures, samples


def view_run(
    path: str | os.PathLike[str],
    what: str = "all",
    folder: Path | None = None,
    number: int = 16,
    seed: int = 0,
    data: str | None = None,
    data_dir: str | None = None,
    split: str = "test",
    device: str = "auto",
    note: Callable[[str], None] = lambda line: None,
) -> Iterator[Path]:
    """Draws a run's pictures, and yields the path of each once it is there; see `fastdraw view --help` for the arguments.

    Started by torchrun in several processes, these share the images, and the first one writes and yields.
    Where everything is asked for and the data set cannot be had, `note` is told so in one line and the rest is drawn.
    Raises ValueError or OSError for what a user can mend.
    """
    number = check_size("number", number)
    with processes(find_device(device, local_rank()).type == "cuda") as together:
        if together.size > 1:
            torch.set_num_threads(together.threads())
        run = _open(path, data, data_dir, split, seed, device, together)
        yield from _pictures(run, what, folder, number, note if together.is_first else lambda line: None)


def _pictures(run: Run, what: str, folder: Path | None, number: int, note: Callable[[str], None]) -> Iterator[Path]:
    _check_room(run, number)
    there = gallery.PICTURES[run.task]
    chosen = list(there) if what == "all" else [name.strip() for name in what.split(",")]
    for name in chosen:
        if name not in there:
            raise expected("what", f"all, or some of {', '.join(there)} for this model", name)
    problem = run.data_problem() if any(there[name].data != "no" for name in chosen) else None
    if problem is not None:
        left = [name for name in chosen if there[name].data != "yes"]
        if not left or (what != "all" and left != chosen):
            raise problem
        lost = [*(name for name in chosen if name not in left), "the page's reconstructions"]
        note(f"fastdraw: no data set, and so no {', '.join(lost)}: {' '.join(str(problem).split())}")
        chosen = left
    folder = folder or (Path(f"{run.shipped}-view") if run.shipped else run.file.parent / "view")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"out: expected a folder, got the file {folder}")
    if run.together.is_first:
        folder.mkdir(parents=True, exist_ok=True)
    if run.together.size > 1:
        shown = any(there[name].shared and there[name].data != "no" for name in chosen)
        run.together.agree(
            {
                "run": fingerprint(*run.model.state_dict().values()),
                "configuration": (chosen, number, run.seed),
                "data": fingerprint(getattr(run.splits, run.split)) if shown else None,
            }
        )
    for name in chosen:
        if run.together.is_first:
            yield from there[name].draw(run, folder, number)
        elif there[name].shared:
            there[name].draw(run, folder, number)


#: Images in the picture of the samples, at most.
SHOWN = 400


def save_samples(
    path: str | os.PathLike[str],
    out: Path,
    number: int = 64,
    seed: int = 0,
    labels: str | None = None,
    device: str = "auto",
    npz: bool = False,
    nearest: bool = False,
    gif: bool = False,
    mp4: bool = False,
    data: str | None = None,
    data_dir: str | None = None,
    pngs: bool = False,
    progress: bool = False,
) -> Iterator[Path]:
    """Draws samples: a picture of the first SHOWN, the PNG `out`, and what else is asked for beside it; yields each path once
    it is there. Started by torchrun in several processes, these share the drawing, and the first one writes and yields.

    labels: class numbers, "0,1,2", gone through again and again; None: all classes in turn, for a model that has classes.
    npz, pngs: all of them, in one file or a PNG each, written as they come. progress: whether to show a bar on stderr.
    Raises ValueError or OSError for what a user can mend.
    """
    number = check_size("number", number)
    if out.suffix.lower() != ".png":
        raise expected("out", "a name that ends in .png", str(out))
    check_writable("out", out)
    with processes(find_device(device, local_rank()).type == "cuda") as together, contextlib.ExitStack() as files:
        if together.size > 1:
            torch.set_num_threads(together.threads())
        run = _open(path, data, data_dir, "train", seed, device)
        if run.task != "draw":
            raise expected("run", "a model that draws", f"{run.file}, a classifier")
        shown = min(number, SHOWN)
        _check_room(run, shown)
        shape = (number, *run.config.image_shape)
        samples.check_room(out, 4 * math.prod(shape), packed=True)
        if not (npz or pngs):
            # Nothing is left of more.
            number = shown
        chosen = _labels(run, labels)
        if nearest and (problem := run.data_problem()) is not None:
            raise problem
        given = pictures.classes(run.model, number, chosen)
        columns = pictures.columns(run.model, shown, chosen)
        together.agree({"run": fingerprint(*run.model.state_dict().values()), "configuration": (number, seed, labels)})
        writes: list[samples.Write] = []
        # Everything that may fail was looked at.
        out.absolute().parent.mkdir(parents=True, exist_ok=True)
        if together.is_first and npz:
            writes.append(files.enter_context(samples.npz(out.with_suffix(".npz"), shape, given)))
        if together.is_first and pngs:
            writes.append(files.enter_context(samples.pngs(out.with_suffix(""), shape)))
        images = _drawn(
            pictures.drawn(run.model, number, seed, given, together), number, shown, writes, progress and together.is_first
        )
        # The files are whole, and get their names.
        files.close()
    if images is None:
        return
    view.save_grid(images, out, columns=columns)
    yield out
    yield from [out.with_suffix(".npz")] * npz + [out.with_suffix("")] * pngs
    if nearest:
        yield from gallery.beside_nearest(run, images, out.with_name(f"{out.stem}-nearest.png"))
    for suffix in [".gif"] * gif + [".mp4"] * mp4:
        _, trajectory = pictures.draw_slowly(run.model, number, seed, labels=given)
        beside = out.with_suffix(suffix)
        view.save_drawing(trajectory, beside, write_size=run.config.write_size, columns=columns)
        yield beside


def _drawn(parts: Iterable[Tensor], number: int, shown: int, writes: list[samples.Write], progress: bool) -> Tensor | None:
    """Hands samples to all of `writes` as they come, and gives the first `shown`; None in a process that is given none."""
    first: list[Tensor] = []
    done = 0
    with bar("drawing samples", progress) as report:
        for part in parts:
            for write in writes:
                write(part)
            if done < shown:
                first.append(part[: shown - done])
            done += len(part)
            report(done, number)
    return torch.cat(first) if first else None


def _open(
    path: str | os.PathLike[str],
    data: str | None,
    data_dir: str | None,
    split: str,
    seed: int,
    device: str,
    together: Processes = ALONE,
) -> Run:
    check_size("seed", seed, least=0)
    return Run(path, data, data_dir, split, seed, str(find_device(device, local_rank())), together=together)


def _check_room(run: Run, number: int) -> None:
    """Refuses more images than memory holds in a grid: as numbers, twice while they are put together, and as pixels twice."""
    channels, height, width = run.config.image_shape
    scale = picture.default_scale(None, height, width)
    check_memory("number", number * height * width * (8 * channels + 6 * scale * scale))


def _labels(run: Run, text: str | None) -> list[int] | None:
    number = getattr(run.config, "num_classes", None)
    if text is None:
        return None
    if number is None:
        raise expected("labels", "none for this model, which was trained without classes", text)
    try:
        chosen = [int(part) for part in text.split(",")]
    except ValueError:
        raise expected("labels", "class numbers with commas between them", text) from None
    if not all(0 <= label < number for label in chosen):
        raise expected("labels", f"class numbers from 0 to {number - 1}", text)
    return chosen
