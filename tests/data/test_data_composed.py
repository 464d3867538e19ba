"""Cluttered MNIST and two digits: their pictures against a plain loop, and what is drawn at random."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from datafiles import MNIST, npz_bytes, sizes
from torch import Tensor

from fastdraw import data
from fastdraw.data import DataError, composed
from fastdraw.data.composed import CLUTTERED, CLUTTERED_60, TWO_DIGITS, Composer, Layout, Places

LAYOUTS = {"cluttered-mnist": CLUTTERED, "cluttered-mnist-60": CLUTTERED_60, "two-digits": TWO_DIGITS}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_digits(n: int, seed: int = 0) -> Tensor:
    """Mostly black, as digits are, and dense enough that pieces meet."""
    numbers = np.random.default_rng(seed)
    values = numbers.integers(0, 256, (n, 1, 28, 28)) * (numbers.random((n, 1, 28, 28)) < 0.4)
    return torch.from_numpy(values.astype(np.uint8))


def plain(layout: Layout, image: np.ndarray, digits: np.ndarray, place: list[list[int]]) -> np.ndarray:
    """One picture in [0, 1], as the original generator makes it: piece after piece, clipped after each."""
    canvas = np.zeros((layout.side, layout.side))
    *pieces, (whole_y,), (whole_x,) = place
    for digit, top, left, y, x in zip(*pieces, strict=True):
        window = digits[digit, 0, top : top + layout.size, left : left + layout.size] / 255
        canvas[y : y + layout.size, x : x + layout.size] += window
        canvas[canvas >= 1] = 1
    canvas[whole_y : whole_y + 28, whole_x : whole_x + 28] += image[0] / 255
    return np.clip(canvas, 0, 1)


def drawn(layout: Layout, n: int, digits: Tensor, seed: int = 0) -> Places:
    numbers = generator(seed)
    return layout.draw(digits, lambda high, columns: torch.randint(high, (n, columns), generator=numbers))


@pytest.mark.parametrize("name", LAYOUTS)
# One more than a chunk, so that there is a second one.
@pytest.mark.parametrize("batch", [1, composed.CHUNK + 1])
def test_pictures_against_a_plain_loop(name, batch):
    layout, images, digits = LAYOUTS[name], some_digits(batch), some_digits(30, seed=1)
    places = drawn(layout, batch, digits)
    pictures = layout.compose(images, digits, places)
    assert pictures.dtype == torch.uint8
    assert pictures.shape == (batch, 1, layout.side, layout.side)
    for i in range(0, batch, 16):
        wanted = plain(layout, images[i].numpy(), digits.numpy(), [column[i].tolist() for column in places])
        assert np.array_equal(pictures[i, 0].numpy(), np.rint(wanted * 255))


def test_light_is_added_and_clipped():
    layout = Layout(side=30, pieces=2, size=8)
    digits = torch.full((1, 1, 28, 28), 100, dtype=torch.uint8)
    zero, here = torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64)
    picture = layout.compose(digits, digits, Places(zero, zero, zero, zero, torch.tensor([[0, 4]]), here, here))[0, 0]
    # Left half of the first piece, both pieces, right half of the second, the digit alone, and the rim.
    assert [int(picture[0, x]) for x in (0, 4, 8, 12, 28)] == [200, 255, 200, 100, 0]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_place_is_as_probable_as_any_other(name):
    layout, digits = LAYOUTS[name], some_digits(50)
    places = drawn(layout, 20_000, digits)
    # Offsets as in the original: 0 to 20 inclusive for windows of 8, 0 to 92 for pieces and 0 to 72 for digits on 100.
    count = layout.side - layout.size + 1
    counts = {"digit": 50, "top": 29 - layout.size, "left": 29 - layout.size, "y": count, "x": count}
    counts |= {"whole_y": layout.side - 27, "whole_x": layout.side - 27}
    if name == "cluttered-mnist":
        assert counts == {"digit": 50, "top": 21, "left": 21, "y": 93, "x": 93, "whole_y": 73, "whole_x": 73}
    for column, high in counts.items():
        values = getattr(places, column)
        assert values.shape == (20_000, 1 if column.startswith("whole") else layout.pieces)
        seen = values.flatten().bincount(minlength=high).double()
        assert len(seen) == high
        expected = values.numel() / high
        # Chi-square has mean high - 1 and variance 2 (high - 1); six standard deviations.
        assert ((seen - expected) ** 2 / expected).sum() <= high - 1 + 6 * (2 * max(high - 1, 1)) ** 0.5
    # Columns are drawn independently: any two differ, and the pieces of a picture do too.
    flat = torch.cat([getattr(places, column).double() for column in counts if counts[column] > 1], dim=1).T
    assert (torch.corrcoef(flat) - torch.eye(len(flat))).abs().max() < 6 / 20_000**0.5


def test_make_is_decided_by_the_generator_alone():
    digits = some_digits(40)
    make = Composer(CLUTTERED_60, digits)
    before = torch.get_rng_state()
    one, same, other = (make(digits[:20], generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)
    # The next batch of the same generator is another one.
    numbers = generator()
    assert torch.equal(make(digits[:20], numbers), one)
    assert not torch.equal(make(digits[:20], numbers), one)
    # The digits are not drawn upon.
    assert torch.equal(digits, some_digits(40))
    assert make(digits[:0], generator()).shape == (0, 1, 60, 60)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", LAYOUTS)
def test_pictures_on_cuda(name):
    digits = some_digits(200)
    make = Composer(LAYOUTS[name], digits)
    # The generator of the CPU draws the same numbers for images that lie elsewhere.
    assert torch.equal(make(digits.cuda(), generator()).cpu(), make(digits, generator()))
    one, same = (make(digits.cuda(), torch.Generator("cuda").manual_seed(0)) for _ in range(2))
    assert one.device.type == "cuda"
    assert torch.equal(one, same)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "mnist.npz").write_bytes(npz_bytes(**MNIST))
    return tmp_path


@pytest.mark.parametrize("name", LAYOUTS)
def test_splits(folder, name):
    splits, digits = data.load(name, folder), data.load("mnist", folder)
    side = LAYOUTS[name].side
    assert splits.name == name
    assert sizes(splits) == (50, 10, 12)
    assert splits.image_shape == (1, side, side)
    assert torch.equal(splits.train, digits.train)
    assert splits.make is not None
    batch = splits.make(splits.train[:7], generator())
    assert batch.shape == (7, 1, side, side)
    assert batch.dtype == torch.uint8
    if name == "two-digits":
        assert splits.labels is None
    else:
        assert splits.labels is not None
        assert digits.labels is not None
        assert all(torch.equal(one, other) for one, other in zip(splits.labels, digits.labels, strict=True))
    # Always the same finished pictures, whatever torch's generators are at, each holding its own digit somewhere.
    torch.manual_seed(1)
    again = data.load(name, folder)
    for part in ("validation", "test"):
        finished = getattr(splits, part)
        assert torch.equal(finished, getattr(again, part))
        for picture, digit in zip(finished[:, 0], getattr(digits, part)[:, 0], strict=True):
            windows = picture.unfold(0, 28, 1).unfold(1, 28, 1)
            assert (windows >= digit).all(-1).all(-1).any()
    assert splits.validation.shape == (10, 1, side, side)


def test_fixed_pictures_do_not_depend_on_chunks(folder, monkeypatch):
    whole = data.load("cluttered-mnist-60", folder).test
    monkeypatch.setattr(composed, "CHUNK", 5)
    assert torch.equal(data.load("cluttered-mnist-60", folder).test, whole)


def test_pieces_come_from_the_split_itself(tmp_path):
    # Training digits are grey of 10, test digits of 20, validation digits (the last sixth) of 30.
    train = np.full((60, 28, 28), 10, np.uint8)
    train[50:] = 30
    test = np.full((12, 28, 28), 20, np.uint8)
    (tmp_path / "mnist.npz").write_bytes(npz_bytes(train_images=train, test_images=test))
    for name in LAYOUTS:
        splits = data.load(name, tmp_path)
        assert splits.labels is None
        assert splits.make is not None
        batch = splits.make(splits.train[:20], generator())
        for pictures, value in ((batch, 10), (splits.validation, 30), (splits.test, 20)):
            assert (pictures % value == 0).all()
            assert (pictures > value).any() or name != "two-digits"
            assert pictures.max() >= value


def test_a_size_of_ones_own_is_refused(folder):
    with pytest.raises(DataError, match=r"^image_size: expected none for two-digits, .* 60 x 60, got \(32, 32\)"):
        data.load("two-digits", folder, image_size=(32, 32))
    assert data.load("two-digits", folder, image_size=(60, 60)).image_shape == (1, 60, 60)


def test_without_the_digits(tmp_path):
    with pytest.raises(DataError, match=r"^data_dir: expected a folder with mnist.npz or the idx files"):
        data.load("cluttered-mnist", tmp_path)
