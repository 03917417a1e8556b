"""The conditional mean: a U-Net with attention over the context and around each pixel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from pipeline.models.layers.attention import NeighbourhoodAttention, TemporalAttention
from pipeline.models.layers.blocks import ResidualBlock, enlarge_to, halve


class ConditionalMean(nn.Module):
    """C = mu(X), the specification's section 3.

    The encoder is shared by the L frames. At each level a pixel attends over its frames, a convolution block
    follows, and the last frame attends to its neighbourhood; only the last frame goes on to the decoder.

    Parameters
    ----------
    channels : int
        Channels of one frame.
    frames_out : int
        tau.
    widths : tuple of int
        Encoder widths, the bottleneck last.
    kernels : tuple of int
        Neighbourhood of the local attention, per level.
    heads : int
    context_at : {"full", "half"}
        Resolution at which the context frames meet the last one. They are coarse fields interpolated to the
        fine grid: at half resolution nothing of them is lost for s >= 2, and the first level costs 1 / L.
    """

    def __init__(
        self,
        channels: int,
        frames_out: int,
        widths: tuple[int, ...],
        kernels: tuple[int, ...],
        heads: int,
        context_at: Literal["full", "half"] = "full",
    ) -> None:
        super().__init__()
        self.first_temporal = 1 if context_at == "half" else 0
        self.lift = nn.Conv2d(channels, widths[0], 3, padding=1)
        widths_in = (widths[0], *widths[:-1])
        self.temporal = nn.ModuleList(
            TemporalAttention(width, heads) if level >= self.first_temporal else nn.Identity()
            for level, width in enumerate(widths_in)
        )
        self.encode = nn.ModuleList(ResidualBlock(a, b) for a, b in zip(widths_in, widths, strict=True))
        self.local = nn.ModuleList(
            NeighbourhoodAttention(w, heads, k) for w, k in zip(widths, kernels, strict=True)
        )
        self.decode = nn.ModuleList(
            ResidualBlock(below + here, here) for below, here in zip(widths[1:], widths, strict=False)
        )
        self.head = nn.Conv2d(widths[0], frames_out, 1)
        nn.init.zeros_(self.head.weight)  # training starts at the interpolated last frame
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, L, channels, H, W), first channel the interpolated field, to (B, tau, H, W) >= 0."""
        B, L = frames.shape[:2]
        last_field = frames[:, -1, :1]  # (B, 1, H, W)
        x = self.lift(frames.flatten(0, 1)).unflatten(0, (B, L))  # (B, L, C, H, W)
        skips: list[Tensor] = []
        for level, (temporal, encode, local) in enumerate(
            zip(self.temporal, self.encode, self.local, strict=True)
        ):
            if level:
                x = _each_frame(halve, x)
            if level >= self.first_temporal:
                x = _each_frame(encode, temporal(x))
            else:  # only the last frame; the others join it one level down
                x = torch.cat([x[:, :-1], encode(x[:, -1])[:, None]], dim=1)
            skips.append(local(x[:, -1]))  # (B, C, H, W)
        y = skips.pop()
        for decode, skip in zip(reversed(self.decode), reversed(skips), strict=True):
            y = decode(torch.cat([enlarge_to(y, skip), skip], dim=1))
        return (last_field + self.head(y)).relu()


def _each_frame(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply a function of images to every frame of (B, L, C, H, W)."""
    return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])
