"""What a person reads on the page of a final training, in markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pipeline.final.plan import TrainingPlan
from pipeline.mlflow_view.views import VALUES
from pipeline.recipe import Origin


def training_note(
    plan: TrainingPlan, dataset: str, units: str, scores: Mapping[str, float] | None, model: str | None
) -> str:
    """Describe a final training.

    Parameters
    ----------
    plan : TrainingPlan
    dataset, units : str
    scores : mapping or None
        With `test_crps`, `test_crps_skill` and, if it has one, `test_crps_low` and `test_crps_high`; none: it
        has none yet.
    model : str or None
        Name of the registered model; none: it is not registered.
    """
    origin = f"{plan.entry.origin.value} values"
    head = f"Final model of **{plan.pair}** on `{dataset}`: **{plan.parameters}** ({origin}"
    if plan.entry.study and plan.entry.origin is Origin.TUNED:
        head += f" of [study {plan.entry.study}](run:{plan.entry.study})"
    if scores is None:
        return f"{head}). No score yet."
    low, high = (scores.get(f"test_crps_{end}", math.nan) for end in ("low", "high"))
    sure = "" if math.isnan(low) or math.isnan(high) else f" (90 %: {low:.4f} to {high:.4f})"
    parts = [
        f"{head}). Test CRPS **{scores['test_crps']:.4f}**{sure} {units}, "
        f"{scores['test_crps_skill']:.1%} below bicubic.",
        f"[Compare with tuned pairs and other final models](view:{VALUES.key})"
        + (f" · [registered model](model:{model})" if model else ""),
    ]
    return "\n\n".join(parts)
