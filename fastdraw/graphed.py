"""A whole training step as one CUDA graph; on a CPU the same step, plainly, so that code written with it runs anywhere."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch._utils import _flatten_dense_tensors, _unflatten_dense_tensors

from fastdraw import checks, layers
from fastdraw.capture import Identity, capture
from fastdraw.reference import DRAW, DRAWClassifier


class StepOutput(NamedTuple):
    """Of one step of DRAW, all detached; on CUDA the next step overwrites them.

    loss: nats per image. reconstruction [B], kl [T, B]: nats. gradient_norm: of all gradients together, before clipping.
    """

    loss: Tensor
    reconstruction: Tensor
    kl: Tensor
    gradient_norm: Tensor


class ClassifierStepOutput(NamedTuple):
    """Of one step of DRAWClassifier, as StepOutput. loss: cross-entropy, nats per image. logits [B, classes]."""

    loss: Tensor
    logits: Tensor
    gradient_norm: Tensor


class GraphedStep:
    """One training step: forward, backward, clipping, and the optimiser's update.

        step = fastdraw.GraphedStep(model, optimizer, example=x, clip=10.0)
        for x in batches:
            out = step(x)            # out.loss, out.kl, ...

    model          a DRAW or DRAWClassifier of fastdraw or fastdraw.reference.
    optimizer      over the model's parameters. On CUDA torch's Adam, AdamW, RAdam or Adamax; `capturable` is switched on, and
                   the learning rate turned into a tensor. Schedules and rates set by hand reach the captured step, and what
                   optimizer.load_state_dict brings as well; other changes of its options are captured anew at the next call.
    example        [B, C, H, W]: the shape, dtype and device that every later batch must have. Its values are not used.
    clip           longest norm of all gradients together; None: not clipped.
    accumulate     parts, as equal as can be, that a batch is computed in, one after the other: the gradients of the whole
                   batch (to rounding), in the memory of one part. From 1 to B.
    glimpses       T of every step; None: the model's own.
    process_group  of torch.distributed: gradients are averaged over its processes before they are clipped, so that all take
                   the same step. The processes' weights must be the same, and their batches of one size.

    On CUDA, building one captures all of it in one graph, under the autocast in force there; weights, optimiser and generators
    are left as they were, also where it fails. Each call copies the batch, draws fresh noise and replays. Elsewhere, and with
    a process group, a call runs the same operations plainly; so it does while modules have hooks, which no graph would call.
    Images are checked like the model's own where that does not wait for the device.

    Raises ValueError or TypeError, naming the argument, for what it cannot take.
    """

    def __init__(
        self,
        model: DRAW | DRAWClassifier,
        optimizer: torch.optim.Optimizer,
        example: Tensor,
        clip: float | None = None,
        accumulate: int = 1,
        process_group: dist.ProcessGroup | None = None,
        *,
        glimpses: int | None = None,
    ) -> None:
        if not isinstance(model, (DRAW, DRAWClassifier)):
            raise checks.expected("model", "a fastdraw.DRAW or fastdraw.DRAWClassifier", model, TypeError)
        if clip is not None and not clip > 0:
            raise checks.expected("clip", "a norm above 0, or None", clip)
        weight = next(model.parameters())
        checks.check_tensor("example", example, "B", *model.config.image_shape)
        checks.check_same("device", "the model's weights", weight, "example", example)
        if checks.check_size("accumulate", accumulate) > max(1, len(example)):
            raise checks.expected("accumulate", f"at most {len(example)} parts, one image each", accumulate)
        owned = {id(p) for group in optimizer.param_groups for p in group["params"]}
        if any(p.requires_grad and id(p) not in owned for p in model.parameters()):
            raise ValueError("optimizer: expected every parameter of the model, got only some of them")
        self.model, self.optimizer, self.clip, self.group = model, optimizer, clip, process_group
        batch = len(example)
        self._x = torch.zeros_like(example, memory_format=torch.contiguous_format)
        self._classes: int | None = getattr(model.config, "num_classes", None)
        self._labels = None if self._classes is None else torch.zeros(batch, dtype=torch.int64, device=example.device)
        steps = checks.check_glimpses(glimpses, model.config.glimpses)
        # A model whose number is its own may be one that knows no other.
        self._known: dict[str, Any] = {} if glimpses is None else {"glimpses": steps}
        if isinstance(model, DRAW):
            self._noise = weight.new_zeros(steps, batch, model.config.latent_size)
            self._kl_weight = weight.new_ones(())
        bounds = [batch * i // accumulate for i in range(accumulate + 1)]
        self._parts = [slice(start, stop) for start, stop in itertools.pairwise(bounds)]
        kind = example.device.type
        self._autocast = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        self._graph: torch.cuda.CUDAGraph | None = None
        if example.is_cuda and process_group is None and not layers.callbacks(model):
            self._capture()

    def __call__(self, x: Tensor, noise: Tensor | None = None, kl_weight: float = 1.0, labels: Tensor | None = None) -> Any:
        """A step on images x in [0, 1]: StepOutput for DRAW, ClassifierStepOutput for DRAWClassifier.

        labels [B]: class numbers, int64, for DRAWClassifier and a DRAW with num_classes; otherwise None.
        For DRAW alone, noise [T, B, Z]: for exact repeats; drawn if None. kl_weight: of the KL in the loss that is minimised
        (1: the paper's bound); the loss given back always counts the whole KL.
        """
        checks.check_tensor("x", x, *self._x.shape)
        checks.check_unit_interval("x", x)
        if self._labels is None:
            if labels is not None:
                raise checks.expected("labels", "None for a model without classes", labels)
        else:
            checks.check_labels(labels, len(self._x), self._classes or 1, self._x)
            self._labels.copy_(labels)  # type: ignore[arg-type]
        self._x.copy_(x)
        if isinstance(self.model, DRAW):
            if noise is not None:
                checks.check_tensor("noise", noise, *self._noise.shape)
            self._noise.normal_() if noise is None else self._noise.copy_(noise)
            self._kl_weight.fill_(kl_weight)
        elif noise is not None:
            raise checks.expected("noise", "None for a classifier, which draws none", noise)
        if self._graph is None or layers.callbacks(self.model):
            return self._step()
        if not self._identity.holds():
            # Another optimiser's state was loaded, or weights were moved: the graph would go on with the old ones.
            self._capture()
        self._graph.replay()
        return self._output

    def _step(self) -> StepOutput | ClassifierStepOutput:
        # Autocast keeps a weight that it has cast: over glimpses, as it should, and on into the next step, which has other
        # weights. In a graph it would be the capture's weight for good.
        torch.clear_autocast_cache()
        try:
            return self._plain()
        finally:
            torch.clear_autocast_cache()

    def _plain(self) -> StepOutput | ClassifierStepOutput:
        self.optimizer.zero_grad(set_to_none=True)
        forward = self._draw if isinstance(self.model, DRAW) else self._classify
        outs = [forward(part) for part in self._parts]
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if self.group is not None:
            average(gradients, self.group)
        norm = torch.nn.utils.get_total_norm(gradients)
        if self.clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.clip, norm)
        self.optimizer.step()
        loss = torch.stack([out[0] for out in outs]).sum() if len(outs) > 1 else outs[0][0]
        if isinstance(self.model, DRAWClassifier):
            return ClassifierStepOutput(loss, _joined([out[1] for out in outs], 0), norm.detach())
        reconstruction, kl = _joined([out[1] for out in outs], 0), _joined([out[2] for out in outs], 1)
        return StepOutput(loss, reconstruction, kl, norm.detach())

    def _draw(self, part: slice) -> tuple[Tensor, ...]:
        """Adds a part's share of the gradients, and gives its share of the loss, and the rest of the output."""
        # A model without classes may be one that knows no labels.
        known: dict[str, Any] = {} if self._labels is None else {"labels": self._labels[part]}
        out: Any = self.model(self._x[part], self._noise[:, part], **known, **self._known)
        self._scaled((out.reconstruction + self._kl_weight * out.kl.sum(0)).mean(), part).backward()
        return self._scaled(out.loss.detach(), part), out.reconstruction.detach(), out.kl.detach()

    def _classify(self, part: slice) -> tuple[Tensor, ...]:
        assert self._labels is not None
        out: Any = self.model(self._x[part], self._labels[part], **self._known)
        loss = self._scaled(out.loss, part)
        loss.backward()
        return loss.detach(), out.logits.detach()

    def _scaled(self, mean: Tensor, part: slice) -> Tensor:
        """The mean over a part as its share of the mean over the batch."""
        return mean if len(self._parts) == 1 else mean * ((part.stop - part.start) / len(self._x))

    def _capture(self) -> None:
        device, (dtype, enabled) = self._x.device, self._autocast
        # Also where it is captured anew, by a call that is not under the same autocast.
        with torch.autocast(device.type, dtype, enabled=enabled):
            self._graph, self._output = capture(self.model, self.optimizer, device, self._step)
        self._identity = Identity(self.model, self.optimizer)


def average(tensors: list[Tensor], group: dist.ProcessGroup) -> None:
    """Puts the mean over the group's processes into `tensors`, which are of one dtype: one message for all of them.

    DistributedDataParallel sends gradients while others are still being computed. Those of the recurrence come out of one
    operator, all at once.
    """
    flat = _flatten_dense_tensors(tensors)
    dist.all_reduce(flat, group=group)
    flat /= dist.get_world_size(group)
    for tensor, mean in zip(tensors, _unflatten_dense_tensors(flat, tensors), strict=True):
        tensor.copy_(mean)


def _joined(parts: list[Tensor], dim: int) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
