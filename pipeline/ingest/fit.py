"""What is looked at before anything is written: do files, names and place fit a store?"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

from pipeline.errors import UserError
from pipeline.ingest.inputs import Plan, same_place
from pipeline.storage import files
from pipeline.store import manifest
from pipeline.store.field_store import FieldStore
from pipeline.store.layout import RESERVED


def check_names(planned: Plan, statics: Iterable[str]) -> None:
    """Refuse names that cannot be those of arrays beside each other in one store.

    Raises
    ------
    UserError
    """
    header = planned.sources[0].header if planned.sources else None
    names = [header.variable, *header.dynamics] if header else []
    names += statics
    for name in names:
        if name in RESERVED or not re.fullmatch(r"[A-Za-z_]\w*", name):
            raise UserError(
                f"{name!r}: no name for a field of a store (letters, digits and _, none of "
                f"{', '.join(sorted(RESERVED))}); give it another with a --source"
            )
        if names.count(name) > 1:
            raise UserError(f"{name}: two fields of this name; give one of them another with a --source")


def refuse_unlike(store: FieldStore, planned: Plan) -> None:
    """Refuse files that do not belong into this store.

    Raises
    ------
    UserError
    """
    info, header, url = store.info, planned.header, store.url
    path = planned.sources[0].path
    remedy = "ingest them into a store of their own, or replace this one with --overwrite"
    for what, mine, theirs in (
        ("variable", header.variable, info.variable),
        ("units", planned.units, info.units),
        ("grid", header.grid, info.shape[1:]),
        ("dynamic covariates", header.dynamics, info.dynamics),
        ("map projection", header.crs, info.crs),
    ):
        if mine != theirs:
            raise UserError(f"store {url}: its {what} is {theirs}, that of {path} is {mine}; {remedy}")
    same_place(path, header.y, header.x, f"store {url}", store.y, store.x)


def refuse_unwritable(url: str) -> None:
    """Refuse a place where it is known before anything is tried that nothing can be written.

    Raises
    ------
    UserError
    """
    if url.startswith(("http://", "https://")):
        raise UserError(f"store {url}: nothing is written to the web; give a path, gs:// or s3://")
    if (refused := files.why_unwritable(url)) is None:
        return
    place, error = refused
    if isinstance(error, NotADirectoryError):
        raise UserError(f"store {url}: cannot be made, for {place} is a file; choose another place")
    raise UserError(
        f"store {url}: may not be written in {place}; change its permissions, or take another "
        f"({manifest.one_line(error)})"
    )


def check_statics(statics: Iterable[str], store: FieldStore) -> None:
    """Refuse static covariates that a store was made without.

    Raises
    ------
    UserError
    """
    for name in statics:
        if name not in store.info.statics:
            raise UserError(
                f"store {store.url}: was made without static {name}; replace it with --overwrite, or leave "
                f"--static {name} out"
            )


def read_statics(
    planned: Plan, statics: Mapping[str, float | None], store: FieldStore | None
) -> dict[str, np.ndarray]:
    """Read the static covariates: from the store that has them, else from the first file.

    Parameters
    ----------
    planned : Plan
        With sources, unless there is a store.
    statics : mapping of str to (float or None)
        Names, with what stands for missing values.
    store : FieldStore or None

    Returns
    -------
    dict of str to np.ndarray
        (H, W) float32.

    Raises
    ------
    UserError
        If they are not there, have missing values, or are not those of the store.
    """
    if store is None:
        found = {name: planned.sources[0].static(name) for name in statics}
        for name, fill in statics.items():
            valid = np.isfinite(found[name])
            missing = int((~valid).sum())
            if missing and fill is None:
                raise UserError(
                    f"static {name}: {missing} of {found[name].size} values are missing; say what stands for "
                    f"them, as in --static {name}=0"
                )
            found[name] = manifest.canonical(np.where(valid, found[name], np.float32(fill or 0)))
        return found
    check_statics(statics, store)
    return {name: store.static(name) for name in store.info.statics}
