"""Downloads, from a server on this machine that serves rightly, breaks off, corrupts, stalls or has nothing."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from datafiles import (
    BINARIZED,
    IDX_FILES,
    MNIST,
    amat_bytes,
    chardata_bytes,
    cifar_archive,
    idx_bytes,
    pixels,
    same,
    sizes,
    svhn_archive,
)

from fastdraw import data
from fastdraw.data import DataError, cifar10, download, mnist, omniglot, svhn

PAYLOAD = gzip.compress(idx_bytes(pixels(12, 28, 28)))
MD5 = hashlib.md5(PAYLOAD).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` from memory, each mirror in its own way: /right/, /missing/, /broken/ and so on."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        #: The path of each request, and the byte that it wants to begin at.
        self.asked: list[str] = []
        self.starts: list[int] = []
        self.done = threading.Event()

    def mirrors(self, *kinds: str) -> tuple[str, ...]:
        return tuple(f"http://127.0.0.1:{self.server_port}/{kind}/" for kind in kinds)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        _, kind, name = self.path.split("/")
        wanted = self.headers.get("Range", "bytes=0-")
        start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        self.server.asked.append(self.path)
        self.server.starts.append(start)
        content = self.server.files.get(name)
        if content is None or kind == "missing":
            self.send_error(404)
            return
        if start >= len(content):
            self.send_error(416)
            return
        if kind == "stalled":
            self.server.done.wait(20)
            return
        if kind == "forgetful":
            start = 0
        self.send_response(206 if start else 200)
        if start:
            first = start + 1 if kind == "crooked" else start
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if kind == "labelled":
            # As servers do that take .gz for a way to send a file rather than for the file.
            self.send_header("Content-Encoding", "gzip")
        rest = content[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if kind in ("broken", "crooked"):
            self.wfile.write(rest[: len(rest) // 2])
        elif kind == "brittle":
            self.wfile.write(rest[: len(content) // 3])
        elif kind == "corrupt":
            self.wfile.write(rest[:-1] + bytes([rest[-1] ^ 1]))
        elif kind == "silent":
            self.wfile.write(rest[: len(rest) // 2])
            self.wfile.flush()
            self.server.done.wait(20)
        else:
            self.wfile.write(rest)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    """Neither this machine's data nor its cache, and no patience; files here are small."""
    monkeypatch.setattr(download, "BLOCK", 1 << 10)
    monkeypatch.delenv("FASTDRAW_DATA", raising=False)
    monkeypatch.setenv("FASTDRAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(download, "PAUSE", 0.0)


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server({"some.gz": PAYLOAD}) as server:
        thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.02))
        thread.start()
        yield server
        server.done.set()
        server.shutdown()
        thread.join()


def cached(tmp_path) -> list[str]:
    names = os.listdir(tmp_path / "cache") if (tmp_path / "cache").exists() else []
    return sorted(name for name in names if not name.endswith(".lock"))


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
    "stalled": "no answer in 0.3 s",
    "silent": "no answer in 0.1 s",
    "crooked": "HTTP 206",
}
#: Requests that a mirror gets before it is given up: each that brings something is worth another one.
REQUESTS = {"broken": 5, "silent": 5, "crooked": 2}


def be_quick(monkeypatch, kind: str) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.1 if kind == "silent" else 0.3)


@pytest.mark.parametrize("kind", FAILURES)
def test_download_from_the_next_mirror(tmp_path, monkeypatch, server, kind):
    be_quick(monkeypatch, kind)
    assert download.fetch("some.gz", MD5, server.mirrors(kind, "right")).read_bytes() == PAYLOAD
    assert server.asked == [f"/{kind}/some.gz"] * REQUESTS.get(kind, 1) + ["/right/some.gz"]
    # What a mirror brought is not asked for again, unless it was wrong.
    assert (server.starts[-1] > 0) == (kind in REQUESTS)
    assert cached(tmp_path) == ["some.gz"]


@pytest.mark.parametrize("kind", FAILURES)
def test_failed_download(tmp_path, monkeypatch, server, kind):
    be_quick(monkeypatch, kind)
    with pytest.raises(
        DataError, match=rf"^some\.gz: expected a download, got 127\.0\.0\.1:\d+: {FAILURES[kind]}; "
    ) as caught:
        download.fetch("some.gz", MD5, server.mirrors(kind))
    assert "\n" not in str(caught.value)
    assert cached(tmp_path) == ([PART] if kind in REQUESTS else [])


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


