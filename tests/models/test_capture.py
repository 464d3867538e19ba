"""GraphedStep's capture on a CPU: a stand-in for torch.cuda's graphs that keeps what a real one keeps, and fails when asked.

A graph knows memory, not names: the stand-in's replay computes on the very tensors that were there at the capture, whatever
the optimiser calls its own by then. Everything that is not torch.cuda's is the real thing.
"""

from __future__ import annotations

import copy
import sys
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.optim import ASGD, SGD, Adam, Adamax, AdamW, NAdam, RAdam, Rprop

from fastdraw import DRAW, GraphedStep, checks
from fastdraw import capture as capturing

CONFIG = {"image_shape": (1, 6, 5), "glimpses": 2, "hidden_size": 4, "latent_size": 3}


class Cuda:
    """Stands for torch.cuda. log: what was asked of it, in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.log: list[str] = []
        self.fails: str | None = None
        self.pools: set[int] = set()
        self.stream = self.outer = "outer"
        self.optimizer: torch.optim.Optimizer | None = None
        self.count = 0
        for name in ("current_stream", "set_stream", "graph_pool_handle", "graph", "get_rng_state", "set_rng_state"):
            patch.setattr(torch.cuda, name, getattr(self, name))
        patch.setattr(torch.cuda, "device", self.device)
        patch.setattr(torch.cuda, "stream", self.on)
        patch.setattr(torch.cuda, "Stream", self.new_stream)
        patch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=None))
        patch.setattr(torch._C, "_cuda_endAllocateToPool", self.end_pool, raising=False)

    @contextmanager
    def device(self, device: torch.device):
        self.log.append(f"on {device}")
        try:
            yield
        finally:
            self.log.append("device as before")

    def new_stream(self, device: torch.device) -> Any:
        return SimpleNamespace(name="new", wait_stream=lambda other: self.log.append("new waits"))

    def current_stream(self, device: torch.device) -> Any:
        return SimpleNamespace(name=self.stream, wait_stream=lambda other: self.log.append("outer waits"))

    def set_stream(self, stream: Any) -> None:
        self.stream = stream.name

    @contextmanager
    def on(self, stream: Any):
        before, self.stream = self.stream, stream.name
        self.log.append(f"warm up on {stream.name}")
        try:
            yield
        finally:
            self.stream = before

    def graph_pool_handle(self) -> int:
        self.count += 1
        return self.count

    def end_pool(self, index: int | None, pool: int) -> None:
        if pool not in self.pools:
            raise RuntimeError("not currently recording to this pool")
        self.pools.remove(pool)

    def get_rng_state(self, device: Any = None) -> torch.Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: torch.Tensor, device: Any = None) -> None:
        torch.set_rng_state(state)

    @contextmanager
    def graph(self, graph: Any, pool: int, stream: Any):
        """As torch 2.11: where the end of a capture fails, the pool goes on recording, and the stream stays."""
        assert not self.pools, "an earlier capture still records"
        before, self.stream = self.stream, stream.name
        self.pools.add(pool)
        self.log.append(f"capture on {stream.name}")
        try:
            yield
        finally:
            if self.fails == "end":
                raise RuntimeError("operation failed due to a previous error during capture")
            self.pools.remove(pool)
            self.stream = before
        self.keep(graph)

    def keep(self, graph: Any) -> None:
        """What the graph knows: the optimiser's tensors and constants of this moment."""
        optimizer = self.optimizer
        assert optimizer is not None
        groups = [dict(group) for group in optimizer.param_groups]
        states = {p: dict(state) for p, state in optimizer.state.items()}

        def replay() -> None:
            now = [dict(group) for group in optimizer.param_groups], dict(optimizer.state)
            put(optimizer, groups, states)
            out = self.step._step()
            put(optimizer, *now)
            for held, new in zip(self.step._output, out, strict=True):
                held.copy_(new)

        graph.replay = replay


def put(optimizer: torch.optim.Optimizer, groups: list[dict[str, Any]], states: dict[Any, Any]) -> None:
    for group, options in zip(optimizer.param_groups, groups, strict=True):
        group.update(options)
    optimizer.state.clear()
    optimizer.state.update(states)


@pytest.fixture
def cuda(monkeypatch) -> Cuda:
    # torch refuses `capturable` on a CPU, where its arithmetic is the same.
    for module in ("adam", "radam", "adamax"):
        # torch.optim has these modules, and no names for them.
        there = sys.modules[f"torch.optim.{module}"]
        monkeypatch.setattr(there, "_get_capturable_supported_devices", lambda supports_xla=True: ["cpu"])
    return Cuda(monkeypatch)


