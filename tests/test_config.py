import pytest
import yaml

from pipeline import FactorPair, UserError
from pipeline.config import Config
from pipeline.config_layers import load_config, parse_assignment
from pipeline.settings.presets import PRESETS


def load(*overrides, **layers):
    return load_config(overrides, **({"environment": {}} | layers))


@pytest.fixture
def write(tmp_path):
    def write(content):
        file = tmp_path / "settings.yaml"
        file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return str(file)

    return write


def test_later_layers_win(write):
    file = write({"preset": "tiny", "training": {"batch": 5}})
    environment = {"FINESCALE_TRAINING__BATCH": "6"}
    assert load(("preset", "tiny")).training.batch == 4  # the preset's; the default is 8
    assert load(file=file).training.batch == 5
    assert load(file=file, environment=environment).training.batch == 6
    assert load(("training.batch", "7"), file=file, environment=environment).training.batch == 7
    assert load(("training.batch", 7), ("training.batch", 9)).training.batch == 9


def test_the_preset_is_chosen_by_the_last_layer_and_stays_below_all_others(write):
    file = write({"preset": "paper", "training": {"batch": 5}})
    assert load(file=file).data.patch == PRESETS["paper"]["data"]["patch"]
    chosen = load(("preset", "tiny"), file=file, environment={"FINESCALE_PRESET": "small"})
    assert (chosen.preset, chosen.data.patch) == ("tiny", PRESETS["tiny"]["data"]["patch"])
    assert chosen.training.batch == 5  # from below the layer that chose the preset, and yet above the preset


def test_layers_join_key_by_key(write):
    file = write({"training": {"ema": 0.5}, "data": {"split": {"train": 0.5, "test": 0.3}}})
    config = load(("training.clip", 2), file=file, environment={"FINESCALE_TRAINING__BATCH": "6"})
    assert (config.training.ema, config.training.batch, config.training.clip) == (0.5, 6, 2)
    assert (config.data.split.train, config.data.split.validation) == (0.5, 0.2)


def test_an_empty_file_changes_nothing(write):
    assert load(file=write("")) == load()


def test_other_variables_of_the_shell_are_left_alone():
    assert load(environment={"FINE": "x", "HOME": "/", "finescale_seed": "x"}) == load()


@pytest.mark.parametrize(
    ("overrides", "environment", "content", "parts"),
    [
        # unknown keys
        ([("training.bach", 3)], {}, None, ["training.bach = 3", "batch", "command line"]),
        ([], {"FINESCALE_NOPE": "1"}, None, ["nope = 1", "training", "environment"]),
        ([], {}, "data: {split: {trian: 0.5}}", ["data.split.trian = 0.5", "train", "file"]),
        ([], {}, "1: 2", ["1", "file"]),
        # impossible values
        ([("training.batch", 0)], {}, None, ["training.batch = 0", "command line"]),
        ([("training.batch", "many")], {}, None, ["training.batch = 'many'", "command line"]),
        ([], {"FINESCALE_SAMPLING__MEMBERS": "1"}, None, ["sampling.members = 1", "environment"]),
        ([], {}, "training: {ema: 1.0}", ["training.ema = 1.0", "file"]),
        ([("training.learning_rate", float("inf"))], {}, None, ["training.learning_rate = inf"]),
        ([("training.learning_rate", float("nan"))], {}, None, ["training.learning_rate = nan"]),
        ([("training", 5)], {}, None, ["training = 5", "command line"]),
        ([("sampling.sampler", "euler")], {}, None, ["sampling.sampler = 'euler'", "ddim"]),
        ([("preset", "huge")], {}, None, ["preset", "huge", "tiny, small, paper"]),
        ([("preset", ["tiny"])], {}, None, ["preset", "tiny, small, paper"]),
        ([("tuning.pairs", ["4x2", "0x2"])], {}, None, ["tuning.pairs.1 = '0x2'", "at least 1"]),
        ([("tuning.pairs", ["4x2", "4x2"])], {}, None, ["4x2 given twice"]),
        ([], {"FINESCALE_TUNING__PAIRS": "4x2,10y3"}, None, ["tuning.pairs.1 = '10y3'", "environment"]),
        ([("tuning.name", "a b")], {}, None, ["tuning.name = 'a b'"]),
        # values that do not go together
        ([("sampling.steps", 2000)], {}, None, ["sampling.steps = 2000", "model.noise_steps = 1000"]),
        ([("data.split.train", 0.7)], {}, None, ["data.split", "must be 1, not 1.1", "command line"]),
        ([("model.mean_widths", [8] * 7)], {}, None, ["mean_widths 7", "command line"]),
        ([("preset", "tiny"), ("model.heads", 3)], {}, None, ["multiples of heads (3)"]),
        ([("preset", "tiny"), ("model.mean_kernels", [2, 1])], {}, None, ["must be odd"]),
        ([("model.mean_kernels", [-1, 1, 1])], {}, None, ["model.mean_kernels.0 = -1"]),
        ([("model.mean_widths", [0, 4, 4])], {}, None, ["model.mean_widths.0 = 0"]),
        ([("preset", "paper"), ("model.token_width", 30)], {}, None, ["token_width 30"]),
    ],
)
def test_mistakes_are_one_line_with_key_value_and_source(
    overrides, environment, content, parts, write, one_line
):
    file = None if content is None else write(content)
    with pytest.raises(UserError) as raised:
        load(*overrides, environment=environment, file=file)
    one_line(raised, *parts)


