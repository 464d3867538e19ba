"""Glimpses in a classifier of one's own:  python examples/glimpse_classifier.py [steps]

A digit of 28 x 28 pixels lies somewhere in a black image of 60 x 60. A small network looks at it three times through
fastdraw.GaussianGlimpse, each time through a window that it places itself, and tells the digit. Nobody tells it where the
digit is.
Needs pip install "fastdraw-torch[train]" for the images.
"""

import argparse

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import fastdraw
from fastdraw import data


class GlimpseClassifier(nn.Module):
    def __init__(self, glimpses: int = 3, size: int = 12, hidden: int = 128) -> None:
        super().__init__()
        self.glimpses = glimpses
        # Sigma follows the stride: between samples nothing is passed over, so that the window feels the digit wherever it is.
        self.look = fastdraw.GaussianGlimpse(size, antialias=True)
        self.features = nn.Sequential(nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten())
        self.memory = nn.GRUCell(16 * (size - 4) ** 2, hidden)
        # (g~x, g~y, log sigma^2, log delta~, log gamma): zeros are a window in the middle that spans the image.
        self.place = nn.Linear(hidden, 5)
        nn.init.zeros_(self.place.weight)
        nn.init.zeros_(self.place.bias)
        self.tell = nn.Linear(hidden, 10)

    def forward(self, image: Tensor) -> Tensor:
        state = image.new_zeros(len(image), self.memory.hidden_size)
        for _ in range(self.glimpses):
            patch = self.look(image, self.place(state))  # [B, 1, size, size]
            state = self.memory(self.features(patch), state)
        return self.tell(state)


def scattered(images: Tensor) -> Tensor:
    """uint8 [n, 1, 28, 28] -> float32 [n, 1, 60, 60], each at a place of its own."""
    out = torch.zeros(len(images), 1, 60, 60)
    for canvas, image, (y, x) in zip(out, images, torch.randint(0, 33, (len(images), 2)).tolist(), strict=True):
        canvas[:, y : y + 28, x : x + 28] = image / 255
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="?", type=int, default=1000, help="training steps; default: %(default)s")
    steps = parser.parse_args().steps
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    splits = data.load("digits")
    model = GlimpseClassifier().to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for step in range(steps):
        chosen = torch.randint(len(splits.train), (64,))
        loss = cross_entropy(model(scattered(splits.train[chosen]).to(device)), splits.labels.train[chosen].to(device))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step}: cross-entropy {loss.item():.2f} nats")
    with torch.inference_mode():
        told = model(scattered(splits.test).to(device)).argmax(1).cpu()
    print(f"test: error {100 * (told != splits.labels.test).float().mean().item():.1f} %")
