"""One page that shows a field store: rain and coverage over time, where it rains and how hard, what is gone.

Made without pyplot, as all figures here: nothing global stays behind, no display is needed.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from pipeline.drawing import (
    BLUE,
    GREEN,
    ORANGE,
    RED,
    SKY,
    heading,
    log_ticks,
    mark,
    nothing,
    panel_title,
)
from pipeline.store.checks.findings import Finding, Subject, UnreadableError, Verdict, runs
from pipeline.store.checks.scan import EDGES

_GAP, _NONE, _MISSING = "0.85", "0.25", "0.72"
_MOST_POINTS = 2000  # of a line: more than the page has pixels
_SELDOM = 0.05  # of the frames: a pixel with fewer valid values has no mean worth drawing
_DAYS_BY_HOUR = 62  # a longer period is laid out by day of the year


def store_figure(subject: Subject, findings: Sequence[Finding], title: str) -> Figure:
    """Draw the page.

    Parameters
    ----------
    subject : Subject
    findings : sequence of Finding
        Their frames are marked above the rain.
    title : str
    """
    legend = [
        mark("v", RED, "frame with a problem"),
        mark("o", ORANGE, "with a note", hollow=True),
        Patch(color=_GAP, label="gap"),
        Patch(color=SKY, label="availability: all frames"),
        Patch(color=ORANGE, label="some"),
        Patch(color=_NONE, label="none"),
    ]
    rows, columns, cells = _calendar(subject)
    strip = min(1.7, 0.18 + 0.13 * len(rows))
    figure = heading(11.0, 8.7 + strip, title, legend)
    # Two grids: the maps below share no columns with the lines above.
    grid = figure.add_gridspec(2, 1, height_ratios=[4.4 + strip, 4.3])
    above = grid[0].subgridspec(4, 1, height_ratios=[1.5, 1.2, 0.9, strip], hspace=0.02)
    below = grid[1].subgridspec(1, 3, width_ratios=[1, 1, 0.95])
    lines = [figure.add_subplot(above[0])]
    lines += [figure.add_subplot(above[i], sharex=lines[0]) for i in (1, 2)]
    _lines(subject, lines)
    _marks(subject, lines[0], findings)
    _strip(figure.add_subplot(above[3]), rows, columns, cells)
    _maps(subject, figure, [figure.add_subplot(below[i]) for i in (0, 1)])
    _histogram(subject, figure.add_subplot(below[2]))
    return figure


def to_png(figure: Figure) -> bytes:
    """Render a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _lines(subject: Subject, drawn: Sequence[Axes]) -> None:
    """Draw mean, maximum and coverage of every frame, or of groups of frames in a long store."""
    scan, units = subject.scan, subject.info.units
    times = subject.store.times
    group = -(-len(times) // _MOST_POINTS)
    of = f" of {group} frames" if group > 1 else ""
    some = scan.seen & (scan.field.valid > 0)
    coverage = np.where(scan.seen, 100 * scan.field.valid / scan.counted.size, np.nan)
    for axes, values, reduce, colour, label, name in (
        (drawn[0], np.where(some, scan.field.mean, np.nan), np.nanmean, BLUE, units, f"mean rain{of}"),
        (drawn[1], np.where(some, scan.field.most, np.nan), np.nanmax, GREEN, units, f"maximum{of}"),
        (
            drawn[2],
            coverage,
            np.nanmin,
            "0.2",
            "% of the grid",
            "valid pixels" + (f", fewest{of}" if of else ""),
        ),
    ):
        thin = _grouped(values, group, reduce)
        few: dict[str, Any] = {"marker": ".", "markersize": 3.5} if len(thin) < 150 else {}
        axes.plot(times[::group], thin, color=colour, linewidth=1.0, **few)
        top = float(np.nanmax(thin)) if np.isfinite(thin).any() else 0.0
        axes.set_ylim(0, 1.2 * top or 1.0)  # room for the marks
        axes.yaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        axes.set_ylabel(label, fontsize=9.5)
        axes.tick_params(labelsize=8.5, labelbottom=axes is drawn[2])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="0.93", linewidth=0.8)
        axes.set_axisbelow(True)
        panel_title(axes, name)
        _shade_gaps(subject, axes)
    step = np.timedelta64(max(1, int(subject.info.cadence_seconds)), "s")
    locator = AutoDateLocator(minticks=4, maxticks=9)
    drawn[0].set_xlim(times[0] - step, times[-1] + step)
    drawn[0].xaxis.set_major_locator(locator)
    drawn[0].xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _shade_gaps(subject: Subject, axes: Axes) -> None:
    days = date2num(subject.store.times)
    half = subject.info.cadence_seconds / 86400 / 2
    narrowest = (days[-1] - days[0]) / 600  # so that one frame in ten years is still seen
    bars = [
        (days[first] - half, max(days[first + count - 1] - days[first] + 2 * half, narrowest))
        for first, count in runs(~subject.scan.present)
    ]
    if bars:  # one artist: there can be thousands
        axes.broken_barh(
            bars, (0, 1), transform=axes.get_xaxis_transform(), color=_GAP, linewidth=0, zorder=0.5
        )


