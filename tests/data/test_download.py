"""Downloads, from a server that serves rightly, breaks off, corrupts, stalls or has nothing."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from datafiles import MD5, PAYLOAD, cached

from fastdraw.data import DataError, download
from fastdraw.data.cache import prepared

#: Its fixture: server.
pytest_plugins = ["fileserver"]

#: What a download that broke off leaves.
PART = ".some.part.gz"


def test_download_once(tmp_path, server, capfd):
    for _ in range(2):
        file = download.fetch("some.gz", MD5, server.mirrors("right"))
        assert file == tmp_path / "cache" / "some.gz"
        assert file.read_bytes() == PAYLOAD
    assert server.asked == ["/right/some.gz"]
    assert cached(tmp_path) == ["some.gz"]
    assert capfd.readouterr() == ("", "")


def test_download_with_a_bar(server, capfd):
    download.fetch("some.gz", MD5, server.mirrors("right"), progress=True)
    assert "some.gz from 127.0.0.1" in capfd.readouterr().err


def test_two_at_once_download_once(server):
    with ThreadPoolExecutor(4) as pool:
        files = list(pool.map(lambda _: download.fetch("some.gz", MD5, server.mirrors("right")), range(4)))
    assert all(file.read_bytes() == PAYLOAD for file in files)
    assert server.asked == ["/right/some.gz"]


FAILURES = {
    "missing": "HTTP 404",
    "broken": "the connection broke off",
    "corrupt": "a file with another checksum",
    "stalled": "no answer in 0.5 s",
    "silent": "no answer in 0.5 s",
    "crooked": "HTTP 206",
    "endless": "more than the 1,000,000 bytes that it may have",
    "absurd": "more than the 1,000,000 bytes that it may have",
    "dripping": "no answer in 0.5 s",
    "waiting": "no answer in 0.5 s",
    "circling": "HTTP 302",
}
#: Requests that a mirror gets before it is given up: each that brings something is worth another one.
REQUESTS = {"broken": 5, "silent": 2, "crooked": 2, "circling": 6}


def be_quick(monkeypatch, kind: str) -> None:
    # Long enough for a busy machine to answer in, where it means to.
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    monkeypatch.setattr(download, "LARGEST", 1_000_000)
    if kind == "silent":
        monkeypatch.setattr(download, "ATTEMPTS", 2)


@pytest.mark.parametrize("kind", FAILURES)
def test_download_from_the_next_mirror(tmp_path, monkeypatch, server, kind):
    be_quick(monkeypatch, kind)
    assert download.fetch("some.gz", MD5, server.mirrors(kind, "right")).read_bytes() == PAYLOAD
    assert server.asked == [f"/{kind}/some.gz"] * REQUESTS.get(kind, 1) + ["/right/some.gz"]
    # What a mirror brought is not asked for again, unless it was wrong.
    assert (server.starts[-1] > 0) == (kind in REQUESTS and kind != "circling")
    assert cached(tmp_path) == ["some.gz"]


@pytest.mark.parametrize("kind", FAILURES)
def test_failed_download(tmp_path, monkeypatch, server, kind):
    be_quick(monkeypatch, kind)
    with pytest.raises(
        DataError, match=rf"^some\.gz: expected a download, got 127\.0\.0\.1:\d+: {FAILURES[kind]}; "
    ) as caught:
        download.fetch("some.gz", MD5, server.mirrors(kind))
    assert "\n" not in str(caught.value)
    assert cached(tmp_path) == ([PART] if kind in REQUESTS and kind != "circling" else [])


def test_an_address_that_leads_to_another(server):
    assert download.fetch("some.gz", MD5, server.mirrors("led")).read_bytes() == PAYLOAD
    assert server.asked == ["/led/some.gz", "/right/some.gz"]


def test_a_download_has_a_deadline(tmp_path, monkeypatch, server):
    monkeypatch.setattr(download, "DEADLINE", 0.5)
    monkeypatch.setattr(download, "BLOCK", 1)
    monkeypatch.setattr(download, "ATTEMPTS", 2)
    with pytest.raises(DataError, match=r"127\.0\.0\.1:\d+: no end in 0\.5 s; "):
        download.fetch("some.gz", None, server.mirrors("dripping"), check=lambda path: None)
    assert server.asked == ["/dripping/some.gz"]


@pytest.mark.parametrize("kind", ["right", "endless"])
def test_a_download_leaves_room_on_the_disk(tmp_path, monkeypatch, server, kind):
    """Where the server says how much will come, nothing is written."""
    free = [len(PAYLOAD) + 99 if kind == "right" else 5_000_000]
    written = []

    def usage(folder: Path) -> object:
        written.append(sum(file.stat().st_size for file in folder.glob(".*.gz")))
        return SimpleNamespace(total=2000, free=free[0] - written[-1])

    monkeypatch.setattr(download.shutil, "disk_usage", usage)
    # As large as blocks are, so that none is kept back before it is written.
    monkeypatch.setattr(download, "BLOCK", 1 << 16)
    with pytest.raises(DataError, match=r"expected room for some\.gz, got: too little room on the disk for"):
        download.fetch("some.gz", MD5, server.mirrors(kind))
    assert cached(tmp_path) == []
    assert max(written) <= free[0]
    assert (max(written) > 0) == (kind == "endless")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes of POSIX systems")
@pytest.mark.parametrize("kind", ["link", "second name", "link to nothing", "pipe"])
@pytest.mark.parametrize("name", [PART, ".some.gz.lock"])
def test_what_is_planted_in_the_cache_is_not_followed(tmp_path, server, kind, name):
    plant(tmp_path, tmp_path / "cache" / name, kind)
    if name == PART:
        assert download.fetch("some.gz", MD5, server.mirrors("broken", "right")).read_bytes() == PAYLOAD
        assert cached(tmp_path) == ["some.gz"]
    else:
        with contextlib.suppress(DataError):
            download.fetch("some.gz", MD5, server.mirrors("right"))
    assert (tmp_path / "file").read_bytes() == b"of somebody else"
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links and pipes of POSIX systems")
@pytest.mark.parametrize("kind", ["link", "second name", "link to nothing", "pipe"])
def test_what_is_planted_where_prepared_images_go_is_not_followed(tmp_path, kind):
    images = np.zeros((2, 1, 3, 3), np.uint8)
    for name in (".some.part.npz", "some.npz"):
        plant(tmp_path, tmp_path / "cache" / name, kind)
    assert (prepared("some", lambda: images) == images).all()
    assert cached(tmp_path) == ["some.npz"]
    assert (tmp_path / "cache" / "some.npz").lstat().st_nlink == 1
    assert (tmp_path / "file").read_bytes() == b"of somebody else"
    assert not (tmp_path / "new").exists()


def plant(folder: Path, name: Path, kind: str) -> None:
    name.parent.mkdir(exist_ok=True)
    (folder / "file").write_bytes(b"of somebody else")
    if kind == "second name":
        os.link(folder / "file", name)
    elif kind == "pipe":
        os.mkfifo(name)
    else:
        name.symlink_to(folder / ("file" if kind == "link" else "new"))


def test_no_network(tmp_path, server):
    mirrors = server.mirrors("right")
    server.server_close()
    with pytest.raises(DataError, match=r"no connection; .*data_dir or FASTDRAW_DATA"):
        download.fetch("some.gz", MD5, mirrors)
    assert cached(tmp_path) == []


def test_download_switched_off(tmp_path, server):
    with pytest.raises(DataError, match=r"^some\.gz: expected it in .*cache, since download is off"):
        download.fetch("some.gz", MD5, server.mirrors("right"), download=False)
    download.fetch("some.gz", MD5, server.mirrors("right"))
    assert download.fetch("some.gz", MD5, (), download=False).read_bytes() == PAYLOAD
    assert len(server.asked) == 1


def test_damaged_cache_is_filled_again(tmp_path, server):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "some.gz").write_bytes(PAYLOAD[:-5])
    assert download.fetch("some.gz", MD5, server.mirrors("broken", "right")).read_bytes() == PAYLOAD
    assert cached(tmp_path) == ["some.gz"]


def test_a_download_goes_on_where_it_stopped(tmp_path, server):
    assert download.fetch("some.gz", MD5, server.mirrors("brittle")).read_bytes() == PAYLOAD
    assert server.starts == list(range(0, len(PAYLOAD), len(PAYLOAD) // 3))
    assert len(server.starts) > 2
    assert cached(tmp_path) == ["some.gz"]


def test_a_later_process_goes_on(tmp_path, server):
    with pytest.raises(DataError):
        download.fetch("some.gz", MD5, server.mirrors("broken"))
    came = (tmp_path / "cache" / PART).read_bytes()
    assert PAYLOAD.startswith(came)
    assert 0 < len(came) < len(PAYLOAD)
    assert download.fetch("some.gz", MD5, server.mirrors("right")).read_bytes() == PAYLOAD
    assert server.starts[-1] == len(came)
    assert cached(tmp_path) == ["some.gz"]


@pytest.mark.parametrize(
    ("left", "kind", "starts"),
    [
        # A server that cannot begin in the middle.
        (PAYLOAD[:100], "forgetful", [100]),
        # Bytes of another file: only the checksum tells, and the second request begins anew.
        (b"x" * 100, "right", [100, 0]),
        # More than there is; and everything, which a process died over before it was given its name.
        (PAYLOAD + b"x", "right", [len(PAYLOAD) + 1, 0]),
        (PAYLOAD, "right", [len(PAYLOAD)]),
    ],
)
def test_what_an_earlier_process_left(tmp_path, server, left, kind, starts):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / PART).write_bytes(left)
    assert download.fetch("some.gz", MD5, server.mirrors(kind)).read_bytes() == PAYLOAD
    assert server.starts == starts
    assert cached(tmp_path) == ["some.gz"]


def test_nothing_is_unpacked_on_the_way(server):
    assert download.fetch("some.gz", MD5, server.mirrors("labelled")).read_bytes() == PAYLOAD


def test_without_a_checksum_the_check_decides(tmp_path, server):
    def check(path: Path) -> None:
        seen.append(path.read_bytes())
        raise DataError("expected another file")

    seen: list[bytes] = []
    with pytest.raises(DataError, match=r"a file of which the check says: expected another file; "):
        download.fetch("some.gz", None, server.mirrors("right"), check=check)
    assert seen == [PAYLOAD]
    assert cached(tmp_path) == []
    # Pieces are never put together: nothing would tell whether they fit.
    file = download.fetch("some.gz", None, server.mirrors("broken", "right"), check=lambda path: None)
    assert file.read_bytes() == PAYLOAD
    assert server.starts == [0, 0, 0]
    assert cached(tmp_path) == ["some.gz"]


def test_cache_that_cannot_be_written(tmp_path, monkeypatch, server):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTDRAW_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"cache: expected room for some\.gz, got: Not a directory"):
        download.fetch("some.gz", MD5, server.mirrors("right"))


def test_full_disk_while_downloading(tmp_path, monkeypatch, server):
    def fail(part: Path, *_: object) -> None:
        part.write_bytes(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_request", fail)
    with pytest.raises(DataError, match=r"expected room for some\.gz, got: No space left on device"):
        download.fetch("some.gz", MD5, server.mirrors("right"))
    assert cached(tmp_path) == []


def test_an_interrupted_download_goes_on(tmp_path, monkeypatch, server):
    def interrupt(done: int, total: int | None) -> None:
        assert total == len(PAYLOAD)
        if done:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(download, "bar", lambda *_, **__: contextlib.nullcontext(interrupt))
        with pytest.raises(KeyboardInterrupt):
            download.fetch("some.gz", MD5, server.mirrors("right"))
    assert cached(tmp_path) == [PART]
    assert download.fetch("some.gz", MD5, server.mirrors("right")).read_bytes() == PAYLOAD
    assert cached(tmp_path) == ["some.gz"]
