"""Random calls, legal and not, of the operators and models on the native backend: `python tests/fuzz.py SECONDS [CALLS
[SEED]]`, whichever end comes first, or an interruption.

A legal call gives numbers, none of them NaN. An illegal one, in which a tensor, a weight, what autograd kept or one argument
of a registered operator was spoiled, is refused with a sentence, or computes. Run under AddressSanitizer (tests/sanitize.py)
it ends at the first read or write outside of a tensor.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import fastdraw
from fastdraw import env

DTYPES = [torch.float32, torch.float32, torch.float64, torch.bfloat16, torch.float16]
REFUSALS = (ValueError, TypeError, RuntimeError)


def side(most: int = 90) -> int:
    return random.choice([1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, random.randint(1, most)])


def strided(tensor: Tensor) -> Tensor:
    """The same numbers, in memory in another way."""
    way = random.randrange(6)
    if way == 0 and tensor.dim() == 4:
        return tensor.contiguous(memory_format=torch.channels_last)
    if way == 1 and tensor.dim() > 1:
        return tensor.mT.contiguous().mT
    if way == 2:
        return torch.cat([tensor, tensor], -1)[..., : tensor.shape[-1]]
    if way == 3:
        return tensor.repeat_interleave(2, -1)[..., ::2]
    if way == 4:
        strides = [
            random.choice([0, 1, 5, 10**9]) if n == 1 else s for n, s in zip(tensor.shape, tensor.stride(), strict=True)
        ]
        return tensor.as_strided(tensor.shape, strides)
    return tensor


def spoiled(tensor: Tensor) -> Tensor:
    """Another shape, dtype, device or memory."""
    tensor, way = tensor.detach(), random.randrange(9)
    if way == 0 and tensor.dim():
        return tensor[..., :-1].contiguous()
    if way == 1 and tensor.dim():
        return tensor.repeat_interleave(2, random.randrange(tensor.dim()))
    if way == 2:
        return tensor.to("meta")
    if way == 3:
        tensor = tensor.clone()
        tensor.untyped_storage().resize_(random.choice([0, max(tensor.nbytes - 1, 0)]))
        return tensor
    if way == 4:
        return tensor.to(random.choice([*DTYPES, torch.int32, torch.complex64]))
    if way == 5:
        return tensor.unsqueeze(random.randint(0, tensor.dim()))
    if way == 6:
        return tensor.flatten()
    if way == 7:
        # A tensor's strides and sizes are its own word for what lies behind it.
        sizes = [n + random.choice([0, 0, 1, 3]) for n in tensor.shape]
        tensor = tensor.clone()
        return tensor.set_(tensor.untyped_storage(), 0, sizes, [random.choice([0, s, s + 1]) for s in tensor.stride()])
    return tensor[:0] if tensor.dim() else tensor


def params(*sizes: int) -> Tensor:
    scale = torch.tensor(
        random.choice([[0.7, 0.7, 1, 0.7, 0.7], [2, 2, 6, 3, 3], [1e4, 1e9, 30, 20, 9], [1e30, 1e30, 60, 60, 1]])
    )
    return torch.randn(*sizes, 5) * scale


def operator() -> tuple[Callable[..., Tensor], list[Tensor]]:
    """A function and what it takes, legally."""
    batch, channels, height, width, n = random.randint(1, 3), random.randint(1, 3), side(), side(), random.randint(1, 20)
    several = random.choice([(), (), (random.randint(1, 3),)])
    dtype = random.choice(DTYPES)
    window = params(batch, *several)
    kind = random.choice(["read", "read", "write", "filterbank", "lstm"])
    if kind == "read" and random.random() < 0.25:
        # Bytes have no gradient.
        pixels = strided(torch.randint(0, 256, (batch, random.randint(1, 5), height, width), dtype=torch.uint8))
        return lambda p: fastdraw.read(pixels, p, n), [window]
    if kind == "read":
        return lambda image, p: fastdraw.read(image, p, n), [torch.rand(batch, channels, height, width).to(dtype), window]
    if kind == "write":
        return lambda patch, p: fastdraw.write(patch, p, (height, width)), [
            torch.rand(batch, *several, channels, n, n).to(dtype),
            window,
        ]
    if kind == "filterbank":
        return lambda p: fastdraw.filterbank(p, n, (height, width)).x, [params(batch)]
    inputs, hidden = side(40), side(40)
    sizes = [(batch, inputs), (batch, hidden), (batch, hidden), (4 * hidden, inputs), (4 * hidden, hidden)]
    tensors = [torch.randn(size).to(dtype) for size in [*sizes, (4 * hidden,), (4 * hidden,)]]
    return lambda x, h, c, *w: fastdraw.lstm_step(x, (h, c), *w)[0], tensors


def model() -> torch.nn.Module:
    shape = (random.randint(1, 3), side(20), side(20))
    if random.random() < 0.3:
        return fastdraw.DRAWClassifier(shape, random.randint(1, 3), side(40), random.randint(1, 6), random.randint(1, 12))
    sizes = [random.choice([None, 1, 2, 3, 7]) for _ in range(2)]
    memory, classes = random.choice(["keep", "rebuild"]), random.choice([None, None, 3])
    return fastdraw.DRAW(shape, random.randint(1, 3), side(40), random.randint(1, 20), *sizes, memory, classes)


def call_model(m: Any) -> Tensor:
    x = torch.rand(random.randint(0, 5), *m.config.image_shape)
    if isinstance(m, fastdraw.DRAWClassifier):
        return m(strided(x)).logits.float().sum()
    labels = None if m.config.num_classes is None else torch.randint(m.config.num_classes, (len(x),))
    if random.random() < 0.2:
        return m.sample(3).float().sum()
    out = m(strided(x), labels=labels)
    return out.canvas.float().sum() + out.kl.float().sum()


class Recorder(TorchDispatchMode):
    """The calls of registered operators, with their arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[Any, ...]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "fastdraw":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


