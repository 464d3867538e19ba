"""Files from the network into the cache folder, each of a known checksum where one is published.

A download that broke off goes on where it stopped, from whichever mirror, in this process or in a later one: what had come
stays in the cache as a hidden file. What a server may send is bounded, in bytes, in time and by the room on the disk, whatever
it says about itself. (pooch checks and places files too, but always begins anew and knows none of these bounds.)
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import queue
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from fastdraw.data.arrays import reading
from fastdraw.data.bar import Report, bar
from fastdraw.data.cache import cache_folder, filling, settle
from fastdraw.data.splits import DataError
from fastdraw.files import append_to, disown, temporary
from fastdraw.installed import needs_extra

#: Seconds that a server may keep silent, or take for a block.
TIMEOUT = 30.0
#: Seconds that one request may take in all. What has come by then stays, and the next request goes on from there.
DEADLINE = 2 * 3600.0
#: Bytes of a file whose size nobody knows.
LARGEST = 1 << 30
#: Addresses that a mirror may lead on to.
REDIRECTS = 5
#: Requests to one mirror for one file; all but the first only go on where one that brought something broke off.
ATTEMPTS = 5
#: Seconds before the second request, twice as many before the third, and so on.
PAUSE = 1.0
#: Of a disk, downloads leave at least this share free, but no more than so many bytes.
FREE_SHARE, FREE_MOST = 20, 1 << 30
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
    largest: int | None = None,
) -> Path:
    """The file `name` in the cache; from the first mirror that gives it whole, where it is not there yet.

    md5:     None where none is published. The file then always comes in one piece, and `check` decides.
    mirrors: what stands before the name in each address. The file appears under its name only whole, with its checksum right.
    check:   is called with the new file before it gets its name, and raises DataError if it is not what it should be.
    largest: bytes that it may have; None: LARGEST.
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
            _download(target, md5, mirrors, progress, check, LARGEST if largest is None else largest)
    return target


def md5_of(file: Path) -> str:
    """Raises DataError."""
    found = hashlib.md5(usedforsecurity=False)
    with reading(file), open(file, "rb") as content:
        while block := content.read(1 << 20):
            found.update(block)
    return found.hexdigest()


def original(file: Path, md5: str) -> Path:
    """`file`, where it is the one with this checksum. Raises DataError where it is another one or cannot be read."""
    came = md5_of(file)
    if came != md5:
        raise DataError(f"{file}: expected the original file (md5 {md5}), got a damaged one or another one (md5 {came})")
    return file


def _right(file: Path, md5: str | None) -> bool:
    return file.is_file() and (md5 is None or md5_of(file) == md5)


def _download(
    target: Path,
    md5: str | None,
    mirrors: Sequence[str],
    progress: bool,
    check: Callable[[Path], object] | None,
    largest: int,
) -> None:
    part = temporary(target)
    disown(part)
    failures = []
    for mirror in mirrors:
        host = urlsplit(mirror).netloc
        try:
            with bar(f"{target.name} from {host}", progress, in_bytes=True) as report:
                _fill(part, mirror + target.name, md5, report, largest)
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


def _fill(part: Path, url: str, md5: str | None, report: Report, largest: int) -> None:
    """The whole file from one mirror into `part`, after what is there already. Raises _Failure."""
    for attempt in range(1, ATTEMPTS + 1):
        if md5 is None:
            # Nothing tells whether the pieces would fit together.
            part.unlink(missing_ok=True)
        before = part.stat().st_size if part.exists() else 0
        try:
            _request(part, url, before, report, largest)
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


