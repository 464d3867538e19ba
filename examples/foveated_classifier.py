"""Something small in a large image:  python examples/foveated_classifier.py [steps] [--side 1024] [--only glimpses]

A digit of 28 x 28 pixels lies somewhere in a black image of 1024 x 1024, uint8 as a file has it. The network looks at the
whole image with 16 x 16 samples, then nearer at what it took for interesting, then at the digit, with two scales around one
centre. Where it looks is learned from the labels alone, by the gradient to the boxes. Beside it the same network gets the
whole image downsampled to as many numbers. Printed are the share of test images told wrong, the processor's time of a
training step without what makes the images, and with --only, which trains one of the two, the process's peak of memory.
Needs pip install "fastdraw-torch[train]" for the images.
"""

import argparse
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fastdraw
from fastdraw import data

SIZE, FINEST = 16, 40.0


def network(channels: int, size: int) -> nn.Sequential:
    features = nn.Sequential(nn.Conv2d(channels, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten())
    return nn.Sequential(*features, nn.Linear(16 * (size - 4) ** 2, 64), nn.ReLU(), nn.Linear(64, 10))


class FoveatedClassifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        # How interesting each sample is: at first, how bright.
        self.interest = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.zeros_(self.interest.weight)
        self.interest.weight.data[0, 0, 1, 1] = 8.0
        self.tell = network(2, SIZE)

    def forward(self, image: Tensor) -> Tensor:
        side = float(image.shape[-1])
        centre = torch.full((len(image), 2), side / 2, device=image.device)
        for width in (side, (side * FINEST) ** 0.5):
            boxes = torch.cat([centre - width / 2, centre + width / 2], 1)
            patch = fastdraw.crop(image, boxes, SIZE, scale=1 / 255)  # [B, 1, 16, 16]
            heat = self.interest(patch / patch.amax((1, 2, 3), keepdim=True).clamp(min=1e-6))
            # The next centre is the mean place, in parts of the box, weighted by interest.
            weights = heat.flatten(1).softmax(1).unflatten(1, (SIZE, SIZE))
            places = (torch.arange(SIZE, device=image.device) + 0.5) / SIZE
            place = torch.stack([weights.sum(1) @ places, weights.sum(2) @ places], 1)
            centre = centre + (place - 0.5) * width
        boxes = torch.cat([centre - FINEST / 2, centre + FINEST / 2], 1)
        patches = fastdraw.crop(image, fastdraw.concentric_boxes(boxes, (1, 2)), SIZE, scale=1 / 255)  # [B, 2, 1, 16, 16]
        return self.tell(patches.flatten(1, 2))


class Downsampled(nn.Module):
    """Of the whole image as many numbers as the other one reads."""

    def __init__(self) -> None:
        super().__init__()
        self.tell = network(1, 2 * SIZE)

    def forward(self, image: Tensor) -> Tensor:
        side = float(image.shape[-1])
        whole = torch.tensor([[0.0, 0.0, side, side]], device=image.device).expand(len(image), 4)
        return self.tell(fastdraw.crop(image, whole, 2 * SIZE, scale=1 / 255))


KINDS: dict[str, type[nn.Module]] = {"glimpses": FoveatedClassifier, "downsampled": Downsampled}


def scattered(images: Tensor, side: int) -> Tensor:
    """uint8 [n, 1, 28, 28] -> uint8 [n, 1, side, side], each at a place of its own."""
    out = torch.zeros(len(images), 1, side, side, dtype=torch.uint8)
    for canvas, image, (y, x) in zip(out, images, torch.randint(0, side - 27, (len(images), 2)).tolist(), strict=True):
        canvas[:, y : y + 28, x : x + 28] = image
    return out


def train(model: nn.Module, splits: data.Splits, side: int, steps: int, device: str) -> tuple[float, float]:
    """Trains, and gives the share of test images that are told wrong, and a step's seconds."""
    torch.manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    seconds = 0.0
    for step in range(steps):
        chosen = torch.randint(len(splits.train), (32,))
        images, labels = scattered(splits.train[chosen], side).to(device), splits.labels.train[chosen].to(device)
        begin = time.process_time()
        loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seconds += time.process_time() - begin
        if step % 50 == 0 or step == steps - 1:
            print(f"  step {step}: cross-entropy {loss.item():.2f} nats")
    wrong = 0
    with torch.inference_mode():
        for part, labels in zip(splits.test.split(32), splits.labels.test.split(32), strict=True):
            wrong += int((model(scattered(part, side).to(device)).argmax(1).cpu() != labels).sum())
    return wrong / len(splits.test), seconds / max(steps, 1)


def peak() -> str:
    """Of the process's memory."""
    if sys.platform == "win32":
        return "not known here"
    import resource

    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == 'darwin' else 2**10):.0f} MiB"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="?", type=int, default=400, help="training steps; default: %(default)s")
    parser.add_argument("--side", type=int, default=1024, help="pixels along an image's side; default: %(default)s")
    parser.add_argument("--only", choices=KINDS, help="train this one alone; default: both")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    splits = data.load("digits")
    for name in KINDS if arguments.only is None else (arguments.only,):
        torch.manual_seed(0)
        print(f"{name}:")
        error, seconds = train(KINDS[name]().to(device), splits, arguments.side, arguments.steps, device)
        print(f"{name}: test error {100 * error:.1f} %, {1e3 * seconds:.1f} ms a step")
    if arguments.only is not None:
        print(f"peak of memory: {peak()}")
