"""Run by test_ray_train.py: one local Ray cluster, and on it one training after another. Not a test.

Its arguments are an output folder and names of scenarios; the last line it prints says what they gave.
"""

import gc
import json
import os
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from told import plain  # beside this script

from pipeline import FactorPair, environment
from pipeline.config_layers import load_config
from pipeline.data.dataset import open_dataset
from pipeline.errors import GaveUpError, UserError
from pipeline.final.observer import StageBegun
from pipeline.model_file import load_model
from pipeline.ranks import Ranks
from pipeline.recipe import Recipe
from pipeline.storage.files import join
from pipeline.training.distributed import Workers, run_on_workers
from pipeline.tuning.scoring import prepared, score
from pipeline.tuning.trial import Point, TrialJob, run_trial

PAIR = FactorPair(4, 2)
SETTINGS = {
    "preset": "tiny", "ray.cpus": 4, "training.mean_steps": 6, "training.residual_steps": 9,
    "training.report_every": 1, "training.checkpoints.every": 3, "training.checkpoints.validation_windows": 4,
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """A training on every rank, in which the last one is killed after a step."""

    job: TrialJob
    point: Point
    dies_at: tuple[str, int] | None = None
    dies_once: str | None = None  # a file that tells that it has
    scored: str | None = None  # a model of which all ranks together make the ensembles

    def __call__(self, ranks, tell):
        processes = ranks.gather(os.getpid())

        def on_report(report):
            tell(report)
            if (report.stage, report.step) == self.dies_at and self.still_to_die():
                time.sleep(0.3)  # what was told is under way
                os.kill(processes[-1], signal.SIGKILL)

        outcome = run_trial(
            self.job, self.point, owner="a", ranks=ranks, on_report=on_report,
            on_start=lambda stage, step, steps: tell(StageBegun(stage, step, steps)),
        )  # fmt: skip
        return {"metrics": outcome.metrics, "model": outcome.model_url, "ensemble": self.ensemble(ranks)}

    def still_to_die(self):
        if self.dies_once is None:
            return True
        try:
            Path(self.dies_once).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def ensemble(self, ranks):
        """CRPS and spread of the ensembles that a given model makes of each test window."""
        if self.scored is None:
            return None
        config, store = self.job.config, self.job.store
        data = prepared(config, store, self.point.pair)
        found = score(load_model(self.scored), data, config, "test", ranks=ranks)
        return [found.statistics.crps.tolist(), found.ensemble.as_metrics()]


@dataclass(frozen=True)
class Refusing:
    """The last rank finds a user's mistake while the others wait for it."""

    def __call__(self, ranks, tell):
        if ranks.rank == ranks.world - 1:
            raise UserError("worker: a mistake of the user's")
        ranks.wait()


class Scenarios:
    """Every method is a scenario; what it gives is told to the test."""

    def __init__(self, output):
        config = load_config({**SETTINGS, "output": output}.items(), environment={})
        environment.start_ray(config, {"CPU": 1.0}, processes=4, setting="train")
        store = open_dataset(config.data, output)
        self.output, self.parameters = (
            output,
            Recipe().entry(PAIR).parameters.model_copy(update={"context": 4}),
        )
        self.job = TrialJob(config, store, "live", final=True)

    def work(self, label, **dies):
        return Work(self.job, Point(PAIR, self.parameters, label), **dies)

    def launch(self, work, count, **workers):
        """Run something on workers; tells what it said in order, what it gave and how long it took."""
        told, given, error, began = [], None, None, time.monotonic()
        try:
            given = run_on_workers(
                work, Workers(count, **workers), storage=join(self.output, "ray"),
                on_message=lambda message: told.append(plain(message)),
            )  # fmt: skip
        except (UserError, GaveUpError) as raised:
            error = [type(raised).__name__, str(raised)]
        seconds = time.monotonic() - began
        return {"told": told, "given": given, "error": error, "seconds": round(seconds, 1)} | weights(given)

    def in_this_process(self):
        """The training that all others are compared with."""
        told = []
        given = self.work("plain")(Ranks(), lambda message: told.append(plain(message)))
        self.reference = given["model"]
        given["ensemble"] = Work(
            self.job, Point(PAIR, self.parameters, "plain"), scored=self.reference
        ).ensemble(Ranks())
        return {"told": told, "given": given, "error": None} | weights(given)

    def one_worker(self):
        return self.launch(self.work("1", scored=self.reference), 1)

    def two_workers(self):
        return self.launch(self.work("2", scored=self.reference), 2)

    def four_workers(self):
        return self.launch(self.work("4", scored=self.reference), 4)

    def resized(self):
        """2 workers, 1, then 4: each but the last is stopped."""
        stops = [(2, ("mean", 5)), (1, ("residual", 5)), (4, None)]
        return [self.launch(self.work("resized", dies_at=at), n, max_failures=0) for n, at in stops]

    def killed(self):
        """One of 2 workers is killed in the second stage."""
        once = join(self.output, "has-died")
        return self.launch(self.work("killed", dies_at=("residual", 8), dies_once=once), 2)

    def given_up(self):
        """A worker is killed at the same step each time."""
        return self.launch(self.work("damaged", dies_at=("residual", 8)), 2, max_failures=1)

    def damaged(self):
        """What that has left: all checkpoints of the stage damaged, then the newest only."""
        unfinished = Path(self.output, "unfinished", f"live-{PAIR}-damaged")
        aside = unfinished.with_name("aside")
        shutil.copytree(unfinished, aside)
        steps = sorted(unfinished.glob("residual/step-*"))
        for folder in steps:
            damage(folder)
        every = self.launch(self.work("damaged"), 2)
        shutil.rmtree(unfinished)
        aside.rename(unfinished)
        damage(steps[-1])
        newest = self.launch(self.work("damaged"), 2)
        return {"checkpoints": [one.name for one in steps], "every": every, "newest": newest}

    def refused(self):
        return self.launch(Refusing(), 2)


def damage(folder):
    for path in folder.glob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def weights(given):
    """Tell a saved model's weights apart by their digest."""
    url = (given or {}).get("model")
    if url is None:
        return {"weights": None}
    return {"weights": json.loads(Path(url, "model.json").read_text())["sha256"]}


def free_and_all():
    import ray  # not earlier: it reads the token that is made for the cluster

    gc.collect()  # errors hold their frames, and those what Ray has stored for them

    until = time.monotonic() + 10
    while ray.available_resources() != ray.cluster_resources() and time.monotonic() < until:
        time.sleep(0.1)
    return [ray.available_resources(), ray.cluster_resources()]


if __name__ == "__main__":
    environment.prepare()
    scenarios = Scenarios(sys.argv[1])
    found = {}
    for name in sys.argv[2:]:
        began = time.monotonic()
        found[name] = getattr(scenarios, name)()
        print(f"{name}: {time.monotonic() - began:.1f} s", flush=True)
    print(json.dumps(found | {"resources": free_and_all()}))
