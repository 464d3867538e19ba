"""A step of training recorded as one CUDA graph: what is put back afterwards, and what makes a graph one of another state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fastdraw import checks

#: Steps run before the capture: kernels are compiled, and the allocator finds its sizes.
WARM_UP = 3
#: Optimisers whose state of a parameter that was never stepped is all zeros, as it is left for parameters that had none. Of
#: torch's others that can be captured, NAdam, ASGD and Rprop begin at other numbers.
OPTIMIZERS = (torch.optim.Adam, torch.optim.AdamW, torch.optim.RAdam, torch.optim.Adamax)
Output = TypeVar("Output")


def check_optimizer(optimizer: Optimizer) -> None:
    # Not isinstance: what somebody derives from Adam may keep a state of its own.
    if type(optimizer) not in OPTIMIZERS:
        names = ", ".join(kind.__name__ for kind in OPTIMIZERS)
        raise checks.expected("optimizer", f"one of torch.optim's {names} on CUDA", type(optimizer).__name__, TypeError)


def prepare(optimizer: Optimizer, device: torch.device) -> None:
    """Everything that the graph is to read or write in tensors on the device: the count of steps, and learning rates, so that
    schedules reach the graph."""
    for group in optimizer.param_groups:
        group["capturable"] = True
        rate = group["lr"]
        if not isinstance(rate, Tensor) or rate.device != device:
            group["lr"] = torch.tensor(float(rate), device=device)
    for state in optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(device)


class Kept:
    """A model and its optimiser as they are now, to be put back in place."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.weights = [(p, p.detach().clone()) for p in model.parameters()]
        self.groups = [dict(group) for group in optimizer.param_groups]
        self.states = {p: dict(state) for p, state in optimizer.state.items()}
        self.values = {p: {k: v.clone() for k, v in s.items() if isinstance(v, Tensor)} for p, s in self.states.items()}

    def restore(self) -> None:
        """Weights, and the states that there were; those that steps have made since become zero, and stay."""
        with torch.no_grad():
            for weight, before in self.weights:
                weight.copy_(before)
            for parameter, state in self.optimizer.state.items():
                for name, value in state.items():
                    if isinstance(value, Tensor):
                        known = self.values.get(parameter, {}).get(name)
                        value.zero_() if known is None else value.copy_(known)

    def undo(self) -> None:
        """Everything, down to which tensors there are."""
        self.restore()
        for group, before in zip(self.optimizer.param_groups, self.groups, strict=True):
            group.update(before)
        for parameter in list(self.optimizer.state):
            if parameter in self.states:
                self.optimizer.state[parameter] = self.states[parameter]
                for name, value in self.values[parameter].items():
                    self.states[parameter][name].copy_(value)
            else:
                del self.optimizer.state[parameter]


def capture(
    model: nn.Module, optimizer: Optimizer, device: torch.device, step: Callable[[], Output]
) -> tuple[torch.cuda.CUDAGraph, Output]:
    """The graph of `step` and its output, which a replay writes anew. Weights, optimiser and generators are left as they were;
    where it fails all is as before, and nothing is left recording."""
    check_optimizer(optimizer)
    kept = Kept(model, optimizer)
    try:
        # What is recorded is what happens on streams of the current device.
        with torch.cuda.device(device), torch.random.fork_rng(devices=[device]):
            prepare(optimizer, device)
            found = _record(optimizer, device, step)
    except BaseException:
        kept.undo()
        raise
    kept.restore()
    return found


def _record(optimizer: Optimizer, device: torch.device, step: Callable[[], Output]) -> tuple[torch.cuda.CUDAGraph, Output]:
    outer, stream = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    stream.wait_stream(outer)
    with torch.cuda.stream(stream):
        for _ in range(WARM_UP):
            step()
    outer.wait_stream(stream)
    optimizer.zero_grad(set_to_none=True)
    # A pool that has a name here: only so can it be ended where the capture cannot.
    graph, pool = torch.cuda.CUDAGraph(), torch.cuda.graph_pool_handle()
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            output = step()
    except BaseException:
        # Where the end of a capture fails, torch 2.11 leaves its stream current, and its pool takes all later memory; then
        # every later capture of the process would fail too (pytorch 180395).
        torch.cuda.set_stream(outer)
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(device.index, pool)
        raise
    return graph, output


class Identity:
    """Which memory a graph reads and writes, and which numbers are constants in it; equal while the graph is the right one."""

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        self.model, self.optimizer = model, optimizer
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.found = self._now()

    def holds(self) -> bool:
        """Learning rates that were set to a number, or loaded with a state, are brought into the graph's tensors first."""
        groups = self.optimizer.param_groups
        if len(groups) != len(self.rates):
            return False
        for group, rate in zip(groups, self.rates, strict=True):
            if group["lr"] is not rate:
                rate.fill_(group["lr"])
                group["lr"] = rate
        return self._now() == self.found

    def _now(self) -> list[Any]:
        """load_state_dict puts moments into other tensors; so does a move of the model to its weights."""
        found: list[Any] = [parameter.data_ptr() for parameter in self.model.parameters()]
        found += [parameter.requires_grad for parameter in self.model.parameters()]
        for parameter in self.model.parameters():
            found += [v.data_ptr() for v in self.optimizer.state.get(parameter, {}).values() if isinstance(v, Tensor)]
        for group in self.optimizer.param_groups:
            options = [(k, v) for k, v in group.items() if k not in ("params", "lr", "initial_lr")]
            found += [(k, id(v) if isinstance(v, Tensor) else v) for k, v in options]
        return found