@pytest.mark.parametrize("environment", [{"FINESCALE_TUNING__PAIRS": "4x2,10x3"}, {}])
def test_pairs_are_read_from_text_wherever_they_come_from(environment):
    overrides = [] if environment else [("tuning.pairs", "4x2,10x3")]
    assert [str(pair) for pair in load(*overrides, environment=environment).tuning.pairs] == ["4x2", "10x3"]


def test_several_mistakes_are_counted(one_line):
    with pytest.raises(UserError) as raised:
        load(("training.batch", 0), ("seed", -1))
    one_line(raised, "and 1 more")


@pytest.mark.parametrize("content", [None, "training: [", "- a\n- b", b"\xff\xfe\x00"])
def test_unreadable_file(tmp_path, content, one_line):
    file = tmp_path / "settings.yaml"
    if content is not None:
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as raised:
        load(file=str(file))
    one_line(raised, str(file))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_validates_and_holds(preset):
    config = load(("preset", preset))
    dumped = config.model_dump()
    for part, values in PRESETS[preset].items():
        for key, value in values.items():
            if isinstance(value, dict):
                assert {name: dumped[part][key][name] for name in value} == value
            else:
                assert dumped[part][key] == value


def test_paper_preset_has_the_published_architecture():
    model = load(("preset", "paper")).model
    assert model.mean_widths == (16, 32, 64, 128, 256)
    assert model.mean_kernels == (3, 3, 1, 1, 1)
    assert model.denoiser_widths == (64, 128, 256, 512)
    assert (model.noise_steps, model.heads, model.mean_context_at) == (1000, 4, "full")


@pytest.mark.parametrize("preset", PRESETS)
def test_yaml_round_trip(preset, write):
    config = load(
        ("preset", preset),
        ("tuning.pairs", ["10x3", "1x2"]),
        ("data.split.tiles", True),
        ("training.learning_rate", 1e-5),
        ("tuning.name", "2024"),  # a string that YAML would read as a number
    )
    assert load(file=write(config.to_yaml())) == config
    assert config.tuning.pairs == (FactorPair(10, 3), FactorPair(1, 2))


def test_the_tree_cannot_be_changed():
    with pytest.raises(Exception, match="frozen"):
        Config().training.batch = 3


@pytest.mark.parametrize(
    ("text", "assignment"),
    [
        ("training.batch=16", ("training.batch", 16)),
        ("model.mean_widths=[8, 16]", ("model.mean_widths", [8, 16])),
        ("data.split.tiles=true", ("data.split.tiles", True)),
        ("data.store=gs://bucket/a=b", ("data.store", "gs://bucket/a=b")),
        ("data.store=", ("data.store", None)),
    ],
)
def test_assignment(text, assignment):
    assert parse_assignment(text) == assignment


@pytest.mark.parametrize("text", ["training.batch", "=3", "training.batch=[3"])
def test_bad_assignment(text, one_line):
    with pytest.raises(UserError) as raised:
        parse_assignment(text)
    one_line(raised)


def test_what_a_job_knows_stands_between_the_preset_and_the_user(write):
    known = {"data": {"patch": 20, "split": {"train": 0.5, "test": 0.3}}, "sampling": {"members": 3}}
    config = load(("preset", "tiny"), defaults=known)
    assert (config.data.patch, config.sampling.members) == (20, 3)  # the preset has 24 and 4
    assert (config.data.split.train, config.data.split.validation) == (0.5, 0.2)
    assert config.scoring == load(("preset", "tiny")).scoring
    file, environment = write({"data": {"patch": 16}}), {"FINESCALE_SAMPLING__MEMBERS": "5"}
    split = ("data.split", {"train": 0.4, "validation": 0.3})
    changed = load(split, defaults=known, file=file, environment=environment)
    assert (changed.data.patch, changed.sampling.members, changed.data.split.train) == (16, 5, 0.4)
    assert known["data"]["split"] == {"train": 0.5, "test": 0.3}


def test_a_mistake_in_what_a_job_knows_is_not_the_users(one_line):
    with pytest.raises(UserError) as raised:
        load(defaults={"sampling": {"members": 1}})
    one_line(raised, "sampling.members = 1", "job's defaults")
