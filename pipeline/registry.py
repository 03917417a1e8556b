"""Registered models: each pair's best model, loadable through MLflow without Ray and without pickle."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.mlflow_view.model_facts import OF_CHAMPION, ModelFacts, of_model
from pipeline.model_file import CARD, WEIGHTS, load_card, load_model
from pipeline.storage.files import join, read_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from pipeline.data.covariates import Covariate

CHAMPION, CHALLENGER = "champion", "challenger"
_FIRST_ALIAS = ("first_alias", "alias")  # a tag; the second is what it was called before


def register(
    client: Any,
    run_id: str,
    model_url: str,
    name: str,
    *,
    crps: float,
    scored_on: str,
    interval: Sequence[float] | None = None,
    validation: tuple[float, str] | None = None,
) -> str:
    """Store a model with its run and register it; doing it again changes nothing.

    It becomes the champion if there is none, or if its CRPS on the same validation windows is lower; else the
    challenger. The test split chooses nothing, so that the champion's score on it stays an honest one.

    Parameters
    ----------
    client : mlflow.MlflowClient
    run_id : str
    model_url : str
        Folder of the model.
    name : str
        Registered name.
    crps : float
        On the test split: for the record.
    scored_on : str
        Names the data, the windows and the sampling that the score stands on; only equal ones compare.
    interval : sequence of float, optional
        Low and high end of the 90 % interval of that CRPS.
    validation : (float, str), optional
        CRPS on the validation split, and what names the windows and the sampling that it stands on.

    Returns
    -------
    str
        `models:/NAME@ALIAS`; `models:/NAME/VERSION` if a later model has taken its alias.
    """
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    known = [
        version
        for version in client.search_model_versions(f"name = '{name}'")
        if version.run_id == run_id and version.tags.get("source") == model_url
    ]
    if known:
        version, settled = str(known[0].version), any(tag in known[0].tags for tag in _FIRST_ALIAS)
    else:
        _store(client, run_id, model_url)
        about = ModelFacts.of(load_card(model_url), crps, interval, validation)
        run = client.get_run(run_id)
        made = client.create_model_version(
            name,
            source=f"runs:/{run_id}/model",
            run_id=run_id,
            tags={**about.tags(), "scored_on": scored_on, "source": model_url},
            description=about.of_version(run),
        )
        version, settled = str(made.version), False
    if not settled:  # new, or its process was killed before it had an alias
        champion = _champion(client, name)
        best = champion is None or str(champion.version) == version
        alias = CHAMPION if best or _beats(champion, validation) else CHALLENGER
        client.set_registered_model_alias(name, alias, version)
        if alias == CHAMPION:
            _describe(client, name, version)
        client.set_model_version_tag(name, version, _FIRST_ALIAS[0], alias)
    aliases = client.get_registered_model(name).aliases
    held = next((alias for alias in (CHAMPION, CHALLENGER) if str(aliases.get(alias)) == version), None)
    return f"models:/{name}@{held}" if held else f"models:/{name}/{version}"


def _describe(client: Any, name: str, version: str) -> None:
    """Say on the model's page what its champion is, unless a person has described the model."""
    there = client.get_registered_model(name).description or ""
    if not there or there.startswith(OF_CHAMPION):
        described = client.get_model_version(name, version).description
        client.update_registered_model(name, of_model(name, version, described))


def _store(client: Any, run_id: str, model_url: str) -> None:
    """Put a model among its run's artifacts."""
    import mlflow.pyfunc

    with tempfile.TemporaryDirectory() as folder:
        data, packed = Path(folder) / "data", Path(folder) / "model"
        data.mkdir()
        for file in (WEIGHTS, CARD):
            (data / file).write_bytes(read_bytes(join(model_url, file)))
        mlflow.pyfunc.save_model(
            packed, loader_module="pipeline.registry", data_path=str(data), pip_requirements=["finescale"]
        )
        client.log_artifacts(run_id, str(packed), "model")


