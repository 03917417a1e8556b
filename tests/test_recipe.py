import uuid

import pytest
import yaml

from pipeline import Conservation, FactorPair, Recipe, ScaleParameters, Scope, UserError, paper_prior
from pipeline.laws import ParameterInterval
from pipeline.recipe import Origin, RecipeEntry
from pipeline.tuning.recipe_fit import Observation, fit_laws


def tuned_recipe():
    tuned = ScaleParameters(
        beta=0.0123456789, context=7, conservation=Conservation(power=0.55, threshold=0.001, scope=Scope.CELL)
    )
    return Recipe(
        dataset="knmi",
        entries=(
            RecipeEntry(pair="4x2", parameters=tuned, origin=Origin.TUNED, score=0.0883, study="knmi-4x2"),
            *Recipe.paper().entries,
        ),
    )


def test_round_trip(tmp_path):
    for url in (str(tmp_path / "deep" / "recipe.yaml"), f"memory://{uuid.uuid4().hex}/recipe.yaml"):
        tuned_recipe().save(url)
        assert Recipe.load(url) == tuned_recipe()


def test_it_reads_as_a_person_would_write_it(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("entries:\n- {pair: 4x2, origin: tuned, parameters: {beta: 2e-2, context: 5}}\n")
    entry = Recipe.load(str(file)).entry(FactorPair(4, 2))
    assert entry.parameters == ScaleParameters(beta=0.02, context=5)


def test_entry():
    recipe = tuned_recipe()
    assert recipe.entry(FactorPair(4, 2)).origin is Origin.TUNED
    unknown = recipe.entry(FactorPair(7, 5))
    assert unknown.origin is Origin.PAPER
    assert unknown.parameters == paper_prior(FactorPair(7, 5))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"", "not a valid recipe"),
        (b"entries: [", "not a valid recipe"),
        (b"\xff\xfe\x00binary", "not a valid recipe"),
        (b"- 4x2", "not a valid recipe"),
        (b"entry: []", "entry"),
        (b"entries:\n- {pair: 0x2, origin: paper, parameters: {beta: 0.02, context: 5}}", "pair"),
        (b"entries:\n- {pair: 4x2, origin: guess, parameters: {beta: 0.02, context: 5}}", "origin"),
        (b"entries:\n- {pair: 4x2, origin: tuned, parameters: {beta: 2, context: 5}}", "beta"),
        (b"entries:\n- {pair: 4x2, origin: tuned, parameters: {context: 5}}", "beta"),
    ],
)
def test_bad_file(tmp_path, content, reason, one_line):
    file = tmp_path / "recipe.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError) as raised:
        Recipe.load(str(file))
    one_line(raised, str(file), reason)


def test_a_folder_is_not_a_recipe(tmp_path, one_line):
    with pytest.raises(UserError) as raised:
        Recipe.load(str(tmp_path))
    one_line(raised, str(tmp_path))


def test_updating_replaces_the_same_pairs_and_keeps_the_others():
    recipe = Recipe.paper([FactorPair(10, 1), FactorPair(1, 3)])
    new = RecipeEntry(
        pair=FactorPair(1, 3), parameters=paper_prior(FactorPair(1, 3)), origin=Origin.TUNED, score=0.1
    )
    updated = recipe.updated([new])
    assert updated.entry(FactorPair(1, 3)) == new
    assert updated.entry(FactorPair(10, 1)) == recipe.entry(FactorPair(10, 1))
    assert len(updated.entries) == 2


def laws_at(beta):
    """Give laws fitted to two pairs whose best beta is `beta`."""
    return fit_laws(
        [
            Observation(pair, [(ScaleParameters(beta=beta, context=4), 0.1)])
            for pair in (FactorPair(4, 2), FactorPair(1, 3))
        ]
    )


def test_laws_and_intervals_survive_a_file(tmp_path):
    laws = laws_at(0.02)
    recipe = tuned_recipe().updated([RecipeEntry.predicted(laws, FactorPair(8, 2))], laws)
    file = tmp_path / "recipe.yaml"
    recipe.save(str(file))
    assert Recipe.load(str(file)) == recipe
    assert max(map(len, file.read_text().splitlines())) <= 140


def test_a_file_from_before_the_laws_still_loads(tmp_path):
    recipe = tuned_recipe()
    content = recipe.model_dump(mode="json")
    del content["laws"]
    for entry in content["entries"]:
        del entry["interval"]
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    assert Recipe.load(str(file)) == recipe


def test_a_pair_without_entry_is_predicted_by_the_laws():
    laws = laws_at(0.05)
    recipe = tuned_recipe().updated([], laws)
    entry = recipe.entry(FactorPair(7, 5))
    found = laws.predict(FactorPair(7, 5))
    assert (entry.origin, entry.pair) == (Origin.PREDICTED, FactorPair(7, 5))
    assert (entry.parameters, entry.interval) == (found.parameters, found.interval)
    assert recipe.entry(FactorPair(4, 2)).origin is Origin.TUNED  # what is listed comes first
    assert recipe.entry(FactorPair(10, 1)).origin is Origin.PAPER


def test_a_predicted_entry_respects_the_longest_context():
    entry = RecipeEntry.predicted(laws_at(0.05), FactorPair(7, 1), max_context=2)
    assert entry.parameters.context == entry.interval.context[1] == 2


def test_predicted_never_replaces_tuned_and_tuned_always_predicted():
    recipe, laws, pair = tuned_recipe(), laws_at(0.05), FactorPair(4, 2)
    predicted = RecipeEntry.predicted(laws, pair)
    assert recipe.updated([predicted]).entry(pair) == recipe.entry(pair)
    published = recipe.updated([RecipeEntry.predicted(laws, FactorPair(10, 1))]).entry(FactorPair(10, 1))
    assert published.origin is Origin.PREDICTED
    assert Recipe(entries=(predicted,)).updated([recipe.entry(pair)]).entries == (recipe.entry(pair),)


def test_old_predictions_follow_new_laws():
    old, new, pair = laws_at(0.01), laws_at(0.05), FactorPair(8, 2)
    recipe = tuned_recipe().updated([RecipeEntry.predicted(old, pair)], old)
    assert recipe.updated([], new).entry(pair) == RecipeEntry.predicted(new, pair)
    assert recipe.updated([]).entry(pair) == RecipeEntry.predicted(old, pair)
    assert recipe.updated([]).laws == old
    assert recipe.updated([], new).entry(FactorPair(4, 2)) == recipe.entry(FactorPair(4, 2))


def test_an_interval_reads_as_a_person_would_write_it(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "entries:\n- {pair: 4x2, origin: predicted, parameters: {beta: 2e-2, context: 5}, "
        "interval: {beta: [0.01, 0.04], context: [3, 8]}}\n"
    )
    interval = Recipe.load(str(file)).entry(FactorPair(4, 2)).interval
    assert interval == ParameterInterval(beta=(0.01, 0.04), context=(3, 8))


def test_an_upside_down_interval_is_refused(tmp_path, one_line):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "entries:\n- {pair: 4x2, origin: predicted, parameters: {beta: 2e-2, context: 5}, "
        "interval: {beta: [0.04, 0.01], context: [3, 8]}}\n"
    )
    with pytest.raises(UserError) as raised:
        Recipe.load(str(file))
    one_line(raised, str(file), "interval", "[low, high]")
