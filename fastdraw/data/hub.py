"""Data sets of the Hugging Face hub, and Parquet and Arrow files, by the hub's own library `datasets`.

    hf:OWNER/NAME    hf:OWNER/NAME@CONFIGURATION    hf:OWNER/NAME#COLUMN    images.parquet    folder/of/parquet#COLUMN

Files are downloaded to that library's cache and stay there. Their images, which are PNGs or JPEGs within, are decoded once,
into the same kind of mapped file as a folder's.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from fastdraw.data import decoded, pictures
from fastdraw.data.decoding import How, cut, decode, listed
from fastdraw.data.splits import DataError, Labels, Splits, deal
from fastdraw.installed import needs_extra

PREFIX = "hf:"
#: Files that its library reads, by their suffixes, and what it calls them.
KINDS = {".parquet": "parquet", ".arrow": "arrow"}
#: What splits are called there, by what they are here.
_SPLITS = {"train": ("train", "training"), "validation": ("validation", "val", "valid", "dev"), "test": ("test", "testing")}
_IMAGES, _LABELS = ("image", "img", "images", "picture"), ("label", "labels", "fine_label", "class", "target")


def files(path: Path) -> tuple[str, list[Path]] | None:
    """The kind and the files that `path` names, where it is such a file or a folder with such in it, or one below, and no
    pictures there."""
    if path.is_file():
        return (KINDS[path.suffix.lower()], [path]) if path.suffix.lower() in KINDS else None
    if not path.is_dir() or path.resolve() == path.resolve().parent:
        return None
    there = [file for pattern in ("*.*", "*/*.*") for file in path.glob(pattern)]
    suffixes = {file.suffix.lower() for file in there}
    kinds = [kind for suffix, kind in KINDS.items() if suffix in suffixes]
    if len(kinds) != 1 or suffixes & pictures.FORMATS.keys():
        return None
    return kinds[0], sorted(file for file in there if KINDS.get(file.suffix.lower()) == kinds[0])


def load_named(name: str, how: How, download: bool) -> Splits:
    """hf:OWNER/NAME. Raises DataError where it cannot be had, or holds no images."""
    library = _library()
    rest, _, column = name.removeprefix(PREFIX).partition("#")
    repository, _, configuration = rest.partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise DataError(f"data: expected hf:OWNER/NAME, got {name}")
    local = library.DownloadConfig(local_files_only=not download)
    try:
        found = library.load_dataset(repository, configuration or None, download_config=local)
    except Exception as error:
        # It raises whatever requests, fsspec, pyarrow and its own builders do.
        raise DataError(f"data: expected {name} from the Hugging Face hub, got: {' '.join(str(error).split())}") from error
    return _splits(found, column, name, repository.rpartition("/")[2], how)


def load_files(path: Path, column: str, kind: str, there: list[Path], how: How) -> Splits:
    """Parquet or Arrow files; those whose names, or folders' names, begin as a split's are of that split."""
    by_split: dict[str, list[str]] = {}
    for file in there:
        words = [part.lower() for part in file.relative_to(path if path.is_dir() else path.parent).parts]
        split = next((s for s, names in _SPLITS.items() if any(w.startswith(n) for w in words for n in names)), "train")
        by_split.setdefault(split, []).append(str(file))
    library = _library()
    try:
        found = library.load_dataset(kind, data_files=by_split)
    except Exception as error:
        raise DataError(f"{path}: expected {kind} files, got: {' '.join(str(error).split())}") from error
    return _splits(found, column, str(path), path.stem, how)


def _library() -> Any:
    with needs_extra("a data set of the hub", "datasets"):
        import datasets
    return datasets


def _splits(found: Any, column: str, where: str, name: str, how: How) -> Splits:
    there = {s: next((found[n] for n in names if n in found), None) for s, names in _SPLITS.items()}
    if there["train"] is None and len(found) == 1:
        # Whatever the only split is called.
        there = {"train": next(iter(found.values())), "validation": None, "test": None}
    if there["train"] is None:
        raise DataError(f"{where}: expected a split named train, got {', '.join(found)}")
    features = there["train"].features
    image, label = _column(features, column, where), _label(features)
    parts = {split: part for split, part in there.items() if part is not None}
    # Of each split here, the rows there. What is dealt out is so before anything is decoded: each is one piece.
    rows = {split: (split, np.arange(len(part))) for split, part in parts.items()}
    missing = [split for split in _SPLITS if split not in rows]
    if missing:
        rows.update((split, ("train", its)) for split, its in deal(len(parts["train"]), missing, name).items())
    every = [(split, rows[split][0], int(i)) for split in _SPLITS for i in rows[split][1]]
    key = blake2b(repr((1, how.image_size, how.skip_bad, image, missing)).encode(), digest_size=16)
    for split, part in parts.items():
        # The library's own name for just these rows.
        key.update(f"\n{split} {part._fingerprint} {len(part)}".encode())
    pixels, about = decoded.kept(key.hexdigest(), partial(_decoded, parts, every, image, where, how))
    read, notes = [every[n] for n in about["read"]], list(about["notes"])
    which = np.array([split for split, _, _ in read])
    counts = [int((which == split).sum()) for split in _SPLITS]
    train, validation, test = cut(pixels, counts)
    labels = None
    if label is not None:
        known = {split: np.asarray(part[label], np.int64) for split, part in parts.items()}
        numbers = np.array([known[source][i] for _, source, i in read], np.int64)
        if (numbers < 0).any():
            notes.append(f"no labels: some of {label} are not told")
        else:
            labels = Labels(*cut(numbers, counts))
    if missing:
        notes.insert(0, f"{' and '.join(missing)} dealt out of train")
    classes = tuple(features[label].names) if labels is not None and label is not None else None
    return Splits(train, validation, test, name, labels, None, classes, tuple(notes))


def _column(features: Any, column: str, where: str) -> str:
    images = [name for name, feature in features.items() if type(feature).__name__ == "Image"]
    if column:
        if column not in images:
            raise DataError(
                f"{where}: expected a column of images, {', '.join(images) or 'of which it has none'}, got {column}"
            )
        return column
    chosen = images[0] if len(images) == 1 else next((name for name in _IMAGES if name in images), None)
    if chosen is None:
        told = f"one of {', '.join(images)}, named behind a #" if images else "one"
        raise DataError(f"{where}: expected a column of images, {told}, got {', '.join(features)}")
    return chosen


def _label(features: Any) -> str | None:
    labels = [name for name, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    return labels[0] if len(labels) == 1 else next((name for name in _LABELS if name in labels), None)


def _decoded(
    parts: dict[str, Any], every: list[tuple[str, str, int]], image: str, where: str, how: How, out: BinaryIO
) -> tuple[tuple[int, ...], dict[str, Any]]:
    """Writes the pixels of all splits to `out`, one split after the other. Tells the rows that were read, and notes."""
    library = _library()
    encoded = {
        split: part.select_columns([image]).cast_column(image, library.Image(decode=False)) for split, part in parts.items()
    }

    def of(n: int) -> pictures.Encoded:
        _, split, i = every[n]
        cell = encoded[split][i][image] or {}
        content, name = cell.get("bytes"), f"{where}: {split} {i}"
        if content is None and cell.get("path"):
            content = Path(cell["path"]).read_bytes()
        if content is None:
            raise DataError(f"{name}: expected an image, got none")
        return pictures.Encoded(name, content)

    bad: list[str] = []
    # In this process: Arrow's threads do not outlive a fork. The splits stand one after the other already.
    made = decode(of, len(every), where, how, bad, lambda read: range(len(read)), out, 1)
    if len({every[n][0] for n in made.read}) < len(_SPLITS):
        raise DataError(f"{where}: expected images in every split, got none that can be read in some")
    notes = [f"left out: {listed(bad, '; ')} (cannot be read)"] * bool(bad)
    return (len(made.read), *made.shape), {"read": made.read, "notes": notes}
