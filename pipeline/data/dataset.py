"""The data set of a job: the store it names, or the embedded synthetic rain."""

from __future__ import annotations

import hashlib
import sys

import numpy as np

from pipeline.config import DataSettings
from pipeline.data.synthetic import synthetic_coordinates, synthetic_rain, synthetic_times
from pipeline.errors import UserError
from pipeline.progress import progress
from pipeline.storage.files import exists, join
from pipeline.store.field_store import FieldStore, write_store
from pipeline.store.manifest import MANIFEST, is_being_written


def open_dataset(settings: DataSettings, output: str) -> FieldStore:
    """Open the configured store; without one, open synthetic rain under `output`, made on first use.

    Raises
    ------
    UserError
        If the named store cannot be used.
    """
    if settings.store is not None:
        store = opened(settings.store, settings.until)
        if is_being_written(store.url):
            print(
                f"note: store {store.url}: an ingest is at work in it, or was cut short; these are its "
                f"{store.shape[0]} frames of now, up to {store.info.end}",
                file=sys.stderr,
            )
        return store
    synthetic = settings.synthetic
    key = hashlib.sha256(synthetic.model_dump_json().encode()).hexdigest()[:8]
    url = join(output, "stores", f"synthetic-{key}.zarr")
    if exists(join(url, MANIFEST)):
        try:
            return FieldStore.open(url)
        except UserError as error:
            raise UserError(f"{error}; or delete {url}, it is made again") from error
    y, x = synthetic_coordinates(synthetic)
    with progress("synthetic rain", synthetic.frames, "frames") as advance:
        return write_store(
            url,
            synthetic_rain(synthetic),
            times=synthetic_times(synthetic),
            y=y,
            x=x,
            name="synthetic",
            source={"generator": synthetic.model_dump(mode="json")},
            progress=advance,
        )


def opened(url: str, until: str | None) -> FieldStore:
    """Open a store, up to a time if one is given."""
    store = FieldStore.open(url)
    return store if until is None else store.up_to(np.datetime64(until, "s"))
