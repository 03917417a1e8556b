"""The size of a store's pixels, for axes of wavelengths and neighbourhoods."""

from __future__ import annotations

import numpy as np

from pipeline.store.field_store import FieldStore

_KM = {"km": 1.0, "kilometre": 1.0, "kilometer": 1.0, "m": 1e-3, "metre": 1e-3, "meter": 1e-3}
_UNEVEN = 0.01  # of a step: coordinates are often rounded


def pixel_size(store: FieldStore) -> tuple[float, str]:
    """Give the side of a pixel and its unit.

    Parameters
    ----------
    store : FieldStore
        The units of its coordinates decide.

    Returns
    -------
    size : float
    unit : str
        `km`; or `pixels`, with a size of 1, where coordinates are no lengths (longitude, row numbers), steps
        are uneven, or pixels are not square.
    """
    dataset = store.to_xarray()
    sizes = []
    for name, values in (("y", store.y), ("x", store.x)):
        factor = _KM.get(str(dataset[name].attrs.get("units", "")).lower().removesuffix("s"))
        steps = np.abs(np.diff(values))
        if factor is None or not len(steps) or np.ptp(steps) > _UNEVEN * steps.mean():
            return 1.0, "pixels"
        sizes.append(float(steps.mean()) * factor)
    if abs(sizes[0] - sizes[1]) > _UNEVEN * sizes[0]:
        return 1.0, "pixels"
    return float(f"{sum(sizes) / 2:.4g}"), "km"