def made(kind: type = Adam, **options: Any) -> tuple[DRAW, torch.optim.Optimizer, GraphedStep]:
    torch.manual_seed(0)
    model = DRAW(**CONFIG)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    optimizer = kind(model.parameters(), lr=1e-2, **options)
    return model, optimizer, GraphedStep(model, optimizer, torch.zeros(3, 1, 6, 5), clip=1.0)


def graphed(cuda: Cuda, kind: type = Adam, **options: Any) -> tuple[DRAW, torch.optim.Optimizer, GraphedStep]:
    """As `made`, on a machine with CUDA."""
    model, optimizer, step = made(kind, **options)
    cuda.optimizer, cuda.step = optimizer, step
    step._capture()
    return model, optimizer, step


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    random = torch.Generator().manual_seed(1)
    return [(torch.rand(3, 1, 6, 5, generator=random), torch.randn(2, 3, 3, generator=random)) for _ in range(count)]


def assert_same(one: DRAW, other: DRAW) -> None:
    """To rounding, as `capturable` has Adam's arithmetic in another order; a step moves a weight by 1e-2."""
    for (name, a), b in zip(one.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


def test_hooks_are_called_in_every_step(cuda):
    model, _, step = graphed(cuda)
    calls: list[int] = []
    hook = model.patch.register_forward_hook(lambda *_: calls.append(1))
    x, noise = batches(1)[0]
    with pytest.warns(UserWarning, match="patch has a forward hook"):
        step(x, noise)
    step(x, noise)
    assert len(calls) == 2 * CONFIG["glimpses"]
    hook.remove()
    replayed: list[int] = []
    step._graph.replay = lambda: replayed.append(1)
    step(*batches(1)[0])
    assert replayed == [1]


@pytest.mark.parametrize(
    ("kind", "options"),
    [(Adam, {"fused": True}), (Adam, {"amsgrad": True}), (AdamW, {}), (RAdam, {}), (Adamax, {"weight_decay": 0.1})],
)
def test_captured_steps_are_the_plain_ones(cuda, kind, options):
    plain, _, by_hand = made(kind, **options)
    model, _, step = graphed(cuda, kind, **options)
    assert_same(model, plain)
    for x, noise in batches(5):
        for one, other in zip(step(x, noise), by_hand(x, noise), strict=True):
            torch.testing.assert_close(one, other)
    assert_same(model, plain)


@pytest.mark.parametrize("kind", [NAdam, ASGD, Rprop, SGD, type("Mine", (Adam,), {})])
def test_an_optimiser_whose_state_is_not_zero_at_first_is_refused(cuda, kind):
    model, _, step = made(kind)
    before = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(TypeError, match=f"optimizer: expected one of torch.optim's Adam, .* on CUDA, got '?{kind.__name__}"):
        step._capture()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))


def test_the_capture_is_on_the_devices_own_streams(cuda):
    graphed(cuda)
    assert cuda.log == [*("on cpu", "new waits", "warm up on new", "outer waits", "capture on new", "device as before")]
    assert cuda.stream == "outer"


def test_building_leaves_generators_and_states_as_they_were(cuda):
    """Also those of an optimiser that has stepped before."""
    plain, other, by_hand = made()
    model, optimizer, step = made()
    first, *rest = batches(4)
    for one in (by_hand, step):
        one(*first)
    cuda.optimizer, cuda.step = optimizer, step
    random = torch.get_rng_state()
    step._capture()
    assert torch.equal(torch.get_rng_state(), random)
    assert_same(model, plain)
    for p, q in zip(model.parameters(), plain.parameters(), strict=True):
        for name in ("exp_avg", "exp_avg_sq", "step"):
            torch.testing.assert_close(optimizer.state[p][name], other.state[q][name])
    for x, noise in rest:
        step(x, noise)
        by_hand(x, noise)
    assert_same(model, plain)


