"""Attention over time at each pixel, in a neighbourhood of each pixel, and from pixels to tokens.

Shape suffixes: B batch, L coarse frames, C channels, H W pixels, h heads, d channels per head.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def frame_positions(length: int, width: int, device: torch.device) -> Tensor:
    """Give sinusoidal positions (length, width), counted back from the last frame.

    The last frame, the one that is refined, always has position 0, whatever the context.
    """
    return sinusoid(torch.arange(length - 1, -1, -1, device=device, dtype=torch.float32), width)


def sinusoid(values: Tensor, width: int, longest: float = 10_000.0) -> Tensor:
    """Embed numbers (N,) as sines and cosines (N, width) (Vaswani et al. 2017, section 3.5)."""
    half = width // 2
    rates = torch.exp(-math.log(longest) * torch.arange(half, device=values.device) / max(half, 1))
    angles = values[:, None] * rates[None, :]
    return F.pad(torch.cat([angles.sin(), angles.cos()], dim=-1), (0, width - 2 * half))


class TemporalAttention(nn.Module):
    """Pre-norm transformer layer in which each pixel attends over its own L frames.

    Parameters
    ----------
    width : int
        C, a multiple of `heads`.
    heads : int
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(1, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)
        self.feed_forward = nn.Sequential(
            nn.GroupNorm(1, width), nn.Conv2d(width, 4 * width, 1), nn.GELU(), nn.Conv2d(4 * width, width, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, C, H, W) to the same shape."""
        B, L, C, H, W = x.shape
        positions = frame_positions(L, C, x.device).to(x.dtype)[None, :, :, None, None]
        normed = self.norm((x + positions).flatten(0, 1))  # (BL, C, H, W)
        q, k, v = self.qkv(normed).reshape(B, L, 3, self.heads, C // self.heads, H * W).unbind(dim=2)
        mixed = _attend_over_frames(q, k, v).reshape(B * L, C, H, W)
        flat = x.flatten(0, 1) + self.out(mixed)
        return (flat + self.feed_forward(flat)).reshape(B, L, C, H, W)


def _attend_over_frames(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attend over L for each of P pixels: (B, L, h, d, P) each, and the result."""
    if q.is_cuda:
        q, k, v = (z.permute(0, 4, 2, 1, 3) for z in (q, k, v))  # (B, P, h, L, d)
        return F.scaled_dot_product_attention(q, k, v).permute(0, 3, 2, 4, 1)
    # On a CPU thousands of L x L products are slow; sums over whole pixel rows are three times faster.
    scores = (q[:, :, None] * k[:, None]).sum(dim=4) / math.sqrt(q.shape[3])  # (B, L, L, h, P)
    return (scores.softmax(dim=2).unsqueeze(4) * v[:, None]).sum(dim=2)


class NeighbourhoodAttention(nn.Module):
    """Pre-norm attention of each pixel to the k x k pixels around it, with a learned bias per offset.

    Parameters
    ----------
    width : int
        C, a multiple of `heads`.
    heads : int
    kernel : int
        k, odd; with 1 a pixel sees only itself.
    """

    def __init__(self, width: int, heads: int, kernel: int) -> None:
        super().__init__()
        self.heads, self.kernel = heads, kernel
        self.norm = nn.GroupNorm(1, width)
        # A pixel alone gives itself all its weight: there are no queries, keys and biases to learn then.
        self.qkv = nn.Conv2d(width, 3 * width if kernel > 1 else width, 1)
        self.bias = nn.Parameter(torch.zeros(heads, kernel**2)) if kernel > 1 else None
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)  # the layer starts as the identity
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same shape."""
        B, C, H, W = x.shape
        mapped = self.qkv(self.norm(x))
        if self.bias is None:
            return x + self.out(mapped)
        q, k, v = mapped.chunk(3, dim=1)
        heads, d, n = self.heads, C // self.heads, self.kernel**2
        q = q.reshape(B, heads, d, 1, H * W)
        k, v = (self._around(z).reshape(B, heads, d, n, H * W) for z in (k, v))
        inside = self._around(torch.ones_like(x[:1, :1])).reshape(1, 1, n, H * W) > 0
        scores = (q * k).sum(dim=2) / math.sqrt(d) + self.bias[None, :, :, None]  # (B, h, n, HW)
        weights = scores.masked_fill(~inside, -torch.inf).softmax(dim=2)
        mixed = (weights[:, :, None] * v).sum(dim=3).reshape(B, C, H, W)
        return x + self.out(mixed)

    def _around(self, x: Tensor) -> Tensor:
        return F.unfold(x, self.kernel, padding=self.kernel // 2)


class TokenAttention(nn.Module):
    """Pre-norm cross-attention from pixels to a few tokens.

    Parameters
    ----------
    width : int
        C of the pixels, a multiple of `heads`.
    token_width : int
        Width of the tokens.
    heads : int
    """

    def __init__(self, width: int, token_width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(1, width)
        self.query = nn.Conv2d(width, width, 1)
        self.key_value = nn.Linear(token_width, 2 * width)
        self.out = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, tokens: Tensor) -> Tensor:
        """Pixels (B, C, H, W) attend to tokens (B, L, token_width); the shape of x comes back."""
        B, C, H, W = x.shape
        heads, d, L = self.heads, C // self.heads, tokens.shape[1]
        q = self.query(self.norm(x)).reshape(B, heads, d, H * W)
        k, v = self.key_value(tokens).reshape(B, L, 2, heads, d).permute(2, 0, 3, 1, 4)  # (B, h, L, d) each
        # (B, h, L, HW): softmax over the tokens, never over the batch
        weights = (k @ q / math.sqrt(d)).softmax(dim=2)
        mixed = (v.transpose(2, 3) @ weights).reshape(B, C, H, W)
        return x + self.out(mixed)
