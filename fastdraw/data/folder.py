"""A folder of image files, of any depth, in the order of their names. docs/data.md says what is taken for what."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch

from fastdraw.data import decoded, pictures
from fastdraw.data.decoding import How, cut, decode, listed
from fastdraw.data.splits import DataError, Labels, Splits, deal

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


@dataclass
class Found:
    """Files in the order of their names, and what was left out and why: notes by the reason."""

    files: list[Path] = field(default_factory=list)
    left_out: dict[str, list[str]] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)

    def leave(self, reason: str, name: object) -> None:
        self.left_out.setdefault(reason, []).append(str(name))

    def notes(self) -> list[str]:
        return [f"left out: {listed(names)} ({reason})" for reason, names in self.left_out.items()]


def load(path: Path, how: How) -> Splits:
    """Every image under `path`; grey where more than half of them are, RGB otherwise. Decoded once, and kept in the cache.

    Folders named train, val and test (and the like) are the splits; other folders are classes. Raises DataError.
    """
    found = find(path)
    if not found.files:
        notes = "".join(f"; {note}" for note in found.notes())
        raise DataError(f"{path}: expected a folder with images ({', '.join(pictures.FORMATS)}), got none{notes}")
    places = _places(path, found)
    files = list(places)

    # What could not be read at all may be there the next time.
    key = blake2b(repr((FORMAT, how.image_size, how.skip_bad, found.bad)).encode(), digest_size=16)
    for file in files:
        key.update(f"\n{file.relative_to(path).as_posix()} {_stamp(file)}".encode(errors="surrogateescape"))
    pixels, about = decoded.kept(key.hexdigest(), partial(_decoded, path, files, places, how, found))
    dealt = _dealt(path, [places[files[i]] for i in about["read"]])
    remarks = tuple(note for note in (*dealt.notes[:1], *about["notes"], *dealt.notes[1:]) if note)
    train, validation, test = cut(pixels, [len(rows) for rows in dealt.rows])
    labels = None
    if dealt.labels is not None:
        labels = Labels(*(torch.from_numpy(dealt.labels[rows]) for rows in dealt.rows))
    return Splits(train, validation, test, path.resolve().name, labels, None, dealt.classes, remarks)


#: Of what is kept: another number where files become other pixels than before.
FORMAT = 1


def _stamp(file: Path) -> str:
    try:
        about = file.stat()
    except OSError:
        return "gone"
    return f"{about.st_size} {about.st_mtime_ns}"


def _decoded(
    path: Path, files: list[Path], places: dict[Path, Place], how: How, found: Found, out: BinaryIO
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Writes the pixels to `out`, one split after the other. Tells the numbers of the files that were read, and notes."""

    def order(read: list[int]) -> Iterable[int]:
        return np.concatenate(_dealt(path, [places[files[i]] for i in read]).rows)

    made = decode(files.__getitem__, len(files), str(path), how, found.bad, order, out)
    for why in found.bad:
        found.leave("cannot be read", why)
    frames = {files[i]: made.looks[i].frames for i in made.read if made.looks[i].frames > 1}
    if frames:
        names = [str(file.relative_to(path)) for file in frames]
        found.leave(f"{sum(frames.values()) - len(frames)} frames or pages after the first", listed(names))
    notes, turned = found.notes(), sum(made.looks[i].grey != made.grey for i in made.read)
    if turned:
        notes.append(f"{turned} {'colour images turned grey' if made.grey else 'grey images given three channels'}")
    return (len(made.read), *made.shape), {"read": made.read, "notes": notes}


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


class Dealt(NamedTuple):
    """rows: of train, validation and test, the numbers of their images. labels: of all images, where there are any."""

    rows: list[np.ndarray]
    labels: np.ndarray | None
    classes: tuple[str, ...] | None
    notes: list[str]


def _dealt(path: Path, places: list[Place]) -> Dealt:
    """What images that lie there are dealt to, and the classes that their folders are. The first note is on the deal."""
    folders = [place.folders for place in places]
    # Folders that all lie in say nothing of any.
    shared = next((i for i, names in enumerate(zip(*folders, strict=False)) if len(set(names)) > 1), min(map(len, folders)))
    classes = [names[shared] if len(names) > shared else None for names in folders]
    known = sorted({name for name in classes if name is not None})
    # The folder 10 comes after the folder 9.
    if all(name.isdecimal() and name.isascii() and len(name) < 19 for name in known):
        known.sort(key=int)
    notes: list[str] = []
    labels = None
    if known and None in classes:
        notes.append(f"no labels: {classes.count(None)} images lie in no class folder")
    elif len(known) > 1:
        number = {name: i for i, name in enumerate(known)}
        labels = np.array([number[str(name)] for name in classes], np.int64)
    which = np.array([place.part or "train" for place in places])
    rows = {part: np.flatnonzero(which == part) for part in ("train", "validation", "test")}
    if labels is not None:
        missing = [name for i, name in enumerate(known) if not (labels[rows["train"]] == i).any()]
        notes += [f"no image to train on of the classes {listed(missing)}"] * bool(missing)
    empty = [part for part, its in rows.items() if not len(its)]
    train = rows["train"]
    for part, chosen in deal(len(train), empty, path.resolve().name).items() if empty else ():
        rows[part] = train[chosen]
    told = f"{' and '.join(empty)} dealt out of train" if empty else ""
    named = tuple(known) if labels is not None else None
    return Dealt(list(rows.values()), labels, named, [told, *notes])
