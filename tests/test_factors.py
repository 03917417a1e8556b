import pytest
from pydantic import BaseModel, ValidationError

from pipeline import Conservation, FactorPair, ScaleParameters, Scope, UserError
from pipeline.factors import PairField


@pytest.mark.parametrize(
    ("text", "space", "time"), [("10x3", 10, 3), ("1x2", 1, 2), (" 4X1 ", 4, 1), ("025x06", 25, 6)]
)
def test_parse(text, space, time):
    assert FactorPair.parse(text) == FactorPair(space, time)


def test_parse_gives_a_pair_back_unchanged():
    pair = FactorPair(10, 3)
    assert FactorPair.parse(pair) is pair
    assert FactorPair.parse(str(pair)) == pair


@pytest.mark.parametrize(
    "text", ["0x2", "2x0", "1x1", "4", "4x", "x4", "4x2x1", "-4x2", "1.5x2", "4*2", "", 4, 2.5, None, [4, 2]]
)
def test_parse_refuses(text, one_line):
    with pytest.raises(UserError) as raised:
        FactorPair.parse(text)
    one_line(raised, "factor pair", "10x3")  # what was given, and an example of what is right


@pytest.mark.parametrize(("space", "time"), [(0, 2), (2, 0), (1, 1), (-1, 3)])
def test_constructor_refuses(space, time):
    with pytest.raises(UserError):
        FactorPair(space, time)


def test_pixels_per_cell_and_order():
    assert FactorPair(10, 3).pixels_per_cell == 300
    assert sorted([FactorPair(10, 1), FactorPair(2, 5), FactorPair(10, 3)])[0] == FactorPair(2, 5)


def test_pair_as_a_field():
    class Holder(BaseModel):
        pair: PairField

    assert Holder(pair="4x2").model_dump(mode="json") == {"pair": "4x2"}
    assert Holder.model_validate_json('{"pair": "4x2"}').pair == FactorPair(4, 2)
    with pytest.raises(ValidationError, match="both factors must be at least 1"):
        Holder(pair="0x2")
    with pytest.raises(ValidationError, match="write SPACExTIME"):
        Holder(pair=2)  # what YAML makes of an unquoted 0x2


@pytest.mark.parametrize(
    "values",
    [
        {"beta": 1e-4, "context": 3},  # the schedule starts there
        {"beta": 1.0, "context": 3},
        {"beta": float("nan"), "context": 3},
        {"beta": 0.02, "context": 0},
        {"beta": 0.02, "context": 3, "depth": 2},
    ],
)
def test_scale_parameters_refuse(values):
    with pytest.raises(ValidationError):
        ScaleParameters(**values)


@pytest.mark.parametrize(
    "values", [{"power": 0}, {"power": 1.1}, {"threshold": -0.1}, {"threshold": 1.0}, {"scope": "world"}]
)
def test_conservation_refuses(values):
    with pytest.raises(ValidationError):
        Conservation(**values)


def test_written_forms():
    assert str(Conservation()) == "x, tile"
    assert str(Conservation(power=0.5, threshold=0.01, scope=Scope.CELL)) == "x^0.5 - 0.01, cell"
    assert str(Conservation(scope=Scope.NONE)) == "none"
    assert str(ScaleParameters(beta=0.02, context=5)) == "beta 0.02, L 5, f = x, tile"
