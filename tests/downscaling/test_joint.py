import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import Conservation, FactorPair, Scope
from pipeline.config import SamplingSettings
from pipeline.data.batch import Batch
from pipeline.downscaling.domain_mass import conserve_domain
from pipeline.downscaling.joint import JointSampler
from pipeline.downscaling.lattice import Lattice
from pipeline.downscaling.scratch import Scratch

PAIR = FactorPair(4, 2)


class WholeFrame:
    """A coarse frame with its context in memory."""

    def __init__(self, pair, shape, context=3, statics=1, seed=0, missing=0.0):
        generator = torch.Generator().manual_seed(seed)
        h, w = shape
        rain = torch.randn(context, h, w, generator=generator).sub(0.3).clamp(min=0) * 3
        self.pair, self.coarse = pair, rain
        self.known = torch.rand(context, h, w, generator=generator) >= missing
        self.coarse = torch.where(self.known, rain, 0.0)
        self.statics = torch.randn(statics, h * pair.space, w * pair.space, generator=generator)

    def batch(self, corners, shape):
        s, (rows, columns) = self.pair.space, shape
        cells = [(slice(y // s, (y + rows) // s), slice(x // s, (x + columns) // s)) for y, x in corners]
        coarse = torch.stack([self.coarse[:, y, x] for y, x in cells])
        fine = torch.zeros(len(corners), self.pair.time, *shape)
        return Batch(
            fine=fine,
            mask=torch.ones_like(fine, dtype=torch.bool),
            coarse=coarse,
            coarse_mask=torch.stack([self.known[:, y, x] for y, x in cells]),
            statics=torch.stack([self.statics[:, y : y + rows, x : x + columns] for y, x in corners]),
            dynamics=torch.zeros(*coarse.shape[:2], 0, *coarse.shape[2:]),
            position=torch.tensor([self.position(y, x) for y, x in corners]),
            weights=torch.ones(len(corners)),
        )

    def position(self, y, x):
        return 40, 100 + y, 64 + x

    def wet(self):
        return (self.coarse[-1] > 0).numpy().repeat(self.pair.space, axis=0).repeat(self.pair.space, axis=1)


def drawn(model, frame, lattice, sampling, members=(0, 1, 2), **options):
    sampler = JointSampler(model, lattice, sampling, seed=3, device=torch.device("cpu"), **options)
    return sampler.draw(frame, members, Scratch())


def conserved(model, frame, field, lattice, rows=16):
    spec = model.spec
    bands = conserve_domain(
        field,
        frame.coarse[-1].numpy(),
        frame.known[-1].numpy(),
        lattice,
        spec.pair,
        spec.parameters.conservation,
        scale=spec.scale,
        rows=rows,
    )
    return np.concatenate([values for _, values in bands], axis=1)


@settings(max_examples=60, deadline=None)
@given(
    cells=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    side=st.integers(4, 60),
    overlap=st.sampled_from([0.0, 0.25, 0.5, 0.75]),
    space=st.integers(1, 5),
)
def test_weights_of_all_tiles_add_up_to_one(cells, side, overlap, space):
    height, width = (n * space for n in cells)
    lattice = Lattice.over(height, width, max(side, space), overlap, FactorPair(space, 2))
    total, tiles = np.zeros((height, width)), list(lattice)
    for tile in tiles:
        assert tile.weights.shape == lattice.shape == total[tile.y, tile.x].shape
        assert all(corner % space == 0 for corner in tile.corner)
        assert (tile.weights >= 0).all()
        total[tile.y, tile.x] += tile.weights
    np.testing.assert_allclose(total, 1, rtol=1e-6)
    assert len(tiles) == len(lattice)
    if overlap == 0 and height % lattice.side == width % lattice.side == 0:
        assert len(tiles) == (height // lattice.side) * (width // lattice.side)


@pytest.mark.parametrize("sampler", ["dpm_solver_pp_2m", "heun", "ddim", "ancestral"])
@pytest.mark.parametrize("scope", Scope)
def test_one_tile_is_what_the_model_samples(trained_like, sampler, scope):
    model = trained_like(conservation=Conservation(scope=scope, power=0.7, threshold=0.01))
    frame = WholeFrame(PAIR, (6, 7), missing=0.1)
    sampling = SamplingSettings(sampler=sampler, steps=4, members=3)
    lattice = Lattice.over(24, 28, 28, 0.5, PAIR)
    assert len(lattice) == 1
    expected = model.sample(frame.batch([(0, 0)], (24, 28)), sampling, seed=3)[0].numpy()
    known = frame.known[-1].numpy().repeat(4, axis=0).repeat(4, axis=1)
    for member, field in enumerate(drawn(model, frame, lattice, sampling)):
        result = conserved(model, frame, field, lattice)
        np.testing.assert_allclose(result[:, known], expected[member][:, known], rtol=2e-4, atol=2e-5)
        assert np.isnan(result[:, ~known]).all()


def test_the_field_does_not_depend_on_what_is_denoised_at_once(trained_like):
    model = trained_like()
    frame, sampling = WholeFrame(PAIR, (15, 12)), SamplingSettings(steps=3, members=3)
    lattice = Lattice.over(60, 48, 24, 0.5, PAIR)
    together = drawn(model, frame, lattice, sampling, batch=12)
    alone = drawn(model, frame, lattice, sampling, batch=1)
    second = drawn(model, frame, lattice, sampling, members=[1], batch=5)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(together[1:2], second, rtol=1e-4, atol=1e-5)
    assert np.abs(together[0] - together[1]).max() > 0.1


def test_copies_that_fill_a_batch_change_nothing(trained_like):
    model, frame = trained_like(), WholeFrame(PAIR, (15, 12))
    sampling, lattice = SamplingSettings(steps=2, members=2), Lattice.over(60, 48, 24, 0.25, PAIR)
    members = [0, 1]
    plain = drawn(model, frame, lattice, sampling, members, batch=10)
    filled = drawn(model, frame, lattice, sampling, members, batch=10, even=True)
    np.testing.assert_allclose(filled, plain, rtol=1e-4, atol=1e-5)


def test_tiles_lie_where_they_do_on_the_whole_plane():
    whole = Lattice.over(160, 160, 24, 0.25, PAIR, corner=(-100, 36))
    part = Lattice.over(100, 88, 24, 0.25, PAIR, corner=(-100 + 28, 36 + 40))
    everywhere = {tile.corner for tile in whole}
    inner = {(y, x) for y, x in (tile.corner for tile in part) if 0 < y < 76 and 0 < x < 64}
    assert len(inner) > 4
    assert {(y + 28, x + 40) for y, x in inner} <= everywhere


def test_tiles_are_joined_without_seams(trained_like):
    """Between tiles that are put side by side there is a jump; joined ones differ no more than pixels do."""
    model = trained_like()
    frame, sampling = WholeFrame(PAIR, (24, 24)), SamplingSettings(steps=4, members=2)
    one = drawn(model, frame, Lattice.over(96, 96, 96, 0.5, PAIR), sampling)

    def at_borders(overlap):
        tiled = drawn(model, frame, Lattice.over(96, 96, 24, overlap, PAIR), sampling)
        ratios = []
        for axis in (-2, -1):  # how the difference changes from row to row, and from column to column
            steps = np.moveaxis(np.abs(np.diff(tiled - one, axis=axis)), axis, 0).mean(axis=(1, 2, 3))
            borders = np.array([23, 47, 71])
            ratios.append(steps[borders].mean() / np.delete(steps, borders).mean())
        return np.mean(ratios)

    assert at_borders(0.0) > 1.2
    assert at_borders(0.5) < 1.05


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**16),
    scope=st.sampled_from([Scope.TILE, Scope.CELL]),
    power=st.sampled_from([1.0, 0.5]),
    threshold=st.sampled_from([0.0, 0.05]),
    missing=st.sampled_from([0.0, 0.2, 1.0]),
    dry=st.booleans(),
    rows=st.sampled_from([4, 12, 64]),
)
def test_amounts_are_kept_over_the_whole_domain(seed, scope, power, threshold, missing, dry, rows):
    frame = WholeFrame(PAIR, (11, 9), seed=seed, missing=missing)
    generator = np.random.default_rng(seed)
    field = generator.gamma(0.3, 2, (2, 44, 36)).astype("f4") - 0.2
    field[:, :30] *= not dry  # the coarse frame is wet there
    lattice = Lattice.over(44, 36, 16, 0.5, PAIR)
    conservation = Conservation(scope=scope, power=power, threshold=threshold)
    coarse, known = frame.coarse[-1].numpy(), frame.known[-1].numpy()
    bands = conserve_domain(field, coarse, known, lattice, PAIR, conservation, scale=5.0, rows=rows)
    result = np.concatenate([values for _, values in bands], axis=1)
    cells = result.reshape(2, 11, 4, 9, 4).astype(float).mean(axis=(0, 2, 4))
    assert (np.isnan(cells) == ~known).all()
    assert (result[~np.isnan(result)] >= 0).all()
    assert np.nansum(cells) == pytest.approx(coarse[known].sum(), rel=1e-6, abs=1e-9)
    if scope is Scope.CELL:
        np.testing.assert_allclose(cells[known], coarse[known], rtol=1e-5, atol=1e-7)


def test_dry_tiles_are_not_asked_about_and_nothing_else_changes(trained_like):
    """Wherever it rained, all tiles take part: their field is the same as if all had been asked."""
    model, sampling = trained_like(), SamplingSettings(steps=3, members=2)
    lattice = Lattice.over(96, 96, 24, 0.5, PAIR)
    frame = WholeFrame(PAIR, (24, 24))
    frame.coarse[-1, :, 12:] = 0
    asked = lattice.where(frame.wet())
    assert 0 < len(asked) < len(lattice)
    total = np.zeros((96, 96))
    for tile in asked:
        total[tile.y, tile.x] += tile.weights
    np.testing.assert_allclose(total[:, :48], 1, rtol=1e-6)
    assert set(np.unique(total.round(5))) == {0, 1}
    some = conserved(model, frame, drawn(model, frame, lattice, sampling)[0], lattice)
    assert (some[:, :, 72:] == 0).all()
    assert some[:, :, :48].max() > 0
    frame.wet = lambda: np.ones((96, 96), bool)
    every = conserved(model, frame, drawn(model, frame, lattice, sampling)[0], lattice)
    assert (every[:, :, 72:] == 0).all()
    assert np.abs(every - some)[:, :, :24].max() < 0.05 * every.max()


def test_a_dry_frame_stays_dry(trained_like):
    model = trained_like()
    frame = WholeFrame(PAIR, (12, 12))
    frame.coarse = torch.zeros_like(frame.coarse)
    lattice = Lattice.over(48, 48, 24, 0.5, PAIR)
    field = drawn(model, frame, lattice, SamplingSettings(steps=2, members=2))[0]
    np.testing.assert_array_equal(conserved(model, frame, field, lattice), 0)


def test_memory_is_let_go_of(tmp_path):
    scratch = Scratch(str(tmp_path))
    field = scratch.zeros((4, 1000, 1000))
    field[:] = 7
    used = resident()
    scratch.rest()
    assert used - resident() > 12e6
    assert (field == 7).all()
    assert list(tmp_path.iterdir()) == []


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096
