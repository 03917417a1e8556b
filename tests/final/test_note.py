import math
from types import SimpleNamespace

from pipeline import FactorPair
from pipeline.factors import ScaleParameters
from pipeline.final.note import training_note
from pipeline.recipe import Origin, RecipeEntry

PARAMETERS = ScaleParameters(beta=0.0139, context=5)


def note(origin=Origin.TUNED, study="s/4x2", model="m", **scores):
    entry = RecipeEntry(pair=FactorPair(4, 2), parameters=PARAMETERS, origin=origin, study=study)
    plan = SimpleNamespace(entry=entry, pair=entry.pair, parameters=PARAMETERS)
    return training_note(plan, "rain", "mm/h", scores or None, model)


def test_while_it_is_under_way():
    assert note() == (
        f"Final model of **4x2** on `rain`: **{PARAMETERS}** "
        "(tuned values of [study s/4x2](run:s/4x2)). No score yet."
    )


def test_with_its_score_and_how_sure():
    text = note(test_crps=0.08, test_crps_skill=0.5, test_crps_low=0.07, test_crps_high=0.09)
    assert "Test CRPS **0.0800** (90 %: 0.0700 to 0.0900) mm/h, 50.0% below bicubic." in text
    assert "](model:m)" in text


def test_no_interval_no_study_no_model():
    text = note(
        Origin.PAPER,
        None,
        None,
        test_crps=0.08,
        test_crps_skill=0.5,
        test_crps_low=math.nan,
        test_crps_high=0.1,
    )
    assert "90 %" not in text
    assert "(paper values)" in text
    assert "run:" not in text
    assert "model:" not in text