def _marks(subject: Subject, axes: Axes, findings: Sequence[Finding]) -> None:
    """Mark the frames that findings are about, along the top of the panel."""
    for verdict, marker, colour, height in (
        (Verdict.NOTE, "o", ORANGE, 0.93),
        (Verdict.PROBLEM, "v", RED, 0.94),
    ):
        frames = sorted({i for one in findings if one.verdict is verdict for i in one.frames})
        if frames:
            face = "white" if verdict is Verdict.NOTE else colour
            axes.plot(
                subject.store.times[frames], np.full(len(frames), height), marker, color=colour, markersize=5,
                markerfacecolor=face, transform=axes.get_xaxis_transform(), clip_on=False, zorder=4,
            )  # fmt: skip


def _grouped(values: np.ndarray, size: int, reduce: Any) -> np.ndarray:
    """Reduce every `size` neighbours of (T,) values to one, NaN where all are."""
    if size == 1:
        return values
    padded = np.concatenate([values, np.full(-len(values) % size, np.nan)]).reshape(-1, size)
    found = np.full(len(padded), np.nan)
    some = np.isfinite(padded).any(axis=1)
    found[some] = reduce(padded[some], axis=1)
    return found


def _calendar(subject: Subject) -> tuple[list[str], list[tuple[float, str]], np.ndarray]:
    """Lay the frames out on days by hour, or on years by day.

    Returns
    -------
    rows : list of str
        Their names.
    columns : list of (float, str)
        Ticks in cells, with their names.
    cells : np.ndarray
        (rows, columns) float: 0 all frames are there, 1 some, 2 none, NaN outside the period.
    """
    times = subject.store.times.astype("datetime64[s]")
    seconds = max(1.0, subject.info.cadence_seconds)
    days = times.astype("datetime64[D]")
    if int((days[-1] - days[0]).astype(int)) < _DAYS_BY_HOUR:
        across = int(np.clip(86400 // seconds, 1, 96))
        row = (days - days[0]).astype(int)
        column = ((times - days).astype(np.int64) * across) // 86400
        rows = [str(days[0] + i) for i in range(int(row[-1]) + 1)]
        columns = [(across * hour / 24 - 0.5, f"{hour} h") for hour in range(0, 25, 3)]
    else:
        years = times.astype("datetime64[Y]")
        across = 366
        row = (years - years[0]).astype(int)
        column = (days - years.astype("datetime64[D]")).astype(int)
        rows = [str(years[0] + i) for i in range(int(row[-1]) + 1)]
        months = np.arange("2000-01", "2001-01", dtype="datetime64[M]").astype("datetime64[D]")
        columns = [(float((m - months[0]).astype(int)), str(m)[5:7]) for m in months]
    place = row * across + column
    usable = subject.scan.seen & (subject.scan.field.valid > 0)
    expected = np.bincount(place, minlength=len(rows) * across)
    there = np.bincount(place, weights=usable, minlength=len(rows) * across)
    cells = np.select([expected == 0, there == expected, there > 0], [np.nan, 0.0, 1.0], 2.0)
    return rows, columns, cells.reshape(len(rows), across)


def _strip(axes: Axes, rows: Sequence[str], columns: Sequence[tuple[float, str]], cells: np.ndarray) -> None:
    colours = ListedColormap([SKY, ORANGE, _NONE]).with_extremes(bad="white")
    axes.imshow(
        np.ma.masked_invalid(cells), cmap=colours, vmin=0, vmax=2, aspect="auto", interpolation="nearest"
    )
    every = -(-len(rows) // 10)
    axes.set_yticks(range(0, len(rows), every), [rows[i] for i in range(0, len(rows), every)], fontsize=8)
    axes.set_xticks([at for at, _ in columns], [name for _, name in columns], fontsize=8)
    axes.tick_params(length=2)
    by_hour = columns[0][1].endswith("h")
    panel_title(axes, f"availability, {'hour of the day, UTC' if by_hour else 'month'}")


def _maps(subject: Subject, figure: Figure, drawn: Sequence[Axes]) -> None:
    """Draw where it rains and where values are missing, outside gaps."""
    scan = subject.scan
    frames = max(1, int(scan.seen.sum()))
    mean = np.ma.masked_where(scan.counted < _SELDOM * frames, scan.sums / np.maximum(scan.counted, 1))
    lost = 100 * (1 - scan.counted / frames)
    high = float(np.quantile(mean.compressed(), 0.995)) if mean.count() else 0.0
    extent, origin, (x_label, y_label) = _place(subject)
    for axes, values, cmap, top, label, name in (
        (drawn[0], mean, "viridis_r", high or 1.0, subject.info.units, "mean over time"),
        (drawn[1], lost, "cividis_r", 100.0, "% of the frames", "missing, outside gaps"),
    ):
        colours = colormaps[cmap].with_extremes(bad=_MISSING)
        image = axes.imshow(
            values, cmap=colours, vmin=0, vmax=top, extent=extent, origin=origin, interpolation="nearest"
        )
        extend = "max" if top < float(np.ma.max(values, fill_value=0) or 0) else "neither"
        bar = figure.colorbar(
            image, ax=axes, location="bottom", shrink=0.9, aspect=28, pad=0.02, extend=extend
        )
        bar.set_label(label, fontsize=9)
        bar.ax.tick_params(labelsize=8.5)
        axes.tick_params(labelsize=8)
        axes.set_xlabel(x_label, fontsize=9)
        axes.locator_params(nbins=5)
        axes.set_anchor("N")
        panel_title(axes, name)
    drawn[0].set_ylabel(y_label, fontsize=9)
    drawn[1].tick_params(labelleft=False)


def _place(subject: Subject) -> tuple[tuple[float, float, float, float], Any, tuple[str, str]]:
    """Give a map's edges (left, right, bottom, top), where its first row stands, and its labels."""
    height, width = subject.store.shape[1:]
    try:
        y, x = subject.array("y").astype("f8"), subject.array("x").astype("f8")
    except UnreadableError:
        y = x = np.empty(0)
    if (
        y.shape != (height,)
        or x.shape != (width,)
        or not np.isfinite([*y, *x]).all()
        or min(height, width) < 2
    ):
        return (-0.5, width - 0.5, height - 0.5, -0.5), "upper", ("column", "row")
    dx, dy = (x[-1] - x[0]) / (width - 1) / 2, (y[-1] - y[0]) / (height - 1) / 2
    labels = tuple(f"{name}, {unit}" if unit else name for name in "xy" for unit in [subject.unit_of(name)])
    left, right, first, last = x[0] - dx, x[-1] + dx, y[0] - dy, y[-1] + dy
    if first > last:
        return (left, right, last, first), "upper", (labels[0], labels[1])
    return (left, right, first, last), "lower", (labels[0], labels[1])


def _histogram(subject: Subject, axes: Axes) -> None:
    """Draw how often it rains how hard, both logarithmic."""
    scan, limits, units = subject.scan, subject.limits, subject.info.units
    finite = int((scan.field.valid - scan.field.infinite).sum())
    filled = np.flatnonzero(scan.histogram)
    if not filled.size:
        panel_title(axes, "intensity")
        nothing(axes, "no value above 0")
        return
    first, last = int(filled[0]), int(filled[-1]) + 1
    edges, share = EDGES[first : last + 1], 100 * scan.histogram[first:last] / finite
    axes.bar(
        edges[:-1], share, width=np.diff(edges), align="edge", color=BLUE, edgecolor="white", linewidth=0.4
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    low = 10 ** np.floor(np.log10(share[share > 0].min()))
    axes.set_ylim(low, 2 * share.max())
    axes.set_xlim(edges[0] / 1.1, edges[-1] * 1.1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xticks(log_ticks(*axes.get_xlim(), most=6))
    axes.minorticks_off()
    for value, name in ((limits.wet, "wet"), (limits.most, "limit")):
        at = value / subject.factor if subject.factor else 0.0
        if edges[0] <= at <= edges[-1]:
            axes.axvline(at, color=RED, linewidth=1.2, linestyle="--")
            axes.text(at * 1.06, 1.5 * share.max(), f"{name}: > {at:g}", color=RED, fontsize=8.5, va="center")
    axes.set_xlabel(f"intensity, {units}; ten classes per decade", fontsize=9)
    axes.set_ylabel("% of the valid values", fontsize=9)
    axes.tick_params(labelsize=8.5)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="0.93", linewidth=0.8)
    axes.set_axisbelow(True)
    panel_title(axes, "intensity", f"{1 - scan.histogram.sum() / finite:.0%} are 0")
