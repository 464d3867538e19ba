"""Archives that mean harm, and files altered anywhere."""

from __future__ import annotations

import bz2
import functools
import gzip
import io
import lzma
import tarfile
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from datafiles import (
    CIFAR_FILES,
    chardata_bytes,
    cifar_archive,
    idx_bytes,
    mat_bytes,
    npz_bytes,
    pixels,
    svhn_archive,
    svhn_folder,
    tar_bytes,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from fastdraw import data
from fastdraw.data import DataError, archive, arrays, housenumbers

FILES = {"some/a.txt": b"first", "some/b.txt": b"second"}


def taken(tmp_path, content: bytes, names=tuple(FILES), largest: int = 100) -> dict[str, bytes]:
    (tmp_path / "some.tar.gz").write_bytes(content)
    return dict(archive.members(tmp_path / "some.tar.gz", names, largest))


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_members(tmp_path):
    assert taken(tmp_path, tar_bytes(FILES)) == FILES
    # Unpacked, with ./ before each name, and only what is asked for.
    assert taken(tmp_path, gzip.decompress(tar_bytes(FILES))) == FILES
    assert taken(tmp_path, tar_bytes({f"./{name}": content for name, content in FILES.items()})) == FILES
    assert taken(tmp_path, tar_bytes(FILES), ["some/b.txt"]) == {"some/b.txt": b"second"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE])
def test_a_member_that_is_no_file(tmp_path, kind):
    with pytest.raises(DataError, match=r"expected a plain file as some/a\.txt, got a link or something else"):
        taken(tmp_path, tar_bytes(FILES, link("some/a.txt", "/etc/passwd", kind)))


def test_nothing_is_written_whatever_an_archive_holds(tmp_path):
    (tmp_path / "inside").mkdir()
    others = (
        link("some", ".."),
        link("x", "/etc/passwd"),
        link("../../escaped", "x", tarfile.LNKTYPE),
        link("pipe", "", tarfile.FIFOTYPE),
    )
    content = tar_bytes({"../escaped": b"1", "/escaped": b"1", "some/../../escaped": b"1", **FILES}, *others)
    assert taken(tmp_path / "inside", content) == FILES
    assert [file.name for file in tmp_path.rglob("*")] == ["inside", "some.tar.gz"]


def test_archives_that_fill_the_memory(tmp_path, monkeypatch):
    with pytest.raises(DataError, match=r"expected at most 5 bytes in some/b\.txt, got 6"):
        taken(tmp_path, tar_bytes(FILES), largest=5)
    # Zeros pack a thousand times smaller; they stand before what is asked for.
    monkeypatch.setattr(arrays, "LARGEST_SMALL", 1 << 10)
    bomb = tar_bytes({"zeros": bytes(1_000_000), **FILES})
    assert len(bomb) < 5000
    with pytest.raises(DataError, match=r"expected at most .* bytes unpacked for a file of its size"):
        taken(tmp_path, bomb)


def header(kind: bytes, size: int, name: str = "some/a.txt") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header(tarfile.GNUTYPE_LONGNAME, 1 << 26) + bytes(1 << 26), "bytes of headers before a member, got more"),
        (header(tarfile.GNUTYPE_LONGLINK, 1 << 26) + bytes(1 << 26), "bytes of headers before a member, got more"),
        (header(tarfile.XHDTYPE, 1 << 26) + bytes(1 << 26), "bytes of headers before a member, got more"),
        (header(tarfile.XGLTYPE, 1 << 26) + bytes(1 << 26), "bytes of headers before a member, got more"),
        ((header(tarfile.GNUTYPE_LONGNAME, 512) + bytes(512)) * 2000, "expected a whole .tar archive"),
        (header(tarfile.REGTYPE, 1 << 80), "bytes unpacked for a file of its size"),
        (header(tarfile.REGTYPE, 1 << 80, "other"), "bytes unpacked for a file of its size"),
        (header(tarfile.REGTYPE, -512), "expected a whole .tar archive"),
        (header(tarfile.REGTYPE, -512, "other"), "expected a whole .tar archive"),
    ],
)
def test_headers_that_fill_the_memory(tmp_path, content, message):
    """Packed they are small; unpacked, none of it is kept."""
    packed = gzip.compress(content, 1)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=rf"some\.tar\.gz: .*{message}"):
            taken(tmp_path, packed)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_many_members_take_no_memory(tmp_path):
    packed = gzip.compress(header(tarfile.REGTYPE, 0, "other") * 5_000, 1)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="got none named"):
            taken(tmp_path, packed)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pack", [bz2.compress, lzma.compress])
