"""A server on this machine that serves rightly, breaks off, corrupts, stalls or has nothing, for tests of downloads."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from datafiles import PAYLOAD

from fastdraw.data import download


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
        if kind in ("led", "circling"):
            self.send_response(302)
            # Of a body that nobody needs, more than anybody could read.
            self.send_header("Location", f"/{'right' if kind == 'led' else kind}/{name}")
            self.send_header("Content-Length", str(1 << 60))
            self.end_headers()
            self.wfile.write(bytes(1 << 16))
            return
        if kind == "waiting":
            self.pour(b"HTTP/1.1 100 Continue\r\n\r\n", pause=0.01)
            return
        if kind in ("endless", "dripping", "absurd"):
            self.send_response(200)
            if kind == "absurd":
                self.send_header("Content-Length", "9" * 400)
            self.end_headers()
            self.pour(b"x" if kind == "dripping" else bytes(1 << 16), pause=0.05 if kind == "dripping" else 0)
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

    def pour(self, some: bytes, pause: float) -> None:
        """The same bytes again and again, until nobody reads them any more."""
        with contextlib.suppress(OSError):
            while not self.server.done.wait(pause):
                self.wfile.write(some)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[Server]:
    """Files here are small, and nobody is patient."""
    monkeypatch.setattr(download, "BLOCK", 1 << 10)
    monkeypatch.setattr(download, "PAUSE", 0.0)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Server({"some.gz": PAYLOAD}) as server:
        thread = threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.02))
        thread.start()
        yield server
        server.done.set()
        server.shutdown()
        thread.join()
