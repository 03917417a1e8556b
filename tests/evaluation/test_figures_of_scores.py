"""Figures of scores: drawn for one pair and for many, with units, without a warning, the same every time."""

import dataclasses
import io
import math
import warnings

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.patches import Rectangle
from PIL import Image

from pipeline.evaluation.figures import (
    FractionsSkill,
    Quantiles,
    RankHistogram,
    ReliabilityCurve,
    Skill,
    Spectra,
    TemporalSpectra,
    field_style,
    fractions_skill,
    parameters_over_pairs,
    quantile_quantile,
    rank_histograms,
    reliability,
    skill_intervals,
    skill_map,
    spectra,
    temporal_spectra,
    to_png,
)
from pipeline.factors import Conservation, FactorPair, ScaleParameters, Scope
from pipeline.prior import paper_prior

PAIRS = [FactorPair(s, t) for s in (1, 2, 4, 8, 10, 25) for t in (1, 2, 3, 4, 6) if s * t > 1]
ONE = FactorPair(4, 2)
FIELDS = ("truth", "ensemble", "mean", "bicubic", "quantile_mapping", "another_field")


def rendered(figure):
    """Render a figure; every warning is an error, and so is an empty picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = to_png(figure)
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    assert (pixels < 250).mean() > 0.002
    return png


def words(figure):
    """Everything that is written on a figure."""
    found = [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]
    return "\n".join(text for text in found if text)


def labels(figure, which):
    return {getattr(axes, f"get_{which}label")() for axes in figure.axes} - {""}


def make_spectra(pair=ONE, *, power=1.0, fields=FIELDS):
    k = np.arange(1, 25)
    return Spectra(pair, {name: power * k ** -(2.0 + i / 2) for i, name in enumerate(fields)}, 48, 2.0, "km")


def make_in_time(pair=ONE, power=1.0):
    count = pair.time // 2
    return TemporalSpectra(pair, {name: power * np.full(count, 0.5**i) for i, name in enumerate(FIELDS)}, 5.0)


def make_curve(threshold=1.0, pixels=1000):
    p = np.linspace(0, 1, 9)
    return ReliabilityCurve(threshold, p, p**1.3, (pixels * 0.5 ** np.arange(9)).astype(int))


def make_quantiles(pair=ONE, scale=1.0):
    levels = np.array([0.5, 0.9, 0.99, 0.999])
    values = {name: scale * np.array([0.0, 1.0, 5.0, 12.0]) * 0.9**i for i, name in enumerate(FIELDS)}
    return Quantiles(pair, levels, values)


def make_fss(thresholds=(0.1, 5.0)):
    scores = {name: np.array([[0.2, 0.5, 0.9]] * len(thresholds)) for name in FIELDS[1:]}
    return FractionsSkill(thresholds, (1, 5, 17), scores, np.full(len(thresholds), 0.1))


FIGURES = {
    "spectra": lambda: spectra([make_spectra()], "mm/h"),
    "in_time": lambda: temporal_spectra([make_in_time()]),
    "reliability": lambda: reliability([make_curve(), make_curve(5.0)], "A title", "mm/h"),
    "ranks": lambda: rank_histograms([RankHistogram(ONE, np.arange(1, 10))]),
    "quantiles": lambda: quantile_quantile([make_quantiles()], "mm/h"),
    "fss": lambda: fractions_skill(make_fss(), "A title", "mm/h"),
    "map": lambda: skill_map({ONE: 0.4}, "bicubic"),
    "intervals": lambda: skill_intervals({ONE: {"bicubic": Skill(0.4, 0.3, 0.5)}}),
    "parameters": lambda: parameters_over_pairs({ONE: paper_prior(ONE)}),
}
DRAWN_TWICE = ("spectra", "map", "intervals")  # all go through the same renderer
AXES = {
    "spectra": ("wavelength, km", "power per ring, (mm/h)²"),
    "in_time": ("period, min", "power, truth = 1"),
    "reliability": ("forecast probability", "observed frequency"),
    "ranks": ("members below the truth", "frequency, flat = 1"),
    "quantiles": ("truth, mm/h", "field - truth,\n% of truth"),
    "fss": ("side of the neighbourhood, pixels", "fractions skill score"),
    "map": ("space factor s", "time factor tau"),
    "intervals": ("skill, % (100: perfect, 0: no better than the reference)", None),
    "parameters": ("space factor s", "L, coarse frames"),
}


@pytest.mark.parametrize("name", FIGURES)
def test_one_pair_has_named_axes_and_the_same_bytes_every_time(name):
    figure = FIGURES[name]()
    x, y = AXES[name]
    assert x in labels(figure, "x")
    assert y is None or y in labels(figure, "y")
    first = rendered(figure)
    assert name not in DRAWN_TWICE or first == to_png(FIGURES[name]())


@pytest.mark.parametrize(
    "draw",
    [
        lambda: spectra([], "mm/h"),
        lambda: spectra([make_spectra(power=0.0)], "mm/h"),  # all dry
        lambda: spectra([make_spectra(fields=("ensemble",))], "mm/h"),
        lambda: spectra([Spectra(ONE, {"truth": np.zeros(24), "mean": np.ones(24)}, 48)], "mm/h"),
        lambda: temporal_spectra([]),
        lambda: temporal_spectra([make_in_time(power=0.0)]),  # all dry
        lambda: temporal_spectra([TemporalSpectra(ONE, {"truth": np.ones(1), "mean": np.zeros(1)}, 5.0)]),
        lambda: reliability([], "A title", "mm/h"),
        lambda: reliability([make_curve(pixels=0)], "A title", "mm/h"),
        lambda: reliability([ReliabilityCurve(1.0, np.zeros(2), np.zeros(2), np.array([9, 0]))], "", "mm/h"),
        lambda: rank_histograms([]),
        lambda: rank_histograms([RankHistogram(ONE, np.zeros(9)), RankHistogram(ONE, np.array([7.0, 0.0]))]),
        lambda: quantile_quantile([], "mm/h"),
        lambda: quantile_quantile([make_quantiles(scale=0.0)], "mm/h"),
        lambda: fractions_skill(FractionsSkill((), (1, 3), {}), "A title", "mm/h"),
        lambda: fractions_skill(
            FractionsSkill((9.0,), (1, 3), {"mean": np.full((1, 2), np.nan)}), "A title", "mm/h"
        ),
        lambda: skill_map({}, "bicubic"),
        lambda: skill_map({ONE: math.nan, FactorPair(1, 3): -math.inf}, "bicubic"),
        lambda: skill_intervals({}),
        lambda: skill_intervals({ONE: {"bicubic": Skill(math.nan)}, PAIRS[0]: {"mean": Skill(-math.inf)}}),
        lambda: skill_intervals({ONE: {"bicubic": Skill(-7.0, -9.0, -5.0), "nearest": Skill(0.1)}}),
        lambda: parameters_over_pairs({}),
    ],
)  # fmt: skip
def test_edge_cases_are_drawn(draw):
    rendered(draw())


def test_thirty_pairs():
    assert len(PAIRS) == 29
    skill = {pair: 0.01 * i for i, pair in enumerate(PAIRS)}
    rendered(skill_map(skill, "bicubic"))
    rendered(skill_intervals({pair: {"bicubic": Skill(v, v - 0.1, v + 0.1)} for pair, v in skill.items()}))


def test_a_spectrum_stands_at_its_wavelengths_with_small_scales_on_the_right():
    figure = spectra([make_spectra()], "mm/h")
    axes = figure.axes[0]
    assert axes.get_xlim()[0] > axes.get_xlim()[1]
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    lines = {line.get_label(): line for line in axes.lines}
    np.testing.assert_allclose(lines["Truth"].get_xdata(), 48 * 2.0 / np.arange(1, 25))
    assert set(lines) >= {"Truth", "Ensemble", "Conditional mean", "Bicubic", "another field"}
    upright = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert upright == [16.0]  # 2 x 4 x 2 km
    assert "two coarse cells" in words(figure)


def test_powers_are_written_plainly_and_far_from_one_as_powers_of_ten():
    figure = spectra([make_spectra(power=1e-3)], "mm/h")
    figure.canvas.draw()
    shown = {label.get_text() for label in figure.axes[0].get_yticklabels()}
    assert "$10^{-6}$" in shown
    assert not any("e-" in text for text in shown)


def test_a_reliability_diagram_keeps_bins_of_few_pixels_apart():
    curve = make_curve(pixels=800)  # 800, 400, 200, 100, 50, ...
    figure = reliability([curve], "A title", "mm/h")
    upper, lower = figure.axes
    assert "above 1 mm/h" in words(figure)
    marked = [line for line in upper.lines if line.get_marker() == "o"]
    assert sorted(len(line.get_xdata()) for line in marked) == [4, 5]
    assert len([patch for patch in lower.patches if isinstance(patch, Rectangle)]) == 9
    assert curve.base_rate == pytest.approx((curve.observed * curve.count).sum() / curve.count.sum())
    # On the diagonal a bin adds skill: the shaded parts hold it, and not the horizontal of the base rate.
    shaded = [part.get_paths()[0] for part in upper.collections if isinstance(part, PolyCollection)]
    base = curve.base_rate
    for p in (0.5 * base, (1 + base) / 2):
        assert any(path.contains_point((p, p)) for path in shaded)
        assert not any(path.contains_point((p, base)) for path in shaded)


def test_rank_histograms_of_all_pairs_share_an_axis_and_a_flat_one_is_1():
    flat, steep = RankHistogram(ONE, np.full(9, 20.0)), RankHistogram(PAIRS[0], np.arange(9.0))
    figure = rank_histograms([flat, steep])
    heights = [[bar.get_height() for bar in axes.patches] for axes in figure.axes]
    assert heights[0] == pytest.approx([1.0] * 9)
    assert np.mean(heights[1]) == pytest.approx(1.0)
    assert figure.axes[0].get_ylim() == figure.axes[1].get_ylim()


def test_quantiles_have_equal_axes_that_start_where_it_is_dry():
    figure = quantile_quantile([make_quantiles()], "mm/h", dry_below=0.2)
    axes = figure.axes[0]
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_xlim()[0] == 0.2
    assert "mm/h" in axes.get_xlabel()
    line = next(line for line in axes.lines if line.get_label() == "Ensemble")
    np.testing.assert_allclose(line.get_xdata(), [1.0, 5.0, 12.0])  # the median is dry
    assert {"90 %", "99.9 %"} <= set(words(figure).splitlines())


def test_below_stands_by_how_much_the_high_quantiles_are_off():
    one = make_quantiles()
    _, lower = quantile_quantile([one], "mm/h").axes
    lines = {line.get_label(): line for line in lower.lines}
    np.testing.assert_allclose(lines["Ensemble"].get_xdata(), [1.0, 2.0, 3.0])  # 90, 99 and 99.9 %
    np.testing.assert_allclose(lines["Ensemble"].get_ydata(), [-10.0] * 3)
    np.testing.assert_allclose(lines["Conditional mean"].get_ydata(), [-19.0] * 3)
    shown = [label.get_text() for label in lower.get_xticklabels()]
    assert dict(zip(lower.get_xticks().round(9), shown, strict=True))[2.0] == "99"
    low, high = lower.get_ylim()
    assert low < 100 * (0.9**5 - 1) < 0 < high
    weak = dataclasses.replace(one, values={**one.values, "truth": np.array([0.3, 0.0, 0.0, 0.0])})
    assert "dry at 90 % and above" in words(quantile_quantile([weak], "mm/h"))


def test_names_of_levels_that_are_close_do_not_touch():
    one = make_quantiles()
    near = {name: np.array([0.0, 1.0, 11.9, 12.0]) for name in one.values}
    shown = set(words(quantile_quantile([dataclasses.replace(one, values=near)], "mm/h")).splitlines())
    assert {"90 %", "99.9 %"} <= shown
    assert "99 %" not in shown


def test_the_map_has_a_number_or_hatching_in_every_cell():
    skill = {FactorPair(4, 1): 0.484, FactorPair(4, 2): -0.02, FactorPair(1, 3): math.nan}
    figure = skill_map(skill, "bicubic", expected=[FactorPair(8, 2)])
    axes = figure.axes[0]
    cells = {
        (round(cell.get_x() + 0.48), round(cell.get_y() + 0.47)): cell.get_hatch() is not None
        for cell in axes.patches
    }
    assert len(cells) == 9  # space 1, 4, 8 and time 1, 2, 3
    assert sorted(place for place, hatched in cells.items() if not hatched) == [(1, 0), (1, 1)]
    numbers = {tuple(map(round, text.get_position())): text.get_text() for text in axes.texts}
    assert numbers == {(1, 0): "48.4", (1, 1): "-2.0"}
    assert "no score" in words(figure)
    for cell in axes.patches:  # all of every cell is on the axes
        assert axes.get_xlim()[0] <= cell.get_x() < cell.get_x() + cell.get_width() <= axes.get_xlim()[1]
    assert "no score" not in words(skill_map({ONE: 0.1}, "bicubic"))


def test_intervals_stand_where_they_are():
    figure = skill_intervals({ONE: {"bicubic": Skill(0.4, 0.3, 0.5), "nearest": Skill(0.5)}})
    axes = figure.axes[0]
    bars = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert any(bar == pytest.approx((30, 50)) for bar in bars)
    assert {"Bicubic", "Nearest", "4x2"} <= set(words(figure).splitlines())
    assert "below -100 %" not in words(figure)


def test_a_skill_below_the_axis_is_an_arrow_at_its_end():
    figure = skill_intervals({ONE: {"bicubic": Skill(-7.0, -9.0, -5.0), "nearest": Skill(0.1)}})
    axes = figure.axes[0]
    arrow = next(line for line in axes.lines if line.get_marker() == "<")
    assert arrow.get_xdata() == [-100]
    assert -110 < axes.get_xlim()[0] < -100
    assert "below -100 %" in words(figure)


def test_scopes_of_f_differ_in_their_marks():
    parameters = {
        FactorPair(space, 1): ScaleParameters(beta=0.01, context=3, conservation=Conservation(scope=scope))
        for space, scope in ((2, Scope.CELL), (4, Scope.TILE), (8, Scope.NONE))
    }
    figure = parameters_over_pairs(parameters)
    points = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert [line.get_marker() for line in points] == ["o", "o", "x"]
    assert points[0].get_markerfacecolor() != points[1].get_markerfacecolor() == "white"
    assert {"kept per cell", "kept per tile", "nothing kept"} <= set(words(figure).splitlines())


def test_every_known_field_looks_different():
    names = ("truth", "ensemble", "mean", "nearest", "bicubic", "bicubic_conserved", "bicubic_time_conserved",
             "quantile_mapping")  # fmt: skip
    assert len({field_style(name).colour for name in names}) == len(names)
    assert field_style("my_field").title == "my field"
