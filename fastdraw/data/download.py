"""Files from the network into a cache folder, each of a known checksum."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fastdraw import env
from fastdraw.data.splits import DataError, needs_extra

#: Seconds that a server may keep silent.
TIMEOUT = 30


def cache_folder() -> Path:
    """FASTDRAW_CACHE, or the user's own cache folder."""
    chosen = env.cache_dir()
    if chosen:
        return Path(chosen)
    with needs_extra("downloading"):
        import pooch  # type: ignore[import-untyped]
    return Path(pooch.os_cache("fastdraw"))


def fetch(name: str, md5: str, mirrors: Sequence[str], download: bool = True, progress: bool = False) -> Path:
    """The file `name` in the cache; from the first mirror that gives it whole, where it is not there yet.

    mirrors: what stands before the name in each address. The file appears under its name only whole, with its checksum right.
    Raises DataError naming what was wrong with each mirror, or with the cache.
    """
    with needs_extra("downloading"):
        import pooch
        import requests

    folder = cache_folder()
    target = folder / name
    try:
        if target.exists() and pooch.file_hash(str(target), alg="md5") == md5:
            return target
    except OSError as error:
        raise DataError(f"{target}: expected a readable file, got: {error.strerror or error}") from error
    if not download:
        raise DataError(f"{name}: expected it in {folder}, since download is off, got no such file or another one")
    failures = []
    for mirror in mirrors:
        host = urlsplit(mirror).netloc
        with _quiet(pooch.get_logger()), _Bar(f"{name} from {host}", progress) as bar:
            downloader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=TIMEOUT)
            try:
                return Path(pooch.retrieve(mirror + name, f"md5:{md5}", name, folder, downloader=downloader))
            # This order: a RequestException is an OSError too.
            except requests.HTTPError as error:
                failures.append(f"{host}: HTTP {getattr(error.response, 'status_code', 'error')}")
            except requests.Timeout:
                failures.append(f"{host}: no answer in {TIMEOUT} s")
            except requests.exceptions.ChunkedEncodingError:
                failures.append(f"{host}: the connection broke off")
            except requests.ConnectionError as error:
                # Silence in the middle of a file comes as this, and only its text tells.
                silent = "timed out" in str(error)
                failures.append(f"{host}: no answer in {TIMEOUT} s" if silent else f"{host}: no connection")
            except requests.RequestException as error:
                failures.append(f"{host}: {error}")
            except ValueError:
                failures.append(f"{host}: a file with another checksum")
            except OSError as error:
                raise DataError(f"{folder}: expected room for {name}, got: {error.strerror or error}") from error
    raise DataError(
        f"{name}: expected a download, got {'; '.join(failures)}; a folder that holds it already can be named by data_dir "
        "or FASTDRAW_DATA"
    )


@contextlib.contextmanager
def _quiet(logger: logging.Logger) -> Iterator[None]:
    """Pooch announces each download on stderr; here the bar does, where one is wanted."""
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Bar:
    """A bar of rich's, with the methods that pooch asks of one; or False, which is pooch's for none."""

    def __init__(self, text: str, wanted: bool) -> None:
        self.text, self.wanted = text, wanted

    def __enter__(self) -> Any:
        if not self.wanted:
            return False
        with needs_extra("a progress bar"):
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task(self.text, total=None)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.wanted:
            self._progress.stop()

    @property
    def total(self) -> float | None:
        return self._progress.tasks[0].total

    @total.setter
    def total(self, size: float) -> None:
        self._progress.update(self._task, total=size)

    def update(self, size: float) -> None:
        self._progress.advance(self._task, size)

    def reset(self) -> None:
        self._progress.update(self._task, completed=0)

    def close(self) -> None:
        self._progress.stop()
