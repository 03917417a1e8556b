"""Figures of a sweep: drawn for every size of sweep without a warning, with the right things in place."""

import dataclasses
import math
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from pipeline.drawing import ceiling_of, log_ticks
from pipeline.evaluation.figures import to_png
from pipeline.factors import Conservation, FactorPair, ScaleParameters, Scope
from pipeline.prior import paper_prior
from pipeline.tuning.figures import (
    LawPanel,
    Reference,
    RetuningRow,
    TrialPoint,
    beta_slice,
    history,
    importance,
    laws,
    parallel_coordinates,
    pareto,
    pareto_front,
    retuning,
)

FACTORS = (
    (4, 1),
    (1, 3),
    (4, 2),
    (8, 1),
    (8, 2),
    (10, 1),
    (10, 3),
    (16, 4),
    (25, 6),
    (2, 6),
    (2, 2),
    (32, 1),
)
PAIRS = [FactorPair(space, time) for space, time in FACTORS]
IDENTITY = Conservation(scope=Scope.CELL)


def point(number, crps, state="complete", *, beta=0.01, context=4, f=IDENTITY, rungs=None, spectral=None):
    parameters = ScaleParameters(beta=beta, context=context, conservation=f)
    return TrialPoint(number, parameters, crps, state, rungs or {}, spectral)


def sweep(pairs, trials, seed=0):
    """Trials with everything that occurs: pruned and failed ones, tapers, an outlier."""
    rng, made = np.random.default_rng(seed), {}
    for pair in PAIRS[:pairs]:
        made[pair] = []
        for n in range(trials):
            f = IDENTITY if rng.random() < 0.6 else Conservation(power=rng.uniform(0.4, 1), threshold=0.01)
            score = 0.05 * (1 + rng.exponential(0.1) + 2 * (1 - f.power)) * (100 if n == 7 else 1)
            state = "complete" if n < 3 else rng.choice(["complete", "pruned", "failed"], p=[0.6, 0.3, 0.1])
            made[pair].append(
                point(
                    n,
                    score if state == "complete" else None,
                    str(state),
                    beta=0.01 * math.exp(rng.normal()),
                    context=int(rng.integers(1, 17)),
                    f=f,
                    rungs={} if state == "failed" else {100: 2 * score, 200: 1.4 * score},
                    spectral=rng.uniform(1, 5) if state == "complete" else None,
                )
            )
    return made


def rows(count, bicubic=0.1):
    references = {
        "paper's prior": Reference(0.125, 0.075, 0.07, 0.08),
        "predicted": Reference(0.0505, 0.0005, -0.0002, 0.0012),
        "one fixed setting": Reference(0.0515, 0.0015, math.nan, math.nan),
    }
    return [RetuningRow(pair, bicubic, 0.05, references, paper_prior(pair)) for pair in PAIRS[:count]]


def law_panels(pairs, statement="beta grows with the space factor. " * 6):
    def law(pair):
        value = 0.01 * pair.space**0.3 * pair.time**0.2
        return value, value / 1.5, value * 1.5

    points = {pair: (law(pair)[0] * 1.1, law(pair)[1], law(pair)[2]) for pair in pairs}
    beta = LawPanel("Beta", "beta", True, points, law, lambda pair: paper_prior(pair).beta, statement)
    context = LawPanel(
        "Context", "L", False, points, law, lambda pair: float(paper_prior(pair).context), statement
    )
    return [beta, context, dataclasses.replace(beta, title="Another")]


TRIAL_FIGURES = {
    "history": lambda trials: history(trials, "mm/h"),
    "beta_slice": lambda trials: beta_slice(trials, "mm/h"),
    "parallel_coordinates": parallel_coordinates,
    "pareto": lambda trials: pareto(trials, "mm/h"),
}
EDGE_CASES = {
    "no pair": {},
    "a pair without trials": {PAIRS[0]: []},
    "all failed": {PAIRS[0]: [point(0, None, "failed"), point(1, None, "failed")]},
    "all pruned": {PAIRS[0]: [point(0, None, "pruned", rungs={10: 0.3}), point(1, None, "pruned")]},
    "one trial": {PAIRS[0]: [point(0, 0.1, spectral=1.0)]},
    "equal trials": {PAIRS[0]: [point(n, 0.1, spectral=1.0) for n in range(5)]},
    "scores of zero": {PAIRS[0]: [point(n, 0.0, spectral=0.0) for n in range(3)]},
    "a negative score": {PAIRS[0]: [point(0, -0.01, spectral=1.0), point(1, 0.5, spectral=2.0)]},
    "not finite": {PAIRS[0]: [point(0, math.nan), point(1, math.inf, spectral=1.0), point(2, 0.1)]},
    "many decades": {PAIRS[0]: [point(n, 10.0**n, spectral=float(n)) for n in range(-5, 6)]},
}


