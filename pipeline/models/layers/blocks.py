"""Convolution blocks of the U-Nets."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def group_norm(width: int) -> nn.GroupNorm:
    """Make a GroupNorm with up to 8 groups that divide `width`."""
    return nn.GroupNorm(next(groups for groups in (8, 4, 2, 1) if width % groups == 0), width)


class StandardisedConv(nn.Conv2d):
    """Convolution whose weights have zero mean and unit variance per output channel (Qiao et al. 2019)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) to (B, C_out, H, W)."""
        dims = (1, 2, 3)
        own = self.weight.float()  # bfloat16 would be too coarse for a variance
        mean, variance = own.mean(dim=dims, keepdim=True), own.var(dim=dims, keepdim=True, unbiased=False)
        weight = ((own - mean) * torch.rsqrt(variance + 1e-5)).to(self.weight.dtype)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ResidualBlock(nn.Module):
    """Two normalised convolutions around a shortcut; a condition modulates them (FiLM, Perez et al. 2018).

    Parameters
    ----------
    width_in, width_out : int
    condition_width : int
        Width of the condition; 0 for none.
    standardised : bool
        Use weight-standardised convolutions.
    """

    def __init__(
        self, width_in: int, width_out: int, condition_width: int = 0, standardised: bool = False
    ) -> None:
        super().__init__()
        conv = StandardisedConv if standardised else nn.Conv2d
        self.first = conv(width_in, width_out, 3, padding=1)
        self.first_norm = group_norm(width_out)
        self.second = conv(width_out, width_out, 3, padding=1)
        self.second_norm = group_norm(width_out)
        self.shortcut = nn.Conv2d(width_in, width_out, 1) if width_in != width_out else nn.Identity()
        self.film = nn.Linear(condition_width, 2 * width_out) if condition_width else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """(B, width_in, H, W) and (B, condition_width) to (B, width_out, H, W)."""
        y = self.first_norm(self.first(x))
        if self.film is not None and condition is not None:
            scale, shift = self.film(F.silu(condition))[:, :, None, None].chunk(2, dim=1)
            y = y * (1 + scale) + shift
        y = F.silu(self.second_norm(self.second(F.silu(y))))
        return y + self.shortcut(x)


def halve(x: Tensor) -> Tensor:
    """Average 2 x 2 pixels, an odd last row or column too: (B, C, H, W) to (B, C, ceil(H/2), ceil(W/2))."""
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def enlarge_to(x: Tensor, like: Tensor) -> Tensor:
    """Repeat pixels up to the size of `like`, which need not be even."""
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")
