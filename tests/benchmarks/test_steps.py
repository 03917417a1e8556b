"""CRPS over network evaluations: every way is scored as a trial is, and only once."""

import csv

import numpy as np
import pytest

from pipeline import UserError
from pipeline.benchmarks.figures import steps_figure
from pipeline.benchmarks.steps import WAYS, steps_benchmark
from pipeline.benchmarks.tables import Row, StepsTable
from pipeline.config import SamplingSettings
from pipeline.config_layers import load_config
from pipeline.evaluation.held_out import SavedModel, held_out_data
from pipeline.model_file import describe_data, save_model
from pipeline.models.families import build_model
from pipeline.store.field_store import write_store
from pipeline.tuning.scoring import score

FEW = (("dpm_solver_pp_2m", 2), ("dpm_solver_pp_2m", 5), ("ddim", 4), ("ancestral", 6))


@pytest.fixture(scope="module")
def saved(trained_like, store, tmp_path_factory):
    config = load_config([("preset", "tiny"), ("tuning.max_context", 3)], environment={})
    url, sampling = str(tmp_path_factory.mktemp("steps") / "model"), SamplingSettings(steps=2, members=3)
    save_model(url, trained_like(), sampling=sampling, data=describe_data(store, config), scores={})
    return SavedModel.open(url)


@pytest.fixture
def measure(saved, store, tmp_path):
    """Measure, with more settings; gives the table and what was said."""

    def measure(*settings, ways=FEW, model=saved, data=store.url):
        given = [("data.store", data), ("output", str(tmp_path)), ("scoring.test_windows", 3), *settings]
        said = []
        config = load_config(given, defaults=model.defaults(), environment={})
        return steps_benchmark(config, model, ways, said.append), said, config

    return measure


def lines(folder):
    with open(folder / "benchmark" / "steps.csv") as file:
        return list(csv.DictReader(file))


def test_every_way_is_scored_as_a_trial_is(measure, saved, store, tmp_path):
    table, said, config = measure()
    assert [(row.sampler, row.evaluations) for row in table.rows] == list(FEW)
    assert (table.windows, table.members, table.units) == (3, 3, "mm/h")
    data = held_out_data(saved, store, config)
    for row in table.rows:
        sampling = config.sampling.model_copy(update={"sampler": row.sampler, "steps": row.evaluations})
        found = score(saved.model, data, config.model_copy(update={"sampling": sampling}), "test").ensemble
        assert (row.crps, row.spread_skill) == (found.crps, found.spread_skill_ratio)
        assert row.seconds > 0
    assert len({row.crps for row in table.rows}) == len(FEW)
    assert [line["sampler"] for line in lines(tmp_path)] == [sampler for sampler, _ in FEW]
    assert (tmp_path / "benchmark" / "steps.png").read_bytes().startswith(b"\x89PNG")
    assert sum(line.split()[0] in ("dpm_solver_pp_2m", "ddim", "ancestral") for line in said) == len(FEW)


def test_what_is_known_is_not_scored_again(measure, tmp_path):
    first, *_ = measure()
    path = tmp_path / "benchmark" / "steps.csv"
    head, *rest = path.read_text().splitlines()
    rest[0] = rest[0].replace(str(first.rows[0].crps), "0.125")
    path.write_text("\n".join([head, *rest[:2], ""]))
    again, *_ = measure()
    assert [row.crps for row in again.rows] == [0.125, *(row.crps for row in first.rows[1:])]
    assert len(lines(tmp_path)) == len(FEW)


@pytest.mark.parametrize("setting", [("seed", 1), ("sampling.members", 2), ("scoring.test_windows", 2)])
def test_rows_of_other_settings_stay_and_are_not_taken(measure, tmp_path, setting):
    two = FEW[:2]
    first, *_ = measure(ways=two)
    other, *_ = measure(setting, ways=two)
    assert [row.crps for row in other.rows] != [row.crps for row in first.rows]
    assert len(lines(tmp_path)) == 4
    assert measure(ways=two)[0] == first


def test_a_sampler_that_is_given_does_not_matter(measure):
    two = FEW[:2]
    first, *_ = measure(ways=two)
    assert measure(("sampling.sampler", "ddim"), ("sampling.steps", 7), ways=two)[0] == first


def test_a_short_schedule_has_no_more_evaluations_than_steps(measure, store, make_spec, perturb, tmp_path):
    short = perturb(build_model(make_spec(noise_steps=10), seed=0))
    config = load_config([("preset", "tiny"), ("tuning.max_context", 3)], environment={})
    data = describe_data(store, config)
    url = str(tmp_path / "short")
    save_model(url, short, sampling=SamplingSettings(steps=2, members=2), data=data, scores={})
    table, *_ = measure(ways=(("ddim", 2), ("ddim", 12), ("ddim", 20)), model=SavedModel.open(url))
    assert [row.evaluations for row in table.rows] == [2, 10]