@pytest.mark.parametrize("where", ["warm up", "capture", "end"])
@pytest.mark.parametrize("stepped", [False, True])
def test_a_capture_that_fails_leaves_all_as_it_was(cuda, where, stepped):
    model, optimizer, step = made()
    cuda.optimizer, cuda.step = optimizer, step
    if stepped:
        step(*batches(1)[0])
    before = snapshot(model, optimizer)
    real, calls = step._step, iter(range(100))

    def fails() -> Any:
        if next(calls) == {"warm up": 1, "capture": capturing.WARM_UP, "end": 99}[where]:
            raise RuntimeError("no kernel image is available")
        return real()

    cuda.fails = "end" if where == "end" else None
    step._step = fails
    with pytest.raises(RuntimeError, match="during capture" if where == "end" else "no kernel image"):
        step._capture()
    after = snapshot(model, optimizer)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(value, after[name]) if isinstance(value, torch.Tensor) else value == after[name], name
    assert (cuda.stream, cuda.pools) == ("outer", set())
    # The process can capture again, and the step is still the plain one till then.
    cuda.fails = None
    step._step = real
    step._capture()
    plain, _, by_hand = made()
    if stepped:
        by_hand(*batches(1)[0])
    for x, noise in batches(2):
        step(x, noise)
        by_hand(x, noise)
    assert_same(model, plain)


def snapshot(model: DRAW, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    found: dict[str, Any] = {name: p.detach().clone() for name, p in model.named_parameters()}
    for name, p in model.named_parameters():
        found |= {f"{name}.{key}": value.clone() for key, value in optimizer.state.get(p, {}).items()}
    found |= {f"group.{key}": value for key, value in optimizer.param_groups[0].items() if key != "params"}
    return found | {"generator": torch.get_rng_state()}


def load(model: DRAW, optimizer: torch.optim.Optimizer) -> None:
    """Moments and rate of another run."""
    other, theirs, teacher = made()
    for x, noise in batches(3):
        teacher(x, noise)
    theirs.param_groups[0]["lr"] = 0.05
    model.load_state_dict(other.state_dict())
    optimizer.load_state_dict(copy.deepcopy(theirs.state_dict()))


def move(model: DRAW, optimizer: torch.optim.Optimizer) -> None:
    for p in model.parameters():
        p.data = p.data.clone() * 0.9


def schedule(model: DRAW, optimizer: Any) -> None:
    if not hasattr(optimizer, "schedule"):
        optimizer.schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda n: 1 / (1 + n))
    optimizer.schedule.step()


#: What may change between two steps, and how many captures there are then: what a graph cannot follow is captured anew.
CHANGES: dict[str, tuple[Any, int]] = {
    "rate": (lambda _, o: o.param_groups[0].update(lr=0.05), 1),
    "rate in a tensor": (lambda _, o: o.param_groups[0].update(lr=torch.tensor(0.05)), 1),
    "schedule": (schedule, 1),
    "loaded": (load, 2),
    "betas": (lambda _, o: o.param_groups[0].update(betas=(0.5, 0.6)), 2),
    "group": (lambda _, o: o.add_param_group({"params": [torch.nn.Parameter(torch.zeros(1))]}), 2),
    "weights": (move, 2),
    "frozen": (lambda model, _: model.initial_canvas.requires_grad_(False), 2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_between_steps_reaches_the_graph(cuda, change):
    apply, captures = CHANGES[change]
    results = []
    for build in (made, lambda: graphed(cuda)):
        model, optimizer, step = build()
        for number, (x, noise) in enumerate(batches(4)):
            step(x, noise)
            if number == 0 or change == "schedule":
                apply(model, optimizer)
        results.append(model)
    assert_same(*results)
    assert sum(line.startswith("capture") for line in cuda.log) == captures


def test_autocast_casts_a_weight_once_in_a_step_and_anew_in_the_next(cuda):
    """The cache is on inside a step, or each of 64 glimpses would cast all weights, and holds nothing between steps."""
    model, _, step = graphed(cuda)
    seen = []
    real = step._plain
    step._plain = lambda: seen.append(torch.is_autocast_cache_enabled()) or real()
    with torch.autocast("cpu", torch.bfloat16):
        weight = next(p for p in model.parameters() if p.dim() == 2)
        cast = torch.nn.functional.linear(torch.ones(1, weight.shape[1]), weight)
        step._capture()
        with torch.no_grad():
            weight.mul_(2)
        again = torch.nn.functional.linear(torch.ones(1, weight.shape[1]), weight)
        torch.testing.assert_close(again, 2 * cast)
    assert seen == [True] * (capturing.WARM_UP + 1)


def test_values_are_not_read_while_a_step_is_captured(monkeypatch):
    monkeypatch.setenv("FASTDRAW_CHECK_VALUES", "1")
    there: Any = SimpleNamespace(device=torch.device("cuda"), is_meta=False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert checks.values_are_checked(there)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    assert not checks.values_are_checked(there)
    assert checks.values_are_checked(torch.zeros(1))
