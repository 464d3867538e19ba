"""What crops make of patterns finer than their samples, and of the gradient to their place:  python -m benchmarks.aliasing

No times: these figures are the same on every machine. Boxes of 128 x 128 pixels at random places, of a fraction of a pixel
too, are cropped to 16 x 16, so that samples stand 8 pixels apart. Of patterns whose rms is 1, and of which the samples cannot
tell anything, the rms of what is left in the patch: 0 is right. `wrong` is the share of moves by up to 8 pixels after which
descent on the patch's difference to that of the right place goes further away from it, on an image of noise whose amplitude
falls as 1 / f. `fall` is by what factor that loss is smaller, at its median, after 100 steps of Adam from 12 pixels away.
Methods are each judged on patches of their own. torchvision and kornia are measured where they are installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

import fastdraw

Crop = Callable[[Tensor, Tensor, int], Tensor]
SIDE, BOX, SIZE = 512, 128, 16


def points(image: Tensor, boxes: Tensor, size: int, each: int = 1) -> Tensor:
    """affine_grid and grid_sample, each sample the mean of `each` x `each` points; boxes [B, 4] or [B, K, 4] of images
    [B, C, H, W]."""
    height, width = image.shape[2:]
    several = boxes if boxes.dim() == 3 else boxes[:, None]
    batch, windows = several.shape[:2]
    x1, y1, x2, y2 = several.flatten(0, 1).unbind(-1)
    zero = torch.zeros_like(x1)
    rows = ((x2 - x1) / width, zero, (x1 + x2) / width - 1), (zero, (y2 - y1) / height, (y1 + y2) / height - 1)
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    count = size * each
    grid = functional.affine_grid(theta, [batch * windows, image.shape[1], count, count], align_corners=False)
    # Windows of one image one below the other: the image is not copied for each.
    grid = grid.view(batch, windows * count, count, 2)
    sampled = functional.grid_sample(image, grid, align_corners=False, padding_mode="border")
    patch = functional.avg_pool2d(sampled, each) if each > 1 else sampled
    return patch.unflatten(2, (windows, size)).movedim(2, 1) if boxes.dim() == 3 else patch


def slices(image: Tensor, boxes: Tensor, size: int) -> Tensor:
    """interpolate(antialias=True) of whole pixels; no gradient to the boxes."""
    several = boxes if boxes.dim() == 3 else boxes[:, None]
    patches = []
    for one, own in zip(image, several.detach().round().long().tolist(), strict=True):
        cut = [one[None, :, y1:y2, x1:x2] for x1, y1, x2, y2 in own]
        patches += [functional.interpolate(part, size=(size, size), mode="bilinear", antialias=True) for part in cut]
    return torch.cat(patches).view(*boxes.shape[:-1], image.shape[1], size, size)


def _each_of_an_image(image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """boxes [B, 4] or [B, K, 4] -> [N, 4], and the number [N] of each one's image."""
    windows = boxes.shape[1] if boxes.dim() == 3 else 1
    return boxes.reshape(-1, 4), torch.arange(len(image), device=boxes.device).repeat_interleave(windows)


def roi_align(image: Tensor, boxes: Tensor, size: int) -> Tensor:
    from torchvision.ops import roi_align

    flat, index = _each_of_an_image(image, boxes)
    patches = roi_align(image, torch.cat([index[:, None].to(flat), flat], 1), size, aligned=True)
    return patches.view(*boxes.shape[:-1], image.shape[1], size, size)


def crop_and_resize(image: Tensor, boxes: Tensor, size: int) -> Tensor:
    from kornia.geometry import transform

    flat, index = _each_of_an_image(image, boxes)
    # Its corners are pixels' centres.
    x1, y1, x2, y2 = (flat - torch.tensor([0.0, 0.0, 1.0, 1.0]).to(flat)).unbind(1)
    corners = torch.stack([torch.stack(corner, 1) for corner in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))], 1)
    return transform.crop_and_resize(image[index], corners, (size, size)).view(*boxes.shape[:-1], image.shape[1], size, size)


#: By the package that has them.
INSTALLED = {"torchvision": ("roi_align", roi_align), "kornia": ("crop_and_resize", crop_and_resize)}


def installed() -> dict[str, Crop]:
    """Those of other packages that are there, by the name in the table."""
    return {f"{package}, {name}": crop for package, (name, crop) in INSTALLED.items() if importlib.util.find_spec(package)}


def methods() -> dict[str, Crop]:
    """By the name in the table."""
    found: dict[str, Crop] = {
        "grid_sample": points,
        "grid_sample, 2 x 2 points": partial(points, each=2),
        "grid_sample, 8 x 8 points": partial(points, each=8),
        "interpolate(antialias) of slices": slices,
        "fastdraw.crop, sigma=0.29": partial(fastdraw.crop, sigma=0.29),
        "fastdraw.crop": fastdraw.crop,
    }
    return {**found, **installed()}


def boxes_at(places: Tensor) -> Tensor:
    """Of upper left corners [n, 2]."""
    return torch.cat([places, places + BOX], 1)


