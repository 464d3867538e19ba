"""A folder of image files, of any depth, in the order of their names. docs/data.md says what is taken for what."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fastdraw.data import pictures
from fastdraw.data.arrays import check_memory
from fastdraw.data.splits import DataError, Splits, complete

#: A folder of one of these names holds that part.
_PARTS = {
    "train": re.compile(r"train(ing)?([-_ ]?(set|data|images?|split|\d+))?|(set|data|images?)[-_ ]train(ing)?", re.I),
    "validation": re.compile(
        r"(val|valid|validation|dev)([-_ ]?(set|data|images?|split|\d+))?|(set|data|images?)[-_ ](val|valid|validation)", re.I
    ),
    "test": re.compile(r"test(ing)?([-_ ]?(set|data|images?|split|\d+))?|(set|data|images?)[-_ ]test(ing)?", re.I),
}
#: Files that a run writes: the folder that holds one is the run's own.
RUN = ("checkpoint.safetensors", "metrics.jsonl")
#: Pictures that runs put there, where images to train on lie in the same folder.
_RUN_PICTURES = re.compile(r"samples(-nearest)?\.png|drawing\.gif", re.I)
_RUN_FOLDERS = ("view",)
#: Pictures that are not read.
_OTHERS = (
    ".heic",
    ".heif",
    ".avif",
    ".jp2",
    ".j2k",
    ".jxl",
    ".tga",
    ".svg",
    ".psd",
    ".dng",
    ".ico",
    ".eps",
    ".pdf",
    ".npy",
)
#: Files named in a message; of more, their number.
_NAMED = 20


@dataclass
class Found:
    """Files in the order of their names, and what was left out and why: notes by the reason."""

    files: list[Path] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)

    def leave(self, reason: str, name: object) -> None:
        self.left_out.setdefault(reason, []).append(str(name))

    def notes(self) -> list[str]:
        return [f"left out: {_listed(names)} ({reason})" for reason, names in self.left_out.items()]


def load(path: Path, image_size: tuple[int, int] | None = None, skip_bad: bool = False) -> Splits:
    """Every image under `path`; grey where more than half of them are, RGB otherwise.

    Folders named train, val and test (and the like) are the splits; other folders are classes. Raises DataError.

    image_size: (height, width) that each is brought to, by the largest middle part of that form; None: all must have one size.
    skip_bad:   leave out files that cannot be read. Otherwise they are named, all at once.
    """
    found = find(path)
    if not found.files:
        notes = "".join(f"; {note}" for note in found.notes())
        raise DataError(f"{path}: expected a folder with images ({', '.join(pictures.FORMATS)}), got none{notes}")
    places = _places(path, found)
    looks = _each(list(places), lambda file: pictures.look(file, image_size), found)
    mode = "L" if 2 * sum(seen.grey for seen in looks.values()) > len(looks) else "RGB"
    ink, light = (sum(seen.ink[i] for seen in looks.values()) for i in (0, 1))
    # Dark ink is seen on white, light ink on black.
    ground = 255 if ink and light / ink < 128 else 0
    read, pixels = _decoded(list(looks), mode, image_size, ground, found)
    # They begin with the file.
    found.bad.sort()
    if found.bad and not skip_bad:
        raise DataError(
            f"{path}: expected images that can be read, got {len(found.bad)} that cannot: {_listed(found.bad, '; ')}; "
            "skip_bad (--skip-bad) leaves them out"
        )
    if not read:
        raise DataError(f"{path}: expected images that can be read, got none: {_listed(found.bad, '; ')}")
    for why in found.bad:
        found.leave("cannot be read", why)
    frames = {file: looks[file].frames for file in read if looks[file].frames > 1}
    if frames:
        names = [str(file.relative_to(path)) for file in frames]
        found.leave(f"{sum(frames.values()) - len(frames)} frames or pages after the first", _listed(names))
    turned = sum(looks[file].grey != (mode == "L") for file in read)
    converted = [f"{turned} {'colour images turned grey' if mode == 'L' else 'grey images given three channels'}"] * bool(
        turned
    )
    return _split({file: places[file] for file in read}, pixels, path, [*found.notes(), *converted])


def find(path: Path) -> Found:
    """Image files under `path`, sorted by their names from there on; hidden ones, links to folders and runs are left out."""
    if path.resolve() == path.resolve().parent:
        raise DataError(f"data: expected a folder of images, got {path}, which holds everything")
    found = Found()

    def unreadable(error: OSError) -> None:
        found.bad.append(f"{error.filename}: expected a readable folder, got: {error.strerror}")

    for folder, folders, files in os.walk(path, onerror=unreadable):
        here, inside = Path(folder), []
        runs_own = any(name in RUN for name in files)
        if runs_own and here != path:
            found.leave("a run's own folder", here.relative_to(path))
            folders.clear()
            continue
        for name in sorted(folders):
            if runs_own and name in _RUN_FOLDERS:
                found.leave("a run's own", here.relative_to(path) / name)
            elif os.path.islink(here / name):
                found.leave("a link to a folder", here.relative_to(path) / name)
            elif not name.startswith("."):
                inside.append(name)
        folders[:] = inside
        for name in files:
            suffix = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if runs_own and _RUN_PICTURES.fullmatch(name):
                found.leave("a run's own", name)
            elif suffix in pictures.FORMATS:
                found.files.append(here / name)
            elif suffix in _OTHERS:
                found.leave(f"{suffix} files are not read", here.relative_to(path) / name)
    found.files.sort(key=lambda file: file.relative_to(path).as_posix())
    return found


@dataclass(frozen=True)
class Place:
    """The part that a file's folders name, and the others of them."""

    part: str | None
    folders: tuple[str, ...]


