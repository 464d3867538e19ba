"""A folder of pictures is decoded once, into one mapped file of the cache, which never gives wrong pixels."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datafiles import pixels
from PIL import Image

from fastdraw import data
from fastdraw.cli import main
from fastdraw.data import DataError, decoded, pictures, workers


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    for i, image in enumerate(pixels(12, 6, 5, 3)):
        place = folder / ("cats" if i % 2 else "dogs")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place / f"{i}.png")
    return folder


def load(folder: Path, **how: Any) -> tuple[torch.Tensor, ...]:
    splits = data.load(folder, **how)
    assert splits.labels is not None
    return (*(part.clone() for part in splits[:3]), *splits.labels)


def assert_same(ours: tuple[torch.Tensor, ...], theirs: tuple[torch.Tensor, ...]) -> None:
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def undecoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*_: Any) -> Any:
        raise AssertionError("decoded once more")

    monkeypatch.setattr(pictures, "decode", decode)


def the_set() -> Path:
    [(place, _, _)] = decoded.sets()
    return place


def test_the_second_time_nothing_is_decoded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, notes = load(photos), data.load(photos).notes
    undecoded(monkeypatch)
    assert_same(load(photos), first)
    assert data.load(photos).notes == notes
    # What is kept of a folder does not hang on where it lies.
    photos.rename(photos.with_name("moved"))
    assert_same(load(photos.with_name("moved")), first)


def test_pages_are_those_of_the_file(photos: Path) -> None:
    splits = data.load(photos)
    assert str(the_set() / decoded.PIXELS) in Path("/proc/self/maps").read_text()
    # Written to, they are this process's own.
    before = (the_set() / decoded.PIXELS).read_bytes()
    splits.train.zero_()
    assert (the_set() / decoded.PIXELS).read_bytes() == before


@pytest.mark.parametrize(
    "change", ["cut", "longer", "a byte", "a byte, times put back", "gone", "no about", "about", "numbers"]
)
def test_a_damaged_set_is_made_again(photos: Path, change: str) -> None:
    first = load(photos)
    file, about = the_set() / decoded.PIXELS, the_set() / decoded.ABOUT
    whole, times = file.read_bytes(), file.stat()
    other = bytes([whole[0] ^ 1]) + whole[1:]
    if change == "gone":
        file.unlink()
    elif change == "no about":
        about.unlink()
        file.write_bytes(other)
    elif change == "about":
        about.write_text("[")
    elif change == "numbers":
        about.write_text(about.read_text().replace('"shape": [12, 3, 6, 5]', '"shape": [12, 3, 5, 6]'))
        file.write_bytes(other)
    else:
        file.write_bytes({"cut": whole[:-5], "longer": whole + b"0"}.get(change, other))
        if "times" in change:
            os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert_same(load(photos), first)
    assert file.read_bytes() == whole


def test_a_set_that_was_copied_is_taken(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another file of the same bytes: its digests say so."""
    first, file = load(photos), the_set() / decoded.PIXELS
    whole = file.read_bytes()
    file.unlink()
    file.write_bytes(whole)
    undecoded(monkeypatch)
    assert_same(load(photos), first)


def test_another_file_is_another_set(photos: Path) -> None:
    load(photos)
    Image.fromarray(pixels(6, 5, 3, seed=9)).save(photos / "dogs" / "0.png")
    splits = data.load(photos)
    every = torch.cat(splits[:3]).permute(0, 2, 3, 1).numpy()
    assert any(np.array_equal(image, pixels(6, 5, 3, seed=9)) for image in every)
    assert len(decoded.sets()) == 2
    assert data.load(photos, image_size=(3, 3)).image_shape == (3, 3, 3)


@pytest.mark.parametrize("function", ["pwrite", "fsync"])
def test_a_full_disk(photos: Path, no_space: Any, function: str) -> None:
    no_space(os, function)
    with pytest.raises(DataError, match=r"expected room for .*No space left on device"):
        data.load(photos)
    # Of what was begun nothing is left.
    assert decoded.sets() == []
    assert [file.name for file in (photos.parent / "cache" / "decoded").iterdir() if file.suffix != ".lock"] == []


def test_one_makes_it_and_others_wait(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Path] = []
    decode = pictures.decode
    monkeypatch.setattr(pictures, "decode", lambda file, *rest: counted.append(file) or decode(file, *rest))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: load(photos), range(4)))
    assert len(counted) == 12
    for each in found[1:]:
        assert_same(each, found[0])


def test_the_cache_has_a_limit(photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    load(photos)
    place = the_set()
    size = sum(file.stat().st_size for file in place.iterdir())
    monkeypatch.setenv("FASTDRAW_CACHE_LIMIT", str(int(1.5 * size)))
    data.load(photos, image_size=(5, 4))
    assert the_set() != place
    monkeypatch.setenv("FASTDRAW_CACHE_LIMIT", "100")
    with pytest.raises(DataError, match="at most 100 bytes once decoded, as FASTDRAW_CACHE_LIMIT allows, got 1,080"):
        load(photos)
    assert main(["info"]) == 0
    assert "1 sets of decoded images" in capsys.readouterr().out


def test_many_are_shared_by_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(2 * workers.LEAST + 3, 6, 5, 3)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i:03}.png")
    (tmp_path / "photos" / "050.png").write_bytes(b"no picture")
    monkeypatch.setattr(workers, "_cores", lambda: 3)
    with pytest.raises(DataError, match=r"got 1 that cannot: .*050\.png: expected a PNG image"):
        data.load(tmp_path / "photos")
    splits = data.load(tmp_path / "photos", skip_bad=True)
    every = {image.tobytes() for part in splits[:3] for image in part.permute(0, 2, 3, 1).contiguous().numpy()}
    assert every == {image.tobytes() for i, image in enumerate(images) if i != 50}


def test_workers() -> None:
    told: list[tuple[int, int | None]] = []
    many = 3 * workers.LEAST + 1
    assert workers.each(lambda i: i * i, many, lambda *how: told.append(how), 3) == [i * i for i in range(many)]
    assert told[-1] == (many, many)

    def dies(i: int) -> None:
        if i == 70:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(DataError, match="got one that ended: -9"):
        workers.each(dies, many, lambda *_: None, 3)

    def fails(i: int) -> float:
        return 1 / (i - 70)

    with pytest.raises(ZeroDivisionError):
        workers.each(fails, many, lambda *_: None, 3)


@pytest.mark.parametrize("turned", [False, True])
def test_a_jpeg_is_read_at_a_reduced_size(tmp_path: Path, turned: bool) -> None:
    """Nearly the pixels of the whole picture, made smaller; the half of a turned one that is seen is the same."""
    y, x = np.mgrid[0:160, 0:240] / 40
    smooth = np.stack([127 + 120 * np.sin(x + i) * np.cos(y) for i in range(3)], -1).astype(np.uint8)
    how = {"exif": Image.Exif()}
    if turned:
        how["exif"][0x0112] = 6
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95, **how)
    size = (30, 20) if turned else (20, 30)
    seen = pictures.decode(tmp_path / "a.jpg", "RGB", size, 0).astype(int)
    whole = np.rot90(smooth, -1) if turned else smooth
    best = np.asarray(Image.fromarray(np.ascontiguousarray(whole)).resize(size[::-1], Image.Resampling.BICUBIC)).astype(int)
    assert seen.shape == (3, *size)
    assert np.abs(seen - best.transpose(2, 0, 1)).mean() < 2
