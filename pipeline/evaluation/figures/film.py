"""One event as a short film: coarse, truth, bicubic and members, running in time on one scale."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from pipeline.evaluation.figures.style import draw_rain, image, lifted, rain_bar, rain_colours, rain_scale

_MEMBERS = 2
_LARGEST, _SMALLEST = 100, 40  # dots per inch
_COLOURS, _GREYS = 256, 52  # greys: writing and missing pixels


@dataclass(frozen=True)
class Event:
    """Consecutive windows at one place; N windows of tau frames make T = N tau frames.

    Attributes
    ----------
    coarse : ndarray
        (N, h, w), the refined coarse frames.
    coarse_mask : ndarray
        (N, h, w), bool, True = valid.
    truth, bicubic : ndarray
        (T, H, W).
    members : ndarray
        (M, T, H, W); the first two are drawn. Each window is an ensemble of its own.
    mask : ndarray
        (T, H, W), bool, True = valid.
    labels : sequence of str
        (T,) what stands above each frame: its time.
    """

    coarse: np.ndarray
    coarse_mask: np.ndarray
    truth: np.ndarray
    bicubic: np.ndarray
    members: np.ndarray
    mask: np.ndarray
    labels: Sequence[str]

    def __post_init__(self) -> None:
        frames = len(self.truth)
        if not frames or not len(self.coarse) or frames % len(self.coarse) or len(self.labels) != frames:
            raise ValueError(
                f"{frames} frames, {len(self.coarse)} coarse ones and {len(self.labels)} labels do not fit"
            )

    def columns(self, frame: int) -> dict[str, np.ma.MaskedArray]:
        """Give the images of one frame, by heading."""
        number = frame * len(self.coarse) // len(self.truth)
        valid = self.mask[frame]
        fields = {"Truth": self.truth[frame], "Bicubic": self.bicubic[frame]}
        fields |= {f"Member {i + 1}": one[frame] for i, one in enumerate(self.members[:_MEMBERS])}
        together = len(self.truth) // len(self.coarse)
        name = f"LR (mean of {together})" if together > 1 else "LR"
        return {name: image(self.coarse[number], self.coarse_mask[number])} | {
            name: image(field, valid) for name, field in fields.items()
        }


def animation(
    event: Event, title: str, units: str, *, dry_below: float = 0.1, milliseconds: int = 350,
    most_bytes: int = 2_000_000,
) -> bytes:  # fmt: skip
    """Draw an event as an animated GIF that repeats for ever.

    All frames and columns share one logarithmic colour scale; dry is white, missing grey. The film is drawn
    smaller, and at last with fewer frames, until it has no more than `most_bytes`.

    Parameters
    ----------
    event : Event
    title, units : str
    dry_below : float
        Start of the colour scale, in `units`.
    milliseconds : int
        Each frame is shown.
    most_bytes : int

    Returns
    -------
    bytes
        GIF; the same event gives the same bytes.
    """
    frames, dpi = range(len(event.truth)), _LARGEST
    while True:
        film = _gif(_pictures(event, title, units, dry_below, dpi, frames), milliseconds)
        excess = len(film) / most_bytes
        if excess <= 1 or (dpi == _SMALLEST and len(frames) == 1):
            return film
        if dpi > _SMALLEST:
            dpi = max(_SMALLEST, int(0.95 * dpi / math.sqrt(excess)))
        else:
            frames = range(max(1, int(0.95 * len(frames) / excess)))


def _pictures(
    event: Event, title: str, units: str, dry_below: float, dpi: int, frames: Sequence[int]
) -> Iterator[np.ndarray]:
    columns = event.columns(0)
    norm = rain_scale(
        [one for frame in range(len(event.truth)) for one in event.columns(frame).values()], dry_below
    )
    side, left, top, bottom, right = 1.75, 0.12, 0.58, 0.12, 0.95  # inches
    tall = side * event.truth.shape[1] / event.truth.shape[2]
    size = (left + (side + 0.1) * len(columns) + right, top + tall + bottom)
    figure = Figure(figsize=size, dpi=dpi)
    canvas = FigureCanvasAgg(figure)
    drawn = {}
    for i, (name, picture) in enumerate(columns.items()):
        place = ((left + i * (side + 0.1)) / size[0], bottom / size[1], side / size[0], tall / size[1])
        axes = figure.add_axes(place)
        axes.set_title(name, fontsize=10, pad=4)
        drawn[name] = draw_rain(axes, picture, norm)
    bar = figure.add_axes((1 - 0.82 * right / size[0], bottom / size[1], 0.14 / size[0], tall / size[1]))
    rain_bar(figure, bar, next(iter(drawn.values())), units, tall)
    head = figure.suptitle("", fontsize=11, x=left / size[0], y=1 - 0.1 / size[1], ha="left", va="top")
    for frame in frames:
        head.set_text(f"{title}   {event.labels[frame]}")
        for name, picture in event.columns(frame).items():
            drawn[name].set_data(lifted(picture, dry_below))
        canvas.draw()
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _gif(pictures: Iterator[np.ndarray], milliseconds: int) -> bytes:
    """Encode in the colours of rain, and greys: a palette made from the pictures would lose rare colours."""
    rain = rain_colours()(np.linspace(0, 1, _COLOURS - _GREYS))[:, :3]
    greys = np.linspace(0, 1, _GREYS)[:, None].repeat(3, axis=1)
    palette = np.round(255 * np.concatenate([rain, greys])).astype(np.int32)
    frames = [_in_colours_of(palette, one) for one in pictures]
    buffer = io.BytesIO()
    frames[0].save(
        buffer, format="GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0,
        optimize=False, disposal=1,
    )  # fmt: skip
    return buffer.getvalue()


def _in_colours_of(palette: np.ndarray, picture: np.ndarray) -> Image.Image:
    """Give each pixel of (H, W, 3) the nearest colour; Pillow's own search is coarse and greys the white."""
    packed = picture.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    colours, place = np.unique(packed, return_inverse=True)
    parts = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1).astype(np.float32)
    # |a - b|^2 less |a|^2, which is the same for all b; exact in float32
    distance = (palette**2).sum(axis=1) - 2 * parts @ palette.T.astype(np.float32)
    nearest = distance.argmin(axis=1).astype(np.uint8)
    drawn = Image.fromarray(nearest[place].reshape(packed.shape))
    drawn.putpalette(palette.astype(np.uint8).tobytes())
    return drawn
