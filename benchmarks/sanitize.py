"""Every Triton kernel once or twice at awkward sizes, for compute-sanitizer to watch: `make gpu` runs it."""

from __future__ import annotations

import os

# An allocation of its own for every tensor: otherwise what lies past the end of one is another one, and nothing is noticed.
# Read when torch is loaded.
os.environ["PYTORCH_NO_CUDA_MEMORY_CACHING"] = "1"

import torch

from benchmarks.checkout import activate

#: (B, C, H, W, N): the smallest; primes, one over a power of two; two of the paper's.
SHAPES = [(1, 1, 1, 1, 1), (3, 2, 17, 33, 7), (2, 1, 28, 28, 5), (1, 3, 54, 54, 12)]
DTYPES = [torch.float32, torch.bfloat16]


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


def differentiate(function, *inputs: torch.Tensor) -> None:
    leaves = [tensor.requires_grad_() for tensor in inputs]
    outputs = function(*leaves)
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    torch.autograd.grad(outputs, leaves, [torch.ones_like(output) for output in outputs])


if __name__ == "__main__":
    activate()
    main()
