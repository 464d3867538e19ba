"""The specification of DRAW: the paper's loop over glimpses, and the model around it."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, overload

import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from fastdraw import checks, layers
from fastdraw.calls import Calls
from fastdraw.config import DRAWConfig
from fastdraw.outputs import DRAWOutput, Recurrence, Trajectory
from fastdraw.reference.operators import Operators, kl_divergence, lstm_step, read, stack_windows, write

Model = TypeVar("Model", bound="DRAW")


class DRAW(nn.Module):
    """DRAW as the paper has it. `fastdraw.DRAW` takes the same arguments, has the same weights and gives the same results.

    Arguments are those of `fastdraw.DRAWConfig`, and canvas_memory, which changes nothing here. See `fastdraw.DRAW` for
    what the methods take, give and raise. Layers are called as modules, so whatever stands in a layer's place computes.
    """

    operators: ClassVar[Operators] = Operators(read, write, lstm_step)
    states: ClassVar[tuple[str, ...]] = ("initial_canvas", "initial_encoder", "initial_decoder")

    def __init__(
        self,
        image_shape: tuple[int, int, int] = (1, 28, 28),
        glimpses: int = 64,
        hidden_size: int = 256,
        latent_size: int = 100,
        read_size: int | None = 2,
        write_size: int | None = 5,
        canvas_memory: str = "keep",
        num_classes: int | None = None,
        *,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        made: dict[str, Any] = {"device": device, "dtype": checks.check_dtype(dtype)}
        if canvas_memory not in ("keep", "rebuild"):
            raise checks.expected("canvas_memory", '"keep" or "rebuild"', canvas_memory)
        self.canvas_memory = canvas_memory
        self.config = config = DRAWConfig(image_shape, glimpses, hidden_size, latent_size, read_size, write_size, num_classes)
        classes = num_classes or 0
        self.encoder = nn.LSTMCell(2 * config.read_numel + hidden_size + classes, hidden_size, **made)
        self.decoder = nn.LSTMCell(latent_size + classes, hidden_size, **made)
        self.latent = nn.Linear(hidden_size, 2 * latent_size, **made)
        self.patch = nn.Linear(hidden_size, config.patch_numel, **made)
        if read_size is not None:
            self.read_attention = nn.Linear(hidden_size, 5, **made)
        if write_size is not None:
            self.write_attention = nn.Linear(hidden_size, 5, **made)
        self.initial_canvas = nn.Parameter(torch.empty(config.image_shape, **made))
        self.initial_encoder = nn.Parameter(torch.empty(hidden_size, **made))
        self.initial_decoder = nn.Parameter(torch.empty(hidden_size, **made))
        self.reset_parameters()

    @classmethod
    def from_config(cls: type[Model], config: DRAWConfig, **more: Any) -> Model:
        """The model of a configuration; `more` are the arguments that it does not hold: canvas_memory, device, dtype."""
        if not isinstance(config, DRAWConfig):
            raise checks.expected("config", "a DRAWConfig, as presets hold", config, TypeError)
        return cls(**config.to_dict(), **more)

    def extra_repr(self) -> str:
        return f"{self.config}, {sum(p.numel() for p in self.parameters()):,} parameters"

    def reset_parameters(self) -> None:
        """Weights that training starts well from; the paper does not state its own.

        States of ordinary size (variance 1 / inputs), strokes a tenth of that, windows in the middle that span the image;
        biases and initial states zero. While latents say nothing, the decoder learns to shut their noise out, and what it
        shuts out cannot learn to say anything: with N(0, 0.01^2) everywhere nats rest at the mean image's for long.

        On images of more than 32 pixels a window's sigma is half of what lies between two filters, otherwise one pixel: at
        60x60 a 2x2 read sees 4 of 3,600 pixels, and nats rested at the mean image's.
        """
        for name, parameter in self.named_parameters():
            if parameter.dim() != 2:
                nn.init.zeros_(parameter)
                continue
            std = 0.01 if "attention" in name else parameter.shape[1] ** -0.5
            nn.init.normal_(parameter, std=0.1 * std if name.startswith("patch") else std)
        side = max(self.config.image_shape[1:])
        for name, size in (("read_attention", self.config.read_size), ("write_attention", self.config.write_size)):
            if side > 32 and size is not None and size > 1:
                nn.init.constant_(getattr(self, name).bias[2], 2 * math.log((side - 1) / (size - 1) / 2))

    def forward(
        self,
        x: Tensor,
        noise: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        glimpses: int | None = None,
    ) -> DRAWOutput:
        """The loss of a batch, equation 12, and what it is made of.

        x          [B, C, H, W] in [0, 1]: pixels as Bernoulli probabilities. NaN, infinity and values outside are refused
                   where looking does not wait for the device: on the CPU; everywhere with FASTDRAW_CHECK_VALUES=1, nowhere
                   with 0.
        noise      [T, B, Z] from N(0, 1), for exact repeats; drawn if None.
        labels     [B], int64, from 0 to num_classes - 1: needed by a class-conditional model, refused by any other.
        generator  draws the noise in place of torch's default one.
        glimpses   T of this call, at least 1; None: the model's own. The weights are the same for every glimpse, so any number
                   can be taken; what it was trained with draws best.

        Gives DRAWOutput: loss, a scalar, (reconstruction + kl summed over t).mean(), nats per image; reconstruction [B],
        -log D(x | c_T), nats, equation 9; kl [T, B], of each glimpse's latent from N(0, 1), nats, equation 11; canvas
        [B, C, H, W], c_T, logits.

        Raises TypeError or ValueError, naming the argument, for other shapes, devices, values or labels.
        """
        x = self._check_images(x)
        noise = self._check_noise(noise, x.shape[0], generator, glimpses)
        canvas, kl, *_ = self.recurrence(x, noise, labels=self._check_labels(labels, x.shape[0]))
        assert kl is not None
        reconstruction = (
            binary_cross_entropy_with_logits(canvas, x.to(canvas.dtype), reduction="none").flatten(1).sum(1)
        )  # (9)
        return DRAWOutput((reconstruction + kl.sum(0)).mean(), reconstruction, kl, canvas)  # (10), (12)

    if TYPE_CHECKING:
        __call__ = forward

    @overload
    def sample(
        self,
        n: int,
        noise: Tensor | None = None,
        return_trajectory: Literal[False] = False,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        glimpses: int | None = None,
    ) -> Tensor: ...

    @overload
    def sample(
        self,
        n: int,
        noise: Tensor | None = None,
        return_trajectory: Literal[True] = ...,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        glimpses: int | None = None,
    ) -> tuple[Tensor, Trajectory]: ...

    @overload
    def sample(
        self,
        n: int,
        noise: Tensor | None = None,
        return_trajectory: bool = ...,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        glimpses: int | None = None,
    ) -> Tensor | tuple[Tensor, Trajectory]: ...

    def sample(
        self,
        n: int,
        noise: Tensor | None = None,
        return_trajectory: bool = False,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        glimpses: int | None = None,
    ) -> Tensor | tuple[Tensor, Trajectory]:
        """Images [n, C, H, W] in [0, 1] from the prior, equations 13 to 16. They carry no graph, and `.numpy()` works, unless
        noise requires a gradient.

        n                  how many; 0 gives none.
        noise              [T, n, Z]: the latent sample; drawn from N(0, 1) if None.
        return_trajectory  gives (images, Trajectory): the logits after every glimpse, and every window.
        labels             [n], int64: what to draw. A class-conditional model that is told none draws classes at random.
        generator          draws noise and classes in place of torch's default one.
        glimpses           T of this call; None: the model's own.

        Raises TypeError or ValueError, naming the argument, for other shapes, devices or labels.
        """
        n = checks.check_size("n", n, least=0)
        noise = self._check_noise(noise, n, generator, glimpses)
        if labels is None and self.config.num_classes is not None:
            labels = torch.randint(self.config.num_classes, (n,), device=noise.device, generator=generator)
        labels = self._check_labels(labels, n)
        # Images are looked at; who wants gradients asks for them by noise that has one.
        with torch.no_grad() if torch.is_grad_enabled() and not noise.requires_grad else nullcontext():
            canvas, _, trajectory, _ = self.recurrence(None, noise, return_trajectory, labels)
            images = torch.sigmoid(canvas)  # (16)
        return images if trajectory is None else (images, trajectory)

    @overload
    def reconstruct(
        self,
        x: Tensor,
        noise: Tensor | None = None,
        return_trajectory: Literal[False] = False,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        glimpses: int | None = None,
    ) -> Tensor: ...

    @overload
    def reconstruct(
        self,
        x: Tensor,
        noise: Tensor | None = None,
        return_trajectory: Literal[True] = ...,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        glimpses: int | None = None,
    ) -> tuple[Tensor, Trajectory]: ...

    @overload
    def reconstruct(
        self,
        x: Tensor,
        noise: Tensor | None = None,
        return_trajectory: bool = ...,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        glimpses: int | None = None,
    ) -> Tensor | tuple[Tensor, Trajectory]: ...

    def reconstruct(
        self,
        x: Tensor,
        noise: Tensor | None = None,
        return_trajectory: bool = False,
        labels: Tensor | None = None,
        *,
        generator: torch.Generator | None = None,
        glimpses: int | None = None,
    ) -> Tensor | tuple[Tensor, Trajectory]:
        """Images [B, C, H, W] in [0, 1], as `forward` drew them. Arguments are those of forward.

        return_trajectory  gives (images, Trajectory): the logits after every glimpse, and every window.
        """
        x = self._check_images(x)
        noise = self._check_noise(noise, x.shape[0], generator, glimpses)
        labels = self._check_labels(labels, x.shape[0])
        canvas, _, trajectory, _ = self.recurrence(x, noise, return_trajectory, labels)
        images = torch.sigmoid(canvas)
        return images if trajectory is None else (images, trajectory)

    def recurrence(
        self, x: Tensor | None, noise: Tensor, return_trajectory: bool = False, labels: Tensor | None = None
    ) -> Recurrence:
        """As many glimpses as noise [T, B, Z] has: equations 3 to 8 with 1, 2 and 11; with x None, 13 to 15, where noise is
        the latent sample itself.

        With labels [B] both LSTMs are also given the class, as num_classes columns that are 0 but for one 1.
        """
        batch, config = noise.shape[1], self.config
        layers.refresh(self)
        call = Calls(self, self.layer_kinds(x is not None), self.states, self.operators.lstm_step)
        x, noise = None if x is None else x.to(call.state), noise.to(call.state)
        canvas = self.initial_canvas.to(call.state).expand(batch, *config.image_shape)
        h_enc, c_enc = self._initial_state(self.initial_encoder.to(call.state), batch)
        h_dec, c_dec = self._initial_state(self.initial_decoder.to(call.state), batch)
        y = [] if labels is None else [one_hot(labels, config.num_classes or 0).to(noise.dtype)]
        kl: list[Tensor] = []
        latents: list[Tensor] = []
        canvases: list[Tensor] = []
        read_params: list[Tensor] = []
        write_params: list[Tensor] = []
        with layers.once(self):
            for t in range(len(noise)):
                z = noise[t]  # (13), where there is no x
                if x is not None:
                    x_hat = x - torch.sigmoid(canvas)  # (3)
                    r = self._read(call, x, x_hat, h_dec, read_params)  # (4)
                    h_enc, c_enc = call.lstm("encoder", torch.cat([r, h_dec, *y], 1), (h_enc, c_enc))  # (5)
                    latents.append(call.linear("latent", h_enc, 2 * config.latent_size))
                    mu, log_sigma = latents[-1].chunk(2, dim=1)  # (1), (2)
                    z = mu + log_sigma.exp() * noise[t]  # (6)
                    kl.append(kl_divergence(mu, log_sigma))  # (11)
                h_dec, c_dec = call.lstm("decoder", torch.cat([z, *y], 1) if y else z, (h_dec, c_dec))  # (7), (14)
                canvas = canvas + self._write(call, h_dec, write_params)  # (8), (15)
                canvases.append(canvas)
        trajectory, latent = None, torch.stack(latents) if latents else None
        if return_trajectory:
            image_size = config.image_shape[1:]
            write_windows = stack_windows(write_params, config.write_size, image_size)
            read_windows = stack_windows(read_params, config.read_size, image_size)
            mu_and_log_sigma = (None, None) if latent is None else latent.chunk(2, dim=-1)
            trajectory = Trajectory(torch.stack(canvases), write_windows, read_windows, *mu_and_log_sigma)
        return Recurrence(canvas, torch.stack(kl) if kl else None, trajectory, latent)

    def layer_kinds(self, infers: bool = True) -> dict[str, type[nn.Module]]:
        """The layers that a pass calls, by name, as what they are made: with an image, or to generate."""
        kinds: dict[str, type[nn.Module]] = {"encoder": nn.LSTMCell, "latent": nn.Linear} if infers else {}
        kinds.update(decoder=nn.LSTMCell, patch=nn.Linear)
        if self.config.write_size is not None:
            kinds["write_attention"] = nn.Linear
        if infers and self.config.read_size is not None:
            kinds["read_attention"] = nn.Linear
        return kinds

    def _read(self, call: Calls, x: Tensor, x_hat: Tensor, h_dec: Tensor, all_params: list[Tensor]) -> Tensor:
        images = torch.cat([x, x_hat], 1)
        if self.config.read_size is None:
            return images.flatten(1)  # (17)
        all_params.append(call.linear("read_attention", h_dec, 5))  # (21)
        return self.operators.read(images, all_params[-1], self.config.read_size).flatten(1)  # (27)

    def _write(self, call: Calls, h_dec: Tensor, all_params: list[Tensor]) -> Tensor:
        channels, height, width = self.config.image_shape
        size = self.config.write_size
        w = call.linear("patch", h_dec, self.config.patch_numel)  # (18), (28)
        if size is None:
            return w.view(-1, channels, height, width)
        all_params.append(call.linear("write_attention", h_dec, 5))  # (21)
        return self.operators.write(w.view(-1, channels, size, size), all_params[-1], (height, width))  # (29)

    @staticmethod
    def _initial_state(h: Tensor, batch: int) -> tuple[Tensor, Tensor]:
        return h.expand(batch, -1), h.new_zeros(batch, h.shape[0])

    def _check_images(self, x: Tensor) -> Tensor:
        checks.check_tensor("x", x, "B", *self.config.image_shape)
        checks.check_same("device", "the model's weights", self.initial_canvas, "x", x)
        checks.check_unit_interval("x", x)
        return x

    def _check_labels(self, labels: Tensor | None, batch: int) -> Tensor | None:
        if self.config.num_classes is None:
            if labels is not None:
                raise checks.expected("labels", "None for a model without num_classes", labels)
            return None
        return checks.check_labels(labels, batch, self.config.num_classes, self.initial_canvas)

    def _check_noise(
        self, noise: Tensor | None, batch: int, generator: torch.Generator | None, glimpses: int | None
    ) -> Tensor:
        shape = (checks.check_glimpses(glimpses, self.config.glimpses), batch, self.config.latent_size)
        if generator is not None:
            checks.check_generator(generator, self.initial_canvas.device, noise)
        if noise is None:
            made: dict[str, Any] = {"dtype": self.initial_canvas.dtype, "device": self.initial_canvas.device}
            # Without a generator as always, so that tracing sees no argument more.
            return torch.randn(shape, **made) if generator is None else torch.randn(shape, generator=generator, **made)
        checks.check_tensor("noise", noise, *shape)
        checks.check_same("device", "the model's weights", self.initial_canvas, "noise", noise)
        return noise
