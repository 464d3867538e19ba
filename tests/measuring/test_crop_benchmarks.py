"""What docs/crops.md says of aliasing, at a few places; and that cases of crops are proven as they are measured."""

from __future__ import annotations

import math

import torch

from benchmarks import aliasing, finding
from benchmarks.cases.crops import crop_case
from benchmarks.proof import prove


def test_what_is_left_and_where_gradients_point() -> None:
    names = "grid_sample", "interpolate(antialias) of slices", "fastdraw.crop, sigma=0.29", "fastdraw.crop"
    table = aliasing.figures(12, names)
    points, own = table["grid_sample"], table["fastdraw.crop"]
    assert points["checkerboard"] > 0.2
    assert own["checkerboard"] < 1e-6
    assert points["stripes 1"] > 0.9
    assert own["stripes 1"] < 0.01
    assert points["wrong"] > 0.2
    assert own["wrong"] == table["fastdraw.crop, sigma=0.29"]["wrong"] == 0
    assert own["fall"] > 100 * points["fall"]
    assert math.isnan(table["interpolate(antialias) of slices"]["wrong"])


def test_ways_to_crop_agree_where_nothing_aliases() -> None:
    """Of a plane all samples are what stands in their middles; two windows of one image as of two. Slices end in the outer
    samples."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(80.0), indexing="ij")
    image, boxes = (x + 2 * y)[None, None], torch.tensor([[[20.0, 24.0, 44.0, 48.0], [30.0, 16.0, 54.0, 40.0]]])
    expected = aliasing.points(image, boxes, 4)
    for name, crop in aliasing.methods().items():
        if name.startswith(("grid", "inter")):
            difference = crop(image, boxes, 4) - expected
            assert difference[..., 1:-1, 1:-1].abs().max() < 0.05
            assert torch.equal(crop(image, boxes[:, 1], 4), crop(image, boxes, 4)[:, 1])


def test_the_aliased_gradient_loses_the_object_and_this_one_finds_it() -> None:
    points, own = (finding.descend(aliasing.methods()[name], count=8) for name in ("grid_sample", "fastdraw.crop"))
    assert points.found == 0
    assert own.found == 1
    # It was there to be found by both: they start at the same places, and end where they lead.
    assert points.distance[0] == own.distance[0] > 24
    assert points.distance[-1] > 10
    assert own.loss[-1] < 1e-3 * points.loss[-1]


def test_cases_are_proven() -> None:
    for how in (
        {"others": ("grid_sample", "interpolate", "pyramid")},
        {"others": (), "as_bytes": True},
        {"image_gradient": True},
    ):
        case = crop_case(2, 70, 2, 40, 5, **how)
        assert prove(case) == {}
        for variant in case.variants:
            assert len(variant.step(0)) == 3 if "image_gradient" in how else 2
