"""Run by test_elastic.py: a training on a cluster that gains a node and loses it again. Not a test.

Its argument is an output folder; the last line it prints is what the training told, as JSON.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from told import plain  # beside this script

from pipeline import FactorPair, environment
from pipeline.config_layers import load_config
from pipeline.data.dataset import open_dataset
from pipeline.final.observer import StageBegun
from pipeline.ranks import Ranks
from pipeline.recipe import Recipe
from pipeline.storage.files import join
from pipeline.training.distributed import Workers, run_on_workers
from pipeline.training.loop import StepReport
from pipeline.training.messages import GroupStarted
from pipeline.tuning.trial import Point, TrialJob, run_trial

PAIR = FactorPair(4, 2)
SETTINGS = {
    "preset": "tiny", "training.mean_steps": 300, "training.residual_steps": 10, "training.report_every": 2,
    "training.checkpoints.every": 10, "training.checkpoints.validation_windows": 0,
}  # fmt: skip
PAUSE = 0.5  # seconds after each report, until the node is gone again


@dataclass(frozen=True)
class Work:
    job: TrialJob
    point: Point
    shrunk: Path  # exists once the node is gone

    def __call__(self, ranks, tell):
        def on_report(report):
            tell(report)
            if not self.shrunk.exists():
                time.sleep(PAUSE)

        return run_trial(
            self.job, self.point, owner="a", ranks=ranks, on_report=on_report,
            on_start=lambda stage, step, steps: tell(StageBegun(stage, step, steps)),
        ).metrics  # fmt: skip


class Nodes:
    """Adds a node once one worker is under way, and kills it once two are."""

    def __init__(self, cluster, shrunk):
        self.cluster, self.shrunk, self.node = cluster, shrunk, None
        self.told, self.workers, self.reports = [], 0, 0

    def __call__(self, message):
        self.told.append([round(time.monotonic(), 1), *plain(message)])
        if isinstance(message, GroupStarted):
            self.workers, self.reports = message.workers, 0
        self.reports += isinstance(message, StepReport)
        if self.workers == 1 and self.reports == 3 and self.node is None:
            self.node = self.cluster.add_node(num_cpus=1)
        if (
            self.workers == 2 and self.reports == 7 and not self.shrunk.exists()
        ):  # the two have kept something
            self.cluster.remove_node(self.node, allow_graceful=False)
            self.shrunk.touch()


def main(output):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    config = load_config(
        {**SETTINGS, "output": output, "ray.address": cluster.address}.items(), environment={}
    )
    environment.start_ray(config, {"CPU": 1.0}, setting="train")
    store = open_dataset(config.data, output)
    parameters = Recipe().entry(PAIR).parameters.model_copy(update={"context": 4})
    job, shrunk = TrialJob(config, store, "elastic"), Path(output, "shrunk")

    nodes = Nodes(cluster, shrunk)
    metrics = run_on_workers(
        Work(job, Point(PAIR, parameters, "elastic"), shrunk),
        Workers(count=2, at_least=1, resize_seconds=5.0),
        storage=join(output, "ray"),
        on_message=nodes,
    )
    calm = []
    wanted = Work(job, Point(PAIR, parameters, "calm"), shrunk)(
        Ranks(), lambda m: calm.append([0, *plain(m)])
    )
    ray.shutdown()
    cluster.shutdown()
    print(json.dumps({"told": nodes.told, "metrics": metrics, "calm": calm, "wanted": wanted}))


if __name__ == "__main__":
    environment.prepare()
    main(sys.argv[1])
