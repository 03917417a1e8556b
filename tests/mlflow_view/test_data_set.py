import json
from dataclasses import replace

from pipeline.mlflow_view.data_set import TrackedData
from pipeline.store.field_store import FieldStore


def test_what_is_told_of_a_store(store):
    data = TrackedData.of(store, context="evaluation")
    info = store.info
    assert (data.name, data.digest, data.context) == (info.name, info.fingerprint[:8], "evaluation")
    assert json.loads(data.source) == {"url": store.url}
    columns = [column["name"] for column in json.loads(data.schema)["mlflow_colspec"]]
    assert columns == [
        f"{info.variable} [{info.units}]", *(f"{name} [static covariate]" for name in info.statics)
    ]  # fmt: skip
    profile = json.loads(data.profile)
    assert profile["store"] == store.url
    frames, height, width = info.shape
    assert profile["shape"] == f"{frames} frames of {height} x {width} pixels"
    assert profile["cadence_minutes"] == info.cadence_seconds / 60
    assert profile["fingerprint"] == info.fingerprint


def test_no_password_is_told(store):
    secret = FieldStore("s3://me:secret@bucket/rain.zarr", replace(store.info, crs="x" * 20))
    assert "secret" not in json.dumps(TrackedData.of(secret).as_record())
