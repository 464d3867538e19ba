"""Downloads, from a server on this machine that serves rightly, breaks off, corrupts, stalls or has nothing."""

from __future__ import annotations

import functools
import gzip
import hashlib
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from datafiles import BINARIZED, IDX_FILES, MNIST, amat_bytes, idx_bytes, pixels, same

from fastdraw import data
from fastdraw.data import DataError, download, mnist

PAYLOAD = gzip.compress(idx_bytes(pixels(12, 28, 28)))
MD5 = hashlib.md5(PAYLOAD).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files` from memory, each mirror in its own way: /right/, /missing/, /broken/, /corrupt/, /stalled/."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked = files, []
        self.done = threading.Event()

    def mirrors(self, *kinds: str) -> tuple[str, ...]:
        return tuple(f"http://127.0.0.1:{self.server_port}/{kind}/" for kind in kinds)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        _, kind, name = self.path.split("/")
        content = self.server.files.get(name)
        if content is None or kind == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if kind == "broken":
            self.wfile.write(content[: len(content) // 2])
        elif kind == "corrupt":
            self.wfile.write(content[:-1] + bytes([content[-1] ^ 1]))
        elif kind == "stalled":
            self.server.done.wait(20)
        else:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    """Neither this machine's data nor its cache."""
    monkeypatch.delenv("FASTDRAW_DATA", raising=False)
    monkeypatch.setenv("FASTDRAW_CACHE", str(tmp_path / "cache"))


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
    return sorted(os.listdir(tmp_path / "cache")) if (tmp_path / "cache").exists() else []


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


FAILURES = {
    "missing": "HTTP 404",
    "broken": "the connection broke off",
    "corrupt": "a file with another checksum",
    "stalled": "no answer in 0.3 s",
}


@pytest.mark.parametrize("kind", FAILURES)
def test_download_from_the_next_mirror(tmp_path, monkeypatch, server, kind):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    assert download.fetch("some.gz", MD5, server.mirrors(kind, "right")).read_bytes() == PAYLOAD
    assert server.asked == [f"/{kind}/some.gz", "/right/some.gz"]
    assert cached(tmp_path) == ["some.gz"]


@pytest.mark.parametrize("kind", FAILURES)
def test_failed_download(tmp_path, monkeypatch, server, kind):
    monkeypatch.setattr(download, "TIMEOUT", 0.3)
    with pytest.raises(
        DataError, match=rf"^some\.gz: expected a download, got 127\.0\.0\.1:\d+: {FAILURES[kind]}; "
    ) as caught:
        download.fetch("some.gz", MD5, server.mirrors(kind))
    assert "\n" not in str(caught.value)
    assert cached(tmp_path) == []


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


def test_cache_that_cannot_be_written(tmp_path, monkeypatch, server):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FASTDRAW_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(DataError, match=r"cache: expected room for some\.gz, got: Not a directory"):
        download.fetch("some.gz", MD5, server.mirrors("right"))


def test_full_disk_while_downloading(tmp_path, monkeypatch, server):
    import pooch

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fail)
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


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch, server):
    import pooch

    def interrupt(self, url, output_file, *_: object) -> None:
        Path(output_file).write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        download.fetch("some.gz", MD5, server.mirrors("right"))
    assert cached(tmp_path) == []