def changed(argument: Any) -> Any:
    if isinstance(argument, Tensor):
        return spoiled(argument)
    if isinstance(argument, bool) or argument is None:
        return argument
    if isinstance(argument, int):
        return random.choice([0, -1, argument + 1, argument - 1, 2 * argument, -(2**62)])
    return random.choice(DTYPES) if isinstance(argument, torch.dtype) else argument


def directly() -> None:
    """An operator as torch.ops has it, of a legal call's arguments one of which was changed."""
    recorder = Recorder()
    with recorder:
        if random.random() < 0.4:
            call_model(model().to(random.choice(DTYPES))).backward()
        else:
            function, tensors = operator()
            function(*(tensor.requires_grad_() for tensor in tensors)).sum().backward()
    func, arguments = random.choice(recorder.calls)
    i = random.choice([i for i, argument in enumerate(arguments) if not isinstance(argument, (bool, str, type(None)))])
    with torch.no_grad():
        func(*arguments[:i], changed(arguments[i]), *arguments[i + 1 :])


def publicly(illegal: bool) -> None:
    leaves: list[Tensor] = []
    if random.random() < 0.35:
        m = model().to(random.choice(DTYPES))
        if illegal:
            weights = random.choice(list(m.parameters()))
            weights.data = spoiled(weights)
        out = call_model(m)
    else:
        function, tensors = operator()
        leaves = [strided(t).detach().requires_grad_(random.random() < 0.7) for t in tensors]
        if illegal:
            i = random.randrange(len(leaves))
            leaves[i] = spoiled(leaves[i])
        out = function(*leaves)
    if out.requires_grad:
        if illegal and leaves:
            with torch.autograd.graph.saved_tensors_hooks(lambda t: t, random.choice([lambda t: t, spoiled])):
                out = function(*leaves)
        out.sum().backward()
    if not illegal:
        assert not out.isnan().any(), "a legal call gave NaN"


def main(seconds: float, calls: float, seed: int) -> None:
    end, done = time.monotonic() + seconds, Counter[str]()
    with fastdraw.backend("native"):
        while time.monotonic() < end and done.total() < calls:
            number = seed + done.total()
            random.seed(number)
            torch.manual_seed(number)
            kind = random.choice(["legal", "illegal", "illegal"])
            try:
                directly() if kind == "illegal" and random.random() < 0.5 else publicly(kind == "illegal")
                done[f"{kind}, computed"] += 1
            except REFUSALS as error:
                if kind == "legal" or not str(error):
                    print(f"seed {number}", flush=True)
                    raise
                done["illegal, refused"] += 1
            except KeyboardInterrupt:
                break
            except BaseException:
                print(f"seed {number}", flush=True)
                raise
    figures = "; ".join(f"{kind} {count:,}" for kind, count in sorted(done.items()))
    print(f"{done.total():,} calls at level {env.level()}: {figures}; findings 0")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python tests/fuzz.py", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("seconds", type=float)
    parser.add_argument("calls", type=float, nargs="?", default=float("inf"))
    parser.add_argument("seed", type=int, nargs="?", default=0)
    main(**vars(parser.parse_args()))
