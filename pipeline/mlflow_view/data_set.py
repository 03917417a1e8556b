"""What MLflow is told of the data that a run stands on."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from pipeline.environment import without_secrets
from pipeline.store.field_store import FieldStore


@dataclass(frozen=True)
class TrackedData:
    """A data set as MLflow lists it.

    Attributes
    ----------
    name : str
    digest : str
        First eight characters of the store's fingerprint.
    source : str
        JSON that says where it lies.
    schema : str
        JSON of its arrays, as the UI lays them out.
    profile : str
        JSON of what a reader should know: address, shape, cadence, period, gaps, map projection.
    context : str
        What the runs do with it: `training` or `evaluation`.
    """

    name: str
    digest: str
    source: str
    schema: str
    profile: str
    context: str = "training"

    @classmethod
    def of(cls, store: FieldStore, context: str = "training") -> TrackedData:
        """Describe a store; passwords in its address are left out."""
        info = store.info
        arrays = [
            (info.variable, info.units, "time, y, x"),
            *((name, "static covariate", "y, x") for name in info.statics),
            *((name, "dynamic covariate", "time, y, x") for name in info.dynamics),
        ]
        columns = [
            {"name": f"{name} [{what}]", "type": f"float32 ({axes})", "required": True}
            for name, what, axes in arrays
        ]
        url = without_secrets(store.url)
        profile = {
            "store": url,  # the UI shows the source of a few kinds of data sets only
            "shape": f"{info.shape[0]} frames of {info.shape[1]} x {info.shape[2]} pixels",
            "cadence_minutes": info.cadence_seconds / 60,
            "start": info.start,
            "end": info.end,
            "missing_percent": round(100 * info.missing_fraction, 2),
            "gaps": len(info.gaps),
            "crs": info.crs,
            "fingerprint": info.fingerprint,
        }
        return cls(
            name=info.name,
            digest=info.fingerprint[:8],
            source=json.dumps({"url": url}),
            schema=json.dumps({"mlflow_colspec": columns}),
            profile=json.dumps(profile),
            context=context,
        )

    def as_record(self) -> dict[str, str]:
        """Give it as the outbox keeps it."""
        return asdict(self)
