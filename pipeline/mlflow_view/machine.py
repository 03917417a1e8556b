"""How busy the driver's machine is while a sweep or a final training runs, for MLflow's system metrics."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

PREFIX = "system/"
"""Names that begin so have a tab of their own in the UI."""


class SystemWatch:
    """Samples CPU, memory and GPUs of this machine in a thread, often at first and ever more rarely.

    Parameters
    ----------
    tell : callable
        Given the values by name, and a step: the second of the sample, which never goes back when a driver
        starts again.
    waits : (float, float)
        Seconds before the second sample, a tenth longer before each after it, and the longest. A long run
        leaves about one sample a minute.
    """

    def __init__(
        self, tell: Callable[[dict[str, float], int], None], *, waits: tuple[float, float] = (2.0, 60.0)
    ) -> None:
        self._tell, self._waits, self._stopped = tell, waits, threading.Event()
        self._thread = threading.Thread(target=self._work, name="system-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Sample no more; when this returns nothing is told any longer."""
        self._stopped.set()
        self._thread.join()

    def _work(self) -> None:
        monitors = _monitors()
        wait, longest = self._waits
        while not self._stopped.wait(wait):
            values = {f"{PREFIX}{name}": value for one in monitors for name, value in _sample(one).items()}
            self._tell(values, int(time.time()))
            wait = min(1.1 * wait, longest)


def _monitors() -> list[Any]:
    """Give MLflow's own monitors, so that names and units are those that its UI knows."""
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

    monitors = [CPUMonitor()]
    with contextlib.suppress(ImportError, RuntimeError):  # no nvidia-ml-py, or no GPU
        monitors.append(GPUMonitor())
    for monitor in monitors:  # the share of the CPU is that since the last look
        _sample(monitor)
    return monitors


def _sample(monitor: Any) -> dict[str, float]:
    monitor.collect_metrics()
    values: dict[str, float] = monitor.aggregate_metrics()
    monitor.clear_metrics()
    return values