def rendered(figure):
    """Render a figure; every warning is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert isinstance(figure, Figure)
        assert to_png(figure).startswith(b"\x89PNG")
    return figure


class Recorder(RendererAgg):
    """Keeps the box of every line of text that is drawn; matplotlib holds others, as ticks out of view."""

    def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
        across, up, below = self.get_text_width_height_descent(s, prop, ismath)
        foot = self.height - y  # of the baseline
        box = (x, foot - below, x + across, foot - below + up)
        if angle == 90:
            box = (x + below - up, foot, x + below, foot + across)
        self.drawn.append((s, Bbox.from_extents(*box)))
        super().draw_text(gc, x, y, s, prop, angle, ismath, mtext)


def texts_of(figure):
    """Give every drawn line of text with its box in pixels."""
    renderer = Recorder(*(figure.get_size_inches() * figure.dpi), figure.dpi)
    renderer.drawn = []
    figure.draw(renderer)
    return renderer.drawn


def assert_legible(figure):
    """No two texts overlap by more than a pixel's rounding, and none leaves the figure."""
    width, height = figure.get_size_inches() * figure.dpi
    texts = texts_of(figure)
    for i, (text, box) in enumerate(texts):
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y1 <= height + 1, text
        for other, against in texts[i + 1 :]:
            across = min(box.x1, against.x1) - max(box.x0, against.x0)
            up = min(box.y1, against.y1) - max(box.y0, against.y0)
            assert across <= 1.5 or up <= 1.5, f"{text!r} overlaps {other!r}"


@pytest.mark.parametrize(("x", "passes"), [(0.3, True), (0.12, False), (0.9, False)])
def test_the_check_of_legibility_can_fail(x, passes):
    figure = Figure(figsize=(4, 2), dpi=100)
    figure.text(0.1, 0.5, "one")
    figure.text(x, 0.5, "another text")
    if passes:
        assert len(texts_of(figure)) == 2
        assert_legible(figure)
    else:
        with pytest.raises(AssertionError):
            assert_legible(figure)


def said(axes):
    return axes.get_title(loc="left")


def line(axes, label):
    return next(line for line in axes.lines if line.get_label() == label)


@pytest.mark.parametrize("name", TRIAL_FIGURES)
@pytest.mark.parametrize(("pairs", "trials"), [(1, 1), (1, 2), (2, 12), (5, 30), (12, 200)])
def test_trials_are_legible_in_every_number(name, pairs, trials):
    figure = rendered(TRIAL_FIGURES[name](sweep(pairs, trials)))
    assert_legible(figure)
    assert figure.get_size_inches()[0] * figure.dpi <= 1450
    if name != "parallel_coordinates":
        assert [said(axes).split()[0] for axes in figure.axes[:pairs]] == [str(p) for p in PAIRS[:pairs]]


@pytest.mark.parametrize("name", TRIAL_FIGURES)
@pytest.mark.parametrize("case", EDGE_CASES)
def test_edge_cases(name, case):
    assert_legible(rendered(TRIAL_FIGURES[name](EDGE_CASES[case])))


