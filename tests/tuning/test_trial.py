import math
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline import ScaleParameters, UserError
from pipeline.config import Config
from pipeline.evaluation.evaluate import Evaluation
from pipeline.model_file import load_card
from pipeline.tuning import trial
from pipeline.tuning.claims import LeasedClaims
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.scoring import score_saved
from pipeline.tuning.trial import Point, TrialJob, run_trial

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
PARAMETERS = ScaleParameters(beta=0.02, context=2)
OPEN = {3: None, 6: None}


class KilledError(BaseException):
    """Stands for the end of the trial's process."""


# One stage of 6 steps and one of 9, kept after every third, where they report and are looked at, too.
SHORT = {
    "training": {
        "batch": 1,
        "mean_steps": 6,
        "residual_steps": 9,
        "report_every": 3,
        "checkpoints": {"every": 3},
    },
    "sampling": {"steps": 3, "members": 2},
    "scoring": {"windows": 3},
}


def changed(config, **parts):
    tree = config.model_dump()
    for part, values in parts.items():
        tree[part] = tree[part] | values if isinstance(values, dict) else values
    return Config.model_validate(tree)


@pytest.fixture
def make_job(tiny, store, tmp_path):
    def make(folder="runs", sweep="sweep", **parts):
        config = changed(changed(tiny, **SHORT), output=str(tmp_path / folder), **parts)
        return TrialJob(config, store, sweep, LeasedClaims())

    return make


@pytest.fixture
def run(make_job, pair):
    """Run a trial; gives its outcome, what it reported and the rungs it told of."""

    def run_(job=None, parameters=PARAMETERS, label="trial-000", limits=OPEN, kill=None, owner="a"):
        job = job or make_job()
        reports, rungs = [], []

        def on_report(report):
            reports.append(report)
            if kill == (report.stage, report.step):
                raise KilledError

        def on_rung(step, crps):
            rungs.append((step, crps))
            if kill == ("rung", step):
                raise KilledError

        point = Point(pair, parameters, label, limits)
        try:
            outcome = run_trial(job, point, owner=owner, on_report=on_report, on_rung=on_rung)
        finally:
            job.claims.forget(owner)  # as the driver does, however a trial ends
        return outcome, reports, rungs

    return run_


def essence(outcome):
    """All of an outcome but its seconds, and where the model lies."""
    content = outcome.model_dump()
    metrics = {name: v for name, v in content["metrics"].items() if not name.endswith("_seconds")}
    assert len(content["metrics"]) - len(metrics) == (2 if outcome.state == "complete" else 0)
    return content | {"metrics": metrics, "model_url": content["model_url"] is not None}


def unfinished(job):
    folder = trial.join(job.config.output, "unfinished")
    return sorted(path.name for path in Path(folder).glob("*"))


def test_a_complete_trial(run, make_job, store):
    job = make_job()
    outcome, reports, rungs = run(job)
    assert outcome.state == "complete"
    assert [(r.stage, r.step) for r in reports] == [
        *(("mean", step) for step in (3, 6)),
        *(("residual", step) for step in (3, 6, 9)),
    ]
    assert rungs == list(outcome.rungs.items())
    assert list(outcome.rungs) == [3, 6]
    assert outcome.trained_steps == 15
    assert all(math.isfinite(outcome.metrics[name]) for name in ("crps", "crps_skill", "training_seconds"))
    assert load_card(outcome.model_url)["scores"]["validation_crps"] == outcome.metrics["crps"]
    saved = score_saved(job.config, store, outcome.model_url, "validation")
    assert saved.as_metrics()["crps"] == pytest.approx(outcome.metrics["crps"], rel=1e-6)
    assert unfinished(job) == []


def test_an_ended_trial_is_only_read(run, make_job):
    for limits in (OPEN, {3: 0.0, 6: None}):
        job = make_job(folder=str(limits[3]))
        outcome, *_ = run(job, limits=limits)
        again, reports, rungs = run(job, limits=limits, owner="b")
        assert again == outcome
        assert reports == rungs == []


def test_looking_changes_nothing(run, make_job):
    with_rungs, *_ = run(make_job("a"))
    without, _, rungs = run(make_job("b"), limits={})
    assert rungs == []
    assert essence(without) == essence(with_rungs) | {"rungs": {}}


def test_rungs_are_scored_on_few_windows(run, make_job):
    few, *_ = run(make_job("a", tuning={"pruning": {"windows": 1}}))
    more, *_ = run(make_job("b", tuning={"pruning": {"windows": 2}}))
    assert few.metrics["crps"] == more.metrics["crps"]
    assert few.rungs != more.rungs


