import importlib
import sys

import pytest

from pipeline import FactorPair, ScaleParameters, UserError
from pipeline.config import TuningSettings
from pipeline.prior import paper_prior
from pipeline.recipe import Origin, Recipe, RecipeEntry
from pipeline.tuning.outcome import Outcome
from pipeline.tuning.search_space import first_points, load_search_space, source_digest
from pipeline.tuning.storage import open_storage
from pipeline.tuning.study import PairStudy

PAIR = FactorPair(4, 2)
ENTRY = Recipe().entry(PAIR)


@pytest.fixture
def space(tmp_path, monkeypatch):
    """Write a search space of one's own and give its module name."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def write(source):
        (tmp_path / "my_space.py").write_text(source)
        sys.modules.pop("my_space", None)
        importlib.invalidate_caches()
        return "my_space"

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # two texts of one second would share theirs
    yield write
    sys.modules.pop("my_space", None)


GOOD = """
from pipeline import ScaleParameters
def first_trials(entry, max_context):
    return [{"beta": 0.01}]
def suggest(trial, entry, max_context):
    return ScaleParameters(beta=trial.suggest_float("beta", 0.005, 0.05), context=1)
"""


@pytest.fixture
def study(tmp_path):
    def open_(module, **changes):
        settings = TuningSettings(search_space=module, trials=6, startup_trials=2, **changes)
        return PairStudy(open_storage(settings, str(tmp_path)), "s/4x2", ENTRY, settings, 6, (), 0)

    return open_


def run(study, number):
    proposals = []
    for _ in range(number):
        proposals.append(study.ask())
        parameters = proposals[-1].parameters
        outcome = Outcome(
            state="complete", parameters=parameters, metrics={"crps": parameters.beta}, model_url="/m"
        )
        study.tell(proposals[-1].number, outcome)
    return proposals


def test_a_space_of_ones_own(space, study):
    one = study(space(GOOD))
    proposals = run(one, 4)
    assert one.prior().parameters.beta == 0.01
    assert [trial.first for trial in one.finished] == [True, False, False, False]
    assert all(0.005 <= proposal.parameters.beta <= 0.05 for proposal in proposals)


def test_the_default_begins_with_the_prior():
    points = first_points("search_spaces.scale_adaptive", ENTRY, 6)
    prior = paper_prior(PAIR)
    assert points[0]["beta"] == prior.beta
    assert points[0]["context"] == min(prior.context, 6)


def test_a_space_is_told_what_is_known(space):
    source = GOOD.replace('{"beta": 0.01}', '{"beta": entry.parameters.beta}')
    tuned = RecipeEntry(
        pair=PAIR, parameters=ScaleParameters(beta=0.033, context=2), origin=Origin.TUNED, score=1.0
    )
    assert first_points(space(source), tuned, 6) == ({"beta": 0.033},)


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import nothing_of_that_name", ["cannot be imported", "nothing_of_that_name"]),
        ("def suggest(:", ["cannot be imported", "SyntaxError"]),
        ("1 / 0", ["cannot be imported", "ZeroDivisionError"]),
        ("def suggest(): pass", ["no function first_trials()"]),
        ("first_trials = suggest = 3", ["no function first_trials()"]),
        (GOOD.replace('[{"beta": 0.01}]', "[]"), ["first_trials()", "no point", "4x2"]),
        (GOOD.replace('[{"beta": 0.01}]', "None"), ["first_trials() failed", "4x2", "TypeError"]),
        (
            GOOD.replace("return [", "raise KeyError('x')\n    return ["),
            ["first_trials() failed", "KeyError"],
        ),
        (GOOD.replace('{"beta": 0.01}', '{"beta": 0.5}'), ["0.5", "out of the range"]),
        (GOOD.replace('{"beta": 0.01}', '{"power": 0.5}'), ["first point", "beta"]),
        (GOOD.replace("context=1", "context=0"), ["first point", "ValidationError"]),
        (GOOD.replace("context=1", "context=max_context + 1"), ["L up to 6"]),
        (GOOD.replace("return Scale", "return 1 or Scale"), ["must give ScaleParameters"]),
        (GOOD.replace("(trial, entry, max_context)", "(trial)"), ["first point", "TypeError"]),
    ],
)
def test_mistakes_in_a_space(source, parts, space, one_line):
    module = space(source)
    with pytest.raises(UserError) as raised:
        first_points(module, ENTRY, 6)
    one_line(raised, "tuning.search_space 'my_space'", *parts)


@pytest.mark.parametrize("module", ["no_such_space", "", ".relative", "pipeline"])
def test_no_space(module, one_line):
    with pytest.raises(UserError) as raised:
        load_search_space(module)
    one_line(raised, f"tuning.search_space {module!r}")


@pytest.mark.parametrize("number", [0, 3])
def test_a_space_that_fails_later_loses_nothing(number, space, study, one_line):
    failing = GOOD.replace("context=1", f"context=1 if trial.number != {number} else 1 / 0")
    one = study(space(failing))
    before = run(one, number)
    with pytest.raises(UserError) as raised:
        one.ask()
    one_line(raised, "my_space", "suggest() failed", "ZeroDivisionError")
    one.suspend()
    assert one.running == 0
    assert [trial.number for trial in one.finished] == list(range(number))
    # Put right, the study goes on as if nothing had been.
    after = run(study(space(GOOD)), 5 - number)
    assert [proposal.number for proposal in before + after] == [0, 1, 2, 3, 4]
    other = study(space(GOOD))
    assert [trial.number for trial in other.finished] == [0, 1, 2, 3, 4]


def test_a_trial_that_always_dies_is_described_by_its_own_number(space, study):
    module = space(GOOD.replace("context=1", "context=1 + trial.number"))
    one = study(module, max_failures=0)
    run(one, 2)
    parameters = one.ask().parameters
    assert parameters.context == 3
    assert one.tell_killed(2).parameters == parameters


def test_an_edited_space_is_another(space):
    digest = source_digest(space(GOOD))
    assert source_digest(space(GOOD)) == digest
    assert source_digest(space(GOOD.replace("0.05", "0.06"))) != digest
