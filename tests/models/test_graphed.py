"""GraphedStep: the step that a person would write, and nothing else; the same under a CUDA graph."""

from __future__ import annotations

import pytest
import torch

from fastdraw import DRAW, DRAWClassifier, GraphedStep

CONFIG = {"image_shape": (1, 8, 7), "glimpses": 3, "hidden_size": 8, "latent_size": 4}


def by_hand(model: DRAW, optimizer: torch.optim.Optimizer, x: torch.Tensor, noise: torch.Tensor, clip: float) -> torch.Tensor:
    optimizer.zero_grad()
    loss = model(x, noise).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    optimizer.step()
    return loss.detach()


def pair(device: str) -> tuple[DRAW, DRAW]:
    first, second = DRAW(**CONFIG).to(device), DRAW(**CONFIG).to(device)
    second.load_state_dict(first.state_dict())
    return first, second


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_steps_are_those_written_by_hand(device: str) -> None:
    ours, theirs = pair(device)
    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-2) for model in (ours, theirs)]
    step = GraphedStep(ours, optimizers[0], torch.empty(5, 1, 8, 7, device=device), clip=0.5)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other), "building a step changed the weights"
    for _ in range(4):
        x, noise = torch.rand(5, 1, 8, 7, device=device), torch.randn(3, 5, 4, device=device)
        out = step(x, noise)
        torch.testing.assert_close(out.loss, by_hand(theirs, optimizers[1], x, noise, 0.5))
        torch.testing.assert_close(out.loss, (out.reconstruction + out.kl.sum(0)).mean())
        torch.testing.assert_close(list(ours.parameters()), list(theirs.parameters()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_noise_is_fresh_at_every_step(device: str) -> None:
    model, _ = pair(device)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    x = torch.rand(5, 1, 8, 7, device=device)
    step = GraphedStep(model, optimizer, x)
    losses = [step(x).loss.item() for _ in range(3)]
    assert len(set(losses)) == 3


def test_the_weight_of_the_kl() -> None:
    """With weight 0 the KL has no gradient: the latent's log sigma moves only as the reconstruction asks."""
    ours, theirs = pair("cpu")
    x, noise = torch.rand(5, 1, 8, 7), torch.randn(3, 5, 4)
    step = GraphedStep(ours, torch.optim.SGD(ours.parameters(), lr=1.0), x)
    out = step(x, noise, kl_weight=0.25)
    expected = theirs(x, noise)
    (expected.reconstruction + 0.25 * expected.kl.sum(0)).mean().backward()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, other - other.grad)
    torch.testing.assert_close(out.loss, expected.loss.detach())
    norm = torch.cat([p.grad.flatten() for p in theirs.parameters()]).norm()
    torch.testing.assert_close(out.gradient_norm, norm)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_parts_of_a_batch_add_up_to_its_gradients(device: str, parts: int) -> None:
    """Seven images, in parts of equal size and not; in float64, where rounding is far below any mistake."""
    ours, theirs = (model.double() for model in pair(device))
    x = torch.rand(7, 1, 8, 7, device=device, dtype=torch.float64)
    noise = torch.randn(3, 7, 4, device=device, dtype=torch.float64)
    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-2) for model in (ours, theirs)]
    outs = [
        GraphedStep(model, optimizer, x, clip=0.5, accumulate=n)(x, noise, kl_weight=0.5)
        for model, optimizer, n in zip((ours, theirs), optimizers, (parts, 1), strict=True)
    ]
    for one, other in zip(*outs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("parts", [1, 2])
def test_steps_of_a_classifier(device: str, parts: int) -> None:
    models = [DRAWClassifier((1, 9, 8), glimpses=2, hidden_size=6, read_size=3, num_classes=4).to(device) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [torch.optim.Adam(model.parameters(), lr=1e-2) for model in models]
    step = GraphedStep(models[0], optimizers[0], torch.empty(5, 1, 9, 8, device=device), clip=0.5, accumulate=parts)
    for _ in range(3):
        x, labels = torch.rand(5, 1, 9, 8, device=device), torch.randint(0, 4, (5,), device=device)
        out, expected = step(x, labels=labels), models[1](x, labels)
        torch.testing.assert_close((out.loss, out.logits), (expected.loss, expected.logits))
        optimizers[1].zero_grad()
        expected.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(models[1].parameters(), 0.5)
        torch.testing.assert_close(out.gradient_norm, norm)
        optimizers[1].step()
        torch.testing.assert_close(list(models[0].parameters()), list(models[1].parameters()), rtol=1e-4, atol=1e-6)
    with pytest.raises(TypeError, match="labels: expected a tensor, got None"):
        step(x)
    with pytest.raises(ValueError, match="labels: expected an int64 tensor"):
        step(x, labels=labels[:3])
    with pytest.raises(ValueError, match="noise: expected None for a classifier"):
        step(x, torch.zeros(2), labels=labels)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("parts", [1, 3])
def test_steps_of_a_model_that_is_given_classes(device: str, parts: int) -> None:
    models = [DRAW(**CONFIG, num_classes=4).to(device) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    x, noise = torch.rand(5, 1, 8, 7, device=device), torch.randn(3, 5, 4, device=device)
    step = GraphedStep(models[0], torch.optim.Adam(models[0].parameters(), lr=1e-2), x, accumulate=parts)
    optimizer = torch.optim.Adam(models[1].parameters(), lr=1e-2)
    for _ in range(3):
        labels = torch.randint(0, 4, (5,), device=device)
        optimizer.zero_grad()
        expected = models[1](x, noise, labels=labels)
        expected.loss.backward()
        optimizer.step()
        torch.testing.assert_close(step(x, noise, labels=labels).loss, expected.loss.detach())
        torch.testing.assert_close(list(models[0].parameters()), list(models[1].parameters()), rtol=1e-4, atol=1e-6)
    with pytest.raises(TypeError, match="labels: expected a tensor, got None"):
        step(x, noise)


def test_mistakes() -> None:
    model, other = pair("cpu")
    x = torch.rand(5, 1, 8, 7)
    optimizer = torch.optim.Adam(model.parameters())
    with pytest.raises(TypeError, match=r"model: expected a fastdraw\.DRAW"):
        GraphedStep(torch.nn.Linear(1, 1), optimizer, x)
    with pytest.raises(ValueError, match=r"example: expected shape \[B, 1, 8, 7\]"):
        GraphedStep(model, optimizer, x[:, :, :4])
    with pytest.raises(ValueError, match="clip: expected a norm above 0"):
        GraphedStep(model, optimizer, x, clip=0.0)
    with pytest.raises(ValueError, match="accumulate: expected at most 5 parts"):
        GraphedStep(model, optimizer, x, accumulate=6)
    with pytest.raises(ValueError, match="accumulate: expected at least 1, got 0"):
        GraphedStep(model, optimizer, x, accumulate=0)
    with pytest.raises(ValueError, match="optimizer: expected every parameter of the model"):
        GraphedStep(other, optimizer, x)
    step = GraphedStep(model, optimizer, x)
    with pytest.raises(ValueError, match=r"x: expected shape \[5, 1, 8, 7\]"):
        step(x[:4])
    with pytest.raises(ValueError, match=r"x: expected values in \[0, 1\]"):
        step(x * 3)
    with pytest.raises(ValueError, match=r"noise: expected shape \[3, 5, 4\]"):
        step(x, torch.randn(3, 5, 5))
    with pytest.raises(ValueError, match="labels: expected None for a model without classes"):
        step(x, labels=torch.zeros(5, dtype=torch.int64))