def test_neighbours_share_the_mean_across_sweeps(run, make_job):
    first, *_ = run(make_job())
    beside, reports, _ = run(make_job(), PARAMETERS.model_copy(update={"beta": 0.05}), "trial-001")
    assert beside.trained_steps == 9
    assert [math.isnan(report.loss) for report in reports] == [True, False, False, False]
    assert beside.metrics["crps"] != first.metrics["crps"]
    again, *_ = run(make_job(sweep="another"))
    assert essence(again) == essence(first) | {"trained_steps": 9}
    other, *_ = run(make_job(), PARAMETERS.model_copy(update={"context": 3}), "trial-002")
    assert other.trained_steps == 15


def test_without_sharing_everything_is_trained(run, make_job, tmp_path):
    first, *_ = run(make_job())
    job = make_job(sweep="alone", tuning={"share_stages": False})
    for label in ("trial-000", "trial-001"):
        alone, reports, _ = run(job, label=label)
        assert alone.trained_steps == 15
        assert not any(math.isnan(report.loss) for report in reports)
        assert essence(alone) == essence(first)
    kept = len(list((tmp_path / "runs" / "stages").glob("*.json")))
    assert kept == 1  # of the first


# Ends that are not complete


def test_pruned_at_the_first_rung(run, make_job, tmp_path):
    job = make_job()
    outcome, reports, rungs = run(job, limits={3: 0.0, 6: None})
    assert (outcome.state, outcome.metrics, outcome.model_url) == ("pruned", {}, None)
    assert list(outcome.rungs) == [3]
    assert rungs == list(outcome.rungs.items())
    assert outcome.trained_steps == 6 + 3
    assert (reports[-1].stage, reports[-1].step) == ("residual", 3)
    assert unfinished(job) == []
    assert [path.name for path in (tmp_path / "runs/models/sweep/4x2/trial-000").iterdir()] == [
        "outcome.json"
    ]


def test_pruned_at_the_second_rung_and_just_not(run, make_job):
    reached = run(make_job("a"))[0].rungs
    just, *_ = run(make_job("b"), limits=reached)  # as good as the limit is good enough
    assert just.state == "complete"
    below = {3: reached[3], 6: math.nextafter(reached[6], 0)}
    outcome, *_ = run(make_job("c"), limits=below)
    assert (outcome.state, outcome.rungs, outcome.trained_steps) == ("pruned", reached, 6 + 6)


def test_a_diverging_trial_has_failed(run, make_job):
    job = make_job(training={"learning_rate": 1e30})
    outcome, *_ = run(job)
    assert (outcome.state, outcome.metrics, outcome.model_url, outcome.rungs) == ("failed", {}, None, {})
    assert "stage mean: loss is" in outcome.reason
    assert "\n" not in outcome.reason
    assert unfinished(job) == []
    again, reports, _ = run(job)
    assert again == outcome
    assert reports == []


def test_a_final_training_that_diverges_goes_on_from_its_checkpoint(run, make_job, one_line):
    final, wild = (replace(make_job(training=t), final=True) for t in ({}, {"learning_rate": 1e30}))
    with pytest.raises(KilledError):
        run(final, limits={}, kill=("residual", 6))  # a checkpoint is kept after step 3
    with pytest.raises(UserError) as raised:
        run(wild, limits={})
    one_line(raised, "diverged", "training.learning_rate", "same command")
    outcome, reports, _ = run(final, limits={})
    assert (outcome.state, reports[0].step) == ("complete", 6)
    assert essence(outcome)["metrics"] == essence(run(make_job("calm"), limits={})[0])["metrics"]


@pytest.mark.parametrize(("calls", "rungs"), [(1, []), (2, [3]), (3, [3, 6])])
def test_a_score_that_is_not_finite_is_a_verdict(run, make_job, monkeypatch, calls, rungs):
    plain, made = trial.score, []

    def broken(*arguments, **options):
        made.append(1)
        scores: Evaluation = plain(*arguments, **options)
        crps = float("nan") if len(made) == calls else scores.ensemble.crps
        return replace(scores, ensemble=replace(scores.ensemble, crps=crps))

    monkeypatch.setattr(trial, "score", broken)
    job = make_job()
    outcome, *_ = run(job)
    assert outcome.state == "failed"
    assert outcome.reason.startswith("CRPS is nan")
    assert list(outcome.rungs) == rungs
    assert unfinished(job) == []


def test_a_store_that_changes_is_refused(run, make_job, store, one_line):
    job = make_job()
    with pytest.raises(UserError) as raised:
        run(replace(job, store=replace(store, info=replace(store.info, fingerprint="old"))))
    one_line(raised, "was replaced meanwhile")
    assert run(job)[0].state == "complete"  # a mistake is no verdict on the point


# Kills

KILLS = [
    ("mean", 3),  # before its checkpoint
    ("mean", 6),  # before it is shared
    ("residual", 3),
    ("rung", 3),  # between the rung and the checkpoint of the same step
    ("residual", 6),
    ("rung", 6),
    ("residual", 9),
]


