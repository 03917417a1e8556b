"""The conditional mean: a U-Net with attention over the context and around each pixel."""

from __future__ import annotations

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
    temporal_from : int
        First level with temporal attention; the full-resolution level costs most.
    """

    def __init__(
        self,
        channels: int,
        frames_out: int,
        widths: tuple[int, ...],
        kernels: tuple[int, ...],
        heads: int,
        temporal_from: int = 0,
    ) -> None:
        super().__init__()
        self.temporal_from = temporal_from
        self.lift = nn.Conv2d(channels, widths[0], 3, padding=1)
        widths_in = (widths[0], *widths[:-1])
        self.temporal = nn.ModuleList(
            TemporalAttention(width, heads) if level >= temporal_from else nn.Identity()
            for level, width in enumerate(widths_in)
        )
        self.encode = nn.ModuleList(ResidualBlock(a, b) for a, b in zip(widths_in, widths, strict=True))
        self.local = nn.ModuleList(NeighbourhoodAttention(w, heads, k) for w, k in zip(widths, kernels, strict=True))
        self.decode = nn.ModuleList(ResidualBlock(below + here, here) for below, here in zip(widths[1:], widths, strict=False))
        self.head = nn.Conv2d(widths[0], frames_out, 1)
        nn.init.zeros_(self.head.weight)  # training starts at the interpolated last frame
        nn.init.zeros_(self.head.bias)  # type: ignore[arg-type]

    def forward(self, frames: Tensor) -> Tensor:
        """Frames (B, L, channels, H, W), first channel the interpolated field, to (B, tau, H, W), not negative."""
        B, L = frames.shape[:2]
        last_field = frames[:, -1, :1]  # (B, 1, H, W)
        x = self.lift(frames.flatten(0, 1))  # (BL, C, H, W)
        skips: list[Tensor] = []
        for level, (temporal, encode, local) in enumerate(zip(self.temporal, self.encode, self.local, strict=True)):
            if level:
                x = halve(x)
            if level >= self.temporal_from:
                x = temporal(x.unflatten(0, (B, L))).flatten(0, 1)
            x = encode(x)
            skips.append(local(x.unflatten(0, (B, L))[:, -1]))  # (B, C, H, W) of the last frame
        y = skips.pop()
        for decode, skip in zip(reversed(self.decode), reversed(skips), strict=True):
            y = decode(torch.cat([enlarge_to(y, skip), skip], dim=1))
        return (last_field + self.head(y)).relu()