def test_the_table_and_its_figure(pair):
    reference = Row("ancestral", 1000, 0.1, 1.0, 2.0)
    rows = (Row("dpm_solver_pp_2m", 5, 0.102, 0.9, 0.01), Row("heun", 5, 0.099, 0.8, 0.01), reference)
    table = StepsTable(pair, "rain", "mm/h", 24, 8, rows, reference)
    lines = str(table).splitlines()
    assert lines[0] == "steps: 4x2 of rain, 24 test windows x 8 members"
    assert "+2.0%" in lines[2]
    assert lines[2].endswith("the default")
    assert "-1.0%" in lines[3]
    assert "%" not in lines[4]
    assert not lines[3].endswith("the default")
    (axes,) = steps_figure(table).axes
    assert axes.get_ylabel() == "CRPS, mm/h"
    drawn = {line.get_label(): line for line in axes.lines}
    assert [*drawn["dpm_solver_pp_2m"].get_xdata()] == [5]
    assert [*drawn["default"].get_ydata()] == [0.102]
    (level,) = (line for line in axes.lines if line.get_linestyle() == "--")
    assert {*level.get_ydata()} == {0.1}
    looks = {(drawn[name].get_color(), drawn[name].get_marker()) for name in ("dpm_solver_pp_2m", "heun")}
    assert len({colour for colour, _ in looks}) == len({marker for _, marker in looks}) == 2


def test_the_default_is_measured_and_the_reference_is_last():
    default = SamplingSettings()
    assert (default.sampler, default.steps) in WAYS
    assert WAYS[-1] == ("ancestral", 1000)
    assert len(set(WAYS)) == len(WAYS)


def test_what_does_not_fit_is_refused_in_one_line(measure, saved, store, rain, tmp_path, one_line):
    def write(name, minutes, pixel):
        every = np.timedelta64(minutes, "m")
        y, x = (np.arange(48) * pixel for _ in range(2))
        times = store.times[0] + every * np.arange(len(rain))
        statics = {"orography": np.zeros((48, 48), "f4")}
        return write_store(
            str(tmp_path / name), rain, times=times, y=y, x=x, name="rain", statics=statics
        ).url

    pixel = abs(float(store.y[1] - store.y[0]))
    cases = [
        ({"data": write("slow", 10, pixel)}, ["a frame every 10 min", "5 min", "give a store"]),
        ({"data": write("wide", 5, 3 * pixel)}, ["from one y to the next", "train a model"]),
        ({"data": str(tmp_path / "nothing")}, ["nothing"]),
    ]
    for options, parts in cases:
        with pytest.raises(UserError) as raised:
            measure(**options)
        one_line(raised, *parts)
    with pytest.raises(UserError) as raised:
        measure(("data.min_wet", 1.0), ("data.wet_threshold", 99.0))
    one_line(raised, "hold no window")
    assert not (tmp_path / "benchmark").exists()


@pytest.mark.parametrize(
    ("content", "says"), [("a,b\n1,2\n", "not a table of this benchmark"), ("CRPS", "damaged")]
)
def test_a_table_that_is_not_ours_is_left_alone(measure, tmp_path, one_line, content, says):
    path = tmp_path / "benchmark" / "steps.csv"
    if content == "CRPS":
        table, *_ = measure(ways=FEW[:1])
        content = path.read_text().replace(str(table.rows[0].crps), "much")
    path.parent.mkdir(exist_ok=True)
    path.write_text(content)
    with pytest.raises(UserError) as raised:
        measure(ways=FEW[:1])
    one_line(raised, "steps.csv", says)
    assert path.read_text() == content


@pytest.fixture
def job(monkeypatch, run_here, tmp_path):
    """Run the job in this process; give its status and what it said."""

    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        status, said, errors = run_here("benchmark", *arguments)
        return status, "\n".join(said), errors

    return run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["steps"], "steps: measures a finished model; give its folder with --model"),
        (["seams"], "seams: measures a finished model"),
        (["steps", "--model", "nothing"], "model nothing: no model.json there"),
        (["scores", "--pairs", "4x2", "--model", "m"], "--model m: not used with scores"),
        (["steps", "--model", "m", "--pairs", "4x2"], "--pairs: not used with steps"),
        (["seams", "--model", "MODEL", "--set", "model.heads=4"], "the model was built with"),
        (["steps", "--model", "MODEL", "--store", "nothing"], "nothing"),
    ],
)
def test_mistakes_at_the_command_line_are_one_line(job, saved, arguments, message):
    status, _, error = job(*(saved.url if one == "MODEL" else one for one in arguments))
    assert status == 2
    assert len(error) == 1, error
    assert message in error[0]


def test_a_dry_run_shows_the_settings_of_the_models_card(job, saved, store):
    status, out, _ = job("steps", "--model", saved.url, "--store", store.url, "--dry-run")
    assert status == 0
    assert "members: 3" in out
    assert "patch: 24" in out