@pytest.fixture
def undisturbed(run, make_job):
    def of(limits, **parts):
        return essence(run(make_job("undisturbed", **parts), limits=limits)[0])

    return of


def test_a_killed_trial_ends_as_an_undisturbed_one(run, make_job, undisturbed):
    expected = undisturbed(OPEN)
    for number, kill in enumerate((KILLS[0], KILLS[2], *KILLS[5:])):
        job = make_job(str(number))
        with pytest.raises(KilledError):
            run(job, kill=kill)
        outcome, reports, _ = run(job, owner="b")
        assert essence(outcome) == expected, kill
        assert unfinished(job) == []
        steps = [(report.stage, report.step) for report in reports]
        if kill == ("rung", 6):  # it went on from the checkpoint after step 3
            assert steps == [("mean", 6), ("residual", 6), ("residual", 9)]


def test_killed_at_every_turn(run, make_job, undisturbed):
    job = make_job()
    for kill in KILLS:
        with pytest.raises(KilledError):
            run(job, kill=kill, owner=str(kill))
    assert essence(run(job, owner="last")[0]) == undisturbed(OPEN)


def test_killed_without_sharing(run, make_job, undisturbed):
    alone = {"tuning": {"share_stages": False}}
    expected = undisturbed(OPEN, **alone)
    for number, kill in enumerate([("mean", 6), ("rung", 6)]):
        job = make_job(str(number), **alone)
        with pytest.raises(KilledError):
            run(job, kill=kill)
        assert essence(run(job)[0]) == expected, kill


def test_a_killed_trial_is_pruned_all_the_same(run, make_job, undisturbed):
    limits = {3: None, 6: 0.0}
    expected = undisturbed(limits)
    for number, kill in enumerate([("rung", 3), ("rung", 6)]):
        job = make_job(str(number))
        with pytest.raises(KilledError):
            run(job, limits=limits, kill=kill)
        outcome, _, rungs = run(job, limits=limits)
        assert essence(outcome) == expected, kill
        assert rungs[-1] == (6, outcome.rungs[6])


def test_a_rung_is_scored_once(run, make_job, monkeypatch):
    plain, scored = trial.score, []

    def counted(model, data, config, split, count=None, **options):
        scored.append(count)
        return plain(model, data, config, split, count, **options)

    monkeypatch.setattr(trial, "score", counted)
    job = make_job()
    with pytest.raises(KilledError):
        run(job, kill=("rung", 6))
    _, _, told = run(job)
    assert scored == [2, 2, None]
    assert [step for step, _ in told] == [6]  # told again: the kill undid the steps after the third


def test_a_kill_while_the_end_is_written(run, make_job, undisturbed, monkeypatch):
    job = make_job()

    def killed(*args, **kwargs):
        raise KilledError

    for place, name in ((trial, "save_model"), (Outcome, "save")):
        with monkeypatch.context() as patch:
            patch.setattr(place, name, killed)
            with pytest.raises(KilledError):
                run(job)
    assert essence(run(job)[0]) == undisturbed(OPEN)


def test_a_kill_after_the_outcome_leaves_nothing_behind_for_long(run, make_job, tmp_path):
    job = make_job()
    with pytest.raises(KilledError):
        run(job, kill=("residual", 6))
    left = unfinished(job)
    (folder,) = (tmp_path / "runs/unfinished").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["mean", "progress.json", "residual"]
    shutil.copytree(tmp_path / "runs/unfinished", tmp_path / "left")
    outcome, *_ = run(job)
    shutil.copytree(tmp_path / "left", tmp_path / "runs/unfinished", dirs_exist_ok=True)
    assert unfinished(job) == left
    again, reports, _ = run(job)
    assert again == outcome
    assert reports == []
    assert unfinished(job) == []


def test_another_point_under_the_same_label_is_not_taken_for_it(run, make_job):
    job = make_job()
    first, *_ = run(job)
    other = PARAMETERS.model_copy(update={"beta": 0.05})
    outcome, *_ = run(job, other)
    assert outcome.parameters == other
    assert outcome.metrics["crps"] != first.metrics["crps"]


def test_trials_leave_each_others_files_alone(run, make_job):
    job = make_job()
    with pytest.raises(KilledError):
        run(job, kill=("residual", 6))
    left = unfinished(job)
    run(job, label="trial-001")
    assert unfinished(job) == left


def test_damaged_progress_costs_no_trial(run, make_job, undisturbed, caplog):
    job = make_job("damaged")
    with pytest.raises(KilledError):
        run(job, kill=("residual", 6))
    (name,) = unfinished(job)
    path = Path(job.config.output) / "unfinished" / name / "progress.json"
    path.write_text(path.read_text()[:-5])
    outcome, _, _ = run(job, owner="b")
    assert outcome.state == "complete"
    assert outcome.metrics["crps"] == undisturbed(OPEN)["metrics"]["crps"]
    assert "is damaged" in caplog.text