def test_history_follows_the_best_and_keeps_outliers_on_the_axis():
    trials = [
        point(0, 0.3),
        point(1, 0.1),
        point(2, None, "pruned", rungs={10: 0.9, 20: 0.2}),
        point(3, 30.0),
    ]
    trials += [point(4, 0.09), point(5, None, "failed"), point(6, 0.12)]
    figure = rendered(history({PAIRS[0]: trials}, "mm/h"))
    (axes,) = figure.axes
    best = line(axes, "best so far")
    np.testing.assert_allclose(best.get_xdata(), [0, 1, 3, 4, 6, 6])
    np.testing.assert_allclose(best.get_ydata(), [0.3, 0.1, 0.1, 0.09, 0.09, 0.09])
    assert best.get_drawstyle() == "steps-post"
    assert "best 0.09 (trial 4)" in said(axes)
    stopped, complete = (c for c in axes.collections if isinstance(c, PathCollection))
    np.testing.assert_allclose(stopped.get_offsets(), [[2, 0.2]])  # at its last rung, hollow
    assert tuple(stopped.get_facecolor()[0][:3]) == (1, 1, 1)
    highest = complete.get_offsets()[:, 1].max()
    assert 0.3 < highest < axes.get_ylim()[1] < 30.0
    assert "1 above the axis, up to 30" in {text.get_text() for text in axes.texts}
    assert [a.xy for a in axes.texts if isinstance(a, Annotation)] == [(3, pytest.approx(highest))]
    assert axes.get_ylabel() == "CRPS, mm/h"
    assert axes.get_xlabel() == "trial"


def test_a_prior_three_times_worse_is_no_outlier():
    scores = [0.15, *np.linspace(0.05, 0.055, 30)]
    assert ceiling_of(scores) >= 0.15
    assert ceiling_of([*scores, 50.0]) < 1.0


def test_beta_slice_marks_the_best_and_the_near_best():
    taper = Conservation(power=0.5, threshold=0.01)
    betas, scores = [0.002, 0.008, 0.02, 0.05], [0.12, 0.1015, 0.1, 0.11]
    trials = [point(i, s, beta=b, context=i + 1) for i, (b, s) in enumerate(zip(betas, scores, strict=True))]
    trials.append(point(9, 0.2, beta=0.01, context=4, f=taper))
    axes, bar = rendered(beta_slice({PAIRS[0]: trials}, "mm/h")).axes
    assert axes.get_xscale() == "log"
    best = line(axes, "best")
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (0.02, 0.1)
    assert list(line(axes, "near-best").get_xdata()) == [0.008, 0.02]  # 1.5 % above the best; 10 % is not
    assert said(axes).endswith("near-best 0.008 to 0.02")
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.y0, band.y1) == (pytest.approx(0.1), pytest.approx(0.102))
    marks = {one.get_xdata()[0]: one for one in axes.lines if one.get_label().startswith("_")}
    assert marks[0.01].get_marker() == "^"
    assert marks[0.008].get_marker() == "o"
    assert marks[0.01].get_markerfacecolor() == "none"  # the total of the tile only
    assert tuple(marks[0.01].get_markeredgecolor()) == tuple(marks[0.05].get_markeredgecolor())  # both L = 4
    assert tuple(marks[0.002].get_markeredgecolor()) != tuple(marks[0.05].get_markeredgecolor())
    assert [label.get_text() for label in bar.get_yticklabels()] == ["1", "2", "3", "4"]


def test_parallel_coordinates_draw_the_best_last_and_leave_out_what_has_no_score():
    trials = {
        PAIRS[0]: [point(0, 0.1, beta=0.01), point(1, 0.2, beta=0.02), point(2, None, "pruned")],
        PAIRS[1]: [point(0, 5.0, beta=0.04, context=8), point(1, None, "failed")],
    }
    (axes,) = rendered(parallel_coordinates(trials)).axes
    (lines,) = (c for c in axes.collections if isinstance(c, LineCollection))
    segments = np.array([path.vertices for path in lines.get_paths()])
    assert segments.shape == (3, 7, 2)  # pair, beta, L, p, theta, scope, CRPS
    assert segments[0, -1, 1] == pytest.approx(math.log1p(100) / math.log1p(300))  # 100 % above 0.1
    assert (segments[1:, -1, 1] == 0).all()  # each pair against its own best
    np.testing.assert_allclose(sorted(segments[:, 1, 1]), [0, 0.5, 1])  # beta on a log axis
    labels = {text.get_text() for text in axes.texts}
    assert {"pair", "beta", "L", "p", "theta", "scope", "4x1", "1x3", "cell"} <= labels
    one_pair = rendered(parallel_coordinates({PAIRS[0]: trials[PAIRS[0]]})).axes[0]
    assert "pair" not in {text.get_text() for text in one_pair.texts}


