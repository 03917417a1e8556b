import json
from pathlib import Path

import pytest
import torch

from pipeline import UserError
from pipeline.data.pair_data import PairData
from pipeline.evaluation import pieces as module
from pipeline.evaluation.candidates import rivals
from pipeline.evaluation.chunks import score_remotely
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.held_out import seen_by
from pipeline.evaluation.pieces import pieces_of, state
from pipeline.evaluation.summary import summaries
from pipeline.evaluation.sums import WINDOWS, total
from pipeline.evaluation.tidy import SKILL, TidyTable

CPU = torch.device("cpu")


def parts(folder):
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*.part")}


def each_sum(pair):
    fields = {(label, name): sums for label, of in pair.models.items() for name, sums in of.items()}
    fields |= {("", name): sums for name, sums in pair.baselines.items()}
    return {(*of, name): values for of, sums in fields.items() for name, values in sums.items()}


def test_a_model_scores_as_in_its_training(score, store):
    pair = score()
    table = TidyTable.of([pair], store.info)
    for found in summaries(pair, table, store.info):
        one = found.candidate
        windows = seen_by(one.saved.model.spec, pair.rivals.windows)
        wanted = evaluate(one.saved.model, windows, one.config.sampling, batch=4, seed=0, device=CPU)
        assert found.scores.as_metrics() == pytest.approx(wanted.as_metrics(), rel=1e-9, abs=1e-12)
        crps = pair.windows[one.label].crps
        torch.testing.assert_close(crps, wanted.statistics.per_window("crps"))
        (row,) = table.all(pair.rivals.pair, one.label, "ensemble", SKILL, "bicubic")
        assert row.value == pytest.approx(wanted.crps_skill, rel=1e-9)
    first, second = (table.value("4x2", label, "ensemble", "fair_crps") for label in ("one", "other"))
    assert table.one("4x2", "one", "ensemble", SKILL, "other").value == pytest.approx(1 - first / second)


def test_how_windows_are_cut_into_chunks_changes_no_score(score, monkeypatch):
    small = ("scoring.batch", 2)
    whole = each_sum(score(small, output="whole"))
    monkeypatch.setattr(module, "_CHUNK", 2)
    cut = each_sum(score(small, output="cut"))
    assert [len(piece.parts.chunks) for piece in score.pieces] == [3, 3, 3]
    assert cut.keys() == whole.keys()
    for name, values in whole.items():
        torch.testing.assert_close(cut[name], values, rtol=1e-12, atol=1e-12, equal_nan=True)


def test_what_is_there_is_not_scored_again_and_what_is_damaged_is(score, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "_CHUNK", 2)
    small = ("scoring.batch", 2)
    before = each_sum(score(small))
    there = parts(tmp_path)
    assert len(there) == 9
    assert score.said == []
    score(small)
    assert parts(tmp_path) == there
    assert score.said == ["9 of 9 chunks of windows have been scored before"]

    lost, cut, flipped, *_ = sorted(there)
    Path(lost).unlink()
    Path(cut).write_bytes(Path(cut).read_bytes()[:-100])
    content = bytearray(Path(flipped).read_bytes())
    content[len(content) // 2] ^= 1
    Path(flipped).write_bytes(content)
    assert sum("2 of 3 chunks" in line or "damaged" in line for line in state(score.pieces)) >= 1
    after = each_sum(score(small))
    assert sorted(score.said) == sorted(
        [f"{file} is damaged; it is made again" for file in (cut, flipped)]
        + ["6 of 9 chunks of windows have been scored before"]
    )
    made = {file for file, time in parts(tmp_path).items() if time != there[file]}
    assert made == {lost, cut, flipped}
    assert all(torch.equal(values, after[name]) for name, values in before.items())


def test_parts_are_taken_for_what_they_are_alone(score, tmp_path):
    def made(*settings, **which):
        before = set(parts(tmp_path))
        score(*settings, **which)
        return len(set(parts(tmp_path)) - before)

    assert made(names=("one",)) == 2  # the references and the model
    assert made() == 1  # the references are those of the pair
    assert made(("evaluation.level", 0.8), ("scoring.resamples", 100), ("data.memory_gib", 1)) == 0
    assert made(("sampling.members", 4)) == 2
    assert made(("evaluation.thresholds", (1.0,))) == 3
    assert made(("seed", 1)) == 3
    assert made(("scoring.windows", 5)) == 3
    assert made(("scoring.windows", 1000)) == 3
    assert made(("scoring.windows", 1000), ("seed", 1)) == 3  # the same windows, other ensembles


def test_what_another_kind_of_device_has_scored_is_not_taken(models, store):
    (found,) = rivals(models(), store, "validation")
    here, there = ({piece.parts.url for piece in pieces_of(found, "out", torch.device(name))}
                   for name in ("cpu", "cuda"))  # fmt: skip
    assert len(here) == len(there) == 3
    assert not here & there


@pytest.mark.skipif(torch.cuda.is_available(), reason="the machine has a GPU")
def test_a_worker_without_the_gpu_it_was_given_does_not_score_on_its_cpu(one_line):
    with pytest.raises(UserError) as raised:
        score_remotely(None, "cuda", 1)
    one_line(raised, "tuning.gpus_per_trial", "--device cpu")


def test_memory_does_not_grow_with_the_windows(score, store):
    kept = {}
    for count in (3, 6):
        pair = score(("scoring.windows", count), ("evaluation.blocks", "day"), output=str(count))
        assert total(pair.baselines["bicubic"])[WINDOWS] == count
        sizes = {name: values.numel() for name, values in each_sum(pair).items()}
        kept[count] = sizes, sum(values.nbytes for values in vars(pair.windows["one"]).values())
    assert kept[3][0] == kept[6][0]
    assert (kept[3][1], kept[6][1]) == (3 * 40, 6 * 40)


def test_the_mapping_is_fitted_to_training_windows_once(score, monkeypatch, tmp_path):
    asked = []
    windows = PairData.training_windows
    monkeypatch.setattr(
        PairData, "training_windows", lambda self, context: asked.append(context) or windows(self, context)
    )
    pair = score()
    (file,) = tmp_path.rglob("quantile_mapping.json")
    assert json.loads(file.read_text())["pair"] == "4x2"
    next(tmp_path.rglob("*.part")).unlink()
    Path(sorted(parts(tmp_path))[0]).unlink()
    score()
    assert asked == [1]
    mapped, plain = (total(pair.baselines[name]) for name in ("quantile_mapping", "bicubic"))
    assert mapped["pixel.absolute_error"] != plain["pixel.absolute_error"]
