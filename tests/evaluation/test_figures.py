"""Figures: that they are drawn for every kind of pair, with what a reader needs on them."""

import struct
import sys

import pytest
import torch
from matplotlib.figure import Figure

from pipeline.data.coarsen import block_mean
from pipeline.evaluation.baselines import bicubic
from pipeline.evaluation.figures import panel, to_png
from pipeline.factors import FactorPair


def draw(pair, *, members=4, wet=1.0, valid=True):
    side = 4 * pair.space if pair.space > 1 else 8
    generator = torch.Generator().manual_seed(0)
    fields = wet * torch.randn(members + 1, pair.time, side, side, generator=generator).exp()
    mask = torch.ones(pair.time, side, side, dtype=torch.bool)
    mask[:, : side // 4, : side // 4] = False
    mask &= valid
    truth = torch.where(mask, fields[0], torch.nan)
    coarse, known = block_mean(truth, mask, pair)
    smooth = bicubic(coarse.unsqueeze(0), pair, known.unsqueeze(0))[0]
    return panel(coarse[0], truth, smooth, fields[1:].mean(0), fields[1:], mask, "mm/h", "A window")


@pytest.mark.parametrize(("pair", "rows"), [("4x1", 1), ("1x3", 3), ("2x2", 2), ("4x6", 3)])
def test_panel_has_a_column_per_field_and_at_most_three_rows(pair, rows):
    figure = draw(FactorPair.parse(pair))
    assert isinstance(figure, Figure)
    images = [axes for axes in figure.axes if axes.images]
    assert len(images) == 1 + 7 * rows  # LR stands once
    titles = [axes.get_title() for axes in images if axes.get_title()]
    assert titles[1:] == [
        "Truth", "Bicubic", "Conditional mean", "Member 1", "Member 2", "Member 3", "Spread of 4",
    ]  # fmt: skip
    assert len({axes.images[0].norm for axes in images}) == 1
    assert "mm/h" in {axes.get_ylabel() for axes in figure.axes}
    assert to_png(figure).startswith(b"\x89PNG")


def test_missing_pixels_are_masked_and_dry_ones_are_not():
    figure = draw(FactorPair(4, 1), wet=0.0)
    truth = next(axes for axes in figure.axes if axes.get_title() == "Truth").images[0]
    shown = truth.get_array()
    assert shown.mask[:4, :4].all()
    assert not shown.mask[4:].any()
    missing, dry = truth.to_rgba(shown)[0, 0], truth.to_rgba(shown)[-1, -1]
    assert tuple(dry[:3]) == (1, 1, 1)
    assert missing[0] == missing[1] == missing[2] < 0.9


def test_panel_of_nothing_valid_and_of_one_member():
    assert to_png(draw(FactorPair(4, 1), valid=False))
    one = draw(FactorPair(4, 1), members=1)
    titles = [axes.get_title() for axes in one.axes if axes.get_title()]
    assert titles[-1] == "Member 1"  # one alone has no spread
    assert to_png(one)


def test_png_size_and_no_global_state():
    png = to_png(draw(FactorPair(4, 2)))
    width, height = struct.unpack(">II", png[16:24])
    assert width > 800
    assert height > 200
    if "matplotlib.pyplot" in sys.modules:  # another test's doing
        assert not sys.modules["matplotlib.pyplot"].get_fignums()
