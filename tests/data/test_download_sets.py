"""Every data set that is downloaded, from a server with small files of the forms that the real ones have."""

from __future__ import annotations

import gzip
import hashlib

import pytest
import torch
from datafiles import BINARIZED, IDX_FILES, MNIST, amat_bytes, cached, chardata_bytes, cifar_archive, same, sizes, svhn_archive

from fastdraw import data
from fastdraw.data import DataError, cifar10, mnist, omniglot, svhn

#: Its fixture: server.
pytest_plugins = ["fileserver"]


def test_mnist_is_downloaded(tmp_path, monkeypatch, server):
    server.files = {f"{name}.gz": gzip.compress(content, mtime=0) for name, content in IDX_FILES.items()}
    monkeypatch.setattr(mnist, "MIRRORS", server.mirrors("missing", "right"))
    for constant in ("TRAIN_IMAGES", "TRAIN_LABELS", "TEST_IMAGES", "TEST_LABELS"):
        name = getattr(mnist, constant)[0]
        monkeypatch.setattr(mnist, constant, (name, hashlib.md5(server.files[name]).hexdigest()))
    splits = data.load("mnist")
    assert same(splits.train, MNIST["train_images"][:50])
    # Out of the cache, and with the data folder passed over that does not hold it.
    server.files = {}
    monkeypatch.setenv("FASTDRAW_DATA", str(tmp_path))
    assert torch.equal(data.load("mnist", download=False).test, splits.test)
    # A folder that is named and not there is a mistake, and no reason to download.
    monkeypatch.setenv("FASTDRAW_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"^data_dir: expected a folder that is there, got .*nowhere"):
        data.load("mnist")
    for name in ("mnist", "digits", tmp_path):
        with pytest.raises(DataError, match=r"^data_dir: expected a folder that is there, got 'nowhere'"):
            data.load(name, "nowhere")


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
