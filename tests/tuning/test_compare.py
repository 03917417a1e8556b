"""What the tuned values are compared with."""

from types import SimpleNamespace

import pytest

from pipeline import FactorPair
from pipeline.prior import paper_prior
from pipeline.tuning.compare import FIXED, PREDICTED, PRIOR, rivals, train_rivals
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.recipe_fit import Observation, fixed_setting, leave_out
from pipeline.tuning.storage import open_storage


@pytest.fixture
def sweep(kit, tmp_path):
    """Studies of three pairs, one of them tuned before; no cluster: nothing here is trained."""
    storage = open_storage(kit.tuning(), str(tmp_path))
    studies = {}
    for text in ("4x2", "2x1", "8x3"):
        pair = FactorPair.parse(text)
        studies[pair] = kit.open_study(storage, pair)
        kit.run(studies[pair], 4)
    earlier = {FactorPair(8, 3): studies.pop(FactorPair(8, 3))}
    return SimpleNamespace(studies=studies, others=earlier, tracker=None, config=None)


def observations(sweep):
    return {
        pair: Observation(pair, [(trial.parameters, trial.crps) for trial in study.finished])
        for pair, study in (sweep.others | sweep.studies).items()
    }


def test_each_pair_has_its_rivals_in_one_order(sweep):
    seen = observations(sweep)
    chosen = rivals(sweep, seen)
    assert list(chosen) == list(sweep.studies)  # pairs tuned before are not compared again
    best = {pair: s.best().parameters for pair, s in (sweep.others | sweep.studies).items()}
    for pair, settings in chosen.items():
        assert list(settings) == [PRIOR, PREDICTED, FIXED]
        prior = paper_prior(pair)
        assert settings[PRIOR].beta == prior.beta
        assert settings[PRIOR].conservation == prior.conservation
        without = leave_out(list(seen.values()), pair)
        assert settings[PREDICTED] == without.predict(pair, 6).parameters
        assert settings[FIXED].beta == fixed_setting(best).beta
        assert settings[FIXED].context <= 6
    assert len({settings[FIXED] for settings in chosen.values()}) == 1


def test_the_prediction_has_not_seen_the_pair(sweep, kit):
    before = rivals(sweep, observations(sweep))
    pair = FactorPair(4, 2)
    proposal = sweep.studies[pair].ask()
    sweep.studies[pair].tell(proposal.number, kit.complete(proposal, crps=0.1))  # by far its best
    after = rivals(sweep, observations(sweep))
    assert after[pair][PREDICTED] == before[pair][PREDICTED]
    assert after[FactorPair(2, 1)][PREDICTED] != before[FactorPair(2, 1)][PREDICTED]


def test_a_pair_alone_has_its_prior(sweep):
    pair = FactorPair(4, 2)
    alone = SimpleNamespace(studies={pair: sweep.studies[pair]}, others={})
    chosen = rivals(alone, {pair: observations(sweep)[pair]})
    assert list(chosen[pair]) == [PRIOR]
    assert rivals(SimpleNamespace(studies=sweep.studies, others={}), {}) == {}


def test_what_a_trial_has_tried_is_not_trained(sweep, monkeypatch):
    pair = FactorPair(4, 2)
    trial = sweep.studies[pair].finished[1]
    assert isinstance(trial.outcome, Outcome)
    sweep.config = SimpleNamespace(tuning=SimpleNamespace(cpus_per_trial=1, gpus_per_trial=0))
    chosen = {pair: {PRIOR: sweep.studies[pair].prior().parameters, FIXED: trial.parameters}}
    models = train_rivals(sweep, SimpleNamespace(folder=lambda *_: "/none"), chosen, train=False)
    assert models == {pair: {PRIOR: "/models/0", FIXED: trial.model_url}}
