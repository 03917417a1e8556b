from dataclasses import replace

import pytest

from pipeline import FactorPair, ScaleParameters, UserError
from pipeline.config_layers import load_config
from pipeline.prior import paper_prior
from pipeline.recipe import Origin, Recipe, RecipeEntry
from pipeline.tuning import plan as plan_module
from pipeline.tuning.plan import describe_plan, last_rungs, plan_sweep


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
        ([("tuning.recipe", "/no/such.yaml")], "4x2", SHAPE, ["/no/such.yaml"]),
        ([("tuning.cpus_per_trial", 1e-4)], "4x2", SHAPE, ["tuning.cpus_per_trial", "0.0001"]),
        ([("tuning.workers_per_trial", 8)], "4x2", SHAPE, ["training.batch", "8 workers"]),
    ],
)
def test_what_does_not_fit(overrides, pairs, shape, parts, one_line):
    with pytest.raises(UserError) as raised:
        plan_sweep(config(*overrides, pairs=pairs), shape)
    one_line(raised, *parts)


def test_description_counts_shared_stages_once():
    settings = config(("tuning.trials", 3))
    plans = plan_sweep(settings, SHAPE)
    text = describe_plan(settings, plans)
    assert "2 pairs x 3 trials = 6 trainings" in text
    assert f"4x2: around the paper values, L up to {plans[0].max_context}; first beta" in text
    assert f"1x3: around the paper values, L up to {plans[1].max_context}; first beta" in text
    # 12 + 12 steps a trial; at best the first context's mean is trained once per pair
    assert f"between {2 * (12 + 3 * 12)} and {2 * 3 * 24} training steps" in text
    assert "at most 4 trials at once (2 per pair: tuning.at_once)" in text
    alone = config(("tuning.trials", 3), ("tuning.share_stages", False))
    assert f"between {2 * 3 * 24} and {2 * 3 * 24} training steps" in describe_plan(alone, plans)


def test_description_names_the_rungs_if_there_will_be_pruning():
    def described(*overrides):
        settings = config(("tuning.startup_trials", 4), *overrides)
        return describe_plan(settings, plan_sweep(settings, SHAPE))

    assert "pruning after 3 and 6 of the 12 steps of stage residual" in described(("tuning.trials", 5))
    assert "pruning" not in described(("tuning.trials", 4))  # all of them are the start
    assert "pruning" not in described(("tuning.trials", 9), ("tuning.pruning.rungs", 0))
    assert "pruning" not in described(("tuning.trials", 9), ("tuning.objectives", ["crps", "spectral"]))


def test_rungs():
    assert last_rungs(config()) == (3, 6)
    assert last_rungs(config(("training.residual_steps", 600))) == (150, 300)
    assert last_rungs(config(("tuning.pruning.reduction", 3))) == (1, 4)
    assert last_rungs(config(("tuning.objectives", ["spectral"]))) == ()
    assert last_rungs(config(("tuning.objectives", ["crps", "spectral"]))) == ()


def test_a_recipe_centres_the_search(tmp_path):
    tuned = ScaleParameters(beta=0.033, context=2)
    entry = RecipeEntry(pair=FactorPair(4, 2), parameters=tuned, origin=Origin.TUNED, score=1.0)
    url = str(tmp_path / "recipe.yaml")
    Recipe(entries=(entry,)).save(url)
    settings = config(("tuning.recipe", url))
    plans = plan_sweep(settings, SHAPE)
    assert plans[0].entry == entry
    assert 0.033 in [point["beta"] for point in plans[0].first]
    assert plans[0].first[0]["beta"] == paper_prior(FactorPair(4, 2)).beta  # the prior stays the first
    assert plans[1].entry.origin is Origin.PAPER
    assert "4x2: around the tuned values" in describe_plan(settings, plans)


SAME = [
    [("tuning.trials", 50)],
    [("tuning.concurrent_trials", 1)],
    [("tuning.cpus_per_trial", 2)],
    [("scoring.batch", 1)],
    [("scoring.test_windows", 1)],
    [("scoring.block_hours", 0.1), ("scoring.block_patches", 1), ("scoring.resamples", 100)],
    [("tuning.max_failures", 9)],
    [("tuning.share_stages", False)],
    [("tuning.compare", False), ("tuning.predict", ["8x2"])],
    [("tuning.storage", "sqlite:////elsewhere.db")],
    [("ray.cpus", 1)],
    [("training.report_every", 1)],
    [("training.checkpoints.every", 1)],
    [("training.parallel.accumulate", 2)],
    [("data.memory_gib", 0), ("data.cache_gib", 0.1)],
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
    [("tuning.at_once", 3)],
    [("tuning.objectives", ["crps", "spectral"])],
    [("tuning.pruning.rungs", 1)],
    [("tuning.pruning.reduction", 3)],
    [("tuning.pruning.windows", 3)],
    [("tuning.search_space", "tests_space")],
    [("tuning.recipe", "RECIPE")],
]


def sweep_id(config, store, output="here"):
    return plan_module.sweep_id(config, store, output)


def test_another_output_is_another_sweep(store):
    assert sweep_id(config(), store) != sweep_id(config(), store, "there")


@pytest.mark.parametrize("overrides", SAME, ids=str)
def test_what_extends_a_sweep(overrides, store):
    assert sweep_id(config(*overrides), store) == sweep_id(config(), store)


def test_pairs_extend_a_sweep(store):
    assert sweep_id(config(pairs="8x1"), store) == sweep_id(config(), store)


@pytest.fixture
def recipe(tmp_path):
    """Write a recipe and give its file."""

    def write(beta):
        tuned = ScaleParameters(beta=beta, context=2)
        entry = RecipeEntry(pair=FactorPair(4, 2), parameters=tuned, origin=Origin.TUNED, score=1.0)
        Recipe(entries=(entry,)).save(str(tmp_path / "recipe.yaml"))
        return str(tmp_path / "recipe.yaml")

    return write


@pytest.mark.parametrize("overrides", OTHER, ids=str)
def test_what_is_another_sweep(overrides, store, recipe, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "tests_space.py").write_text("def first_trials(entry, n): ...\ndef suggest(*a): ...\n")
    overrides = [(key, recipe(0.02) if value == "RECIPE" else value) for key, value in overrides]
    assert sweep_id(config(*overrides), store) != sweep_id(config(), store)


def test_a_recipe_counts_by_what_it_says(store, recipe):
    def here(beta):
        return sweep_id(config(("tuning.recipe", recipe(beta))), store)

    assert here(0.02) == here(0.02) != here(0.03)


def test_other_data_or_code_is_another_sweep(store, monkeypatch):
    here = sweep_id(config(), store)
    assert sweep_id(config(), replace(store, info=replace(store.info, fingerprint="0"))) != here
    monkeypatch.setattr(plan_module, "code_version", lambda: "another")
    assert sweep_id(config(), store) != here


def test_names(store):
    assert sweep_id(config(), store).startswith("rain-")
    assert sweep_id(config(("tuning.name", "try-3")), store).startswith("try-3-")
    odd = replace(store, info=replace(store.info, name="KNMI radar/5' (NL)"))
    assert sweep_id(config(), odd).rpartition("-")[0] == "KNMI-radar-5-NL-"
