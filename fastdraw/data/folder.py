"""A folder of image files, of any depth, in the order of their names. docs/data.md says what is taken for what."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch

from fastdraw.data import decoded, pictures, workers
from fastdraw.data.bar import Report, bar
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


def load(path: Path, image_size: tuple[int, int] | None = None, skip_bad: bool = False, progress: bool = False) -> Splits:
    """Every image under `path`; grey where more than half of them are, RGB otherwise. Decoded once, and kept in the cache.

    Folders named train, val and test (and the like) are the splits; other folders are classes. Raises DataError.

    image_size: (height, width) that each is brought to, by the largest middle part of that form; None: all must have one size.
    skip_bad:   leave out files that cannot be read. Otherwise they are named, all at once.
    progress:   whether to show a bar on stderr.
    """
    found = find(path)
    if not found.files:
        notes = "".join(f"; {note}" for note in found.notes())
        raise DataError(f"{path}: expected a folder with images ({', '.join(pictures.FORMATS)}), got none{notes}")
    places = _places(path, found)
    files = list(places)

    def make(out: BinaryIO) -> tuple[tuple[int, ...], dict[str, Any]]:
        return _decoded(path, files, places, image_size, skip_bad, progress, found, out)

    # What could not be read at all may be there the next time.
    key = blake2b(repr((FORMAT, image_size, skip_bad, found.bad)).encode(), digest_size=16)
    for file in files:
        key.update(f"\n{file.relative_to(path).as_posix()} {_stamp(file)}".encode(errors="surrogateescape"))
    pixels, about = decoded.kept(key.hexdigest(), make)
    dealt = _dealt(path, [places[files[i]] for i in about["read"]])
    remarks = tuple(note for note in (*dealt.notes[:1], *about["notes"], *dealt.notes[1:]) if note)
    bounds = [0, *itertools.accumulate(map(len, dealt.rows))]
    train, validation, test = (torch.from_numpy(pixels[start:stop]) for start, stop in itertools.pairwise(bounds))
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
    path: Path,
    files: list[Path],
    places: dict[Path, Place],
    image_size: tuple[int, int] | None,
    skip_bad: bool,
    progress: bool,
    found: Found,
    out: BinaryIO,
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Writes the pixels to `out`, one split after the other. Tells the numbers of the files that were read, and notes."""
    with bar(f"looking at {path.name}", progress) as report:
        seen = workers.each(lambda i: pictures.look(files[i], image_size), len(files), report)
    looks = {file: look for file, look in zip(files, seen, strict=True) if not isinstance(look, DataError)}
    found.bad += [str(error) for error in seen if isinstance(error, DataError)]
    mode = "L" if 2 * sum(look.grey for look in looks.values()) > len(looks) else "RGB"
    ink, light = (sum(look.ink[i] for look in looks.values()) for i in (0, 1))
    # Dark ink is seen on white, light ink on black.
    ground = 255 if ink and light / ink < 128 else 0
    read: list[Path] = []
    shape: tuple[int, ...] = (0, 0, 0)
    if looks:
        # In the order of their names; where each belongs is known once all are read.
        with _scratch() as scratch, bar(f"decoding {path.name}", progress) as report:
            read, shape = _unpacked(list(looks), mode, image_size, ground, found, scratch, report)
            _check_read(path, read, found, skip_bad)
            row = int(np.prod(shape))
            dealt = _dealt(path, [places[file] for file in read])
            where = {file: i for i, file in enumerate(looks)}
            for i in np.concatenate(dealt.rows):
                scratch.seek(where[read[i]] * row)
                out.write(scratch.read(row))
    _check_read(path, read, found, skip_bad)
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
    number = {file: i for i, file in enumerate(files)}
    return (len(read), *shape), {"read": [number[file] for file in read], "notes": [*found.notes(), *converted]}


def _check_read(path: Path, read: list[Path], found: Found, skip_bad: bool) -> None:
    # They begin with the file.
    found.bad.sort()
    if found.bad and not skip_bad:
        raise DataError(
            f"{path}: expected images that can be read, got {len(found.bad)} that cannot: {_listed(found.bad, '; ')}; "
            "skip_bad (--skip-bad) leaves them out"
        )
    if not read:
        raise DataError(f"{path}: expected images that can be read, got none: {_listed(found.bad, '; ')}")


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


def _unpacked(
    files: list[Path],
    mode: str,
    image_size: tuple[int, int] | None,
    ground: int,
    found: Found,
    scratch: BinaryIO,
    report: Report,
) -> tuple[list[Path], tuple[int, ...]]:
    """Writes each file's pixels to its place in `scratch`. Gives those that could be read, and the shape [C, H, W] of all."""
    handle = scratch.fileno()

    def put(i: int) -> tuple[int, ...]:
        image = pictures.decode(files[i], mode, image_size, ground)
        # Not through a mapping, to which a full disk is no error but a signal. Others may have another size: seen below.
        pixels, at = image.tobytes(), i * image.size
        while pixels:
            done = os.pwrite(handle, pixels, at)
            pixels, at = pixels[done:], at + done
        return image.shape

    shapes = workers.each(put, len(files), report)
    found.bad += [str(error) for error in shapes if isinstance(error, DataError)]
    good = [(file, shape) for file, shape in zip(files, shapes, strict=True) if not isinstance(shape, DataError)]
    if not good:
        return [], (0, 0, 0)
    (first, shape), other = good[0], [each for each in good if each[1] != good[0][1]]
    if other:
        (file, (_, h, w)), (_, height, width) = other[0], shape
        more = f", and {len(other) - 1} more of other sizes" if len(other) > 1 else ""
        raise DataError(
            f"{file}: expected the size of {first.name}, {height} x {width} (height x width), got {h} x {w}{more}; "
            "image_size brings all to one"
        )
    return [file for file, _ in good], shape


@contextlib.contextmanager
def _scratch() -> Iterator[BinaryIO]:
    """A file without a name in the cache, gone with whoever has it open."""
    with tempfile.TemporaryFile(dir=decoded.folder()) as file:
        yield file


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
        notes += [f"no image to train on of the classes {_listed(missing)}"] * bool(missing)
    empty = [part for part, its in rows.items() if not len(its)]
    train = rows["train"]
    for part, chosen in deal(len(train), empty, path.resolve().name).items() if empty else ():
        rows[part] = train[chosen]
    told = f"{' and '.join(empty)} dealt out of train" if empty else ""
    named = tuple(known) if labels is not None else None
    return Dealt(list(rows.values()), labels, named, [told, *notes])


def _listed(names: list[str], between: str = ", ") -> str:
    """Names, or some of them and how many more."""
    more = f"{between}and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return between.join(names[:_NAMED]) + more
