"""Files from the network into the cache folder, each of a known checksum where one is published.

A download that broke off goes on where it stopped, from whichever mirror, in this process or in a later one: what had come
stays in the cache as a hidden file. (pooch, which checks and places files too, always begins anew.)
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from fastdraw.data.cache import cache_folder, filling, settle
from fastdraw.data.progress import Report, bar
from fastdraw.data.splits import DataError, needs_extra
from fastdraw.files import temporary

#: Seconds that a server may keep silent.
TIMEOUT = 30.0
#: Requests to one mirror for one file; all but the first only go on where one that brought something broke off.
ATTEMPTS = 5
#: Seconds before the second request, twice as many before the third, and so on.
PAUSE = 1.0
#: Bytes written at a time. Of a server that falls silent, what came since the last full block is lost.
BLOCK = 1 << 16


class _Failure(Exception):
    """What was wrong with a mirror. `again`: whether it may well give the rest to another request."""

    def __init__(self, reason: str, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


def fetch(
    name: str,
    md5: str | None,
    mirrors: Sequence[str],
    download: bool = True,
    progress: bool = False,
    check: Callable[[Path], object] | None = None,
) -> Path:
    """The file `name` in the cache; from the first mirror that gives it whole, where it is not there yet.

    md5:     None where none is published. The file then always comes in one piece, and `check` decides.
    mirrors: what stands before the name in each address. The file appears under its name only whole, with its checksum right.
    check:   is called with the new file before it gets its name, and raises DataError if it is not what it should be.
    Raises DataError naming what was wrong with each mirror, or with the cache.
    """
    target = cache_folder() / name
    if _right(target, md5):
        return target
    if not download:
        raise DataError(f"{name}: expected it in {target.parent}, since download is off, got no such file or another one")
    with filling(target):
        # Another process may have brought it in the meantime.
        if not _right(target, md5):
            _download(target, md5, mirrors, progress, check)
    return target


def _right(file: Path, md5: str | None) -> bool:
    try:
        if not file.exists():
            return False
        if md5 is None:
            return True
        found = hashlib.md5(usedforsecurity=False)
        with open(file, "rb") as content:
            while block := content.read(1 << 20):
                found.update(block)
    except OSError as error:
        raise DataError(f"{file}: expected a readable file, got: {error.strerror or error}") from error
    return found.hexdigest() == md5


def _download(
    target: Path, md5: str | None, mirrors: Sequence[str], progress: bool, check: Callable[[Path], object] | None
) -> None:
    part = temporary(target)
    failures = []
    for mirror in mirrors:
        host = urlsplit(mirror).netloc
        try:
            with bar(f"{target.name} from {host}", progress, in_bytes=True) as report:
                _fill(part, mirror + target.name, md5, report)
            if check is not None:
                check(part)
            settle(part, target)
            return
        except _Failure as failure:
            failures.append(f"{host}: {failure}")
        except DataError as error:
            part.unlink()
            failures.append(f"{host}: a file of which the check says: {error}")
        except OSError:
            # A full disk, say, which should not be kept full.
            with contextlib.suppress(OSError):
                part.unlink()
            raise
    raise DataError(
        f"{target.name}: expected a download, got {'; '.join(failures)}; a folder that holds it already can be named by "
        "data_dir or FASTDRAW_DATA"
    )


def _fill(part: Path, url: str, md5: str | None, report: Report) -> None:
    """The whole file from one mirror into `part`, after what is there already. Raises _Failure."""
    for attempt in range(1, ATTEMPTS + 1):
        if md5 is None:
            # Nothing tells whether the pieces would fit together.
            part.unlink(missing_ok=True)
        before = part.stat().st_size if part.exists() else 0
        try:
            _request(part, url, before, report)
        except _Failure as failure:
            grown = part.exists() and part.stat().st_size > before
            if not (failure.again and grown and md5 is not None and attempt < ATTEMPTS):
                raise
        else:
            if _right(part, md5):
                return
            part.unlink()
            # The wrong bytes may be those of another mirror or another day.
            if before == 0 or attempt == ATTEMPTS:
                raise _Failure("a file with another checksum")
        time.sleep(PAUSE * attempt)


def _request(part: Path, url: str, start: int, report: Report) -> None:
    """One request for the bytes from `start` on, written after those that `part` has, or from its beginning."""
    with needs_extra("downloading"):
        import requests
        import urllib3

    # Without the first, servers and requests may unpack .gz files on the way.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            if response.status_code == 416 and start:
                # Nothing is left to send: the checksum decides.
                return
            goes_on = response.status_code == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if response.status_code != 200 and not goes_on:
                raise _Failure(f"HTTP {response.status_code}")
            done = start if goes_on else 0
            length = response.headers.get("Content-Length", "")
            total = done + int(length) if length.isdecimal() else None
            with open(part, "ab" if goes_on else "wb") as file:
                report(done, total)
                for block in response.raw.stream(BLOCK, decode_content=False):
                    file.write(block)
                    done += len(block)
                    report(done, total)
    # This order: each is of a kind of the later ones, and all of requests' are OSErrors.
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise _Failure(f"no answer in {TIMEOUT:g} s", again=True) from error
    except (requests.exceptions.ChunkedEncodingError, urllib3.exceptions.HTTPError) as error:
        raise _Failure("the connection broke off", again=True) from error
    except requests.ConnectionError as error:
        raise _Failure("no connection") from error
    except requests.RequestException as error:
        raise _Failure(str(error)) from error
