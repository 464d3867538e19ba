"""Every operator, models, a classifier: once or twice at awkward sizes, for compute-sanitizer to watch in `make gpu`."""

from __future__ import annotations

import argparse
import os
from typing import Any

# An allocation of its own for every tensor: otherwise what lies past the end of one is another one, and nothing is noticed.
# Read when torch is loaded.
os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"

import torch

#: (B, C, H, W, N): the smallest; primes, one over a power of two; two of the paper's.
SHAPES = [(1, 1, 1, 1, 1), (3, 2, 17, 33, 7), (2, 1, 28, 28, 5), (1, 3, 54, 54, 12)]
DTYPES = [torch.float32, torch.bfloat16]
#: With attention, on both sides, on neither; canvases kept and rebuilt.
MODELS: list[dict[str, Any]] = [
    {"image_shape": (2, 17, 33), "hidden_size": 35, "latent_size": 7, "read_size": 3, "write_size": 5},
    {"image_shape": (1, 9, 7), "hidden_size": 70, "latent_size": 5, "read_size": 2, "canvas_memory": "rebuild"},
    {"image_shape": (1, 5, 3), "hidden_size": 9, "latent_size": 4, "read_size": None, "write_size": None},
]


def main(device: str = "cuda", backend: str = "triton") -> None:
    import fastdraw

    torch.manual_seed(0)
    with fastdraw.backend(backend):
        run_everything(fastdraw, device)
    if device == "cuda":
        torch.cuda.synchronize()
    print("every operator ran, forward and backward")


def run_everything(fastdraw, device: str) -> None:
    for dtype in DTYPES:
        for b, c, h, w, n in SHAPES:
            # One window in the image, one far outside it.
            params = (torch.randn(b, 5, device=device) * 0.5).index_fill(0, torch.tensor([b - 1], device=device), 3.0)
            image = torch.rand(b, c, h, w, device=device).to(dtype)
            patch = torch.randn(b, c, n, n, device=device).to(dtype)
            differentiate(lambda i, p, n=n: fastdraw.read(i, p, n), image, params)
            differentiate(lambda q, p, h=h, w=w: fastdraw.write(q, p, (h, w)), patch, params)
            differentiate(lambda p, n=n, h=h, w=w: fastdraw.filterbank(p, n, (h, w)), params)
        for b, i, k in [(1, 1, 1), (5, 17, 33), (16, 24, 64)]:
            shapes = [(b, i), (b, k), (b, k), (4 * k, i), (4 * k, k), (4 * k,), (4 * k,)]
            x, hidden, cell, *weights = (torch.randn(shape, device=device).to(dtype) for shape in shapes)
            differentiate(
                lambda x, hidden, cell, *w: fastdraw.lstm_step(x, (hidden, cell), *w), x, hidden, cell.float(), *weights
            )
    several(fastdraw, device)
    for options in MODELS:
        for autocast in (None, torch.bfloat16):
            train(fastdraw, device, autocast, options)
    classify(fastdraw, device)


def several(fastdraw, device: str) -> None:
    """Several windows of an image that is large enough to be shared by programs, and lies with its channels last."""
    params = torch.randn(1, 3, 5, device=device) * 0.5
    image = torch.rand(1, 3, 370, 361, device=device).to(memory_format=torch.channels_last)
    differentiate(lambda i, p: fastdraw.read(i, p, 5), image, params)
    differentiate(lambda q, p: fastdraw.write(q, p, (370, 361)), torch.randn(1, 3, 3, 5, 5, device=device), params)


def train(fastdraw, device: str, autocast: torch.dtype | None, options: dict[str, Any]) -> None:
    """Two images, more than one tile of hidden units, sizes that are multiples of nothing; then samples."""
    model = fastdraw.DRAW(glimpses=2, **options).to(device)
    x = torch.rand(2, *model.config.image_shape, device=device)
    with torch.autocast(device, autocast, enabled=autocast is not None):
        loss = model(x).loss
    loss.backward()
    model.sample(2)


def classify(fastdraw, device: str) -> None:
    model = fastdraw.DRAWClassifier((1, 19, 17), glimpses=2, hidden_size=35, read_size=3).to(device)
    model(torch.rand(3, 1, 19, 17, device=device), torch.zeros(3, dtype=torch.int64, device=device)).loss.backward()


def differentiate(function, *inputs: torch.Tensor) -> None:
    leaves = [tensor.requires_grad_() for tensor in inputs]
    outputs = function(*leaves)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    torch.autograd.grad(outputs, leaves, [torch.ones_like(output) for output in outputs])


if __name__ == "__main__":
    argparse.ArgumentParser(prog="python3 -m benchmarks.gpu.sanitize", description=__doc__).parse_args()
    main()