@pytest.mark.parametrize("pairs", [1, 3, 12])
def test_importance_orders_parameters_and_shows_what_is_missing(pairs):
    shares = {"context": 0.1, "scope": 0.6, "beta": 0.3, "threshold": math.nan}
    figure = rendered(importance(dict.fromkeys(PAIRS[:pairs], shares)))
    assert_legible(figure)
    assert len(figure.axes) == pairs
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["scope", "beta", "L", "theta"]
    assert [t.get_text() for t in figure.axes[-1].texts] == ["0.60", "0.30", "0.10", "-"]
    widths = [patch.get_width() for patch in figure.axes[-1].patches]
    assert widths == [1, 1, 1, 1, 0.6, 0.3, 0.1, 0]


@pytest.mark.parametrize("importances", [{}, {PAIRS[0]: {}}])
def test_importance_of_nothing(importances):
    assert_legible(rendered(importance(importances)))


@pytest.mark.parametrize("tuned", [1, 2, 10])
def test_laws_are_legible_and_show_points_lines_and_predictions(tuned):
    pairs = PAIRS[: tuned + 2]
    figure = rendered(laws(law_panels(PAIRS[:tuned]), pairs))
    assert_legible(figure)
    times = {pair.time for pair in pairs}
    for axes in figure.axes:
        assert sum(one.get_linestyle() == ":" for one in axes.lines) == len(times)
        assert sum(one.get_label() == "tuned" for one in axes.lines) == tuned
        open_marks = [x for one in axes.lines if one.get_label() == "predicted" for x in one.get_xdata()]
        assert sorted(open_marks) == sorted(pair.space for pair in pairs[tuned:])
        assert any("beta grows" in text.get_text().replace("\n", " ") for text in axes.texts)
        assert axes.get_xscale() == "log"
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear", "log"]


def test_laws_place_bars_and_lines_where_the_numbers_are():
    pair = FactorPair(4, 1)
    panel = LawPanel(
        "T", "y", False, {pair: (2.0, 1.0, 3.0)}, lambda p: (p.space, 0.0, 9.0), lambda p: 7.0, "A law."
    )
    axes = rendered(laws([panel], [pair])).axes[0]
    bar = next(one for one in axes.lines if list(one.get_ydata()) == [1.0, 3.0])
    assert bar.get_xdata()[0] == pytest.approx(4)
    law = next(one for one in axes.lines if one.get_linestyle() == "-" and len(one.get_xdata()) > 2)
    np.testing.assert_allclose(law.get_xdata(), law.get_ydata())
    prior = next(one for one in axes.lines if one.get_linestyle() == ":")
    assert set(prior.get_ydata()) == {7.0}
    without_range = dataclasses.replace(panel, points={pair: (2.0, math.nan, math.nan)})
    assert_legible(rendered(laws([without_range], [pair])))
    assert_legible(rendered(laws([dataclasses.replace(panel, points={})], [])))
    assert_legible(rendered(laws([], [])))


def test_laws_with_more_time_factors_than_colours():
    pairs = [FactorPair(2 + time % 3, time) for time in range(1, 12)]
    assert_legible(rendered(laws(law_panels(pairs), pairs)))


@pytest.mark.parametrize("count", [0, 1, 3, 12])
def test_retuning_is_legible(count):
    figure = rendered(retuning(rows(count), "mm/h"))
    assert_legible(figure)
    left, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == [str(pair) for pair in PAIRS[:count]]
    assert "mm/h" in left.get_xlabel()
    assert "%" in right.get_xlabel()


