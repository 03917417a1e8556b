"""Ray Train: one function on several workers at once, started again from its checkpoints when some are lost.

The only file that knows Ray Train. What runs on the workers is plain torch: a function of `Ranks`. What it
tells goes through a mailbox to the process that started it, which waits here.
"""

from __future__ import annotations

import contextlib
import logging
import math
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from pipeline.errors import GaveUpError, UserError, one_line
from pipeline.ranks import Ranks
from pipeline.storage import files
from pipeline.training.messages import GroupStarted, Mailbox, Patience, Waiting, Warned, WorkersLost

_POLL_SECONDS = 0.2


@dataclass(frozen=True)
class Workers:
    """How many processes train together, and with what.

    Attributes
    ----------
    count : int
        How many; the most, if fewer will do.
    at_least : int or None
        With how many it goes on when nodes are lost; None: with all or not at all.
    cpus, gpus : float
        Of each.
    max_failures : int
        Lost workers after which it gives up; -1: never.
    resize_seconds : float
        How often it is looked whether more workers fit.
    """

    count: int
    at_least: int | None = None
    cpus: float = 1.0
    gpus: float = 0.0
    max_failures: int = 3
    resize_seconds: float = 60.0


class Work(Protocol):
    """What every worker runs, in step with the others."""

    def __call__(self, ranks: Ranks, tell: Callable[[Any], None]) -> Any:
        """Do this rank's part; `tell` sends a message to the process that waits."""
        ...


def run_on_workers(work: Work, workers: Workers, *, storage: str, on_message: Callable[[Any], None]) -> Any:
    """Run a function on Ray Train workers and wait; a group that loses a worker begins again.

    So `work` must keep what it has done where its next call finds it.

    Parameters
    ----------
    work : callable
        Called with its `Ranks` and a function that sends a message.
    workers : Workers
    storage : str
        Folder of this work alone, reached by all nodes, for Ray's own notes. It is removed at the end, with
        what a killed driver has left there.
    on_message : callable
        Called here with every message, in order, and with `GroupStarted`, `WorkersLost`, `Waiting`
        and `Warned`.

    Returns
    -------
    Any
        What the first rank's call gave.

    Raises
    ------
    UserError
        That `work` raised: it is not tried again.
    GaveUpError
        After more failures than allowed.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # On this node: with any other, what is told would be lost, and the training with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = ray.remote(num_cpus=0, max_concurrency=1, scheduling_strategy=here)(Mailbox).remote()
    name = f"train-{uuid.uuid4().hex[:8]}"
    trainer = _trainer(work, workers, mailbox, storage, name)
    ended: list[Any] = []

    def fit() -> None:
        try:
            ended.append(trainer.fit().return_value)
        except BaseException as error:
            ended.append(_Failure(error))

    # In a thread of its own: signals keep coming here, where runs are ended properly.
    thread = threading.Thread(target=fit, name="ray-train", daemon=True)
    thread.start()
    try:
        _follow(thread, mailbox, Patience(workers.at_least or workers.count), on_message)
        refusal = ray.get(mailbox.refusal.remote())
    finally:
        ray.kill(mailbox)
        with contextlib.suppress(OSError):
            files.remove_folder(storage)
    if refusal is not None:
        raise UserError(refusal)
    (result,) = ended
    if isinstance(result, _Failure):
        raise result.as_told() from result.error
    return result


@dataclass(frozen=True)
class _Failure:
    """What Ray Train raised at last."""

    error: BaseException

    def as_told(self) -> GaveUpError:
        failures = getattr(self.error, "worker_failures", None) or {0: self.error}
        return GaveUpError(
            f"the training gave up ({_cause(_roots(failures))}); the same command carries on from its last "
            "checkpoint",
            details=str(self.error),
        )


def _follow(
    thread: threading.Thread, mailbox: Any, patience: Patience, on_message: Callable[[Any], None]
) -> None:
    """Hand messages on until the thread has ended and all have come."""
    import ray

    alive = True
    while alive:
        thread.join(_POLL_SECONDS)
        alive = thread.is_alive()  # asked before the messages are taken: those of its end are among them
        for message in ray.get(mailbox.take.remote()):
            if message is not None:
                patience.note(message)
                on_message(message)
        if alive and patience.is_over():
            on_message(Waiting(patience.workers))


def _trainer(work: Work, workers: Workers, mailbox: Any, storage: str, name: str) -> Any:
    from ray import train
    from ray.train.torch import TorchConfig, TorchTrainer

    class Notices(train.UserCallback):
        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            if not any(isinstance(error, UserError) for error in worker_exceptions.values()):
                roots = _roots(worker_exceptions)
                mailbox.put.remote(WorkersLost(tuple(sorted(roots)), _cause(roots)))

    resources = {"CPU": workers.cpus, "GPU": workers.gpus}
    count: Any = workers.count if workers.at_least is None else (workers.at_least, workers.count)
    return TorchTrainer(
        lambda: _on_worker(work, mailbox, storage),
        torch_config=TorchConfig(backend="cpu:gloo,cuda:nccl" if workers.gpus else "gloo"),
        scaling_config=train.ScalingConfig(
            num_workers=count,
            use_gpu=workers.gpus > 0,
            resources_per_worker={kind: amount for kind, amount in resources.items() if amount},
            elastic_resize_monitor_interval_s=workers.resize_seconds,
        ),
        run_config=train.RunConfig(
            name=name,
            # To wait for nodes is no failure, however often a minute passes without them.
            failure_config=train.FailureConfig(
                max_failures=workers.max_failures, controller_failure_limit=-1
            ),
            callbacks=[Notices()],
            **_storage(storage),
        ),
    )


def _storage(url: str) -> dict[str, Any]:
    """Give Ray's arguments for a folder: object stores go through fsspec, with its credentials."""
    if not files.is_remote(url):
        return {"storage_path": files.local_path(url)}
    import fsspec
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    filesystem, path = fsspec.core.url_to_fs(url)
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(filesystem))}


