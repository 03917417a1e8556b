"""The residual denoiser and the temporal tokens that condition it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pipeline.models.layers.attention import NeighbourhoodAttention, TokenAttention, frame_positions, sinusoid
from pipeline.models.layers.blocks import ResidualBlock, enlarge_to, halve


class TemporalTokens(nn.Module):
    """One token per context frame: convolutions, global pooling, then a transformer over the L tokens.

    Parameters
    ----------
    channels : int
        Channels of one frame.
    width : int
        Token width, a multiple of `heads`.
    heads, layers : int
    """

    def __init__(self, channels: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.frame = nn.Sequential(
            nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.SiLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.SiLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        )  # fmt: skip
        layer = nn.TransformerEncoderLayer(
            width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.context = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)

    def forward(self, frames: Tensor) -> Tensor:
        """(B, L, channels, H, W) to (B, L, width)."""
        B, L = frames.shape[:2]
        tokens = self.frame(frames.flatten(0, 1)).unflatten(0, (B, L))
        return self.context(tokens + frame_positions(L, tokens.shape[-1], tokens.device).to(tokens.dtype))


class Level(nn.Module):
    """One level of the denoiser: convolutions, attention to the tokens, attention around each pixel.

    Parameters
    ----------
    width_in, width, kernel : int
    time_width, token_width, heads : int
    """

    def __init__(
        self, width_in: int, width: int, kernel: int, time_width: int, token_width: int, heads: int
    ) -> None:
        super().__init__()
        self.block = ResidualBlock(width_in, width, time_width, standardised=True)
        self.tokens = TokenAttention(width, token_width, heads)
        self.local = NeighbourhoodAttention(width, heads, kernel)

    def forward(self, x: Tensor, time: Tensor, tokens: Tensor) -> Tensor:
        """(B, width_in, H, W), (B, time_width) and (B, L, token_width) to (B, width, H, W)."""
        return self.local(self.tokens(self.block(x, time), tokens))


class Denoiser(nn.Module):
    """v-prediction U-Net, the specification's section 4.

    Parameters
    ----------
    channels_in : int
        Channels of the noisy residual and its conditions together.
    frames_out : int
        tau.
    widths, kernels : tuple of int
        Width and neighbourhood of the local attention, per level.
    token_width, heads : int

    Attributes
    ----------
    residual_scale : Tensor
        What one unit of the residual stands for; `ScaleAdaptive` measures it and it is stored with the
        weights.
    """

    residual_scale: Tensor

    def __init__(
        self,
        channels_in: int,
        frames_out: int,
        widths: tuple[int, ...],
        kernels: tuple[int, ...],
        token_width: int,
        heads: int,
    ) -> None:
        super().__init__()
        self.time_width = 4 * widths[0]
        self.time = nn.Sequential(
            nn.Linear(self.time_width, self.time_width),
            nn.SiLU(),
            nn.Linear(self.time_width, self.time_width),
        )
        self.lift = nn.Conv2d(channels_in, widths[0], 3, padding=1)

        def level(width_in: int, width: int, kernel: int) -> Level:
            return Level(width_in, width, kernel, self.time_width, token_width, heads)

        widths_in = (widths[0], *widths[:-1])
        self.down = nn.ModuleList(map(level, widths_in, widths, kernels))
        self.up = nn.ModuleList(
            map(level, [a + b for a, b in zip(widths[1:], widths, strict=False)], widths, kernels)
        )
        self.head = nn.Conv2d(widths[0], frames_out, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, noisy: Tensor, times: Tensor, condition: Tensor, tokens: Tensor) -> Tensor:
        """Predict v.

        Parameters
        ----------
        noisy : Tensor
            (B, tau, H, W) residual at times (B,).
        times : Tensor
            (B,) integers in [0, T).
        condition : Tensor
            (B, channels_in - tau, H, W).
        tokens : Tensor
            (B, L, token_width).
        """
        time = self.time(sinusoid(times.float(), self.time_width).to(noisy.dtype))
        x = self.lift(torch.cat([noisy, condition], dim=1))
        skips: list[Tensor] = []
        for depth, level in enumerate(self.down):
            x = level(halve(x) if depth else x, time, tokens)
            skips.append(x)
        x = skips.pop()
        for level, skip in zip(reversed(self.up), reversed(skips), strict=True):
            x = level(torch.cat([enlarge_to(x, skip), skip], dim=1), time, tokens)
        return self.head(x)
