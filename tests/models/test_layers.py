import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.models.layers.attention import (
    NeighbourhoodAttention,
    TemporalAttention,
    TokenAttention,
    _attend_over_frames,
    frame_positions,
    sinusoid,
)
from pipeline.models.layers.blocks import ResidualBlock, StandardisedConv, enlarge_to, group_norm, halve


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def awake(layer):
    """Give a layer that starts as the identity something to say."""
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)
    return layer


@pytest.mark.parametrize("L", [1, 2, 5])
def test_attention_over_frames_is_scaled_dot_product_attention(L):
    B, heads, d, P = 2, 3, 4, 7
    q, k, v = torch.randn(3, B, L, heads, d, P).unbind()
    sequences = [z.permute(0, 4, 2, 1, 3) for z in (q, k, v)]  # (B, P, h, L, d)
    wanted = F.scaled_dot_product_attention(*sequences).permute(0, 3, 2, 4, 1)
    torch.testing.assert_close(_attend_over_frames(q, k, v), wanted)


def test_temporal_attention_mixes_the_frames_of_a_pixel_and_nothing_else():
    layer = awake(TemporalAttention(8, 2))
    for module in (layer, layer.feed_forward):  # GroupNorm's statistics are over the image: take them away
        for name, child in list(module.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(module, name, nn.Identity())
    x = torch.randn(2, 3, 8, 5, 5)
    changed = x.clone()
    changed[1, 0, :, 2, 3] += 1
    moved = (layer(changed) - layer(x)).abs().sum(dim=2) > 1e-6  # (B, L, H, W)
    wanted = torch.zeros_like(moved)
    wanted[1, :, 2, 3] = True
    assert torch.equal(moved, wanted)


def test_temporal_attention_knows_the_order_of_frames():
    layer = awake(TemporalAttention(8, 2))
    x = torch.randn(1, 3, 8, 5, 5)
    assert not torch.allclose(layer(x[:, [1, 0, 2]])[:, 2], layer(x)[:, 2], atol=1e-4)


def test_positions_count_back_from_the_last_frame():
    short, long = frame_positions(2, 8, torch.device("cpu")), frame_positions(5, 8, torch.device("cpu"))
    torch.testing.assert_close(long[-2:], short)
    torch.testing.assert_close(short[-1], torch.tensor([0.0] * 4 + [1.0] * 4))


@pytest.mark.parametrize("width", [1, 2, 7, 8])
def test_sinusoid(width):
    values = torch.tensor([0.0, 1.0, 999.0])
    embedded = sinusoid(values, width)
    assert embedded.shape == (3, width)
    if width > 1:
        torch.testing.assert_close(embedded[:, 0], values.sin())
        torch.testing.assert_close(embedded[:, width // 2], values.cos())


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("pixel", [(0, 0), (3, 4), (7, 8)])
def test_neighbourhood_attention_reaches_exactly_its_neighbourhood(kernel, pixel):
    layer = awake(NeighbourhoodAttention(8, 2, kernel))
    layer.norm = nn.Identity()  # its statistics are over the whole image
    x = torch.randn(2, 8, 8, 9)
    changed = x.clone()
    changed[1, :, pixel[0], pixel[1]] += 1
    moved = (layer(changed) - layer(x)).abs().sum(dim=1) > 1e-6  # (B, H, W)
    wanted, reach = torch.zeros_like(moved), kernel // 2
    rows = slice(max(0, pixel[0] - reach), pixel[0] + reach + 1)
    columns = slice(max(0, pixel[1] - reach), pixel[1] + reach + 1)
    wanted[1, rows, columns] = True
    assert torch.equal(moved, wanted)


def test_neighbourhood_attention_against_a_loop():
    heads, d, kernel, H, W = 2, 3, 3, 4, 5
    layer = awake(NeighbourhoodAttention(heads * d, heads, kernel))
    x = torch.randn(1, heads * d, H, W)
    q, k, v = layer.qkv(layer.norm(x)).reshape(3, heads, d, H, W)
    mixed = torch.zeros(heads, d, H, W)
    for head, i, j in itertools.product(range(heads), range(H), range(W)):
        scores, values = [], []
        for n, (a, b) in enumerate(itertools.product((-1, 0, 1), (-1, 0, 1))):
            if 0 <= i + a < H and 0 <= j + b < W:  # the padding around the image takes no part
                score = (q[head, :, i, j] * k[head, :, i + a, j + b]).sum() / d**0.5
                scores.append(score + layer.bias[head, n])
                values.append(v[head, :, i + a, j + b])
        mixed[head, :, i, j] = (torch.stack(scores).softmax(0)[:, None] * torch.stack(values)).sum(0)
    torch.testing.assert_close(layer(x), x + layer.out(mixed.reshape(1, heads * d, H, W)))


@pytest.mark.parametrize("kernel", [1, 3])
def test_neighbourhood_attention_starts_as_the_identity_and_has_no_idle_parameters(kernel):
    layer = NeighbourhoodAttention(8, 2, kernel)
    x = torch.randn(1, 8, 5, 5)
    assert torch.equal(layer(x), x)
    awake(layer)(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in layer.parameters())


def test_token_attention_treats_batch_items_apart():
    layer = awake(TokenAttention(8, 6, 2))
    x, tokens = torch.randn(3, 8, 5, 5), torch.randn(3, 4, 6)
    together = layer(x, tokens)
    for n in range(3):
        torch.testing.assert_close(together[n : n + 1], layer(x[n : n + 1], tokens[n : n + 1]))
    changed = tokens.clone()
    changed[2] += 1
    assert torch.equal(layer(x, changed)[:2], together[:2])
    assert not torch.allclose(layer(x, changed)[2], together[2], atol=1e-3)


def test_token_attention_against_torch():
    heads, d = 2, 4
    layer = awake(TokenAttention(heads * d, 6, heads))
    x, tokens = torch.randn(2, heads * d, 5, 5), torch.randn(2, 3, 6)
    q = layer.query(layer.norm(x)).reshape(2, heads, d, 25).transpose(2, 3)
    k, v = layer.key_value(tokens).chunk(2, dim=-1)
    k, v = (z.reshape(2, 3, heads, d).transpose(1, 2) for z in (k, v))
    mixed = F.scaled_dot_product_attention(q, k, v).transpose(2, 3).reshape(2, heads * d, 5, 5)
    torch.testing.assert_close(layer(x, tokens), x + layer.out(mixed))


@pytest.mark.parametrize(("width", "groups"), [(16, 8), (8, 8), (12, 4), (6, 2), (5, 1)])
def test_group_norm(width, groups):
    assert group_norm(width).num_groups == groups


def test_standardised_conv_ignores_scale_and_shift_of_its_weights():
    conv = StandardisedConv(3, 4, 3, padding=1)
    x = torch.randn(1, 3, 6, 6)
    before = conv(x)
    with torch.no_grad():
        conv.weight.mul_(5).add_(2)
    torch.testing.assert_close(conv(x), before, rtol=1e-2, atol=1e-2)
    weight = conv.weight.detach()
    standard = (weight - weight.mean((1, 2, 3), keepdim=True)) / weight.std(
        (1, 2, 3), keepdim=True, correction=0
    )
    torch.testing.assert_close(conv(x), F.conv2d(x, standard, conv.bias, padding=1), rtol=1e-3, atol=1e-3)


def test_residual_block_is_modulated_by_its_condition():
    block = ResidualBlock(3, 8, condition_width=5)
    x, condition = torch.randn(2, 3, 6, 6), torch.randn(2, 5)
    assert block(x, condition).shape == (2, 8, 6, 6)
    assert not torch.allclose(block(x, condition), block(x, condition + 1), atol=1e-3)
    assert ResidualBlock(3, 8)(x).shape == (2, 8, 6, 6)


@pytest.mark.parametrize(("H", "W"), [(6, 8), (25, 25), (5, 8), (1, 3)])
def test_halving_and_enlarging(H, W):
    x = torch.randn(1, 2, H, W)
    half = halve(x)
    assert half.shape == (1, 2, -(-H // 2), -(-W // 2))
    for i, j in itertools.product(range(half.shape[2]), range(half.shape[3])):
        # a last row or column that has no partner is kept as it is
        block = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        torch.testing.assert_close(half[:, :, i, j], block.mean(dim=(2, 3)))
    large = enlarge_to(half, x)
    assert large.shape == x.shape
    for i, j in itertools.product(range(H), range(W)):
        assert torch.equal(large[:, :, i, j], half[:, :, i // 2, j // 2])
