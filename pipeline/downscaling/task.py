"""One task: some members of one coarse frame, drawn, made conserving and written."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from pipeline.config import DownscalingSettings, SamplingSettings
from pipeline.data.batch import Batch
from pipeline.downscaling.coarse_input import CoarseInput
from pipeline.downscaling.domain_mass import conserve_domain, spread
from pipeline.downscaling.joint import JointSampler
from pipeline.downscaling.lattice import Lattice
from pipeline.downscaling.output import Output
from pipeline.downscaling.scratch import Scratch
from pipeline.errors import UserError
from pipeline.model_file import load_card, load_model
from pipeline.models.family import SuperResolutionModel

_SUMMARISED = 2**22  # values of all members whose summary is made at once: 16 MiB

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Task:
    """What one worker does in one go.

    Attributes
    ----------
    frame : int
        Which of the coarse frames.
    members : tuple of int
        Those to be drawn.
    parts : tuple of int
        What is done then: those of the members that are written and, at the end, the summary.
    """

    frame: int
    members: tuple[int, ...]
    parts: tuple[int, ...]


@dataclass(frozen=True)
class FrameOf:
    """One coarse frame of an input, as the sampler sees it."""

    source: CoarseInput
    number: int

    def batch(self, corners: Sequence[tuple[int, int]], shape: tuple[int, int]) -> Batch:
        """Cut out windows."""
        return self.source.batch(self.number, corners, shape)

    def position(self, y: int, x: int) -> tuple[int, int, int]:
        """Give absolute indices."""
        return self.source.position(self.number, y, x)

    def coarse(self) -> tuple[np.ndarray, np.ndarray]:
        """Give the frame that is refined, (h, w), 0 where missing, and where it is known."""
        height, width = self.source.grid
        values, known = self.source.last(self.number, slice(0, height), slice(0, width))
        return values.numpy(), known.numpy()

    def wet(self) -> np.ndarray:
        """Tell which fine pixels lie in wet cells."""
        return spread(self.coarse()[0] > 0, self.source.pair)


@dataclass(frozen=True)
class Downscaler:
    """All that refining a frame needs; to be sent to workers, which load the model when they begin.

    Attributes
    ----------
    model_url : str
    sha256 : str
        Of the model's weights: what is loaded must be that model.
    source : CoarseInput
    lattice : Lattice
    sampling : SamplingSettings
    settings : DownscalingSettings
    seed : int
    device : str
    """

    model_url: str
    sha256: str
    source: CoarseInput
    lattice: Lattice
    sampling: SamplingSettings
    settings: DownscalingSettings
    seed: int
    device: str

    @cached_property
    def model(self) -> SuperResolutionModel:
        """The model, loaded, on its device."""
        if load_card(self.model_url)["sha256"] != self.sha256:
            raise UserError(f"model {self.model_url}: was replaced meanwhile; give the command again")
        model = load_model(self.model_url).to(self.device)
        if self.settings.compile:
            for block in model.blocks():
                block.compile(dynamic=False)
        return model

    @cached_property
    def sampler(self) -> JointSampler:
        """Draws members of whole domains."""
        return JointSampler(
            self.model,
            self.lattice,
            self.sampling,
            self.seed,
            torch.device(self.device),
            batch=self.settings.batch,
            precision=PRECISIONS[self.settings.precision],
            even=self.settings.compile,
        )

    def refine(self, task: Task, output: Output) -> None:
        """Do a task: draw its members, write them and, if it is among its parts, the summary."""
        plan, ensemble = output.plan, Scratch(self.settings.scratch)
        summary = plan.members in task.parts
        kept = ensemble.zeros((len(task.members), plan.pair.time, *plan.grid)) if summary else None
        at_once = self.settings.members_at_once
        for first in range(0, len(task.members), at_once):
            members = task.members[first : first + at_once]
            scratch = Scratch(self.settings.scratch)  # of these members alone
            fields = self.sampler.draw(FrameOf(self.source, task.frame), members, scratch)
            for k, member in enumerate(members):
                for rows, values in self._conserving(task.frame, fields[k], output.chunk_rows):
                    if member < plan.members and member in task.parts:
                        output.write(task.frame, member, rows, values)
                    if kept is not None:
                        kept[first + k, :, rows] = values
                    scratch.rest()
                    ensemble.rest()
        if kept is not None:
            self._summarise(task.frame, kept, output)

    def _conserving(self, frame: int, field: np.ndarray, rows: int) -> Iterator[tuple[slice, np.ndarray]]:
        """Give the conserving field of a member, band by band."""
        coarse, known = FrameOf(self.source, frame).coarse()
        spec = self.model.spec
        return conserve_domain(
            field,
            coarse,
            known,
            self.lattice,
            spec.pair,
            spec.parameters.conservation,
            scale=spec.scale,
            rows=rows,
        )

    def _summarise(self, frame: int, members: np.ndarray, output: Output) -> None:
        plan, (H, W) = output.plan, output.plan.grid
        for first in range(0, H, output.chunk_rows):
            rows = slice(first, min(first + output.chunk_rows, H))
            shape = (plan.pair.time, rows.stop - rows.start, W)
            mean = np.empty(shape, np.float32)
            quantiles = np.empty((len(plan.quantiles), *shape), np.float32)
            exceed = np.empty((len(plan.exceed), *shape), np.float32)
            wide = max(1, _SUMMARISED // (len(members) * shape[0] * shape[1]))
            for left in range(0, W, wide):
                strip = slice(left, left + wide)
                values = np.array(members[:, :, rows, strip])  # (M, tau, rows, columns)
                mean[..., strip] = values.mean(axis=0)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # NaN in, NaN out
                    quantiles[..., strip] = np.quantile(values, plan.quantiles, axis=0)
                for one, amount in zip(exceed, plan.exceed, strict=True):
                    one[..., strip] = np.where(np.isnan(values[0]), np.nan, (values > amount).mean(axis=0))
            output.write_summary(frame, rows, mean, quantiles, exceed)


def tasks_left(output: Output, finished: np.ndarray, settings: DownscalingSettings) -> list[Task]:
    """List what is still to be done, in time order.

    Parameters
    ----------
    output : Output
    finished : np.ndarray
        (frames, parts) bool.
    settings : DownscalingSettings

    Returns
    -------
    list of Task
        With a summary, one per frame, which needs all members at once; else one per few members.
    """
    tasks, size = [], settings.members_at_once
    for frame, done in enumerate(finished):
        left = [int(part) for part in np.flatnonzero(~done)]
        if not left:
            continue
        if output.plan.summarised:
            tasks.append(Task(frame, tuple(range(settings.members)), tuple(left)))
        else:
            # The same groups whatever is left: what is denoised together decides the last bits.
            for first in range(0, settings.members, size):
                group = range(first, min(first + size, settings.members))
                parts = tuple(part for part in left if part in group)
                tasks += [Task(frame, tuple(group), parts)] if parts else []
    return tasks
