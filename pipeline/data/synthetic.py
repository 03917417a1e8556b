"""The embedded data set: seeded synthetic rain that looks and moves like radar rain.

Gaussian fields are born, moved and forgotten in Fourier space, and one pointwise map makes rain of them:

- a *sheet* field decides where it rains and how hard the widespread rain is. Its exceedance of a threshold is
  mapped onto a lognormal that starts at the detection limit, so rain is exactly zero elsewhere;
- a *cell* field, rougher and smaller, multiplies the rain where it is high: convection within the sheet.

Every Fourier mode is a critically damped random oscillator whose memory grows with its wavelength, as rain
loses its small structures first; a uniform, slowly veering flow moves all modes by a phase shift. That domain
is periodic, so only a part of it is shown.

The ideas (a cascade that forgets scale by scale, a Lagrangian frame, a threshold for intermittency) are those
of stochastic nowcasting: Bowler, Pierce & Seed 2006, STEPS, doi:10.1256/qj.04.100; Seed 2003, S-PROG,
doi:10.1175/1520-0450(2003)042<0381:ADASSA>2.0.CO;2. The constants below were set by comparing spectra,
intensities and lag correlations with 5-minute, 1 km KNMI radar composites of widespread summer rain with
embedded convection (2010-08-26, 00:00 to 07:35 UTC).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from pipeline.config import SyntheticSettings

EPOCH = "2010-08-26T00:00:00"  # first frame; arbitrary, the day of the radar sample the constants come from
BLOCK_BYTES = 32 * 2**20  # a yielded block stays below this, or is one frame, however long the data set

# Marginal distribution.
DETECTION_MM_H = 0.1  # weakest rain there is: below it a radar composite reads zero, and so do we
SHEET_MEDIAN_MM_H = 0.45  # of the widespread rain, before it is cut at the detection limit
SHEET_SIGMA = 0.85  # standard deviation of its logarithm
CELL_GAIN = 0.65  # logarithmic enhancement per standard deviation of the cell field above its onset
CELL_ONSET = 0.6  # in standard deviations of the cell field: about a quarter of the rain is enhanced
CEILING_MM_H = 150.0  # no lognormal tail beyond what a temperate 5-minute, 1 km rain rate can be

# Structure in space.
ELONGATION = 1.6  # along the mean flow, of both fields: rain lies in bands
PADDING = 4 / 3  # the periodic domain is at least this much longer than the visible one, on each axis
LEAST_DOMAIN = 64  # pixels; below it too few modes are left to make weather of

# Structure in time.
MEMORY_MINUTES = 12.0  # time scale T of a mode of `MEMORY_WAVELENGTH_KM`, in rho(t) = (1 + t / T) exp(-t / T)
MEMORY_WAVELENGTH_KM = 24.0
MEMORY_EXPONENT = 0.9  # T grows as wavelength to this power
FLOW_SPEED = 18.0  # m/s, mean flow; its direction comes from the seed
FLOW_SPREAD = 2.5  # m/s, standard deviation of each component around the mean flow
FLOW_MEMORY_MINUTES = 60.0
WETNESS_SWING = 0.7  # how far the expected wet fraction swings, as a share of what is possible
# Two incommensurate waves rather than a random walk: the mean over a short data set stays near its target.
WETNESS_PERIODS_MINUTES = (260.0, 110.0)


@dataclass(frozen=True)
class Spectrum:
    """Power density of a Gaussian field over wavenumber k: flat, then k^-slope, then steeper.

    Attributes
    ----------
    outer_km : float
        Wavelength above which the density is flat: the size of the largest features.
    slope : float
        Exponent between `outer_km` and `break_km`.
    break_km : float
        Wavelength below which the density falls faster: showers are smooth inside.
    extra : float
        What is added to the exponent there.
    """

    outer_km: float
    slope: float
    break_km: float
    extra: float

    def density(self, wavenumber: NDArray[np.float64]) -> NDArray[np.float64]:
        """Power density, without unit.

        Parameters
        ----------
        wavenumber : array, any shape
            Cycles per km.

        Returns
        -------
        array, as `wavenumber`
        """
        rise = (1 + (wavenumber * self.outer_km) ** 2) ** (-self.slope / 2)
        return rise * (1 + (wavenumber * self.break_km) ** 2) ** (-self.extra / 2)


# The radar's own spectrum falls as k^-2.6 between 16 and 64 km and as k^-3.8 between 4 and 16 km; the
# threshold and the exponential of the map flatten what goes in.
SHEET = Spectrum(outer_km=250.0, slope=3.2, break_km=12.0, extra=1.5)
CELLS = Spectrum(outer_km=60.0, slope=3.0, break_km=10.0, extra=1.8)


def synthetic_rain(settings: SyntheticSettings) -> Iterator[NDArray[np.float32]]:
    """Generate rain, block by block in time order.

    The first k frames depend on the seed, the grid and the cadence, not on how many frames there are in all.

    Parameters
    ----------
    settings : SyntheticSettings
        Grid, length, cadence, expected wet fraction and seed.

    Yields
    ------
    array, (n, height, width), float32
        Rain rate, mm/h; exactly zero where dry and at least `DETECTION_MM_H` elsewhere. Every block is a new
        array.
    """
    rng = np.random.Generator(np.random.Philox(settings.seed))
    weather = _Weather(settings, rng)
    longest = max(1, BLOCK_BYTES // (4 * settings.height * settings.width))
    for first in range(0, settings.frames, longest):
        block = np.empty((min(longest, settings.frames - first), settings.height, settings.width), np.float32)
        for frame in block:
            weather.write(frame)
            weather.step()
        yield block


def synthetic_times(settings: SyntheticSettings) -> NDArray[np.datetime64]:
    """Time of every frame.

    Returns
    -------
    array, (frames,), datetime64[ns]
        `EPOCH` and on, `cadence_minutes` apart.
    """
    nanoseconds = np.rint(np.arange(settings.frames) * (settings.cadence_minutes * 60e9)).astype(np.int64)
    return np.datetime64(EPOCH, "ns") + nanoseconds.astype("timedelta64[ns]")


def synthetic_coordinates(settings: SyntheticSettings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Pixel centres.

    Returns
    -------
    y : array, (height,), float64
        Metres, rising with the row.
    x : array, (width,), float64
        Metres, rising with the column.
    """
    metres = settings.pixel_km * 1000.0
    y, x = (metres * (np.arange(n, dtype=np.float64) + 0.5) for n in (settings.height, settings.width))
    return y, x