def _champion(client: Any, name: str) -> Any | None:
    """Give the version in use."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise  # a server in trouble is no reason to promote a model
        return None


def _beats(champion: Any, validation: Sequence[Any] | None) -> bool:
    tags = champion.tags
    if validation is None or "validation_crps" not in tags:  # of an older version: it stays until a person
        return False
    crps, validated_on = validation
    return tags["validated_on"] == validated_on and crps < float(tags["validation_crps"])


class _Predictor:
    """What `mlflow.pyfunc.load_model(...)` gives: `predict({"coarse": (B, L, h, w) array})` to members.

    A model with covariates wants `"statics"` and `"dynamics"` too, in the units of its training data, as
    `{name: array}` or as one array in channel order. A static covariate is (H, W), or (B, H, W) for another
    place per window; a dynamic one is coarse, (B, L, h, w). Channels come second to last: (B, S, H, W) or
    (S, H, W), and (B, L, K, h, w).
    """

    def __init__(self, folder: str) -> None:
        self.model = load_model(folder)
        self.sampling = load_card(folder)["sampling"]

    def predict(self, inputs: Mapping[str, Any], params: Mapping[str, Any] | None = None) -> Any:
        """Refine coarse frames in physical units; NaN is missing. Gives (B, members, tau, H, W).

        Sampling settings are read from the inputs too, as in `{"coarse": ..., "members": 32, "seed": 1}`:
        MLflow drops `params` for a model without a signature, and arrays in a dict have none.

        Raises
        ------
        ValueError
            If a covariate is missing, unknown, or of another shape.
        """
        import numpy as np
        import torch

        from pipeline.config import SamplingSettings
        from pipeline.data.batch import Batch

        coarse = torch.as_tensor(np.asarray(inputs["coarse"], dtype=np.float32))
        spec, known = self.model.spec, torch.isfinite(coarse)
        pair, (B, L, h, w) = spec.pair, coarse.shape
        shape = (B, pair.time, h * pair.space, w * pair.space)
        # Noise belongs to a window's place: here, one after the other in time.
        position = torch.stack([torch.tensor([i * pair.time, 0, 0]) for i in range(B)])
        batch = Batch(
            fine=torch.zeros(shape),
            mask=torch.ones(shape, dtype=torch.bool),
            coarse=torch.where(known, coarse, 0.0),
            coarse_mask=known,
            statics=_channels("statics", inputs.get("statics"), spec.statics, (B,), shape[2:]),
            dynamics=_channels("dynamics", inputs.get("dynamics"), spec.dynamics, (B, L), (h, w)),
            position=position,
            weights=torch.ones(B),
        )
        changed = {name: inputs[name] for name in SamplingSettings.model_fields if name in inputs}
        sampling = SamplingSettings.model_validate({**self.sampling, **changed})
        with torch.no_grad():
            return self.model.sample(batch, sampling, seed=int(inputs.get("seed", 0))).numpy()


def _channels(
    kind: str, given: Any, covariates: Sequence[Covariate], lead: tuple[int, ...], grid: tuple[int, ...]
) -> Tensor:
    """Standardise covariates that a caller gives, by name or in channel order, to (*lead, C, *grid)."""
    import numpy as np
    import torch

    from pipeline.data.covariates import standardised

    names = [one.name for one in covariates]
    wanted = f"the model's {kind}, in channel order: {', '.join(names) or 'none'}"
    if given is not None and not isinstance(given, Mapping):
        array = np.asarray(given, dtype=np.float32)
        if array.ndim < 3 or array.shape[-3] != len(names):
            raise ValueError(f"{kind}: an array of shape {array.shape} for {len(names)} channels; {wanted}")
        given = {name: array[..., k, :, :] for k, name in enumerate(names)}
    for name in names:
        if name not in (given or {}):
            raise ValueError(f"{kind}: {name} is missing; {wanted}")
    for name in given or {}:
        if name not in names:
            raise ValueError(f"{kind}: the model knows no {name}; {wanted}")
    full = (*lead, *grid)
    channels = torch.zeros(*lead, len(names), *grid)
    for k, name in enumerate(names):
        values = np.asarray(given[name], dtype=np.float32)
        if values.shape != full and (kind == "dynamics" or values.shape != grid):
            raise ValueError(f"{kind}: {name} has the shape {values.shape} instead of {full}")
        channels[..., k, :, :] = torch.tensor(values)
    return standardised(channels, None, covariates)


def _load_pyfunc(path: str) -> _Predictor:
    """Entry point that MLflow calls."""
    return _Predictor(path)