def test_retuning_keeps_small_differences_readable_beside_the_prior():
    left, right = rendered(retuning(rows(1), "mm/h")).axes
    assert right.get_xlim()[1] < 10  # not stretched to the prior's +150 %
    assert "+150 %" in {text.get_text() for text in right.texts}
    assert line(right, "outside").get_marker() == ">"
    drawn = [list(one.get_xdata()) for one in right.lines]
    assert [pytest.approx(1.0)] in drawn  # predicted: +1 %
    assert [pytest.approx(3.0)] in drawn
    assert [pytest.approx(-0.4), pytest.approx(2.4)] in drawn  # its interval
    assert sum(len(x) == 2 and x[0] != x[1] for x in drawn) == 1  # no interval is known for the others
    assert line(left, "tuned").get_xdata()[0] == 0.05
    assert {"beta", "L", "f"} <= {text.get_text() for text in right.texts}
    assert f"{paper_prior(PAIRS[0]).beta:.3g}" in {text.get_text() for text in right.texts}


def test_retuning_leaves_out_what_is_unknown():
    pair, parameters = PAIRS[0], paper_prior(PAIRS[0])
    nan = Reference(math.nan, math.nan, math.nan, math.nan)
    sparse = [
        RetuningRow(pair, None, 0.05, {}, parameters),
        RetuningRow(PAIRS[1], math.nan, math.nan, {"predicted": nan}, parameters),
        RetuningRow(PAIRS[2], 0.1, 0.0, {"predicted": Reference(0.1, 0.1, 0.0, 0.2)}, parameters),
    ]
    assert_legible(rendered(retuning(sparse, "mm/h")))
    far = {"paper's prior": Reference(0.2, 0.15, 0.1, 0.2), "my own": Reference(0.1, 0.05, -0.2, 0.2)}
    figure = rendered(retuning([RetuningRow(pair, 0.1, 0.05, far, parameters)], "mm/h"))
    assert_legible(figure)
    assert figure.axes[1].get_xlim()[1] > 300  # nothing is small, so nothing is cut off
    assert "my own" in {text.get_text() for text in figure.legends[0].texts}


def test_retuning_cuts_a_wide_interval_with_an_arrow():
    references = {"predicted": Reference(0.051, 0.001, -0.001, 0.03)}  # +2 %, -2 to +60 %
    row = RetuningRow(PAIRS[0], 0.1, 0.05, references, paper_prior(PAIRS[0]))
    right = rendered(retuning([row], "mm/h")).axes[1]
    assert right.get_xlim()[1] < 60
    assert ">" in {one.get_marker() for one in right.lines}
    assert not any("%" in text.get_text() for text in right.texts)  # the value itself is on the axis


def test_pareto_joins_the_set_and_rings_the_lowest_crps():
    scores = [(1.0, 0.3), (2.0, 0.1), (1.5, 0.2), (3.0, 0.4), (1.6, 0.25)]
    trials = [point(i, crps, spectral=db) for i, (db, crps) in enumerate(scores)]
    trials.append(point(9, 0.05))  # without a spectrum
    (axes,) = rendered(pareto({PAIRS[0]: trials}, "mm/h")).axes
    joined = line(axes, "Pareto set")
    assert list(joined.get_xdata()) == [1.0, 1.5, 2.0]
    assert list(joined.get_ydata()) == [0.3, 0.2, 0.1]
    assert (line(axes, "best").get_xdata()[0], line(axes, "best").get_ydata()[0]) == (2.0, 0.1)
    assert "dB" in axes.get_xlabel()
    assert "3 of 5" in said(axes)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12))
def test_pareto_front_is_what_nothing_dominates(points):
    def beaten(a):
        return any(b[0] <= a[0] and b[1] <= a[1] and b != a for b in points)

    assert sorted(pareto_front(points)) == [i for i, a in enumerate(points) if not beaten(a)]
    firsts = [points[i][0] for i in pareto_front(points)]
    assert firsts == sorted(firsts)


@given(st.floats(-12, 6), st.floats(1e-3, 15))
def test_log_ticks_are_few_and_inside(exponent, decades):
    low, high = 10.0**exponent, 10.0 ** (exponent + decades)
    ticks = log_ticks(low, high)
    assert ticks == sorted(set(ticks))
    assert all(low <= tick <= high for tick in ticks)
    assert 1 <= len(ticks) <= 6


def test_no_global_state():
    rendered(history(sweep(2, 5), "mm/h"))
    if "matplotlib.pyplot" in sys.modules:  # another test's doing
        assert not sys.modules["matplotlib.pyplot"].get_fignums()
