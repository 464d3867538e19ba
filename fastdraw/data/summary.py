"""What was found, in sentences."""

from __future__ import annotations

import torch

from fastdraw.data.splits import Splits

#: Images of a split whose values are looked at, at most or nearly so.
MOST = 100_000


def found(splits: Splits) -> list[str]:
    """A line on the images of a data set, and one for each thing that its user should know of them."""
    channels, height, width = splits.image_shape
    colour = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    parts = [f"{len(part):,} {use}" for part, use in zip(splits[:3], ("to train", "to validate", "to test"), strict=True)]
    made = ", made anew for each batch to train" if splits.make is not None else ""
    # Of very many images some tell as much.
    some = [part[:: 1 + len(part) // MOST] for part in splits[:3]]
    # Block by block: of images that do not lie one behind another torch looks at a copy.
    at_once = max(1, (1 << 22) // (channels * height * width))
    # Numbers and not tensors, between which the copies' memory would not be used again.
    ranges = [tuple(map(int, torch.aminmax(block))) for part in some for block in part.split(at_once)]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    line = (
        f"data {splits.name}: {sum(map(len, splits[:3])):,} images of {height}x{width} (height x width), {colour}{made}: "
        f"{', '.join(parts)}; values {low} to {high}; {_labels(splits)}"
    )
    return [line, *(f"data {splits.name}: {note}" for note in splits.notes)]


def _labels(splits: Splits) -> str:
    if splits.labels is None:
        return "no labels"
    count = 1 + max(int(labels.max()) for labels in splits.labels)
    names = f" ({', '.join(splits.classes[:10])}{', ...' if count > 10 else ''})" if splits.classes else ""
    return f"labels of {count:,} classes{names}"
