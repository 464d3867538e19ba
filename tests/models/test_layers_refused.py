"""Layers that are none are refused by name; shards of them compute where torch gathers them, and are refused elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from changed_layers import Doubled, build, inputs, replaced, told
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard, register_fsdp_forward_method

import fastdraw
from fastdraw import reference

WRONG: list[tuple[str, Callable[[], Any]]] = [
    ("encoder", lambda: nn.GRUCell(34, 16)),
    ("encoder", lambda: nn.LSTM(34, 16)),
    ("encoder", lambda: nn.Linear(34, 16)),
    ("encoder", lambda: nn.LSTMCell(33, 16, bias=False)),
    ("decoder", lambda: nn.Sequential(nn.Dropout(), nn.LSTMCell(5, 16))),
    ("patch", lambda: None),
    ("patch", nn.ModuleList),
    ("patch", lambda: nn.LSTMCell(16, 16)),
    ("patch", lambda: nn.Embedding(16, 16)),
    ("patch", lambda: nn.Linear(16, 15)),
    ("patch", lambda: nn.Sequential(nn.Linear(15, 16))),
    ("patch", lambda: replaced(Doubled, nn.Linear(16, 15))),
    ("latent", lambda: nn.Identity()),
    ("read_attention", lambda: nn.Linear(16, 4, bias=False)),
    ("write_attention", lambda: nn.Linear(16, 5, device="meta")),
]


@pytest.mark.filterwarnings("ignore:.*calls its layers")
@pytest.mark.parametrize(("name", "layer"), WRONG)
def test_layers_of_another_kind_are_refused_by_name(name: str, layer: Callable[[], Any]) -> None:
    given = {key: value.detach().float() for key, value in inputs("draw")[0].items()}
    model = build(fastdraw, "draw").float()
    setattr(model, name, layer())
    with pytest.raises((TypeError, ValueError), match=rf"{name}\S*: expected .*got .*"):
        model(**given)
    delattr(model, name)
    with pytest.raises(TypeError, match=rf"{name}: expected a layer, got None"):
        model(**given)


@pytest.mark.filterwarnings("ignore:.*calls its layers")
@pytest.mark.parametrize("change", ["meta", "released"])
def test_memory_that_is_not_there_is_refused_where_layers_are_called(change: str) -> None:
    for name in ("patch", "decoder"):
        model = build(fastdraw, "draw")
        layer = getattr(model, name)
        layer.register_forward_hook(lambda *_: None)
        if change == "meta":
            setattr(model, name, layer.to("meta"))
        else:
            next(layer.parameters()).untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=rf"{name}\.weight\w*: expected"):
            model(**inputs("draw")[0])


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store: Path = tmp_path_factory.mktemp("store") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def whole(tensor: Any) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def steps(called: nn.Module, name: str) -> tuple[float, list[Tensor]]:
    """The loss after a step of training, and the first gradients."""
    optimizer = torch.optim.SGD(called.parameters(), lr=1e-2)
    given, _ = inputs(name)
    called(**given).loss.backward()
    grads = [whole(parameter.grad).clone() for parameter in called.parameters()]
    optimizer.step()
    # Its backward pass takes what was gathered apart again.
    loss = called(**given).loss
    loss.backward()
    return loss.item(), grads


LAYERS = {
    "draw": ["encoder", "latent", "decoder", "patch", "read_attention", "write_attention"],
    "classifier": ["lstm", "read_attention", "output"],
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("all_layers", "root"), [(False, True), (True, False), (True, True)])
def test_fully_sharded(one_process: None, name: str, all_layers: bool, root: bool) -> None:
    mesh, model = init_device_mesh("cpu", (1,)), build(fastdraw, name)
    for layer in LAYERS[name] if all_layers else ():
        fully_shard(getattr(model, layer), mesh=mesh)
    if root:
        fully_shard(model, mesh=mesh)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loss, grads = steps(model, name)
    # Of the whole model nothing is called but the model, and its weights are plain ones there.
    assert len(told(caught)) == all_layers
    expected = build(reference, name)
    torch.testing.assert_close((loss, grads), steps(expected, name))
    given, noise = inputs(name)
    method, arguments = ("predict", (given["x"],)) if name == "classifier" else ("sample", (3, noise))
    if root:
        with pytest.raises(TypeError, match=r"initial_\w+: expected a tensor that is whole .*register_fsdp_forward_method"):
            getattr(model, method)(*arguments)
        register_fsdp_forward_method(model, method)
    torch.testing.assert_close(getattr(model, method)(*arguments), getattr(expected, method)(*arguments))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("original", [True, False])
@pytest.mark.parametrize(("all_layers", "root"), [(False, True), (True, False), (True, True)])
def test_fully_sharded_by_the_older_wrapper(
    one_process: None, name: str, original: bool, all_layers: bool, root: bool
) -> None:
    def wrapped(module: nn.Module) -> nn.Module:
        return FullyShardedDataParallel(module, use_orig_params=original, device_id=torch.device("cpu"))

    model: Any = build(fastdraw, name)
    for layer in LAYERS[name] if all_layers else ():
        setattr(model, layer, wrapped(getattr(model, layer)))
    called = wrapped(model) if root else model
    expected = build(reference, name)
    loss, grads = steps(called, name)
    wanted, exact = steps(expected, name)
    assert loss == pytest.approx(wanted, rel=1e-9)
    assert sum(grad.square().sum() for grad in grads).item() == pytest.approx(sum(g.square().sum() for g in exact).item())
    given, noise = inputs(name)
    method, arguments = ("predict", (given["x"],)) if name == "classifier" else ("sample", (3, noise))
    torch.testing.assert_close(getattr(model, method)(*arguments), getattr(expected, method)(*arguments))
