"""Folders of images to train on."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from datafiles import check_form, pixels, sizes
from PIL import Image

from fastdraw import data
from fastdraw.data import DataError, arrays, pictures


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
    check_form(splits, 1, 4, 4)
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


@pytest.mark.parametrize("damage", ["empty", "truncated", "text", "16 bit", "bomb", "pipe", "link to nothing", "postscript"])
def test_damaged_images(tmp_path, monkeypatch, damage):
    for i in range(4):
        save_image(tmp_path / f"{i}.png", pixels(32, 32))
    bad = tmp_path / "2.png"
    if damage == "16 bit":
        save_image(bad, np.zeros((32, 32), np.uint16))
    elif damage == "bomb":
        # The least that a file may unpack to, whatever its own size.
        save_image(bad, np.zeros((600, 600), np.uint8))
        for module in (arrays, pictures):
            monkeypatch.setattr(module, "LARGEST_SMALL", 1 << 16)
    elif damage in ("pipe", "link to nothing"):
        bad.unlink()
        os.mkfifo(bad) if damage == "pipe" else bad.symlink_to("nothing")
    else:
        contents = {
            "empty": b"",
            "truncated": bad.read_bytes()[:-200],
            "text": b"not an image",
            "postscript": b"%!PS-Adobe-3.0",
        }
        bad.write_bytes(contents[damage])
    (tmp_path / "3.png").write_bytes(b"GIF89a")
    with pytest.raises(
        DataError, match=r"got 2 that cannot: .*2\.png: expected .*3\.png: expected a PNG image, as its name says"
    ) as caught:
        data.load(tmp_path)
    assert ("got PostScript" in str(caught.value)) == (damage == "postscript")
    with pytest.raises(DataError, match="expected at least 3 images to train and to test on, got 2"):
        data.load(tmp_path, skip_bad=True)
    save_image(tmp_path / "4.png", pixels(32, 32))
    splits = data.load(tmp_path, skip_bad=True)
    assert sizes(splits) == (1, 1, 1)
    assert sum("left out" in note and "2.png" in note and "3.png" in note for note in splits.notes) == 1


# What folders mean.


def numbered(folder: Path, first: int, count: int = 3) -> None:
    """Images whose upper left pixel is a number of their own."""
    for i in range(first, first + count):
        save_image(folder / f"{i}.png", np.array([[i, 0], [0, 255]], np.uint8))


def numbers(part) -> list[int]:
    return part[:, 0, 0, 0].tolist()


@pytest.mark.parametrize(
    "names",
    [
        ("train", "val", "test"),
        ("Training", "VALIDATION", "Testing"),
        ("train_set", "valid", "test-images"),
        ("some/where/train", "some/where/val", "some/where/test"),
        ("images_train", "images_val", "images_test"),
        ("train2017", "val2017", "test2017"),
    ],
)
def test_folders_of_splits(tmp_path, names):
    for i, name in enumerate(names):
        numbered(tmp_path / name, 10 * i + 10)
    numbered(tmp_path, 90, 1)
    splits = data.load(tmp_path)
    assert [numbers(part) for part in splits[:3]] == [[10, 11, 12], [20, 21, 22], [30, 31, 32]]
    assert splits.labels is None
    assert "left out: 90.png (beside the folders of the splits)" in splits.notes


def test_splits_within_classes_and_classes_within_splits(tmp_path):
    for first, one, other in ((10, "train", "b"), (20, "train", "a"), (30, "test", "a"), (40, "test", "b")):
        numbered(tmp_path / "outer" / one / other / "deeper", first, 5)
        numbered(tmp_path / "inner" / other / one, first, 5)
    for form in ("outer", "inner"):
        splits = data.load(tmp_path / form)
        assert splits.classes == ("a", "b")
        assert splits.labels is not None
        for images, labels, firsts in zip(
            splits[:3], splits.labels, ({10: 1, 20: 0}, {10: 1, 20: 0}, {30: 0, 40: 1}), strict=True
        ):
            assert [firsts[n // 10 * 10] for n in numbers(images)] == labels.tolist()
        assert numbers(splits.test) == sorted(numbers(splits.test), key=lambda n: (splits.classes, n)) or form == "inner"
        assert sizes(splits) == (9, 1, 10)


def test_splits_without_train(tmp_path):
    numbered(tmp_path / "test", 10)
    numbered(tmp_path / "cats", 20)
    with pytest.raises(DataError, match=r"expected a folder train beside those of test, got none"):
        data.load(tmp_path)


def test_class_folders_are_labels(tmp_path):
    for name in ("9", "10", "1"):
        numbered(tmp_path / name, int(name) * 10, 4)
    splits = data.load(tmp_path)
    assert splits.classes == ("1", "9", "10")
    assert splits.labels is not None
    for images, labels in zip(splits[:3], splits.labels, strict=True):
        assert [splits.classes[label] for label in labels] == [str(n // 10) for n in numbers(images)]
    # One folder is no class, and an image outside of them has none.
    numbered(tmp_path, 5, 1)
    splits = data.load(tmp_path)
    assert splits.labels is None
    assert "no labels: 1 images lie in no class folder" in splits.notes


def test_a_class_without_images_to_train_on(tmp_path):
    for name in ("train/a", "train/b", "test/a", "test/c"):
        numbered(tmp_path / name, ord(name[-1]), 10)
    assert "no image to train on of the classes c" in data.load(tmp_path).notes


def test_a_runs_own_pictures_are_no_data(tmp_path):
    numbered(tmp_path / "photos", 10, 5)
    for run in (tmp_path / "runs" / "x", tmp_path):
        save_image(run / "samples.png", pixels(40, 40))
        save_image(run / "view" / "windows.png", pixels(40, 40))
        (run / "metrics.jsonl").write_text("")
    splits = data.load(tmp_path)
    assert sorted(n for part in splits[:3] for n in numbers(part)) == [10, 11, 12, 13, 14]
    assert "left out: runs/x (a run's own folder)" in splits.notes


def test_links_are_not_followed(tmp_path):
    numbered(tmp_path / "set", 10, 5)
    (tmp_path / "set" / "loop").symlink_to(tmp_path)
    splits = data.load(tmp_path / "set")
    assert sizes(splits) == (3, 1, 1)
    assert "left out: loop (a link to a folder)" in splits.notes
    with pytest.raises(DataError, match="expected a folder of images, got /, which holds everything"):
        data.load("/")


# What pictures show.


@pytest.mark.parametrize("ink", [0, 255])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_ink_on_a_transparent_ground_is_seen(tmp_path, ink, mode):
    for i in range(5):
        drawing = np.full((8, 8, 4), ink, np.uint8)
        drawing[..., 3] = 0
        drawing[2:6, i, 3] = 255
        image = Image.fromarray(drawing)
        if mode == "PA":
            # A palette with a colour that is transparent.
            flat = np.ones((8, 8), np.uint8)
            flat[2:6, i] = 0
            image = Image.fromarray(flat, "L")
            image.putpalette([ink, ink, ink, 120, 200, 30])
            image.save(tmp_path / f"{i}.png", transparency=1)
        else:
            image.convert(mode).save(tmp_path / f"{i}.png")
    splits = data.load(tmp_path)
    check_form(splits, 3 if mode == "RGBA" else 1, 8, 8)
    for image in (image for part in splits[:3] for image in part):
        assert (image == ink).sum() == 4 * len(image)
        assert (image == 255 - ink).sum() == 60 * len(image)
    assert not any("blank" in note for note in splits.notes)


def test_ink_of_both_kinds_is_seen(tmp_path):
    for i in range(6):
        drawing = np.full((8, 8, 4), 0 if i else 255, np.uint8)
        drawing[..., 3] = 0
        drawing[2:6, i, 3] = 255
        Image.fromarray(drawing).save(tmp_path / f"{i}.png")
    splits = data.load(tmp_path)
    assert all(image.min() == 0 and image.max() == 255 for part in splits[:3] for image in part)


def test_grey_palettes_are_grey(tmp_path):
    for i in range(3):
        image = Image.fromarray(pixels(8, 8, seed=i) % 4)
        # Colours that no pixel has are no colours of the image.
        image.putpalette([0, 0, 0, 80, 80, 80, 160, 160, 160, 255, 255, 255, 255, 0, 0])
        image.save(tmp_path / f"{i}.png")
    splits = data.load(tmp_path)
    check_form(splits, 1, 8, 8)
    assert set(torch.cat(splits[:3]).unique().tolist()) == {0, 80, 160, 255}


def test_frames_and_pages_are_named(tmp_path):
    frames = [Image.fromarray(pixels(8, 8, seed=i)) for i in range(9)]
    for i in range(3):
        frames[i].save(tmp_path / f"{i}.png")
    frames[3].save(tmp_path / "3.gif", save_all=True, append_images=frames[4:6])
    frames[6].save(tmp_path / "4.tiff", save_all=True, append_images=frames[7:])
    splits = data.load(tmp_path)
    assert sizes(splits) == (3, 1, 1)
    assert "left out: 3.gif, 4.tiff (4 frames or pages after the first)" in splits.notes


def test_what_is_said_of_images(tmp_path):
    numbered(tmp_path / "train", 10, 5)
    numbered(tmp_path / "val", 10, 5)
    numbered(tmp_path / "test", 14, 2)
    save_image(tmp_path / "test" / "blank.png", np.full((2, 2), 7, np.uint8))
    (tmp_path / "more.heic").write_bytes(b"")
    assert data.found(data.load(tmp_path)) == [
        f"data {tmp_path.name}: 13 images of 2x2 (height x width), grey: 5 to train, 5 to validate, 3 to test; "
        "values 0 to 255; no labels",
        f"data {tmp_path.name}: left out: more.heic (.heic files are not read)",
        f"data {tmp_path.name}: 1 of 13 images are blank: all their pixels are equal",
        f"data {tmp_path.name}: validation and train are the same images",
        f"data {tmp_path.name}: 1 different images of test are in train too",
        f"data {tmp_path.name}: 1 different images of test are in validation too",
    ]


def test_photographs_of_108_megapixels(tmp_path):
    Image.fromarray(pixels(40, 40, 3)).resize((12_000, 9_000)).save(tmp_path / "0.jpg", quality=60)
    for i in (1, 2):
        save_image(tmp_path / f"{i}.jpg", pixels(50, 60, 3))
    check_form(data.load(tmp_path, image_size=(24, 32)), 3, 24, 32)
