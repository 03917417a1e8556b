"""What the tests of a study share: studies on a journal file, and what their trials would report."""

from types import SimpleNamespace

import pytest

from pipeline import FactorPair
from pipeline.config import TuningSettings
from pipeline.recipe import Recipe
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.storage import open_storage
from pipeline.tuning.study import PairStudy

PAIR = FactorPair(4, 2)
RUNGS = (3, 6)


def tuning(**changes):
    return TuningSettings.model_validate({"trials": 5, "max_failures": 2, "startup_trials": 3, **changes})


def open_study(storage, pair=PAIR, name=None, seed=0, **changes):
    entry = Recipe().entry(pair)
    return PairStudy(storage, name or f"sweep/{pair}", entry, tuning(**changes), 6, RUNGS, seed)


@pytest.fixture
def reopen(tmp_path):
    """Open the study as a new driver would: nothing but the journal file is left of the last one."""

    def open_(pair=PAIR, folder="a", **changes):
        return open_study(open_storage(tuning(), str(tmp_path / folder)), pair, **changes)

    return open_


def crps(parameters):
    """A score that depends on the point alone."""
    return 1 + parameters.beta + 0.01 * parameters.context + 0.1 * parameters.conservation.power


def complete(proposal, **metrics):
    return Outcome(
        state="complete",
        parameters=proposal.parameters,
        metrics={"crps": crps(proposal.parameters), **metrics},
        model_url=f"/models/{proposal.number}",
    )


def failed(proposal):
    return Outcome(state="failed", parameters=proposal.parameters, reason="loss is nan")


def verdict(proposal):
    """What a trial's process would report: pruned at a limit, failed where the point says so, or scored."""
    score, rungs = crps(proposal.parameters), {}
    if round(proposal.parameters.beta * 1e6) % 3 == 0 and proposal.number > 1:
        return failed(proposal)
    for step, limit in proposal.limits.items():
        rungs[step] = score * (1 + 1 / step)
        if limit is not None and rungs[step] > limit:
            return Outcome(state="pruned", parameters=proposal.parameters, rungs=rungs)
    return complete(proposal).model_copy(update={"rungs": rungs})


def run(study, number):
    """Run so many trials one after the other."""
    proposals = []
    for _ in range(number):
        proposals.append(study.ask())
        study.tell(proposals[-1].number, verdict(proposals[-1]))
    return proposals


def all_of(study):
    """Everything that can be known of a study's trials."""
    return [
        (t.number, t.state, t.params, t.values, t.intermediate_values, t.user_attrs["outcome"])
        for t in study._study.get_trials()
    ]


def both(study, values):
    """Run trials that score these values of two objectives."""
    for value in values:
        proposal = study.ask()
        assert proposal.limits == {}
        study.tell(proposal.number, complete(proposal, crps=value[0], log_spectral_distance=value[1]))


@pytest.fixture(scope="session")
def kit():
    """The functions above, which tests cannot import from here."""
    return SimpleNamespace(
        PAIR=PAIR,
        RUNGS=RUNGS,
        tuning=tuning,
        open_study=open_study,
        crps=crps,
        complete=complete,
        failed=failed,
        verdict=verdict,
        run=run,
        all_of=all_of,
        both=both,
    )
