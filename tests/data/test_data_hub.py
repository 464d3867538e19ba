"""Data sets by the library `datasets`: local Parquet and Arrow files, and what the hub's own would be."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datafiles import pixels
from PIL import Image

from fastdraw import data
from fastdraw.cli import main
from fastdraw.data import DataError, hub, pictures

datasets = pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "theirs")


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def rows(images: np.ndarray, column: str = "image", **more: Any) -> Any:
    """With a column of images and one of classes, as their library declares them."""
    kinds = {column: datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])}
    cells = [{"bytes": png(image), "path": None} for image in images]
    columns = {column: cells, "label": [i % 2 for i in range(len(images))], **more}
    kinds |= {name: datasets.Image() for name in more}
    return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))


def test_splits_and_labels_are_as_declared(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    folder.mkdir()
    parts = {"train": pixels(12, 6, 5, 3), "validation": pixels(4, 6, 5, 3, seed=1), "test": pixels(5, 6, 5, 3, seed=2)}
    for name, images in parts.items():
        rows(images).to_parquet(folder / f"{name}-00000-of-00001.parquet")
    splits = data.load(folder)
    for name, images in parts.items():
        np.testing.assert_array_equal(getattr(splits, name).permute(0, 2, 3, 1).numpy(), images)
    assert splits.classes == ("cat", "dog")
    assert splits.labels is not None
    assert splits.labels.test.tolist() == [0, 1, 0, 1, 0]
    assert splits.name == "pets"


def test_one_file_is_dealt_out_and_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(20, 6, 5)
    rows(images, "picture_of_it").to_parquet(tmp_path / "some.parquet")
    first = data.load(tmp_path / "some.parquet")
    assert [len(part) for part in first[:3]] == [16, 2, 2]
    assert first.labels is not None
    for part, labels in zip(first[:3], first.labels, strict=True):
        for image, label in zip(part[:, 0].numpy(), labels.tolist(), strict=True):
            assert np.flatnonzero((images == image).all((1, 2)))[0] % 2 == label
    monkeypatch.setattr(pictures, "decode", None)
    assert all(torch.equal(a, b) for a, b in zip(data.load(tmp_path / "some.parquet")[:3], first[:3], strict=True))


def test_of_several_columns_one_is_named(tmp_path: Path) -> None:
    cells = [{"bytes": png(image), "path": None} for image in pixels(20, 6, 5, seed=3)]
    rows(pixels(20, 6, 5), "left", right=cells).to_parquet(tmp_path / "two.parquet")
    with pytest.raises(DataError, match="one of left, right, named behind a #, got left, label, right"):
        data.load(tmp_path / "two.parquet")
    splits = data.load(f"{tmp_path}/two.parquet#right")
    every = {image.tobytes() for part in splits[:3] for image in part.numpy()}
    assert every == {image.tobytes() for image in pixels(20, 6, 5, seed=3)}
    with pytest.raises(DataError, match="expected a column of images, left, right, got label"):
        data.load(f"{tmp_path}/two.parquet#label")


def test_bad_ones_are_named(tmp_path: Path) -> None:
    cells = [{"bytes": png(image), "path": None} for image in pixels(20, 6, 5)]
    cells[3]["bytes"] = b"no picture"
    kinds = datasets.Features({"image": datasets.Image()})
    datasets.Dataset.from_dict({"image": cells}, features=kinds).to_parquet(tmp_path / "some.parquet")
    with pytest.raises(DataError, match=r"got 1 that cannot: .*some\.parquet: train 3: expected an image"):
        data.load(tmp_path / "some.parquet")
    splits = data.load(tmp_path / "some.parquet", skip_bad=True)
    assert sum(map(len, splits[:3])) == 19
    assert splits.labels is None


def test_a_named_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What the hub would give; that it cannot be reached is one line."""
    asked: list[Any] = []

    def load(*args: Any, **how: Any) -> Any:
        asked.append((args, how["download_config"].local_files_only))
        return datasets.DatasetDict({"train": rows(pixels(12, 6, 5)), "test": rows(pixels(4, 6, 5, seed=1))})

    monkeypatch.setattr(datasets, "load_dataset", load)
    splits = data.load("hf:somebody/pets@small#image")
    assert (len(splits.train), len(splits.test), splits.name) == (11, 4, "pets")
    data.load("hf:somebody/pets", download=False)
    assert asked == [(("somebody/pets", "small"), False), (("somebody/pets", None), True)]

    def fails(*args: Any, **how: Any) -> Any:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(datasets, "load_dataset", fails)
    assert main(["train", "--data", "hf:somebody/pets", "--out", str(tmp_path / "run")]) == 2
    words = "fastdraw: error: --data: expected hf:somebody/pets from the Hugging Face hub, got: no route to host\n"
    assert capsys.readouterr().err == words
    with pytest.raises(DataError, match="expected hf:OWNER/NAME, got hf:pets"):
        data.load("hf:pets")