def test_archives_packed_otherwise(tmp_path, pack):
    """Unpackers of these kinds take as much memory as the file tells them to."""
    with pytest.raises(DataError, match=r"some\.tar\.gz: expected a whole \.tar archive, plain or gzipped"):
        taken(tmp_path, pack(gzip.decompress(tar_bytes(FILES))))


def test_damaged_archives(tmp_path):
    files = {name: pixels(5000, seed=i).tobytes() for i, name in enumerate(FILES)}
    content = tar_bytes(files)
    assert taken(tmp_path, content, largest=5000) == files
    plain = gzip.decompress(content)
    damaged = {
        "cut": content[: len(content) // 2],
        "cut short": content[:5],
        "altered": content[:3000] + b"\xff" * 40 + content[3040:],
        "not packed": plain[:1000],
        "text": b"text" * 300,
        "empty": b"",
    }
    for bad in damaged.values():
        with pytest.raises(DataError, match=r"some\.tar\.gz: expected "):
            taken(tmp_path, bad, largest=5000)
    with pytest.raises(DataError, match=r"expected 3 members, got none named missing"):
        taken(tmp_path, content, [*FILES, "missing"], largest=5000)
    with pytest.raises(DataError, match=r"expected a readable \.tar archive, got: No such file"):
        list(archive.members(tmp_path / "nowhere.tar", FILES, 100))


def test_a_member_that_ends_early(tmp_path):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as writer:
        info = tarfile.TarInfo("some/a.txt")
        info.size = 5000
        writer.addfile(info, io.BytesIO(bytes(5000)))
    with pytest.raises(DataError, match=r"expected "):
        taken(tmp_path, content.getvalue()[: 512 + 2000], ["some/a.txt"], largest=5000)


# Files that were altered anywhere: whole data or a DataError, and nothing else.

READERS = {
    "digitStruct.mat": housenumbers.read_boxes,
    "numbers.tar.gz": lambda path: housenumbers.read(path, "train"),
    "digits.mat": data.load,
    "chardata.mat": data.load,
    **dict.fromkeys(("some.npz", "some.idx", "some.gz"), data.load),
    "cifar.tar.gz": lambda path: list(
        archive.members(path, [f"cifar-10-batches-bin/{name}" for name in CIFAR_FILES], 1 << 20)
    ),
}


@functools.cache
def whole(name: str) -> bytes:
    if name == "digitStruct.mat":
        with tempfile.TemporaryDirectory() as scratch:
            return (svhn_folder(Path(scratch), 4) / name).read_bytes()
    return {
        "numbers.tar.gz": lambda: svhn_archive("train", 4),
        "digits.mat": lambda: mat_bytes(X=pixels(8, 8, 3, 5), y=np.ones(5)),
        "chardata.mat": lambda: chardata_bytes(40, 7),
        "cifar.tar.gz": lambda: cifar_archive(4),
        "some.npz": lambda: npz_bytes(
            train=pixels(8, 4, 4), test=pixels(3, 4, 4), train_labels=pixels(8), test_labels=pixels(3)
        ),
        "some.idx": lambda: idx_bytes(pixels(12, 4, 4)),
        "some.gz": lambda: gzip.compress(idx_bytes(pixels(12, 4, 4))),
    }[name]()


@pytest.mark.parametrize("name", READERS)
def test_whole_files_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(whole(name))
    assert len(READERS[name](tmp_path / name)) > 0


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=80, deadline=None)
@given(choices=st.data())
def test_altered_files(name, choices):
    content = bytearray(whole(name))
    place = choices.draw(st.integers(0, len(content) - 1))
    altered = choices.draw(st.none() | st.binary(min_size=1, max_size=20))
    if altered is None:
        del content[place:]
    else:
        content[place : place + len(altered)] = altered
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, name).write_bytes(content)
        try:
            assert len(READERS[name](Path(scratch, name))) > 0
        except DataError as error:
            assert ": expected " in str(error)  # noqa: PT017
