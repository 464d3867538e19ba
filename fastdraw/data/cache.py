"""The cache folder: what is kept in it, and one process at a time filling a place in it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from fastdraw import env
from fastdraw.data.npz import Arrays
from fastdraw.data.splits import DataError
from fastdraw.files import append_to, sync_folder, temporary
from fastdraw.installed import needs_extra


def cache_folder() -> Path:
    """FASTDRAW_CACHE, or the user's own cache folder."""
    chosen = env.cache_dir()
    if chosen:
        return Path(chosen)
    with needs_extra("downloading"):
        import platformdirs
    return Path(platformdirs.user_cache_dir("fastdraw"))


@contextlib.contextmanager
def filling(target: Path) -> Iterator[None]:
    """While one process is within it, another that wants to fill the same place in the cache waits.

    Makes the folder. An OSError within it that names no other file becomes a DataError: there is no room for `target`.
    """
    with needs_extra("downloading"):
        import filelock
    try:
        os.makedirs(target.parent, exist_ok=True)
        with filelock.FileLock(target.with_name(f".{target.name}.lock")):
            yield
    except OSError as error:
        raise DataError(f"{target.parent}: expected room for {target.name}, got: {error.strerror or error}") from error


def settle(part: Path, target: Path) -> None:
    """Gives a wholly written file its name, so that it outlives a power cut."""
    with append_to(part) as file:
        os.fsync(file.fileno())
    os.replace(part, target)
    sync_folder(target.parent)


def prepared(name: str, prepare: Callable[[], np.ndarray]) -> np.ndarray:
    """The images that `prepare` makes: uint8 [n, C, H, W], made once and kept in the cache as `name`.npz.

    What they are made from must show in the name. Raises DataError where the cache cannot be written.
    """
    target = cache_folder() / f"{name}.npz"
    found = _read(target)
    if found is not None:
        return found
    with filling(target):
        found = _read(target)
        if found is not None:
            return found
        images = prepare()
        part = temporary(target)
        part.unlink(missing_ok=True)
        try:
            # Only where nothing stands, not even a link.
            with open(part, "xb") as file:
                np.savez(file, images=images)
            settle(part, target)
        except BaseException:
            with contextlib.suppress(OSError):
                part.unlink()
            raise
    return images


def _read(target: Path) -> np.ndarray | None:
    """None where it is not there, or damaged: it is then made again."""
    if not target.is_file():
        return None
    try:
        with Arrays(target) as arrays:
            return arrays.images("images")
    except DataError:
        return None