def test_arrow_files(tmp_path: Path) -> None:
    """As their library saves them."""
    images = pixels(20, 6, 5)
    rows(images).save_to_disk(tmp_path / "pets")
    splits = data.load(tmp_path / "pets")
    assert [len(part) for part in splits[:3]] == [16, 2, 2]
    assert splits.classes == ("cat", "dog")
    assert {image.tobytes() for part in splits[:3] for image in part.numpy()} == {image.tobytes() for image in images}


class Hub(BaseHTTPRequestHandler):
    """What `datasets` asks the hub for: what a repository holds, and its files."""

    REVISION = "a" * 40
    protocol_version = "HTTP/1.1"
    files: dict[str, bytes]
    asked: list[str]

    def do_GET(self) -> None:
        path, name = self.path.partition("?")[0], self.path.rpartition("/")[2]
        self.asked.append(path)
        there: bool = path.startswith(("/api/datasets/somebody/pets", "/datasets/somebody/pets/"))
        body, about = b"{}", {"X-Error-Code": "EntryNotFound"}
        if there and "/resolve/" in path:
            there = name in self.files
            if there:
                body, about = self.files[name], {"ETag": f'"{name}"', "X-Repo-Commit": self.REVISION}
        elif there and "/tree/" in path:
            whole = not path.endswith("/data")
            found = [{"type": "file", "path": n, "size": len(b), "oid": "b" * 40} for n, b in self.files.items() if whole]
            body = json.dumps(found).encode()
        elif there:
            siblings = [{"rfilename": name} for name in self.files]
            body = json.dumps({"id": "somebody/pets", "sha": self.REVISION, "siblings": siblings}).encode()
        self.send_response(200 if there else 404)
        for key, value in {**about, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args: Any) -> None: ...


#: Prints what became of each of two names.
LOADS = """
import sys
from fastdraw import data
for name in sys.argv[1:]:
    try:
        splits = data.load(name)
        print(name, *map(len, splits[:3]), splits.classes, int(splits.train.sum()))
    except data.DataError as error:
        print(error)
"""


def test_a_server_of_the_hub(tmp_path: Path) -> None:
    """Through the library's own requests, which HF_ENDPOINT turns to a server here; what it has is not fetched again."""
    parts = {"train": pixels(12, 6, 5), "validation": pixels(3, 6, 5, seed=1), "test": pixels(4, 6, 5, seed=2)}
    for name, images in parts.items():
        rows(images).to_parquet(tmp_path / f"{name}-00000-of-00001.parquet")
    Hub.files, Hub.asked = {file.name: file.read_bytes() for file in tmp_path.glob("*.parquet")}, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    own = {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "theirs")}
    environment = {**{name: value for name, value in os.environ.items() if not name.startswith("HF_")}, **own}
    command = [sys.executable, "-c", LOADS, "hf:somebody/pets", "hf:somebody/pets", "hf:somebody/none"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=True)
    server.shutdown()
    server.server_close()
    first, second, none = ended.stdout.splitlines()
    assert first == second == f"hf:somebody/pets 12 3 4 ('cat', 'dog') {parts['train'].sum()}"
    assert none.startswith("data: expected hf:somebody/none from the Hugging Face hub, got: ")
    fetched = [path.rpartition("/")[2] for path in Hub.asked if path.endswith(".parquet")]
    assert {name: fetched.count(name) for name in Hub.files} == dict.fromkeys(Hub.files, 2)


def test_which_paths_are_of_the_library(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert hub.files(tmp_path / "a.parquet") == ("parquet", [tmp_path / "a.parquet"])
    assert hub.files(tmp_path) == ("parquet", [tmp_path / "a.parquet"])
    (tmp_path / "b.png").write_bytes(b"")
    assert hub.files(tmp_path) is None
    with pytest.raises(DataError, match=r"a\.parquet: expected parquet files, got"):
        data.load(tmp_path / "a.parquet")
