from dataclasses import replace

import pytest

from pipeline import FactorPair, UserError
from pipeline.config_layers import load_config
from pipeline.prior import paper_prior
from pipeline.tuning import plan as plan_module
from pipeline.tuning.plan import describe_plan, plan_sweep, sweep_id


def config(*overrides, pairs="4x2,1x3"):
    return load_config(
        [("preset", "tiny"), ("tuning.pairs", pairs.split(",") if pairs else []), *overrides], environment={}
    )


SHAPE = (64, 48, 48)


def test_plan_begins_with_the_prior():
    plans = plan_sweep(config(), SHAPE)
    assert [plan.pair for plan in plans] == [FactorPair(4, 2), FactorPair(1, 3)]
    for plan in plans:
        assert plan.first[0]["beta"] == paper_prior(plan.pair).beta
        assert plan.first[0]["context"] <= plan.max_context <= 4


def test_few_frames_shorten_the_context():
    assert plan_sweep(config(), SHAPE)[0].max_context > plan_sweep(config(), (20, 48, 48))[0].max_context == 2


@pytest.mark.parametrize(
    ("overrides", "pairs", "shape", "parts"),
    [
        ([], "", SHAPE, ["tuning.pairs", "--pairs"]),
        ([], "5x2", SHAPE, ["5x2", "24", "--patch 20 or 25"]),
        ([], "4x2", (64, 20, 48), ["20 x 48", "24", "--patch"]),
        ([("data.trim", False)], "4x2", (64, 49, 50), ["49 x 50", "data.trim"]),
        ([], "4x30", SHAPE, ["4x30", "fine frames"]),
        ([], "4x2", (2, 48, 48), ["frames"]),
        ([("tuning.search_space", "no_such_space")], "4x2", SHAPE, ["no_such_space"]),
    ],
)
def test_what_does_not_fit(overrides, pairs, shape, parts, one_line):
    with pytest.raises(UserError) as raised:
        plan_sweep(config(*overrides, pairs=pairs), shape)
    one_line(raised, *parts)


def test_description_counts_shared_stages_once():
    settings = config(("tuning.trials", 3))
    text = describe_plan(settings, plan_sweep(settings, SHAPE))
    assert "2 pairs x 3 trials = 6 trainings" in text
    assert "4x2: first beta" in text
    assert "1x3: first beta" in text
    # 12 + 12 steps a trial; at best the first context's mean is trained once per pair
    assert f"between {2 * (12 + 3 * 12)} and {2 * 3 * 24} training steps" in text


SAME = [
    [("tuning.trials", 50)],
    [("tuning.concurrent_trials", 1)],
    [("tuning.cpus_per_trial", 2)],
    [("scoring.batch", 1)],
    [("scoring.test_windows", 1)],
    [("training.report_every", 1)],
    [("training.checkpoint_every", 1)],
    [("data.memory_gib", 0)],
    [("tracking.uri", "http://elsewhere")],
    [("output", "/elsewhere")],
]
OTHER = [
    [("seed", 1)],
    [("data.patch", 16)],
    [("data.min_wet", 0.2)],
    [("data.split.train", 0.5), ("data.split.test", 0.3)],
    [("model.heads", 1)],
    [("training.mean_steps", 13)],
    [("sampling.steps", 6)],
    [("sampling.members", 5)],
    [("scoring.windows", 3)],
    [("tuning.max_context", 3)],
    [("tuning.startup_trials", 5)],
]


@pytest.mark.parametrize("overrides", SAME, ids=str)
def test_what_extends_a_sweep(overrides, store):
    assert sweep_id(config(*overrides), store) == sweep_id(config(), store)


def test_pairs_extend_a_sweep(store):
    assert sweep_id(config(pairs="8x1"), store) == sweep_id(config(), store)


@pytest.mark.parametrize("overrides", OTHER, ids=str)
def test_what_is_another_sweep(overrides, store):
    assert sweep_id(config(*overrides), store) != sweep_id(config(), store)


def test_other_data_or_code_is_another_sweep(store, monkeypatch):
    here = sweep_id(config(), store)
    assert sweep_id(config(), replace(store, info=replace(store.info, fingerprint="0"))) != here
    monkeypatch.setattr(plan_module, "__version__", "99.0")
    assert sweep_id(config(), store) != here


def test_names(store):
    assert sweep_id(config(), store).startswith("rain-")
    assert sweep_id(config(("tuning.name", "try-3")), store).startswith("try-3-")
    odd = replace(store, info=replace(store.info, name="KNMI radar/5' (NL)"))
    assert sweep_id(config(), odd).rpartition("-")[0] == "KNMI-radar-5-NL-"