def _on_worker(work: Work, mailbox: Any, storage: str) -> Any:
    """Run in every worker process."""
    import ray

    if ray.get(mailbox.refusal.remote()) is not None:  # an attempt before this one was refused for good
        return None
    ranks = _ranks()

    def tell(message: Any) -> None:
        mailbox.put.remote(message)

    logging.getLogger("pipeline").addHandler(_Forward(tell))
    if ranks.main:
        tell(GroupStarted(ranks.world))
    try:
        _check_reached(storage, ranks)
        result = work(ranks, tell)
    except UserError as error:
        ray.get(mailbox.refuse.remote(str(error)))
        raise
    if ranks.main:
        ray.get(mailbox.put.remote(None))  # all that was told has arrived
    return result


def _check_reached(storage: str, ranks: Ranks) -> None:
    """Refuse an output that each machine has for itself: its checkpoints would be in pieces."""
    token = files.join(storage, f"reached-{ranks.world}")
    if ranks.main:
        files.write_text(token, "")
    ranks.wait()
    if not all(ranks.gather(files.exists(token))):
        raise UserError(
            f"folder {storage}: not every worker's machine reaches it; give an --output that all share, as "
            "gs://bucket/runs is"
        )
    ranks.wait()


def _ranks() -> Ranks:
    from ray import train
    from ray.train.torch import get_device

    context = train.get_context()
    world, device = context.get_world_size(), torch.device(get_device())
    ranks = Ranks(context.get_world_rank(), world, device)
    per_node = math.gcd(*ranks.gather(context.get_local_world_size()))
    return Ranks(ranks.rank, world, device, per_node)


class _Forward(logging.Handler):
    """Sends warnings on their way: Ray would leave them in a file on the worker's machine."""

    def __init__(self, tell: Callable[[Any], None]) -> None:
        super().__init__(logging.WARNING)
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        self._tell(Warned(record.getMessage()))


def _roots(failures: Mapping[int, BaseException]) -> dict[int, BaseException]:
    """Leave out the workers that only failed for want of one that died."""
    dead = {rank: error for rank, error in failures.items() if _is_death(error)}
    broken = {
        rank: error
        for rank, error in failures.items()
        if not any(word in str(error).lower() for word in ("gloo", "nccl", "connection"))
    }
    return dead or broken or dict(failures)


def _cause(roots: Mapping[int, BaseException]) -> str:
    """Say in one line what brought a group down."""
    first = next(iter(roots.values()))
    return "its process died" if _is_death(first) else one_line(first)


def _is_death(error: BaseException) -> bool:
    return type(error).__name__ in ("WorkerHealthCheckFailedError", "WorkerHealthCheckTimeoutError")
