"""What is kept of an unfinished stage, so that it carries on after any kill, on any number of ranks.

A checkpoint is a folder `step-00000200` at any fsspec URL. Every rank writes its part as safetensors through
`torch.distributed.checkpoint`, which lays it out anew for whatever ranks read it; a manifest with the SHA-256
of every file comes last and makes it count. No pickle is involved.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter

from pipeline.errors import UserError
from pipeline.ranks import Ranks
from pipeline.storage import files
from pipeline.training.checkpoint_files import MANIFEST, Staging, fault_of, fetched, read_manifest, set_aside

log = logging.getLogger(__name__)

# A process alone is what we mean. For all threads at once: `warnings.catch_warnings` is for one thread only.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")

FORMAT = 1


@dataclass(frozen=True)
class Kept:
    """A checkpoint that counts.

    Attributes
    ----------
    step : int
    loss : float or None
        Validation loss, if it was computed.
    """

    step: int
    loss: float | None


@dataclass
class Checkpoints:
    """The checkpoints of one stage; every rank has one of these and calls it in step with the others.

    Attributes
    ----------
    url : str
        Folder, local or at any fsspec URL that all ranks reach.
    ranks : Ranks
    keep : int
        How many of the newest are kept.
    keep_best : bool
        Whether the one with the lowest loss is kept besides.
    asynchronous : bool
        Write in the background; a save then waits for the one before it.
    """

    url: str
    ranks: Ranks = field(default_factory=Ranks)
    keep: int = 2
    keep_best: bool = True
    asynchronous: bool = False
    _writing: Future[None] | None = field(default=None, repr=False)
    _group: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not self.ranks.alone:  # of its own: a background write must not meet the training's messages
            self._group = dist.new_group(backend="gloo")

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        """Let no write go on behind the back of who comes next."""
        if kind is None:
            self.wait()
            return
        with contextlib.suppress(Exception):  # what ended the training is the error to tell
            self.wait()

    def save(self, step: int, tensors: dict[str, Tensor], loss: float | None = None) -> None:
        """Keep the state after `step` steps, and drop what is older than the newest few."""
        self.wait()
        folder = self._folder(step)
        if self.ranks.main:  # what a kill left, or what was found damaged
            files.remove_folder(folder)
        self._barrier()
        staging = Staging(folder)
        writer = HuggingFaceStorageWriter(staging.path, save_distributed=True)
        notes = {"format": FORMAT, "step": step, "loss": loss, "ranks": self.ranks.world}
        save = dcp.async_save if self.asynchronous else dcp.save
        with _plainly():
            saved = save(tensors, storage_writer=writer, process_group=self._group, no_dist=self.ranks.alone)
        if not self.asynchronous:
            return self._commit(staging, notes)
        self._writing = Future()
        finish = (saved, self._writing, staging, notes)
        threading.Thread(target=self._finish, args=finish, daemon=True).start()

    def wait(self) -> None:
        """Wait until the last save is complete; raises what went wrong with it."""
        if self._writing is not None:
            writing, self._writing = self._writing, None
            writing.result()

    def restore(self, tensors: dict[str, Tensor]) -> int:
        """Load the newest intact checkpoint into `tensors` and give its step; 0 if there is none.

        Raises
        ------
        UserError
            If there are checkpoints and none of them is intact: to start again is for the user to decide.
        """
        kept = self.ranks.agree(self._kept() if self.ranks.main else [])
        damaged: list[int] = []
        for one in sorted(kept, key=lambda one: one.step, reverse=True):
            if self._load(one.step, tensors):
                if self.ranks.main:
                    log.info("carrying on after step %d from %s", one.step, self._folder(one.step))
                    for step in damaged:  # no longer the newest, nor the best
                        set_aside(self._folder(step))
                self._barrier()
                return one.step
            damaged.append(one.step)
        if kept:
            raise UserError(
                f"checkpoints {self.url}: none is intact; bring one back, or remove the folder to train the "
                "stage from its start"
            )
        return 0

    def restore_best(self, tensors: dict[str, Tensor]) -> int:
        """Load the intact checkpoint with the lowest loss; gives its step, 0 if there is none with a loss."""
        self.wait()
        for one in self.ranks.agree(_best_first(self._kept()) if self.ranks.main else []):
            if self._load(one.step, tensors):
                return one.step
        return 0

    def remove(self) -> None:
        """Delete them all."""
        self.wait()
        if self.ranks.main:
            files.remove_folder(self.url)
        self._barrier()

    def _folder(self, step: int) -> str:
        return files.join(self.url, f"step-{step:08d}")

    def _barrier(self) -> None:
        if self._group is not None:
            dist.barrier(group=self._group)

    def _finish(
        self, saved: Future[Any], writing: Future[None], staging: Staging, notes: dict[str, Any]
    ) -> None:
        try:
            with _plainly():
                saved.result()
            self._commit(staging, notes)
            writing.set_result(None)
        except BaseException as error:
            writing.set_exception(error)

    def _commit(self, staging: Staging, notes: dict[str, Any]) -> None:
        """Bring the files of all ranks to their place; then, and only then, the manifest."""
        mine = staging.deliver(self.ranks.rank)
        listed = [mine]
        if self._group is not None:
            listed = [{} for _ in range(self.ranks.world)]
            dist.all_gather_object(listed, mine, group=self._group)
        if self.ranks.main:
            every = {name: about for part in listed for name, about in part.items()}
            content = json.dumps({**notes, "files": every}, indent=2)
            files.write_text(files.join(staging.url, MANIFEST), content + "\n")
            self._drop_old()
        self._barrier()

    def _drop_old(self) -> None:
        kept = sorted(self._kept(), key=lambda one: one.step)
        wanted = {one.step for one in kept[-self.keep :]}
        if self.keep_best:
            wanted |= {one.step for one in _best_first(kept)[:1]}
        for one in kept:
            if one.step not in wanted:
                files.remove_folder(self._folder(one.step))

    def _kept(self) -> list[Kept]:
        """List the checkpoints that have a manifest, intact or not."""
        found = []
        for step in self._steps():
            notes = read_manifest(self._folder(step))
            if notes is not None:
                found.append(Kept(step, _finite(notes.get("loss"))))
        return found

    def _steps(self) -> list[int]:
        names = (name.rpartition("-") for name in files.list_folder(self.url) if name.startswith("step-"))
        return [int(number) for *_, number in names if number.isdigit()]

    def _load(self, step: int, tensors: dict[str, Tensor]) -> bool:
        folder = self._folder(step)
        listed = (read_manifest(folder) or {"files": {}})["files"]
        with fetched(folder, list(listed)) as path:
            # Ranks that read the same files check each its share; a copy of one's own is checked whole.
            mine = (
                sorted(listed)
                if files.is_remote(folder)
                else sorted(listed)[self.ranks.rank :: self.ranks.world]
            )
            own = [fault for name in mine if (fault := fault_of(files.join(path, name), listed[name]))]
            faults = [fault for of_rank in self.ranks.gather(own) for fault in of_rank]
            if faults or not listed:
                if self.ranks.main:
                    why = "; ".join(sorted(set(faults))) or f"its {MANIFEST} cannot be read"
                    log.warning("checkpoint %s is DAMAGED (%s); trying another", folder, why)
                return False
            with _plainly():
                reader = HuggingFaceStorageReader(path)
                dcp.load(tensors, storage_reader=reader, process_group=self._group, no_dist=self.ranks.alone)
        return True


def _finite(loss: Any) -> float | None:
    return loss if isinstance(loss, int | float) and math.isfinite(loss) else None


def _best_first(kept: list[Kept]) -> list[Kept]:
    """Order those that have a loss by it; of equal ones the later comes first."""
    scored = [(one.loss, -one.step) for one in kept if one.loss is not None]
    return [Kept(-step, loss) for loss, step in sorted(scored)]


@contextlib.contextmanager
def _plainly() -> Iterator[None]:
    """Raise the library's failures as ordinary errors: what catches those would let its own type pass."""
    try:
        yield
    except CheckpointException as error:
        reasons = {" ".join(str(failure[0]).split())[:200] for failure in error.failures.values()}
        raise OSError("; ".join(sorted(reasons))) from error
