import sys

import pytest

from pipeline import FactorPair, UserError
from pipeline.cli import add_config_flags, config_from, job_parser, run_job

FLAGS = {"--pairs": ("tuning.pairs", "pairs"), "--trials": ("tuning.trials", "trials")}


def resolve(*argv):
    parser = job_parser("jobs/test.py", "A job.", "  python jobs/test.py\n")
    add_config_flags(parser, FLAGS)
    return config_from(parser.parse_args(argv))


def test_flags_reach_their_keys():
    config = resolve(
        "--preset", "tiny", "--pairs", "10x3, 1x2,", "--trials", "3", "--set", "training.ema=0.9"
    )
    assert config.preset == "tiny"
    assert config.tuning.pairs == (FactorPair(10, 3), FactorPair(1, 2))
    assert (config.tuning.trials, config.training.ema) == (3, 0.9)


def test_a_value_may_begin_with_a_minus():
    parser = job_parser("jobs/test.py", "A job.", "  python jobs/test.py\n")
    parser.add_argument("--bbox")
    parser.add_argument("--coarsen", action="store_true")
    parser.add_argument("files", nargs="*")
    given = parser.parse_args(["--coarsen", "--bbox", "-5,40,5,-1e3", "a.nc"])
    assert (given.bbox, given.coarsen, given.files) == ("-5,40,5,-1e3", True, ["a.nc"])
    assert parser.parse_args(["--bbox=-.5,0,1,1"]).bbox == "-.5,0,1,1"


def test_order_of_the_layers(tmp_path, monkeypatch):
    file = tmp_path / "settings.yaml"
    file.write_text("tuning: {trials: 2}\ntraining: {batch: 2}\nseed: 2")
    monkeypatch.setenv("FINESCALE_TUNING__TRIALS", "3")
    monkeypatch.setenv("FINESCALE_TRAINING__BATCH", "3")
    config = resolve("--config", str(file), "--trials", "4")
    assert (config.seed, config.training.batch, config.tuning.trials) == (2, 3, 4)


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--pairs", "0x2"], ["tuning.pairs.0 = '0x2'", "at least 1", "command line"]),
        (["--pairs", "4x2,4"], ["tuning.pairs.1 = '4'", "SPACExTIME"]),
        (["--trials", "none"], ["tuning.trials = 'none'", "command line"]),
        (["--set", "training.batch"], ["KEY=VALUE"]),
        (["--set", "training.bach=3"], ["training.bach"]),
        (["--config", "/nowhere/settings.yaml"], ["/nowhere/settings.yaml"]),
        (["--nonsense"], ["--nonsense", "jobs/test.py --help"]),
        (["--trials"], ["--trials", "jobs/test.py --help"]),
    ],
)
def test_mistakes(argv, parts, one_line):
    with pytest.raises(UserError) as raised:
        resolve(*argv)
    one_line(raised, *parts)


def test_help_shows_examples_and_keys(capsys):
    with pytest.raises(SystemExit) as ended:
        resolve("--help")
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert "python jobs/test.py" in shown
    assert "[tuning.pairs]" in shown


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, 0, ""),
        (UserError("store x: no such store"), 2, "error: store x: no such store\n"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_how_a_job_ends(error, status, said, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jobs/test.py", "--trials", "3"])

    def main(argv):
        assert argv == ["--trials", "3"]
        if error:
            raise error

    with pytest.raises(SystemExit) as ended:
        run_job(main)
    assert ended.value.code == status
    assert capsys.readouterr().err.startswith(said)


def test_a_bug_keeps_its_traceback():
    def main(argv):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_job(main)
