import pytest
import torch

from pipeline.config import EvaluationSettings
from pipeline.evaluation.measures.pixel import Pixel
from pipeline.evaluation.measures.values import Wet
from pipeline.evaluation.parts import DamagedPartError, Part, PartFolder, WindowScores, merged
from pipeline.evaluation.sums import WINDOWS, BlockSums

THREE = ((0, 5), (5, 10), (10, 12))


@pytest.fixture
def part(scored_rain):
    """Make the part of 5 windows that lie in two blocks of an evaluation."""

    def part(seed=0, rows=(2, 7), wet=0.1):
        sums = BlockSums([Pixel(), Wet(wet)], 2)
        sums.add(scored_rain(seed=seed), torch.tensor([0, 1, 1, 0, 1]))
        generator = torch.Generator().manual_seed(seed)
        windows = WindowScores(*torch.rand(5, 5, dtype=torch.float64, generator=generator))
        return Part(torch.tensor(rows), {"ensemble": sums}, windows)

    return part


def test_a_part_comes_back_as_it_was(part):
    one = part()
    found = Part.from_bytes(one.to_bytes())
    assert found.rows.tolist() == [2, 7]
    assert found.sums["ensemble"].described == one.sums["ensemble"].described
    for name, values in one.sums["ensemble"].sums.items():
        assert torch.equal(found.sums["ensemble"].sums[name], values)
    assert vars(found.windows).keys() == vars(one.windows).keys()
    assert all(torch.equal(vars(found.windows)[name], values) for name, values in vars(one.windows).items())
    assert Part.from_bytes(Part(one.rows, one.sums, None).to_bytes()).windows is None


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "longer"])
def test_damage_is_noticed(damage, part):
    whole = part().to_bytes()
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    damaged = {"empty": b"", "cut": whole[:-9], "flipped": bytes(flipped), "longer": whole + b"\0"}
    with pytest.raises(DamagedPartError):
        Part.from_bytes(damaged[damage])


def test_parts_add_up_by_block_and_keep_windows_in_order(part):
    one, other = part(0, (2, 7)), part(1, (7, 8))
    sums, windows = merged([one, other], 10)
    ours, theirs = (each.sums["ensemble"].sums["pixel.crps"] for each in (one, other))
    wanted = torch.zeros(10, dtype=torch.float64)
    wanted[2], wanted[7], wanted[8] = ours[0], ours[1] + theirs[0], theirs[1]
    assert torch.equal(sums["ensemble"]["pixel.crps"], wanted)
    assert sums["ensemble"][WINDOWS].tolist() == [0, 0, 2, 0, 0, 0, 0, 5, 3, 0]
    assert torch.equal(windows.crps, torch.cat([one.windows.crps, other.windows.crps]))
    with pytest.raises(ValueError, match="cannot put sums"):
        merged([one, part(1, wet=0.5)], 10)


def test_a_folder_tells_what_is_missing(part, tmp_path):
    decides = {"settings": EvaluationSettings().model_dump(mode="json"), "seed": 0}
    folder = PartFolder.under(str(tmp_path), decides, THREE)
    assert folder.missing() == (list(THREE), [])
    for chunk in THREE[:2]:
        folder.write(chunk, part().to_bytes())
    file = tmp_path / "parts" / folder.url.rpartition("/")[2] / "0000005-0000010.part"
    assert folder.missing() == ([THREE[2]], [])
    file.write_bytes(file.read_bytes()[:-1])
    assert folder.missing() == ([THREE[1], THREE[2]], [str(file)])
    with pytest.raises(DamagedPartError, match="0000005"):
        folder.read(THREE[1])
    assert folder.read(THREE[0]).rows.tolist() == [2, 7]
    again, other = (PartFolder.under(str(tmp_path), decides | {"seed": seed}, THREE) for seed in (0, 1))
    assert again == folder
    assert other.missing() == (list(THREE), [])
