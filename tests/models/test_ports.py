"""Weights of other ports: what has the paper's maths loads and computes the same; what has other maths is refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import fastdraw
from fastdraw import DRAW, reference

H, W, T, HIDDEN, Z = 9, 7, 4, 8, 3


class KamenPort(nn.Module):
    """kamenbliznashki/generative_models, draw.py, from its equations: names, order and 1-based grid are that port's."""

    def __init__(self, read_size: int | None, write_size: int | None, epsilon: float = 1e-8) -> None:
        super().__init__()
        self.read_size, self.write_size, self.epsilon = read_size, write_size, epsilon
        self.encoder = nn.LSTMCell(2 * (H * W if read_size is None else read_size**2) + HIDDEN, HIDDEN)
        self.decoder = nn.LSTMCell(Z, HIDDEN)
        self.z_linear = nn.Linear(HIDDEN, 2 * Z)
        self.write_linear = nn.Linear(HIDDEN, H * W if write_size is None else write_size**2)
        # Made with or without attention.
        self.read_attention_linear = nn.Linear(HIDDEN, 5)
        self.write_attention_linear = nn.Linear(HIDDEN, 5)

    def rows(self, g: Tensor, delta: Tensor, log_var: Tensor, n: int, length: int) -> Tensor:
        mu = (length + 1) / 2 * (g + 1) + (torch.arange(1.0, n + 1) - (n + 1) / 2) * delta
        f = torch.exp(-0.5 / log_var.exp()[..., None] * (torch.arange(1.0, length + 1) - mu[..., None]) ** 2)
        return f / (f + self.epsilon).sum(2, keepdim=True)

    def window(self, params: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        g_x, g_y, log_var, log_delta, log_gamma = params.split(1, dim=1)
        delta = (max(H, W) - 1) / (n - 1) * log_delta.exp()
        return self.rows(g_y, delta, log_var, n, H), self.rows(g_x, delta, log_var, n, W), log_gamma.exp()

    def read(self, x: Tensor, x_hat: Tensor, h: Tensor) -> Tensor:
        if self.read_size is None:
            return torch.cat([x, x_hat], 1)
        f_y, f_x, gamma = self.window(self.read_attention_linear(h), self.read_size)
        patches = [(f_y @ image.view(-1, H, W) @ f_x.mT).flatten(1) for image in (x, x_hat)]
        return gamma * torch.cat(patches, 1)

    def write(self, h: Tensor) -> Tensor:
        w = self.write_linear(h)
        if self.write_size is None:
            return w
        f_y, f_x, gamma = self.window(self.write_attention_linear(h), self.write_size)
        return (f_y.mT @ w.view(-1, self.write_size, self.write_size) @ f_x).flatten(1) / gamma

    def forward(self, x: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, H W] and nats of KL [B], for x [B, H W]."""
        c = torch.zeros_like(x)
        h_enc = c_enc = h_dec = c_dec = x.new_zeros(len(x), HIDDEN)
        kl = x.new_zeros(len(x))
        for e in noise:
            r = self.read(x, x - torch.sigmoid(c), h_dec)
            h_enc, c_enc = self.encoder(torch.cat([r, h_dec], 1), (h_enc, c_enc))
            mu, log_sigma = self.z_linear(h_enc).chunk(2, 1)
            q, p = torch.distributions.Normal(mu, log_sigma.exp()), torch.distributions.Normal(x.new_zeros(()), x.new_ones(()))
            kl = kl + torch.distributions.kl_divergence(q, p).sum(1)
            h_dec, c_dec = self.decoder(mu + log_sigma.exp() * e, (h_dec, c_dec))
            c = c + self.write(h_dec)
        return c, kl


class NatsuPlain(nn.Module):
    """Natsu6767/Generating-Devanagari-Using-DRAW without attention."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.LSTMCell(2 * H * W + HIDDEN, HIDDEN), nn.LSTMCell(Z, HIDDEN)
        self.fc_mu, self.fc_sigma, self.fc_write = nn.Linear(HIDDEN, Z), nn.Linear(HIDDEN, Z), nn.Linear(HIDDEN, H * W)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        c = torch.zeros_like(x)
        h_enc = c_enc = h_dec = c_dec = x.new_zeros(len(x), HIDDEN)
        for e in noise:
            r = torch.cat([x, x - torch.sigmoid(c)], 1)
            h_enc, c_enc = self.encoder(torch.cat([r, h_dec], 1), (h_enc, c_enc))
            h_dec, c_dec = self.decoder(self.fc_mu(h_enc) + self.fc_sigma(h_enc).exp() * e, (h_dec, c_dec))
            c = c + self.fc_write(h_dec)
        return c


class NineKPlain(nn.Module):
    """nine-k/DRAW without attention: flat images, a first canvas and first states that are learned."""

    def __init__(self) -> None:
        super().__init__()
        self.c_0 = nn.Parameter(torch.empty(1, H * W))
        self.h_0_enc, self.h_0_dec = nn.Parameter(torch.empty(HIDDEN)), nn.Parameter(torch.empty(HIDDEN))
        self.encoder_cell, self.decoder_cell = nn.LSTMCell(2 * H * W + HIDDEN, HIDDEN), nn.LSTMCell(Z, HIDDEN)
        self.mu_matrix, self.sigma_matrix = nn.Linear(HIDDEN, Z), nn.Linear(HIDDEN, Z)
        self.writer_matrix = nn.Linear(HIDDEN, H * W)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        c, h_enc, h_dec = self.c_0, self.h_0_enc.repeat(len(x), 1), self.h_0_dec.repeat(len(x), 1)
        c_enc = c_dec = x.new_zeros(len(x), HIDDEN)
        for e in noise:
            r = torch.cat([x, x - torch.sigmoid(c)], -1)
            h_enc, c_enc = self.encoder_cell(torch.cat([r, h_dec], -1), (h_enc, c_enc))
            z = self.mu_matrix(h_enc) + self.sigma_matrix(h_enc).exp() * e
            h_dec, c_dec = self.decoder_cell(z, (h_dec, c_dec))
            c = c + self.writer_matrix(h_dec)
        return c


class LightningPort(nn.Module):
    """The port on Lightning: pixels from 0 and a symmetric grid, log variances, sums of at least 1e-8, learned beginnings."""

    def __init__(self, read_size: int = 2, write_size: int = 3) -> None:
        super().__init__()
        self.read_size, self.write_size = read_size, write_size
        self.canvas_init = nn.Parameter(torch.empty(1, H, W))
        self.h_dec_init, self.h_enc_init = nn.Parameter(torch.empty(HIDDEN)), nn.Parameter(torch.empty(HIDDEN))
        self.encoder, self.decoder = nn.LSTMCell(2 * read_size**2 + HIDDEN, HIDDEN), nn.LSTMCell(Z, HIDDEN)
        self.sampler, self.writer = nn.Linear(HIDDEN, 2 * Z), nn.Linear(HIDDEN, write_size**2)
        self.reader_attn, self.writer_attn = nn.Linear(HIDDEN, 5), nn.Linear(HIDDEN, 5)

    def window(self, params: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
        g_x, g_y, log_var, log_delta, log_gamma = params.split(1, dim=1)
        delta = (max(H, W) - 1) / (n - 1) * log_delta.exp()
        rows = []
        for g, length in ((g_x, W), (g_y, H)):
            mu = (length + 1) / 2 * (g + 1) + (torch.arange(n) + 0.5 - n / 2) * delta
            f = torch.exp(-((torch.arange(length) - mu[..., None]) ** 2) / (2 * log_var.exp()[..., None]))
            rows.append(f / f.sum(2, keepdim=True).clamp_min(1e-8))
        return rows[1], rows[0], log_gamma.exp()

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        c, h_enc, h_dec = (p.expand(len(x), *p.shape) for p in (self.canvas_init[0], self.h_enc_init, self.h_dec_init))
        c_enc = c_dec = x.new_zeros(len(x), HIDDEN)
        for e in noise:
            f_y, f_x, gamma = self.window(self.reader_attn(h_dec), self.read_size)
            r = [gamma * (f_y @ image @ f_x.mT).flatten(1) for image in (x[:, 0], x[:, 0] - torch.sigmoid(c))]
            h_enc, c_enc = self.encoder(torch.cat([*r, h_dec], 1), (h_enc, c_enc))
            mu, log_var = self.sampler(h_enc).chunk(2, 1)
            h_dec, c_dec = self.decoder(mu + (log_var / 2).exp() * e, (h_dec, c_dec))
            f_y, f_x, gamma = self.window(self.writer_attn(h_dec), self.write_size)
            w = self.writer(h_dec).view(-1, self.write_size, self.write_size)
            c = c + f_y.mT @ w @ f_x / gamma[..., None]
        return c


def strong(module: nn.Module) -> nn.Module:
    """float64, weights large enough that every path matters, windows that move and mostly stay on the image."""
    torch.manual_seed(5)
    for name, parameter in module.named_parameters():
        nn.init.normal_(parameter, std=0.1 if "attention" in name else 0.4)
    return module.double()


def model(read_size: int | None, write_size: int | None, kind: type = DRAW) -> reference.DRAW:
    return kind((1, H, W), T, HIDDEN, Z, read_size, write_size).double()


def inputs() -> tuple[Tensor, Tensor]:
    torch.manual_seed(6)
    return torch.rand(5, 1, H, W, dtype=torch.float64), torch.randn(T, 5, Z, dtype=torch.float64)


@pytest.mark.parametrize("kind", [DRAW, reference.DRAW])
@pytest.mark.parametrize("sizes", [(2, 3), (None, 3), (2, None), (None, None)])
def test_a_port_with_the_papers_maths_loads_and_gives_the_same(sizes: tuple, kind: type) -> None:
    port, ours = strong(KamenPort(*sizes, epsilon=0)), model(*sizes, kind)
    fastdraw.load_port_weights(ours, port.state_dict())
    x, noise = inputs()
    canvas, kl = port(x.flatten(1), noise)
    out = ours(x, noise)
    torch.testing.assert_close(out.canvas.flatten(1), canvas, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(out.kl.sum(0), kl, rtol=1e-10, atol=1e-10)
    # With its 1e-8 the port differs by about that: canvases are of order one, and filters stand on the image.
    port.epsilon = 1e-8
    difference = (port(x.flatten(1), noise)[0] - canvas).abs().max()
    assert difference < 1e-5
    assert (difference > 0) == (sizes != (None, None))


@pytest.mark.parametrize("kind", [NatsuPlain, NineKPlain])
def test_a_port_without_attention_loads(kind: type) -> None:
    """From two layers for one; from first states that are learned."""
    port, ours = strong(kind()), model(None, None)
    fastdraw.load_port_weights(ours, port.state_dict())
    x, noise = inputs()
    torch.testing.assert_close(ours(x, noise).canvas.flatten(1), port(x.flatten(1), noise), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_port_whose_grid_begins_at_0_loads_where_a_shift_makes_up_for_it(prefix: str) -> None:
    """Pixels from 0 are 2/(W+1) of g~x and 2/(H+1) of g~y, whatever delta is; a log variance is twice log sigma."""
    port, ours = strong(LightningPort()), model(2, 3)
    weights = {f"{prefix}{name}": tensor for name, tensor in port.state_dict().items()}
    kept = {name: tensor.clone() for name, tensor in weights.items()}
    fastdraw.load_port_weights(ours, weights)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in weights.items())
    x, noise = inputs()
    torch.testing.assert_close(ours(x, noise).canvas[:, 0], port(x, noise), rtol=1e-10, atol=1e-10)


def test_weights_keep_the_models_dtype() -> None:
    ours = DRAW((1, H, W), T, HIDDEN, Z, 2, 3)
    port = strong(KamenPort(2, 3))
    fastdraw.load_port_weights(ours, port.state_dict())
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    torch.testing.assert_close(ours.patch.weight, port.write_linear.weight.float(), rtol=0, atol=0)


def layer(name: str, *shape: int) -> dict[str, Tensor]:
    return {f"{name}.weight": torch.zeros(*shape), f"{name}.bias": torch.zeros(shape[0])}


CELLS = {f"{name}.{kind}": torch.zeros(4) for name in ("encoder", "decoder") for kind in ("weight_ih", "bias_ih")}
OTHERS = {
    "nine-k/DRAW with attention": (
        {**layer("mu_matrix", 3, 8), **layer("read_attention_params_matrices.g_x", 1, 8), **layer("writer_matrix", 9, 8)},
        ["from 0", "never the error image", "sigma for sigma^2"],
    ),
    "Natsu6767": (
        {**CELLS, **layer("fc_mu", 3, 8), **layer("fc_sigma", 3, 8), **layer("fc_write", 9, 8), **layer("fc_attention", 5, 8)},
        ["from 0", "one layer places both"],
    ),
    "czm0": (
        {**CELLS, **layer("mu_linear", 3, 8), **layer("dec_linear", 5, 8), **layer("dec_w_linear", 9, 8)},
        ["from 0", "one layer places both", "2 sigma^2"],
    ),
    "ericjang": (
        {name: torch.zeros(3) for name in ("encoder/LSTMCell/W_0", "mu/w", "sigma/w", "writeW/w", "read/w", "write/w")},
        ["from 0", "2 sigma^2", "adds 1 to f"],
    ),
    "jbornschein": (
        {f"/drawmodel/{name}": torch.zeros(3) for name in ("reader/readout/linear_0.W", "RNN_enc.W_state")},
        ["from 0", "1e-4", "peepholes"],
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_maths_is_refused_by_name_and_reason(name: str) -> None:
    weights, reasons = OTHERS[name]
    ours = model(2, 3)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    with pytest.raises(ValueError, match="expected weights that mean what the paper's do") as caught:
        fastdraw.load_port_weights(ours, weights)
    assert all(reason in str(caught.value) for reason in [name, *reasons])
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def wrapped(weights: dict[str, Any], prefix: str) -> None:
    named = {f"{prefix}{name}": tensor for name, tensor in weights.items()}
    weights.clear()
    weights.update(named)


def nested(weights: dict[str, Any], key: str, beside: dict[str, Any]) -> None:
    inside = dict(weights)
    weights.clear()
    weights.update({**beside, key: inside, "optimizer": {"state": {}}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("z_linear.bias"), r"z_linear.bias of shape \(6,\) .*got nothing"),
        (lambda w: w.update({"z_linear.weight": torch.zeros(4, 8)}), r"z_linear.weight of shape \(6, 8\) .*\(4, 8\)"),
        (lambda w: w.update({"encoder.weight_ih": [1]}), r"encoder.weight_ih of shape .*got \[1\]"),
        (lambda w: w.update({"encoder.extra": torch.zeros(1)}), "got encoder.extra as well"),
        (lambda w: w.update({"head.weight": torch.zeros(1)}), "port with the paper's maths"),
        (lambda w: w.clear(), "got nothing"),
        (lambda w: w.update(model_state_dicts=[]), "got the whole of what the port saved"),
        (lambda w: w["z_linear.bias"][2].fill_(float("nan")), "expected finite numbers in z_linear.bias, got NaN or infinity"),
        (lambda w: w["encoder.bias_hh"][0].fill_(float("inf")), "expected finite numbers in encoder.bias_hh"),
        (lambda w: w.update({"encoder.bias_hh": torch.zeros(32).to_sparse()}), "encoder.bias_hh of shape"),
        (lambda w: w.update({"\x1b[2J.weight": torch.zeros(1)}), r"\\x1b\[2J.weight"),
        (lambda w: wrapped(w, "module."), r"take module\. away .*name.removeprefix\(\"module\.\"\)"),
        (lambda w: wrapped(w, "_orig_mod.module."), r"take _orig_mod.module\. away"),
        (lambda w: nested(w, "model", {}), r'expected saved\["model"\], got the whole'),
        (lambda w: nested(w, "state_dict", {"epoch": 3}), r'expected saved\["state_dict"\], got the whole'),
    ],
)
def test_damaged_or_unknown_weights_are_refused_and_change_nothing(change, message: str) -> None:
    weights, ours = {k: v.clone() for k, v in strong(KamenPort(2, 3)).state_dict().items()}, model(2, 3)
    before = {key: value.clone() for key, value in ours.state_dict().items()}
    change(weights)
    with pytest.raises(ValueError, match=message):
        fastdraw.load_port_weights(ours, weights)
    assert all(torch.equal(value, before[key]) for key, value in ours.state_dict().items())


def test_another_size_and_wrong_types_are_refused() -> None:
    weights = strong(KamenPort(2, 3)).state_dict()
    with pytest.raises(ValueError, match=r"encoder.weight_ih of shape \(32, 26\) for DRAWConfig.*\(32, 16\)"):
        fastdraw.load_port_weights(model(3, 3), weights)
    with pytest.raises(ValueError, match=r"model: expected one that .* without attention fill, got one with read_attention"):
        fastdraw.load_port_weights(model(H, None), {**NatsuPlain().state_dict(), "encoder.weight_ih": torch.zeros(32, 170)})
    with pytest.raises(ValueError, match=r"encoder.weight_ih of shape \(32, 20\)"):
        fastdraw.load_port_weights(DRAW((1, H, W), T, HIDDEN, Z, 2, 3, num_classes=4), weights)
    with pytest.raises(TypeError, match=r"model: expected a fastdraw.DRAW"):
        fastdraw.load_port_weights(nn.Linear(1, 1), weights)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="state_dict: expected a mapping"):
        fastdraw.load_port_weights(model(2, 3), None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"state_dict: expected a mapping .*got a KamenPort: its .state_dict\(\)"):
        fastdraw.load_port_weights(model(2, 3), KamenPort(2, 3))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="names that are strings, got 5"):
        fastdraw.load_port_weights(model(2, 3), {5: torch.zeros(1)})  # type: ignore[dict-item]
