"""Downscaling an archive: a model, an input, an output, and what is left to be done between them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from pipeline import __version__, environment
from pipeline.config import Config
from pipeline.downscaling import checks, pool
from pipeline.downscaling.coarse_input import CoarseInput, open_input
from pipeline.downscaling.lattice import Lattice
from pipeline.downscaling.opening import InputRequest
from pipeline.downscaling.output import Output, writing
from pipeline.downscaling.output_plan import OutputPlan
from pipeline.downscaling.record import Record
from pipeline.downscaling.task import Downscaler, Task, tasks_left
from pipeline.errors import UserError
from pipeline.ingest.transfer import Progress
from pipeline.model_file import load_card, load_model
from pipeline.models.family import ModelSpec
from pipeline.progress import progress
from pipeline.storage import files

ALREADY = "already there, complete and with the same settings"


@dataclass(frozen=True)
class Prepared:
    """Everything checked, no output begun.

    Attributes
    ----------
    config : Config
    downscaler : Downscaler
    plan : OutputPlan
    wanted : InputRequest
    """

    config: Config
    downscaler: Downscaler
    plan: OutputPlan
    wanted: InputRequest

    @property
    def ingested(self) -> bool:
        """Whether what is refined is a store that was made of files for this."""
        url = files.resolve(self.wanted.ingested_url)
        return self.source.store.url == url and url not in map(files.resolve, self.wanted.request.paths)

    @property
    def source(self) -> CoarseInput:
        """What is refined."""
        return self.downscaler.source

    def describe(self, url: str) -> str:
        """Say what would be done, a line each."""
        source, plan, settings = self.source, self.plan, self.config.downscaling
        lattice, sampling = self.downscaler.lattice, self.downscaler.sampling
        (h, w), (H, W), tau = source.grid, plan.grid, plan.pair.time
        arrays = ", ".join(plan.arrays)
        paths = self.wanted.request.paths
        given = source.store.url
        if self.ingested:
            given = paths[0] + (" and others" if len(paths) > 1 else "")
        lines = [
            f"input: {len(source)} coarse frames of {h} x {w} cells from {given}, "
            f"{source.times[0]} to {source.times[-1]}",
            f"output: {url}: {arrays} at {len(source) * tau} times on {H} x {W} pixels, "
            f"{plan.nbytes / 2**30:.3g} GiB before compression",
            f"model: {self.downscaler.model_url} ({plan.pair}, {source.context} coarse frames of context)",
            f"sampling: {settings.members} members, {sampling.sampler}, {sampling.steps} network evaluations "
            f"on {self.downscaler.device}",
            f"tiles: {len(lattice)} of {lattice.shape[0]} x {lattice.shape[1]} pixels, "
            f"every {lattice.stride}",
        ]
        return "\n".join([self._heeded(), *lines, *(f"note: {note}" for note in source.notes)])

    def _heeded(self) -> str:
        """Write the settings that downscaling heeds."""
        config = self.config
        tree = {
            "seed": config.seed,
            "sampling": config.sampling.model_dump(exclude={"members"}),
            "downscaling": config.downscaling.model_dump(mode="json"),
        }
        return yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=108)


def defaults_of(model_url: str) -> dict[str, Any]:
    """Give the settings that come with a model, as a tree for `load_config`: how it was scored, and its T.

    How it was scored are sampler and evaluations: the size of an ensemble is another matter. What the card of
    an older version does not say is left out, and is then as in any configuration.
    """
    card = load_card(model_url)
    known: Mapping[str, Any] = card.get("sampling") or {}
    settings: Mapping[str, Any] = card.get("settings") or {}
    return {
        "sampling": {name: value for name, value in known.items() if name != "members"},
        "model": {name: settings[name] for name in ("noise_steps",) if name in settings},
    }


def prepare(
    config: Config,
    model_url: str,
    wanted: InputRequest,
    *,
    device: str = "cpu",
    told: Progress | None = None,
    elsewhere: bool = False,
) -> Prepared:
    """Load the model, open the input, check that they belong together.

    Parameters
    ----------
    config : Config
        `downscaling`, `sampling` and `seed`.
    model_url : str
        Folder of the model.
    wanted : InputRequest
    device : str
        Of the networks.
    told : callable, optional
        Shows the progress of an ingest.
    elsewhere : bool
        Other machines will do the work: what is on their disks cannot be checked.

    Raises
    ------
    UserError
        One line, for the first thing that does not fit.
    """
    if not elsewhere:
        _check_scratch(config.downscaling.scratch)
    card, spec = load_card(model_url), load_model(model_url).spec
    settings, pair = config.downscaling, spec.pair
    side = settings.tile or _training_side(card, model_url)
    units = (card.get("data") or {}).get("units")
    if units is not None:  # before files are ingested
        checks.check_thresholds(settings.exceed, str(units))
    source = open_input(wanted, spec, card, *([told] if told else []))
    checks.check_thresholds(settings.exceed, source.units)
    height, width = (cells * pair.space for cells in source.grid)
    corner = source.position(0, 0, 0)[1:]
    lattice = Lattice.over(height, width, side, settings.overlap, pair, corner)
    downscaler = Downscaler(
        model_url, card["sha256"], source, lattice, config.sampling, settings, config.seed, device
    )
    return Prepared(config, downscaler, _output_plan(config, downscaler, card, spec), wanted)


def _training_side(card: Mapping[str, Any], model_url: str) -> int:
    """Give the side of the windows that a model has learned from."""
    data = card.get("data") or {}
    side = data.get("patch") or (data.get("settings") or {}).get("patch")
    if side is None:  # any other side gives other fields: not for us to choose
        raise UserError(
            f"model {model_url}: its card does not tell the side of its training windows; give that of the "
            "tiles, in fine pixels, with --tile N"
        )
    return int(side)


def _check_scratch(folder: str | None) -> None:
    if folder is not None and not (os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)):
        raise UserError(
            f"downscaling.scratch = {folder}: not a folder that can be written to; make it, or leave it out"
        )


def _output_plan(
    config: Config, downscaler: Downscaler, card: Mapping[str, Any], spec: ModelSpec
) -> OutputPlan:
    source, settings, lattice = downscaler.source, config.downscaling, downscaler.lattice
    facts = {
        "model": card["sha256"],
        "family": spec.settings.family,
        "parameters": card["parameters"],
        "sampler": config.sampling.sampler,
        "network_evaluations": config.sampling.steps,
        "ensemble": settings.members,
        "seed": config.seed,
        "tile": lattice.side,
        "stride": lattice.stride,
        "precision": settings.precision,
        "input": source.fingerprint,
    }
    notes = {
        "model_url": environment.without_secrets(downscaler.model_url),
        "input_url": environment.without_secrets(source.store.url),
        "trained_on": (card.get("data") or {}).get("name", ""),
        "finescale": __version__,
    }
    info = source.store.info
    attributes = source.attributes
    return OutputPlan(
        source.pair,
        np.concatenate([source.fine_times(i) for i in range(len(source))]),
        source.fine_y,
        source.fine_x,
        info.variable,
        source.units,
        settings.members if settings.write_members else 0,
        settings.quantiles,
        settings.exceed,
        crs=info.crs,
        facts=facts,
        notes=notes,
        attributes=attributes,
    )


def downscale_to(
    prepared: Prepared, url: str, *, workers: int | None = None, overwrite: bool = False, resume: bool = True
) -> str:
    """Refine what is left to be refined, and say what was done.

    Parameters
    ----------
    prepared : Prepared
    url : str
        Of the output.
    workers : int, optional
        Actors on a Ray cluster, which has been started; none: this process does it.
    overwrite, resume : bool
        See `writing`.

    Raises
    ------
    UserError
        If the output is not ours to write.
    GaveUpError
        If workers died too often.
    """
    config, downscaler = prepared.config, prepared.downscaler
    with writing(url, prepared.plan, overwrite=overwrite, resume=resume) as (output, record):
        if record.complete:
            return ALREADY
        tasks = tasks_left(output, record.finished, config.downscaling)
        for task in _shown(_done(config, downscaler, output, tasks, workers), tasks, record):
            record.mark(task.frame, list(task.parts))
        record.finish()
    return f"{sum(len(task.parts) for task in tasks)} of {record.finished.size} parts written"


def _done(
    config: Config, downscaler: Downscaler, output: Output, tasks: list[Task], workers: int | None
) -> Iterator[Task]:
    if workers is None or not tasks:
        return pool.here(downscaler, output, tasks)
    return pool.on_cluster(config, downscaler, output, tasks, workers)


def _shown(done: Iterator[Task], tasks: list[Task], record: Record) -> Iterator[Task]:
    """Show how far it is, and how long it will take."""
    drawn = sum(len(task.members) for task in tasks)
    with progress("downscaling", drawn, "members of a frame") as tell:
        for task in done:
            yield task
            tell(len(task.members))