class _Oscillators:
    """Independent critically damped random oscillators, in their stationary state, sampled exactly.

    A unit-variance Gaussian process with autocorrelation (1 + t/T) exp(-t/T) is the Matern-3/2 process, a
    smoother sibling of AR(1); radar modes forget like it. Value and scaled velocity (v T) together are
    Markov, with the identity as stationary covariance. Sampling that exactly, rather than an AR(2)
    recursion, keeps the physics the same whatever the cadence.
    Reference: Hartikainen & Sarkka 2010, doi:10.1109/MLSP.2010.5589113.
    """

    def __init__(self, time_steps: NDArray[np.float64], components: int, rng: np.random.Generator) -> None:
        """Draw the stationary state.

        Parameters
        ----------
        time_steps : array, any shape
            Cadence over T.
        components : int
            Independent processes per entry.
        rng : Generator
        """
        a = time_steps[..., None]
        decay = np.exp(-a)
        self._transition = [[self._cast(decay * term) for term in row] for row in ((1 + a, a), (-a, 1 - a))]
        # Cholesky factor of I - A A', the covariance of what a step adds. Its corner is of order a^3: the
        # floor is for cadences so short that double precision loses it.
        value = 1 - decay**2 * (1 + 2 * a + 2 * a**2)
        cross = 2 * a**2 * decay**2
        speed = 1 - decay**2 * (1 - 2 * a + 2 * a**2)
        root = np.sqrt(np.maximum(value, 1e-12))
        lower = cross / root
        self._factor = [self._cast(f) for f in (root, lower, np.sqrt(np.maximum(speed - lower**2, 0)))]
        self._shape = (*time_steps.shape, components)
        self._rng = rng
        self.value, self._speed = self._noise(), self._noise()

    @staticmethod
    def _cast(values: NDArray[np.float64]) -> NDArray[np.float32]:
        return values.astype(np.float32)

    def _noise(self) -> NDArray[np.float32]:
        return self._rng.standard_normal(self._shape, dtype=np.float32)

    def step(self) -> None:
        """Advance by one frame."""
        (to_value, speed_to_value), (value_to_speed, to_speed) = self._transition
        root, lower, rest = self._factor
        first, second = self._noise(), self._noise()
        value = to_value * self.value + speed_to_value * self._speed + root * first
        self._speed = value_to_speed * self.value + to_speed * self._speed + lower * first + rest * second
        self.value = value