def patterns() -> dict[str, Tensor]:
    """[1, 1, SIDE, SIDE] of rms 1. Stripes: their period in strides of 8 pixels."""
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    found = {"checkerboard": 1.0 - 2.0 * ((x + y) % 2)}
    for period in (0.5, 1.0, 1.5):
        found[f"stripes {period:g}"] = math.sqrt(2) * torch.cos(2 * math.pi * x / (8 * period) + 1.0)
    return {name: pattern.float()[None, None] for name, pattern in found.items()}


def texture(generator: torch.Generator) -> Tensor:
    """Noise whose amplitude falls as 1 / f, as that of photographs does; rms 1."""
    frequency = torch.fft.fftfreq(SIDE)
    distance = (frequency[:, None] ** 2 + frequency[None] ** 2).sqrt().clamp(min=1 / SIDE)
    image = torch.fft.ifft2(torch.fft.fft2(torch.randn(SIDE, SIDE, generator=generator)) / distance).real
    return ((image - image.mean()) / image.std())[None, None]


def left(crop: Crop, pattern: Tensor, places: Tensor) -> float:
    patch = crop(pattern.expand(len(places), -1, -1, -1), boxes_at(places), SIZE)
    return float(patch.square().mean().sqrt())


def loss(crop: Crop, images: Tensor, places: Tensor, target: Tensor) -> Tensor:
    return (crop(images, boxes_at(places), SIZE) - target).square().mean((1, 2, 3))


def gradients(crop: Crop, image: Tensor, places: Tensor, moves: Tensor) -> tuple[float, float]:
    """(wrong, fall), as above; NaN where there is no gradient."""
    images = image.expand(len(places), -1, -1, -1)
    target = crop(images, boxes_at(places), SIZE)
    moved = (places + moves).requires_grad_()
    value = loss(crop, images, moved, target).sum()
    if not value.requires_grad:
        return math.nan, math.nan
    (grad,) = torch.autograd.grad(value, moved)
    wrong = float(((grad * moves).sum(1) <= 0).float().mean())
    far = (places + 12 * functional.normalize(moves)).requires_grad_()
    before = loss(crop, images, far, target).detach()
    optimizer = torch.optim.Adam([far], lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        loss(crop, images, far, target).sum().backward()
        optimizer.step()
    return wrong, float((before / loss(crop, images, far, target).detach().clamp(min=1e-12)).median())


def figures(count: int = 64, names: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """By method (of these names, or all): by pattern what is left, `wrong` and `fall`."""
    generator = torch.Generator().manual_seed(0)
    places = 64 + 200 * torch.rand(count, 2, generator=generator)
    moves = 8 * (2 * torch.rand(count, 2, generator=generator) - 1)
    image, found = texture(generator), {}
    for name, crop in methods().items():
        if names and name not in names:
            continue
        found[name] = {pattern: left(crop, pixels, places) for pattern, pixels in patterns().items()}
        found[name]["wrong"], found[name]["fall"] = gradients(crop, image, places, moves)
    return found


def picture(path: Path) -> None:
    """A column a method, in the order of docs/crops.md: stripes that become finer from left to right, and the texture."""
    from PIL import Image, ImageDraw

    x = torch.arange(SIDE)
    chirp = (0.5 + 0.5 * torch.cos(math.pi * x**2 / (2.5 * SIDE))).expand(1, 1, SIDE, SIDE)
    photo = (texture(torch.Generator().manual_seed(0)) / 5 + 0.5).clamp(0, 1)
    box, size, columns = torch.tensor([[0.0, 0.0, SIDE, SIDE]]), 64, []
    names = "grid_sample", "interpolate(antialias) of slices", "fastdraw.crop, sigma=0.29", "fastdraw.crop"
    for name in names:
        both = [methods()[name](image, box, size).clamp(0, 1)[0, 0] for image in (chirp, photo)]
        columns.append(torch.cat([functional.pad(patch, (1, 1, 1, 1), value=1.0) for patch in both]))
    pixels = (255 * torch.cat(columns, 1)).byte().repeat_interleave(3, 0).repeat_interleave(3, 1)
    drawn = Image.new("L", (pixels.shape[1], pixels.shape[0] + 18), 255)
    drawn.paste(Image.fromarray(pixels.numpy()), (0, 18))
    for i, name in enumerate(names):
        ImageDraw.Draw(drawn).text((i * pixels.shape[1] // len(names) + 4, 3), name, fill=0)
    drawn.save(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="draw what methods make of stripes and of the texture into this PNG")
    arguments = parser.parse_args()
    table = figures()
    columns = list(next(iter(table.values())))
    print("| |", " | ".join(columns), "|")
    print("|---" * (len(columns) + 1), end="|\n")
    for name, row in table.items():
        print(f"| {name} |", " | ".join("-" if math.isnan(value) else f"{value:.2g}" for value in row.values()), "|")
    if arguments.picture is not None:
        picture(arguments.picture)
