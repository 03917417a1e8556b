"""The scale-adaptive family (arXiv 2604.21903): a conditional mean, and diffusion of what it leaves.

Differences from the authors' public code, each on purpose: two stages instead of one joint loss; the temporal
tokens are trained and saved and attend over the L frames; the mean's head adds to the interpolated last
frame; missing coarse cells are marked by a channel; dynamic covariates are channels of every frame; the
residual may be standardised; a short solver replaces 1000 ancestral steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config import ModelSettings, TrainingSettings
from pipeline.conservation import conserve
from pipeline.data.batch import Batch
from pipeline.data.coarsen import spread
from pipeline.diffusion.noise import StepDraws
from pipeline.diffusion.process import add_noise, clean_from_velocity, velocity
from pipeline.diffusion.schedule import linear_schedule
from pipeline.models.family import Guide, Look, Loss, ModelSpec, Stage, SuperResolutionModel
from pipeline.models.scale_adaptive.denoiser import Denoiser, TemporalTokens
from pipeline.models.scale_adaptive.mean import ConditionalMean

MEAN, RESIDUAL = "mean", "residual"


class ScaleAdaptive(SuperResolutionModel):
    """The model of one factor pair with its three scale parameters.

    Parameters
    ----------
    spec : ModelSpec
    """

    mean: ConditionalMean
    tokens: TemporalTokens
    denoiser: Denoiser

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__()
        self.spec = spec
        settings, tau = spec.settings, spec.pair.time
        self.schedule = linear_schedule(spec.parameters.beta, settings.noise_steps)
        channels = 2 + len(spec.statics) + len(spec.dynamics)  # field, its mask, covariates
        self.mean = ConditionalMean(
            channels,
            tau,
            settings.mean_widths,
            settings.mean_kernels,
            settings.heads,
            settings.mean_context_at,
        )
        self.tokens = TemporalTokens(channels, settings.token_width, settings.heads, settings.token_layers)
        self.denoiser = Denoiser(
            2 * tau + channels,
            tau,
            settings.denoiser_widths,
            settings.denoiser_kernels,
            settings.token_width,
            settings.heads,
        )
        self.denoiser.register_buffer("residual_scale", torch.ones(()))

    @staticmethod
    def stages(settings: ModelSettings, training: TrainingSettings) -> tuple[Stage, ...]:
        """List mean and residual; only the residual depends on beta."""
        mean_on = {"context", "conservation"} if settings.mean_through_conservation else {"context"}
        return (
            Stage(MEAN, ("mean",), frozenset(mean_on), training.mean_steps),
            Stage(
                RESIDUAL,
                ("tokens", "denoiser"),
                frozenset({"beta", "context", "conservation"}),
                training.residual_steps,
            ),
        )

    def prepare(self, stage: str, batches: Iterable[Batch]) -> None:
        """Measure the residual's root mean square on training batches, for the residual stage."""
        if stage != RESIDUAL or self.spec.settings.residual == "raw":
            return
        squares, count = 0.0, 0.0
        with torch.no_grad():
            for batch in batches:
                residual = (self._residual(batch, self._centre(batch)) * batch.mask).double()
                weights = batch.weights.double()[:, None, None, None]
                squares = squares + float((residual.square() * weights).sum())
                count = count + float((batch.mask * weights).sum())
        self.denoiser.residual_scale.fill_(max((squares / max(count, 1.0)) ** 0.5, 1e-3))

    def blocks(self) -> Iterator[nn.Module]:
        """Give the levels of both U-Nets and the layers of the token transformer."""
        mean, denoiser = self.mean, self.denoiser
        lists = (mean.temporal, mean.encode, mean.local, mean.decode, denoiser.down, denoiser.up)
        for block in (*(one for many in lists for one in many), *self.tokens.context.layers):
            if not isinstance(block, nn.Identity):
                yield block

    def loss(self, stage: str, batch: Batch, draws: StepDraws) -> Loss:
        """Give MSE(C, Y) for the mean, MSE(v_hat, v) for the residual, over valid values."""
        if stage == MEAN:
            through = self.spec.settings.mean_through_conservation
            predicted = self._centre(batch) if through else self.mean(self._frames(batch))
            return _masked_mse(predicted, self.spec.transform.forward(batch.fine), batch)
        with torch.no_grad():
            frames = self._frames(batch)
            centre = self._centre(batch, frames)
            clean = self._residual(batch, centre) / self.denoiser.residual_scale
            clean = torch.where(batch.mask, clean, 0.0)
        device = clean.device
        times = draws.times(self.schedule.steps).to(device)
        noise = draws.normal(clean.shape[1:]).to(device)
        noisy = add_noise(clean, noise, times, self.schedule)
        predicted = self.denoiser(noisy, times, self._condition(frames, centre), self.tokens(frames))
        return _masked_mse(predicted, velocity(clean, noise, times, self.schedule), batch)

    def predict_mean(self, batch: Batch) -> Tensor:
        """Give C in physical units, conserving."""
        return self._finished(self.mean(self._frames(batch)), batch)

    def look(self, batch: Batch) -> Look:
        """Give C in transformed units, conserving, and the temporal tokens."""
        frames = self._frames(batch)
        return Look(self._centre(batch, frames), self.tokens(frames))

    def guide(self, batch: Batch, look: Look, members: int) -> Guide:
        """Prepare the denoiser: what does not depend on the noise is made once for all its evaluations."""
        condition = self._condition(self._frames(batch.last_frame()), look.centre)
        condition, tokens = (z.repeat_interleave(members, dim=0) for z in (condition, look.context))

        def denoise(noisy: Tensor, time: int) -> Tensor:
            times = torch.full((len(noisy),), time, device=noisy.device)
            v = self.denoiser(noisy, times, condition, tokens)
            return clean_from_velocity(
                noisy, v, float(self.schedule.signal[time]), float(self.schedule.noise[time])
            )

        return denoise

    def compose(self, centre: Tensor, clean: Tensor) -> Tensor:
        """Give C + R_hat in physical units."""
        return self.spec.transform.inverse((centre + clean * self.denoiser.residual_scale).float())

    def finish(self, field: Tensor, batch: Batch, members: int = 1) -> Tensor:
        """Make physical fields conserving: mass(relu(C + R_hat)) (section 1); dry in, dry out.

        The mass is that of the pixels that lie in known coarse cells: a model in use sees no fine mask.
        """
        coarse, known = (z.repeat_interleave(members, dim=0) for z in (batch.last, batch.last_mask))
        conserved = conserve(
            field,
            coarse,
            self.spec.pair,
            self.spec.parameters.conservation,
            scale=self.spec.scale,
            coarse_mask=known,
        )
        wet = torch.where(known, coarse, 0.0).amax(dim=(1, 2, 3), keepdim=True) > 0
        inside = spread(known, self.spec.pair)
        return torch.where(wet & inside, conserved, 0.0)

    def _frames(self, batch: Batch) -> Tensor:
        """(B, L, 2 + S + K, H, W): each context frame on the fine grid, its mask, statics and dynamics."""
        B, L = batch.coarse.shape[:2]
        H, W = batch.fine.shape[-2:]
        values = self.spec.transform.forward(batch.coarse).flatten(0, 1)[:, None]  # (BL, 1, h, w)
        fine = F.interpolate(values, size=(H, W), mode="bicubic", align_corners=False).clamp(min=0)
        known = F.interpolate(
            batch.coarse_mask.flatten(0, 1)[:, None].to(fine.dtype), size=(H, W), mode="nearest"
        )
        frames = torch.cat([fine, known], dim=1).unflatten(0, (B, L))
        channels = [frames, batch.statics[:, None].expand(-1, L, -1, -1, -1)]
        if self.spec.dynamics:  # interpolation refuses to make no channel at all
            moving = batch.dynamics.flatten(0, 1)  # (BL, K, h, w), of either sign
            moving = F.interpolate(moving, size=(H, W), mode="bicubic", align_corners=False)
            channels.append(moving.unflatten(0, (B, L)))
        return torch.cat(channels, dim=2)

    def _condition(self, frames: Tensor, centre: Tensor) -> Tensor:
        return torch.cat([frames[:, -1], centre], dim=1)  # (B, 2 + S + K + tau, H, W)

    def _centre(self, batch: Batch, frames: Tensor | None = None) -> Tensor:
        """(B, tau, H, W): C in transformed units, after the mass transform."""
        frames = self._frames(batch) if frames is None else frames
        return self.spec.transform.forward(self._finished(self.mean(frames), batch))

    def _residual(self, batch: Batch, centre: Tensor) -> Tensor:
        return self.spec.transform.forward(batch.fine) - centre

    def _finished(self, values: Tensor, batch: Batch) -> Tensor:
        return self.finish(self.spec.transform.inverse(values.float()), batch)


def _masked_mse(predicted: Tensor, target: Tensor, batch: Batch) -> Loss:
    squares = torch.where(batch.mask, (predicted.float() - target).square(), 0.0)
    return Loss((squares * batch.weights[:, None, None, None]).sum(), batch.mask.sum())