def _request(part: Path, url: str, start: int, report: Report, largest: int) -> None:
    """One request for the bytes from `start` on, written after those that `part` has, or from its beginning.

    A server can hold on to whoever reads from it in more ways than a timeout ends: a byte now and then, headers without end.
    So a thread of its own reads, and this one waits for it no longer than it wants to.
    """
    blocks: queue.Queue[_Head | bytes | Exception] = queue.Queue(maxsize=4)
    given_up, until = threading.Event(), time.monotonic() + DEADLINE

    def read() -> None:
        try:
            for block in _blocks(url, start):
                blocks.put(block)
                if given_up.is_set():
                    return
        except Exception as error:
            blocks.put(error)

    def next_block() -> _Head | bytes:
        try:
            got = blocks.get(timeout=max(0.0, min(TIMEOUT, until - time.monotonic())))
        except queue.Empty:
            slow = until > time.monotonic()
            raise _Failure(f"no answer in {TIMEOUT:g} s" if slow else f"no end in {DEADLINE:g} s", again=True) from None
        if isinstance(got, Exception):
            raise got
        return got

    threading.Thread(target=read, daemon=True).start()
    try:
        head = next_block()
        assert isinstance(head, _Head)
        if head.nothing_left:
            # The checksum decides.
            return
        done = start if head.goes_on else 0
        total = None if head.length is None else done + head.length
        _check_room(part, total or done, done, largest)
        if not head.goes_on:
            part.unlink(missing_ok=True)
        with append_to(part) as file:
            report(done, total)
            while block := next_block():
                assert isinstance(block, bytes)
                done += len(block)
                _check_room(part, done, done - len(block), largest)
                file.write(block)
                report(done, total)
    finally:
        given_up.set()
        if part.exists() and part.stat().st_size == 0:
            part.unlink()
        # It may wait for room in the queue.
        with contextlib.suppress(queue.Empty):
            while True:
                blocks.get_nowait()


class _Head(NamedTuple):
    """What a server says first. length: bytes of what follows, as it says. goes_on: whether they are those asked for."""

    length: int | None
    goes_on: bool
    nothing_left: bool = False


def _blocks(url: str, start: int) -> Iterator[_Head | bytes]:
    """What a server sends: first its head, then blocks, the last one empty. Raises _Failure."""
    with needs_extra("downloading"):
        import requests
        import urllib3

    # Without the first, servers and requests may unpack .gz files on the way.
    headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with requests.Session() as session:
            for _ in range(REDIRECTS + 1):
                # requests would read whatever stands under the old address into memory.
                response = session.get(url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False)
                if not response.is_redirect:
                    break
                url = urljoin(url, response.headers["Location"])
                response.close()
            with response:
                if response.status_code == 416 and start:
                    yield _Head(None, True, nothing_left=True)
                    return
                place = response.headers.get("Content-Range", "")
                goes_on = response.status_code == 206 and place.startswith(f"bytes {start}-")
                if response.status_code != 200 and not goes_on:
                    raise _Failure(f"HTTP {response.status_code}")
                length = response.headers.get("Content-Length", "")
                yield _Head(int(length) if re.fullmatch("[0-9]{1,30}", length) else None, goes_on)
                while block := response.raw.read(BLOCK, decode_content=False):
                    yield block
                yield b""
    # This order: each is of a kind of the later ones, and all of requests' are OSErrors.
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise _Failure(f"no answer in {TIMEOUT:g} s", again=True) from error
    except (requests.exceptions.ChunkedEncodingError, urllib3.exceptions.HTTPError) as error:
        raise _Failure("the connection broke off", again=True) from error
    except requests.ConnectionError as error:
        raise _Failure("no connection") from error
    except (requests.RequestException, ValueError) as error:
        raise _Failure(str(error)) from error


def _check_room(part: Path, size: int, there: int, largest: int) -> None:
    """Refuses a file of `size` bytes, of which so many are `there`, that is too large or would fill the disk."""
    if size > largest:
        part.unlink(missing_ok=True)
        raise _Failure(f"more than the {largest:,} bytes that it may have")
    disk = shutil.disk_usage(part.parent)
    if disk.free - (size - there) < min(disk.total // FREE_SHARE, FREE_MOST):
        raise OSError(errno.ENOSPC, f"too little room on the disk for {size - there:,} bytes more")
