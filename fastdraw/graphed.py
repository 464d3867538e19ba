"""A whole training step as one CUDA graph; on a CPU the same step, plainly, so that code written with it runs anywhere."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fastdraw import checks
from fastdraw.reference import DRAW

#: Steps run before the capture: kernels are compiled, and the allocator finds its sizes.
_WARM_UP = 3


class StepOutput(NamedTuple):
    """Of one step, all detached; on CUDA the next step overwrites them.

    loss: nats per image. reconstruction [B], kl [T, B]: nats. gradient_norm: of all gradients together, before clipping.
    """

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor
    gradient_norm: Tensor


class GraphedStep:
    """One training step: forward, backward, clipping, and the optimiser's update.

        step = fastdraw.GraphedStep(model, optimizer, example=x, clip=10.0)
        for x in batches:
            out = step(x)            # out.loss, out.kl, ...

    model      fastdraw.DRAW or fastdraw.reference.DRAW
    optimizer  over the model's parameters. On CUDA an Adam or another that takes `capturable`, which is switched on, and whose
               learning rate is turned into a tensor, so that schedules still reach the captured step.
    example    [B, C, H, W]: the shape, dtype and device that every later batch must have. Its values are not used.
    clip       longest norm of all gradients together; None: not clipped.

    On CUDA, building one captures all of it in one graph, under the autocast in force there; weights, optimiser and generators
    are left as they were. Each call copies the batch, draws fresh noise and replays. Elsewhere a call runs the same operations
    plainly. Images are checked like the model's own where that does not wait for the device.

    Raises ValueError or TypeError, naming the argument, for what it cannot take.
    """

    def __init__(self, model: DRAW, optimizer: torch.optim.Optimizer, example: Tensor, clip: float | None = None) -> None:
        if not isinstance(model, DRAW):
            raise checks.expected("model", "a fastdraw.DRAW", model, TypeError)
        if clip is not None and not clip > 0:
            raise checks.expected("clip", "a norm above 0, or None", clip)
        checks.check_tensor("example", example, "B", *model.config.image_shape)
        checks.check_same("device", "the model's weights", model.initial_canvas, "example", example)
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if any(p.requires_grad and id(p) not in owned for p in model.parameters()):
            raise ValueError("optimizer: expected every parameter of the model, got only some of them")
        self.model, self.optimizer, self.clip = model, optimizer, clip
        config = model.config
        self._x = torch.zeros_like(example, memory_format=torch.contiguous_format)
        self._noise = model.initial_canvas.new_zeros(config.glimpses, len(example), config.latent_size)
        self._kl_weight = model.initial_canvas.new_ones(())
        self._graph: torch.cuda.CUDAGraph | None = None
        if example.is_cuda:
            self._capture()

    def __call__(self, x: Tensor, noise: Tensor | None = None, kl_weight: float = 1.0) -> StepOutput:
        """A step on images x in [0, 1]. noise [T, B, Z]: for exact repeats; drawn if None. kl_weight: of the KL in the loss
        that is minimised (1: the paper's bound); the loss given back always counts the whole KL."""
        checks.check_tensor("x", x, *self._x.shape)
        checks.check_unit_interval("x", x)
        if noise is not None:
            checks.check_tensor("noise", noise, *self._noise.shape)
        self._x.copy_(x)
        self._noise.normal_() if noise is None else self._noise.copy_(noise)
        self._kl_weight.fill_(kl_weight)
        if self._graph is None:
            return self._step()
        self._graph.replay()
        return self._output

    def _step(self) -> StepOutput:
        self.optimizer.zero_grad(set_to_none=True)
        out = self.model(self._x, self._noise)
        (out.reconstruction + self._kl_weight * out.kl.sum(0)).mean().backward()
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
        self.optimizer.step()
        return StepOutput(out.loss.detach(), out.reconstruction.detach(), out.kl.detach(), norm.detach())

    def _capture(self) -> None:
        for group in self.optimizer.param_groups:
            if "capturable" not in group:
                raise checks.expected("optimizer", "one that takes capturable=True", type(self.optimizer).__name__)
            group["capturable"] = True
            if not isinstance(group["lr"], Tensor):
                group["lr"] = torch.tensor(float(group["lr"]), device=self._x.device)
        for state in self.optimizer.state.values():
            if isinstance(state.get("step"), Tensor):
                state["step"] = state["step"].to(self._x.device)
        # Warming up takes real steps: everything they change is put back. Moments are made by them, and go back to zero.
        weights = [p.detach().clone() for p in self.model.parameters()]
        states = {p: {k: v.clone() for k, v in s.items() if isinstance(v, Tensor)} for p, s in self.optimizer.state.items()}
        device = self._x.device
        with torch.random.fork_rng(devices=[device]):
            stream = torch.cuda.Stream(device)
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP):
                    self._step()
            torch.cuda.current_stream(device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            self.optimizer.zero_grad(set_to_none=True)
            with torch.cuda.graph(graph):
                self._output = self._step()
        with torch.no_grad():
            for weight, before in zip(self.model.parameters(), weights, strict=True):
                weight.copy_(before)
            for parameter, state in self.optimizer.state.items():
                for key, value in state.items():
                    if isinstance(value, Tensor):
                        value.copy_(states[parameter][key]) if parameter in states else value.zero_()
        self._graph = graph
