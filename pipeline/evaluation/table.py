"""A finished model's scores as a text to read."""

from __future__ import annotations

import math

from pipeline.evaluation.bootstrap import Interval
from pipeline.evaluation.evaluate import ModelScores
from pipeline.models.family import ModelSpec
from pipeline.store.manifest import StoreInfo

_LEGEND = """\
The CRPS of a field without uncertainty is its MAE; MAE, RMSE and bias of the ensemble are its mean's.
Skill: 1 - CRPS / bicubic. Conservation: relative error of the amount of rain that is kept."""


def scores_table(spec: ModelSpec, info: StoreInfo, split: str, found: ModelScores, interval: Interval) -> str:
    """Lay the scores of a model out as text.

    Parameters
    ----------
    spec : ModelSpec
    info : StoreInfo
        Of the store that was scored on.
    split : str
    found : ModelScores
    interval : Interval
        Of the CRPS.
    """
    ensemble = found.ensemble
    facts = _facts(found, interval)
    width = max(map(len, facts))
    rows = [
        f"{name:<{width}}{crps:>10.4f}{scores.mae:>10.4f}{scores.rmse:>10.4f}{scores.bias:>+10.4f}"
        for name, crps, scores in (
            ("ensemble", ensemble.crps, ensemble),
            ("conditional mean", found.mean.mae, found.mean),
            ("bicubic", found.bicubic.mae, found.bicubic),
            ("nearest", found.nearest.mae, found.nearest),
        )
    ]
    rule = "-" * len(rows[0])
    heads = "".join(f"{head:>10}" for head in ("CRPS", "MAE", "RMSE", "bias"))
    size = f"{ensemble.windows} windows x {ensemble.members} members"
    return "\n".join(
        [
            f"{spec.pair}, {spec.parameters}",
            f"{info.name}, {split} split, {size}, {info.units}",
            rule,
            " " * width + heads,
            rule,
            *rows,
            rule,
            *(f"{name:<{width}}  {text}" for name, text in facts.items()),
            rule,
            _LEGEND,
        ]
    )


def _facts(found: ModelScores, interval: Interval) -> dict[str, str]:
    ensemble = found.ensemble
    ends = f"{interval.low:.4f} to {interval.high:.4f}"
    if math.isnan(interval.low):
        ends = "cannot be had"
    return {
        f"CRPS, {interval.level:.0%} interval": f"{ends} ({interval.blocks} blocks of windows)",
        "skill over bicubic": f"{found.crps_skill:.1%}",
        "spread/skill": f"{ensemble.spread_skill_ratio:.2f}",
        "conservation per tile": f"{ensemble.conservation_tile:.1e}, "
        f"at worst {ensemble.conservation_tile_worst:.1e}",
        "conservation per cell": f"{ensemble.conservation_cell:.1e}",
        "log-spectral distance": f"{ensemble.log_spectral_distance:.2f} dB",
    }
