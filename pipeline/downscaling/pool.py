"""Who does the tasks: this process, or a pool of actors on a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
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
        if downscaler.settings.gpus_per_worker:
            downscaler = replace(downscaler, device="cuda")
        self._downscaler, self._output = downscaler, output

    def refine(self, task: Task) -> int:
        """Do a task; give the process that did."""
        self._downscaler.refine(task, self._output)
        return os.getpid()


def on_cluster(
    config: Config, downscaler: Downscaler, output: Output, tasks: Sequence[Task], workers: int
) -> Iterator[Task]:
    """Do tasks on actors, and give each as soon as it is done.

    An actor has two tasks at most, so the cluster never holds more than that of what is to come. One that
    dies is started again with its tasks: they write what they would have written.

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
        If actors died more often than `downscaling.max_failures`.
    """
    import ray

    settings = config.downscaling
    actor = ray.remote(
        num_cpus=settings.cpus_per_worker,
        num_gpus=settings.gpus_per_worker,
        max_restarts=settings.max_failures,
        max_task_retries=settings.max_failures,
    )(_Worker)
    shared = [ray.put(downscaler), ray.put(output)]
    pool = [actor.remote(*shared) for _ in range(min(workers, len(tasks)))]
    waiting, at_work = iter(tasks), {}

    def give(one: Any) -> None:
        task = next(waiting, None)
        if task is not None:
            at_work[one.refine.remote(task)] = (task, one)

    try:
        for _ in range(_AHEAD):
            for one in pool:
                give(one)
        while at_work:
            (done,), _ = ray.wait(list(at_work), num_returns=1)
            task, one = at_work.pop(done)
            try:
                environment.fetched(done)
            except ray.exceptions.RayActorError as error:
                raise GaveUpError(
                    f"downscaling: a worker died more than {settings.max_failures} times "
                    "(downscaling.max_failures); the same command carries on",
                    one_line(error),
                ) from error
            give(one)
            yield task
    finally:
        for one in pool:
            ray.kill(one)