def _places(path: Path, found: Found) -> dict[Path, Place]:
    """Where each file belongs, those that belong nowhere left out."""
    places = {}
    for file in found.files:
        folders = file.relative_to(path).parts[:-1]
        at = next((i for i, name in enumerate(folders) if _part(name)), None)
        places[file] = Place(None, folders) if at is None else Place(_part(folders[at]), folders[:at] + folders[at + 1 :])
    parts = {place.part for place in places.values()} - {None}
    if not parts:
        return places
    if "train" not in parts:
        raise DataError(f"{path}: expected a folder train beside those of {' and '.join(sorted(map(str, parts)))}, got none")
    for file in [file for file, place in places.items() if place.part is None]:
        found.leave("beside the folders of the splits", file.relative_to(path))
        del places[file]
    return places


def _part(name: str) -> str | None:
    return next((part for part, names in _PARTS.items() if names.fullmatch(name)), None)


def _each(files: list[Path], work: Callable[[Path], Any], found: Found) -> dict[Path, Any]:
    """What `work` gives of each file; those of which it does not are bad."""
    results = {}
    for file in files:
        try:
            results[file] = work(file)
        except DataError as error:
            found.bad.append(str(error))
    return results


def _decoded(
    files: list[Path], mode: str, image_size: tuple[int, int] | None, ground: int, found: Found
) -> tuple[list[Path], np.ndarray]:
    """The files that could be read, and uint8 [n, C, H, W] of them."""
    read: list[Path] = []
    pixels, other = np.empty((0, 1, 1, 1), np.uint8), []

    def put(file: Path) -> None:
        nonlocal pixels
        image = pictures.decode(file, mode, image_size, ground)
        if not read:
            check_memory(str(file.parent), len(files) * image.size)
            pixels = np.empty((len(files), *image.shape), np.uint8)
        if image.shape != pixels.shape[1:]:
            other.append((file, image.shape[1:]))
            return
        pixels[len(read)] = image
        read.append(file)

    _each(files, put, found)
    if other:
        (file, (h, w)), (height, width) = other[0], pixels.shape[2:]
        more = f", and {len(other) - 1} more of other sizes" if len(other) > 1 else ""
        raise DataError(
            f"{file}: expected the size of {read[0].name}, {height} x {width} (height x width), got {h} x {w}{more}; "
            "image_size brings all to one"
        )
    return read, pixels[: len(read)]


def _split(places: dict[Path, Place], pixels: np.ndarray, path: Path, notes: list[str]) -> Splits:
    """`pixels` dealt to the parts that their files lie in, with the classes that their folders are."""
    folders = [place.folders for place in places.values()]
    # Folders that all lie in say nothing of any.
    shared = next((i for i, names in enumerate(zip(*folders, strict=False)) if len(set(names)) > 1), min(map(len, folders)))
    classes = [names[shared] if len(names) > shared else None for names in folders]
    known = sorted({name for name in classes if name is not None})
    # The folder 10 comes after the folder 9.
    if all(name.isdecimal() and name.isascii() and len(name) < 19 for name in known):
        known.sort(key=int)
    labels = None
    if known and None in classes:
        notes = [*notes, f"no labels: {classes.count(None)} images lie in no class folder"]
    elif len(known) > 1:
        number = {name: i for i, name in enumerate(known)}
        labels = np.array([number[str(name)] for name in classes], np.int64)
    which = np.array([place.part or "train" for place in places.values()])
    parts = {}
    for part in ("train", "validation", "test"):
        if (rows := which == part).any():
            # All of them need no copy.
            chosen = pixels if rows.all() else pixels[rows]
            parts[part] = (chosen, None if labels is None else labels[rows])
    if labels is not None:
        missing = [name for i, name in enumerate(known) if not (labels[which == "train"] == i).any()]
        notes += [f"no image to train on of the classes {_listed(missing)}"] * bool(missing)
    splits = complete(parts, path.resolve().name)
    return splits._replace(classes=None if labels is None else tuple(known), notes=(*splits.notes, *notes))


def _listed(names: list[str], between: str = ", ") -> str:
    """Names, or some of them and how many more."""
    more = f"{between}and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return between.join(names[:_NAMED]) + more
