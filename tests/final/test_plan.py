import pytest

from pipeline import Conservation, FactorPair, ScaleParameters, UserError
from pipeline.config_layers import load_config
from pipeline.final.plan import describe_plan, plan_training
from pipeline.recipe import Origin, Recipe, RecipeEntry

PAIR = FactorPair(4, 2)
SHAPE = (64, 48, 48)  # the splits leave room for L = 4


def plan(shape=SHAPE, **settings):
    changes = {"preset": "tiny", "train.pair": "4x2"} | {
        name.replace("__", "."): value for name, value in settings.items()
    }
    config = load_config(
        [(name, value) for name, value in changes.items() if value is not None], environment={}
    )
    return plan_training(config, shape)


def recipe(tmp_path, context, origin=Origin.TUNED):
    parameters = ScaleParameters(beta=0.03, context=context, conservation=Conservation(power=0.8))
    entry = RecipeEntry(pair=PAIR, parameters=parameters, origin=origin)
    Recipe(entries=(entry,)).save(str(tmp_path / "recipe.yaml"))
    return str(tmp_path / "recipe.yaml")


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"train__pair": None}, ["train.pair", "--pair"]),
        ({"train__workers": 5}, ["training.batch", "4 windows", "5 workers", "training.batch=5"]),
        (
            {"train__workers": 2, "training__parallel__accumulate": 3},
            ["training.batch", "2 workers x 3", "training.batch=6"],
        ),
        (
            {
                "train__workers": 4,
                "training__parallel__sharding": "hsdp",
                "training__parallel__shard_size": 3,
            },
            ["training.parallel.shard_size", "4 ranks", "copies of 3"],
        ),
        ({"train__workers": 1, "train__min_workers": 2}, ["train", "min_workers (2)", "workers (1)"]),
        ({"train__gpus_per_worker": 0.5}, ["train.gpus_per_worker", "0.5", "0 or 1"]),
        ({"train__pair": "5x2"}, ["5x2", "does not divide the patch of 24"]),
        ({"train__pair": "2x40"}, ["2x40", "fine frames"]),
        ({"shape": (64, 48, 20)}, ["48 x 20", "smaller than the patch"]),
        ({"train__recipe": "nowhere.yaml"}, ["recipe nowhere.yaml", "no such file"]),
    ],
)
def test_mistakes(settings, parts, one_line):
    with pytest.raises(UserError) as raised:
        plan(**settings)
    one_line(raised, *parts)


def test_every_number_of_workers_that_may_come_must_suit_the_copies(one_line):
    sharding = {"training__parallel__sharding": "hsdp", "training__parallel__shard_size": 2}
    assert plan(train__workers=4, **sharding).workers.count == 4
    with pytest.raises(UserError) as raised:  # 3 of 4 may be left, when it has long been under way
        plan(train__workers=4, train__min_workers=2, **sharding)
    one_line(raised, "training.parallel.shard_size", "3 ranks")


def test_a_prior_is_cut_to_what_the_splits_hold_and_tuned_values_are_not(tmp_path, one_line):
    cut = plan()
    assert (cut.entry.origin, cut.cut_from, cut.parameters.context) == (Origin.PAPER, 5, 4)
    assert "L cut from 5" in describe_plan(cut)

    fits = plan(train__recipe=recipe(tmp_path, 4))
    assert (fits.entry.origin, fits.cut_from, fits.parameters.context) == (Origin.TUNED, 4, 4)
    assert "cut" not in describe_plan(fits)

    with pytest.raises(UserError) as raised:
        plan(train__recipe=recipe(tmp_path, 5))
    one_line(raised, "4x2", "L = 5", "room for 4")

    predicted = plan(train__recipe=recipe(tmp_path, 5, Origin.PREDICTED))
    assert predicted.parameters.context == 4


def test_a_longer_context_than_trials_had_moves_the_first_targets(tmp_path):
    longer = plan(train__recipe=recipe(tmp_path, 7), shape=(200, 48, 48))
    assert longer.parameters.context == longer.config.tuning.max_context == 7
    assert plan(train__recipe=recipe(tmp_path, 2)).config.tuning.max_context == 4


def test_workers_are_as_configured():
    workers = plan(
        train__workers=3, train__min_workers=2, train__cpus_per_worker=2, train__max_failures=-1,
        train__resize_seconds=7,
    ).workers  # fmt: skip
    assert (workers.count, workers.at_least, workers.cpus, workers.gpus) == (3, 2, 2.0, 0.0)
    assert (workers.max_failures, workers.resize_seconds) == (-1, 7.0)


def test_the_name_holds_what_decides_the_result_and_nothing_else(store):
    def name(**settings):
        return plan(**settings).name(store, "output")

    plain = name()
    assert plain.startswith(f"{store.info.name}-4x2-")
    same = [
        {"train__workers": 2},
        {"train__workers": 4, "train__min_workers": 2},
        {"training__parallel__sharding": "ddp"},
        {"training__parallel__accumulate": 2},
        {"training__checkpoints__every": 3},
        {"training__report_every": 1},
        {"train__max_failures": 0},
        {"sampling__members": 5},  # jobs/evaluate.py scores the same weights with it
    ]
    assert {name(**settings) for settings in same} == {plain}
    others = [
        {"seed": 1},
        {"training__batch": 8},
        {"training__mean_steps": 13},
        {"training__precision": "bfloat16"},
        {"training__weights": "best"},
        {"training__weights": "best", "training__checkpoints__every": 3},
        {"model__denoiser_widths": [8, 8]},
        {"train__pair": "2x2"},
    ]
    names = [name(**settings) for settings in others] + [plan().name(store, "elsewhere"), plain]
    assert len(set(names)) == len(names)
    assert name(train__name="mine").startswith("mine-4x2-")
    assert describe_plan(plan(train__workers=4, train__min_workers=2)).count("2 to 4 workers") == 1
