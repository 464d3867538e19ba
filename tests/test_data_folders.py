"""Folders of images to train on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datafiles import check_form, pixels, sizes
from PIL import Image

from fastdraw import data
from fastdraw.data import DataError


def save_image(path: Path, array: np.ndarray, mode: str | None = None, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)


def test_folder_of_images(tmp_path):
    images = pixels(20, 5, 7)
    for i, image in enumerate(images):
        save_image(tmp_path / "set" / f"class{i % 2}" / f"{i:02}.png", image)
    (tmp_path / "set" / "README.txt").write_text("not an image")
    (tmp_path / "set" / ".hidden.png").write_text("not an image")
    splits = data.load(tmp_path / "set")
    check_form(splits, 1, 5, 7)
    assert sizes(splits) == (16, 2, 2)
    assert splits.name == "set"
    # The order is that of the names: all of class0, then all of class1.
    ordered = np.concatenate([images[::2], images[1::2]])
    rows = [next(i for i, image in enumerate(ordered) if np.array_equal(image, one[0])) for one in splits.train.numpy()]
    assert rows == sorted(rows)


@pytest.mark.parametrize(("grey", "colour", "channels"), [(5, 4, 1), (4, 5, 3), (5, 5, 3)])
def test_most_images_decide_the_mode(tmp_path, grey, colour, channels):
    for i in range(grey + colour):
        save_image(tmp_path / f"{i}.png", pixels(4, 4) if i < grey else pixels(4, 4, 3))
    check_form(data.load(tmp_path), channels, 4, 4)


def test_modes_become_what_they_show(tmp_path):
    white = np.full((4, 4, 3), 255, np.uint8)
    save_image(tmp_path / "1.png", white, "1")
    save_image(tmp_path / "2.gif", white, "P")
    save_image(tmp_path / "3.png", white, "LA")
    save_image(tmp_path / "4.jpg", white, "CMYK")
    # Transparent white is nothing: black.
    save_image(tmp_path / "5.png", np.dstack([white, np.zeros((4, 4), np.uint8)]))
    splits = data.load(tmp_path)
    check_form(splits, 3, 4, 4)
    means = sorted(image.float().mean().item() for part in splits[:3] for image in part)
    assert means == pytest.approx([0, 255, 255, 255, 255], abs=2)


def test_photographs_stand_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    for i in range(3):
        save_image(tmp_path / f"{i}.jpg", pixels(8, 16), exif=exif)
    check_form(data.load(tmp_path), 1, 16, 8)


def test_sizes_that_differ(tmp_path):
    for i, side in enumerate((4, 4, 6, 8)):
        save_image(tmp_path / f"{i}.png", pixels(side, 8))
    with pytest.raises(DataError, match=r"2\.png: expected the size of 0\.png, 4 x 8 \(height x width\), got 6 x 8"):
        data.load(tmp_path)
    check_form(data.load(tmp_path, image_size=(4, 5)), 1, 4, 5)


def test_folder_without_images(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match="expected a folder with images"):
        data.load(tmp_path)


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "16 bit", "bomb"])
def test_damaged_images(tmp_path, monkeypatch, damage):
    for i in range(4):
        save_image(tmp_path / f"{i}.png", pixels(32, 32))
    bad = tmp_path / "2.png"
    if damage == "16 bit":
        save_image(bad, np.zeros((32, 32), np.uint16))
    elif damage == "bomb":
        save_image(bad, np.zeros((60, 60), np.uint8))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    else:
        bad.write_bytes({"empty": b"", "truncated": bad.read_bytes()[:-200], "text": b"not an image"}[damage])
    with pytest.raises(DataError, match=r"2\.png: expected "):
        data.load(tmp_path)
