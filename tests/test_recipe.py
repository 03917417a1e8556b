import uuid

import pytest

from pipeline import Conservation, FactorPair, Recipe, ScaleParameters, Scope, UserError, paper_prior
from pipeline.recipe import Origin, RecipeEntry


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
