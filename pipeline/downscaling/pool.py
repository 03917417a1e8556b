"""Who does the tasks: this process, or a pool of actors on a Ray cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline import environment
from pipeline.config import Config
from pipeline.downscaling.output import Output
from pipeline.downscaling.task import Downscaler, Task
from pipeline.errors import GaveUpError, one_line

_AHEAD = 2  # tasks that an actor has been given: one at work and one that waits, so that it never does


def here(downscaler: Downscaler, output: Output, tasks: Sequence[Task]) -> Iterator[Task]:
    """Do tasks one after the other in this process, and give each as soon as it is done."""
    for task in tasks:
        downscaler.refine(task, output)
        yield task


class _Worker:
    """What an actor holds: the model, loaded once."""

    def __init__(self, downscaler: Downscaler, output: Output) -> None:
        environment.prepare()
        self._downscaler, self._output = downscaler, output

    def ready(self) -> None:
        """Tell that there was room for this actor."""

    def refine(self, task: Task) -> None:
        """Do a task."""
        self._downscaler.refine(task, self._output)


def on_cluster(
    config: Config, downscaler: Downscaler, output: Output, tasks: Sequence[Task], workers: int
) -> Iterator[Task]:
    """Do tasks on actors, and give each as soon as it is done.

    An actor is given tasks once it runs, and has two at most: so the cluster never holds more than that of
    what is to come, and nothing waits for an actor that finds no room. One that dies is started again with
    its tasks, which write what they would have written; those of one that dies too often go to the others.

    Parameters
    ----------
    config : Config
        Ray has been started with it.
    downscaler : Downscaler
    output : Output
    tasks : sequence of Task
    workers : int
        How many actors.

    Raises
    ------
    GaveUpError
        If every actor died more often than `downscaling.max_failures`.
    """
    import ray

    settings = config.downscaling
    actor = ray.remote(
        num_cpus=settings.cpus_per_worker,
        num_gpus=settings.gpus_per_worker,
        max_restarts=settings.max_failures,
        max_task_retries=settings.max_failures,
    )(_Worker)
    pool = [actor.remote(downscaler, output) for _ in range(min(workers, len(tasks)))]
    starting = {one.ready.remote(): one for one in pool}
    waiting, alive = deque(tasks), set(pool)
    at_work: dict[Any, tuple[Task, Any]] = {}

    def give(one: Any) -> None:
        busy = sum(other is one for _, other in at_work.values())
        for _ in range(min(_AHEAD - busy, len(waiting))):
            task = waiting.popleft()
            at_work[one.refine.remote(task)] = (task, one)

    try:
        while waiting or at_work:
            (done,), _ = ray.wait([*starting, *at_work], num_returns=1)
            task, one = (None, starting.pop(done)) if done in starting else at_work.pop(done)
            try:
                environment.fetched(done)
            except ray.exceptions.RayActorError as error:
                alive.discard(one)
                waiting.extendleft([task] if task else [])
                if not alive:
                    raise GaveUpError(
                        f"downscaling: its workers died more than {settings.max_failures} times each "
                        "(downscaling.max_failures); the same command carries on",
                        one_line(error),
                    ) from error
                for other in alive - set(starting.values()):
                    give(other)
                continue
            give(one)
            if task is not None:
                yield task
    finally:
        for one in pool:
            ray.kill(one)