def test_mnist_is_downloaded(monkeypatch, server):
    server.files = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in IDX_FILES.items()}
    monkeypatch.setattr(mnist, "MIRRORS", server.mirrors("missing", "right"))
    for constant in ("TRAIN_IMAGES", "TRAIN_LABELS", "TEST_IMAGES", "TEST_LABELS"):
        name = getattr(mnist, constant)[0]
        monkeypatch.setattr(mnist, constant, (name, hashlib.md5(server.files[name]).hexdigest()))
    splits = data.load("mnist")
    assert same(splits.train, MNIST["train_images"][:50])
    # Out of the cache, and with the data folder passed over that does not hold it.
    server.files = {}
    monkeypatch.setenv("FASTDRAW_DATA", "nowhere")
    assert torch.equal(data.load("mnist", download=False).test, splits.test)


def test_binarized_mnist_is_downloaded(monkeypatch, server):
    server.files = {f"binarized_mnist_{part}.amat": amat_bytes(bits) for part, bits in BINARIZED.items()}
    monkeypatch.setattr(mnist, "BINARIZED_MIRRORS", server.mirrors("right"))
    texts = {part: (name, hashlib.md5(server.files[name]).hexdigest()) for part, (name, _) in mnist.BINARIZED.items()}
    monkeypatch.setattr(mnist, "BINARIZED", texts)
    assert same(data.load("binarized-mnist").test, BINARIZED["test"] * 255)


def test_svhn_is_downloaded(tmp_path, monkeypatch, server, capfd):
    server.files = {f"{part}.tar.gz": svhn_archive(part, n) for part, n in (("train", 12), ("test", 3), ("extra", 20))}
    monkeypatch.setattr(svhn, "MIRRORS", server.mirrors("missing", "brittle"))
    archives = {part: (name, hashlib.md5(server.files[name]).hexdigest()) for part, (name, _) in svhn.ARCHIVES.items()}
    monkeypatch.setattr(svhn, "ARCHIVES", archives)
    splits = data.load("svhn", progress=True)
    assert sizes(splits) == (11, 1, 3)
    assert splits.image_shape == (3, 54, 54)
    assert "extra.tar.gz" not in cached(tmp_path)
    shown = capfd.readouterr().err
    assert "train.tar.gz from 127.0.0.1" in shown
    assert "12/12" in shown
    # The prepared images alone are enough from now on.
    for name in ("train.tar.gz", "test.tar.gz"):
        (tmp_path / "cache" / name).unlink()
    again = data.load("svhn", download=False)
    assert all(torch.equal(one, other) for one, other in zip(splits[:3], again[:3], strict=True))
    assert sizes(data.load("svhn-extra")) == (29, 3, 3)
    # Damaged, they are made again.
    for file in (tmp_path / "cache").glob("svhn-*.npz"):
        file.write_bytes(file.read_bytes()[:-100])
    assert torch.equal(data.load("svhn").train, splits.train)


def test_svhn_with_a_damaged_archive_leaves_nothing(tmp_path, monkeypatch, server):
    server.files = {"train.tar.gz": svhn_archive("train", 12)[:-2000], "test.tar.gz": svhn_archive("test", 3)}
    monkeypatch.setattr(svhn, "MIRRORS", server.mirrors("right"))
    archives = {
        part: (name, hashlib.md5(content).hexdigest())
        for part in ("train", "test")
        for name, content in server.files.items()
        if name.startswith(part)
    }
    monkeypatch.setattr(svhn, "ARCHIVES", archives)
    with pytest.raises(DataError, match=r"train\.tar\.gz: expected a whole \.tar archive"):
        data.load("svhn")
    assert cached(tmp_path) == ["train.tar.gz"]


def test_cifar10_is_downloaded(monkeypatch, server):
    server.files = {cifar10.ARCHIVE[0]: cifar_archive(4)}
    monkeypatch.setattr(cifar10, "MIRRORS", server.mirrors("corrupt", "right"))
    monkeypatch.setattr(cifar10, "ARCHIVE", (cifar10.ARCHIVE[0], hashlib.md5(cifar_archive(4)).hexdigest()))
    assert sizes(data.load("cifar10")) == (18, 2, 4)
    assert sizes(data.load("cifar10", download=False)) == (18, 2, 4)


def test_omniglot_is_downloaded(tmp_path, monkeypatch, server):
    server.files = {omniglot.FILE: chardata_bytes(40, 7)}
    monkeypatch.setattr(omniglot, "MIRRORS", server.mirrors("corrupt", "right"))
    with pytest.raises(DataError, match=r"check says: .*expected arrays of shape .*24345"):
        data.load("omniglot")
    assert cached(tmp_path) == []
    monkeypatch.setattr(omniglot, "COUNTS", (40, 7))
    monkeypatch.setattr(omniglot, "VALIDATION", 6)
    assert sizes(data.load("omniglot")) == (34, 6, 7)


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
