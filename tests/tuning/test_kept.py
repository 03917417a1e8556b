"""What an output remembers of its sweeps."""

import pytest

from pipeline import FactorPair, UserError
from pipeline.config_layers import load_config
from pipeline.tuning.kept import config_of, keep, output_id


def config(tmp_path, pairs, *overrides):
    settings = [("preset", "tiny"), ("output", str(tmp_path)), ("tuning.pairs", pairs), *overrides]
    return load_config(settings, environment={})


def test_an_output_keeps_its_name(tmp_path):
    name = output_id(str(tmp_path / "a"))
    assert output_id(str(tmp_path / "a")) == name
    assert output_id(str(tmp_path / "b")) != name
    (tmp_path / "a").rename(tmp_path / "c")
    assert output_id(str(tmp_path / "c")) == name


def test_pairs_add_up(tmp_path):
    assert keep(config(tmp_path, "2x2,1x2"), "s") == ()
    assert keep(config(tmp_path, "4x2,2x2"), "s") == (FactorPair(1, 2),)
    kept = config_of("s", config(tmp_path, "8x1"))
    assert [str(pair) for pair in kept.tuning.pairs] == ["1x2", "4x2", "2x2"]


def test_no_address_is_kept_but_the_given_one_is_used(tmp_path):
    storage, uri = "postgresql://me:hunter2@db/x", "http://me:hunter2@mlflow:5000"
    secret = [("tuning.storage", storage), ("tracking.uri", uri), ("tracking.experiment", "mine")]
    keep(config(tmp_path, "2x2", *secret), "s")
    assert "hunter2" not in (tmp_path / "sweeps" / "s.yaml").read_text()
    given = config(
        tmp_path, "2x2", ("tuning.storage", storage), ("tracking.uri", uri), ("tuning.predict", "4x4")
    )
    found = config_of("s", given)
    assert (found.tuning.storage, found.tracking.uri) == (storage, uri)
    assert found.tracking.experiment == "mine"
    assert found.tuning.predict == (FactorPair(4, 4),)


@pytest.mark.parametrize("content", ["preset: [", "preset: tiny\nnew_setting: 1\n", "text"])
def test_a_damaged_file(content, tmp_path, one_line):
    keep(config(tmp_path, "2x2"), "s")
    (tmp_path / "sweeps" / "s.yaml").write_text(content)
    for call in (lambda: config_of("s", config(tmp_path, "2x2")), lambda: keep(config(tmp_path, "2x2"), "s")):
        with pytest.raises(UserError) as raised:
            call()
        one_line(raised, "s.yaml", "move it")
