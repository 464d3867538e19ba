"""scikit-learn's 1,797 handwritten digits, which come with it: no download."""

from __future__ import annotations

import numpy as np

from fastdraw.data.splits import Splits, complete
from fastdraw.installed import needs_extra


def load() -> Splits:
    """1,437 / 180 / 180 images of 28 x 28, the digits 20 high as in MNIST; each split has each class in equal shares."""
    with needs_extra("the data set digits"):
        from sklearn.datasets import load_digits
    small = load_digits()
    labels = small.target.astype(np.int64)
    pixels = np.stack([enlarge(image) for image in small.images])[:, None]
    # Shuffled, then stably sorted by class: every tenth image, and every tenth five further on, have equal shares of each.
    order = np.random.RandomState(0).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order)) % 10
    rows = {"train": (place != 0) & (place != 5), "validation": place == 5, "test": place == 0}
    return complete({part: (pixels[chosen], labels[chosen]) for part, chosen in rows.items()}, "digits")


def enlarge(image: np.ndarray) -> np.ndarray:
    """8 x 8, each value the ink (0 to 16) of a 4 x 4 block of the scanned bitmap -> uint8 28 x 28."""
    with needs_extra("the data set digits"):
        from PIL import Image
    # A rim of two, 12 x 12 -> 30 x 30 (2.5 pixels each), and the outermost pixel off: a digit of 20 x 20 in the middle.
    framed = Image.fromarray(np.pad(image / 16, 2).astype(np.float32))
    smooth = np.asarray(framed.resize((30, 30), Image.Resampling.BICUBIC))[1:-1, 1:-1]
    # The bitmap was black and white. Twice the contrast round the middle gives strokes back the narrow edges of a scanned one.
    return np.rint(255 * np.clip(2 * smooth - 0.5, 0, 1)).astype(np.uint8)