class _Field:
    """A Gaussian field of unit variance on the periodic domain, evolving in its own moving frame."""

    def __init__(
        self,
        spectrum: Spectrum,
        shape: tuple[int, int],
        settings: SyntheticSettings,
        direction: tuple[float, float],
        rng: np.random.Generator,
    ) -> None:
        height, width = shape
        ky = np.fft.fftfreq(height, settings.pixel_km)[:, None]
        kx = np.fft.rfftfreq(width, settings.pixel_km)[None]
        along, across = ky * direction[0] + kx * direction[1], kx * direction[0] - ky * direction[1]
        stretched = np.hypot(along * math.sqrt(ELONGATION), across / math.sqrt(ELONGATION))
        power = spectrum.density(stretched)
        wavenumber = np.hypot(ky, kx)
        # No mean (the wet fraction is set by the threshold) and a round cut-off at Nyquist, whose modes have
        # no partner to carry a phase shift.
        power[(wavenumber == 0) | (wavenumber >= 0.5 / settings.pixel_km)] = 0
        # `irfft2` stands in for the missing half: it counts a column twice, but of the first keeps only the
        # real part, which is half the power; doubling it there makes every mode count alike.
        power[:, 0] *= 2
        counted = np.full((1, power.shape[1]), 2.0)
        counted[0, 0] = 0.5  # the doubled column: its real part has half its power, and once
        # Each mode carries two unit normals (its real and its imaginary part), hence the 2.
        scale = height * width / math.sqrt(2 * float((counted * power).sum()))
        self._amplitude = (scale * np.sqrt(power)).astype(np.float32)
        self._shape = shape
        self._ky, self._kx = ky, kx
        wavelength = 1 / np.maximum(wavenumber, 1 / (max(shape) * settings.pixel_km))
        memory = MEMORY_MINUTES * (wavelength / MEMORY_WAVELENGTH_KM) ** MEMORY_EXPONENT
        self._modes = _Oscillators(settings.cadence_minutes / memory, 2, rng)

    def values(self, moved: NDArray[np.float64]) -> NDArray[np.float32]:
        """The field after the flow has moved it by `moved` km along (y, x): array, (height, width)."""
        modes = self._modes.value.view(np.complex64)[..., 0] * self._amplitude
        modes *= np.exp(-2j * np.pi * self._ky * moved[0]).astype(np.complex64)
        modes *= np.exp(-2j * np.pi * self._kx * moved[1]).astype(np.complex64)
        field: NDArray[np.float32] = np.fft.irfft2(modes, self._shape).astype(np.float32, copy=False)
        return field

    def step(self) -> None:
        """Advance by one frame."""
        self._modes.step()


class _Weather:
    """All that changes from frame to frame."""

    def __init__(self, settings: SyntheticSettings, rng: np.random.Generator) -> None:
        self._minutes = settings.cadence_minutes
        self._wet_fraction = settings.wet_fraction
        self._frame = 0
        angle = rng.uniform(0, 2 * np.pi)
        direction = (math.sin(angle), math.cos(angle))
        self._mean_flow = FLOW_SPEED * np.array(direction)
        self._phases = rng.uniform(0, 2 * np.pi, len(WETNESS_PERIODS_MINUTES))
        self._flow = _Oscillators(np.array(self._minutes / FLOW_MEMORY_MINUTES), 2, rng)
        self._moved = np.zeros(2)
        shape = (_domain(settings.height), _domain(settings.width))
        self._extent = np.array(shape) * settings.pixel_km
        self._sheet = _Field(SHEET, shape, settings, direction, rng)
        self._cells = _Field(CELLS, shape, settings, direction, rng)

    def expected_wet_fraction(self) -> float:
        """The share of this frame that is expected to be wet."""
        waves = [
            math.sin(2 * math.pi * self._frame * self._minutes / period + phase)
            for period, phase in zip(WETNESS_PERIODS_MINUTES, self._phases, strict=True)
        ]
        room = min(self._wet_fraction, 1 - self._wet_fraction)
        return self._wet_fraction + WETNESS_SWING * room * sum(waves) / len(waves)

    def write(self, out: NDArray[np.float32]) -> None:
        """Write this frame's rain, mm/h, into `out`, (height, width)."""
        height, width = out.shape
        sheet = self._sheet.values(self._moved)[:height, :width]
        cells = self._cells.values(self._moved)[:height, :width]
        score, log_rain = _sheet_map(self.expected_wet_fraction())
        rain = np.interp(sheet, score, log_rain)
        rain += CELL_GAIN * np.maximum(cells - CELL_ONSET, 0)
        np.exp(rain, out=rain)
        np.minimum(rain, CEILING_MM_H, out=rain)
        out[...] = np.where(sheet > score[0], np.maximum(rain, DETECTION_MM_H), 0)

    def step(self) -> None:
        """Advance by one frame."""
        velocity = self._mean_flow + FLOW_SPREAD * self._flow.value
        # The domain is periodic: keeping the displacement inside it keeps the phases precise.
        self._moved = (self._moved + velocity * self._minutes * 60 / 1000) % self._extent
        self._flow.step()
        self._sheet.step()
        self._cells.step()
        self._frame += 1


def _sheet_map(wet_fraction: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Table from standard normal scores above the wet threshold to log rain, matching probabilities.

    Returns
    -------
    score : array, (m,)
        From the threshold upwards.
    log_rain : array, (m,)
        Logarithm of mm/h, from `DETECTION_MM_H` upwards.
    """
    normal = NormalDist()
    lowest = normal.cdf(math.log(DETECTION_MM_H / SHEET_MEDIAN_MM_H) / SHEET_SIGMA)
    # Share of the wet area above each entry, from all of it to one pixel in ten million.
    above = np.geomspace(1.0, 1e-7, 96)
    score = np.array([-normal.inv_cdf(wet_fraction * share) for share in above])
    rain = np.array([-normal.inv_cdf((1 - lowest) * share) for share in above])
    return score, math.log(SHEET_MEDIAN_MM_H) + SHEET_SIGMA * rain


def _domain(pixels: int) -> int:
    """Length of the periodic domain: padded, even, and of prime factors 2, 3 and 5 for a fast transform."""
    length = max(math.ceil(pixels * PADDING), LEAST_DOMAIN)
    while length % 2 or not _smooth(length):
        length += 1
    return length


def _smooth(number: int) -> bool:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1
