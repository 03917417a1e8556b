"""What tests of training run in their own process and, through `on_ranks`, in several."""

import os
import tempfile
from dataclasses import asdict, replace
from types import SimpleNamespace

import torch

from pipeline import Conservation, FactorPair, ScaleParameters
from pipeline.config import Config, SamplingSettings
from pipeline.config_layers import load_config
from pipeline.data.pair_data import PairData
from pipeline.evaluation.evaluate import evaluate
from pipeline.models.families import build_model, family_stages
from pipeline.models.family import ModelSpec
from pipeline.ranks import Ranks
from pipeline.store.field_store import FieldStore
from pipeline.training.checkpoint import Checkpoints
from pipeline.training.feed import Feed  # noqa: F401 (tests reach it through here)
from pipeline.training.fit import stage_loss
from pipeline.training.loop import Hooks, train_stage
from pipeline.tuning.claims import LeasedClaims
from pipeline.tuning.trial import Point, TrialJob, run_trial

PAIR = FactorPair(4, 2)
ALONE = Ranks()


def prepare(store_url, **training):
    """Make all that a training takes, in any process."""
    tree = load_config([("preset", "tiny")], environment={}).model_dump()
    tree["data"] |= {"min_valid": 0.3, "min_wet": 0.02}
    tree["training"] |= {"mean_steps": 6, "residual_steps": 6, "report_every": 1, "warmup_steps": 1}
    tree["training"]["checkpoints"] |= {"every": 2}
    for name, value in training.items():
        old = tree["training"][name]
        tree["training"][name] = old | value if isinstance(old, dict) else value
    config = Config.model_validate(tree)
    data = PairData.prepare(FieldStore.open(store_url), PAIR, config.data, wanted_context=2)
    parameters = ScaleParameters(beta=0.02, context=2, conservation=Conservation(power=0.7, threshold=0.01))
    return SimpleNamespace(
        config=config,
        settings=config.training,
        data=data,
        spec=ModelSpec(PAIR, parameters, config.model, data.transform, data.scale, ()),
        train=data.training_windows(2),
        scored=data.scored_windows("validation", 2, SimpleNamespace(windows=6, test_windows=6), seed=0),
    )


class KilledError(BaseException):
    """Stands for the end of the process."""


def train(kit, number=0, *, ranks=ALONE, url=None, kill=None, asynchronous=False, keep=2, hooks=None):
    """Train a stage of a fresh model; gives its weights, what it reported and what each rank held."""
    stage = family_stages(kit.spec.settings, kit.settings)[number]
    found = SimpleNamespace(reports=[], memory=[])
    checkpoints = Checkpoints(url, ranks, keep, True, asynchronous) if url else None

    def on_report(report):
        found.reports.append(report)
        if kill == report.step:
            raise KilledError

    def validate(weights):
        model = build_model(kit.spec, seed=0)
        model.load_state_dict(weights, strict=False)
        model.eval().requires_grad_(False)
        return stage_loss(model, stage, kit.scored, kit.settings, seed=0, ranks=ranks)

    found.weights = train_stage(
        build_model(kit.spec, seed=0),
        stage,
        kit.train,
        kit.settings,
        seed=0,
        ranks=ranks,
        checkpoints=checkpoints,
        hooks=hooks
        or Hooks(
            on_report=on_report,
            validate=validate,
            on_memory=lambda name, used: found.memory.extend(used),
        ),
    )
    return found


def curve(found):
    """The numbers of a training: a row of loss, gradient norm and validation loss per step."""
    return [(r.loss, r.gradient_norm, r.validation_loss) for r in found.reports]


# What ranks are asked to do; everything that comes back can be pickled.


def many(ranks, calls):
    """Do several things in one launch: `calls` are names of functions below with their arguments."""
    return {key: globals()[name](ranks, **arguments) for key, (name, arguments) in calls.items()}


def training(ranks, store, number, url=None, validates=False, kill=None, asynchronous=False, **changes):
    """Train a stage; gives its curve, the weights on this rank, what every rank held, first step reported."""
    kit = prepare(store, **changes)
    with tempfile.TemporaryDirectory() as temporary:
        url = ranks.agree(temporary) if validates else url
        try:
            found = train(kit, number, ranks=ranks, url=url, kill=kill, asynchronous=asynchronous)
        except KilledError:
            return None
        ranks.wait()
    return {
        "curve": curve(found),
        "weights": {name: tensor.numpy() for name, tensor in found.weights.items()},
        "memory": [asdict(used) | {"sharded": used.sharded} for used in found.memory],
        "first": found.reports[0].step if found.reports else None,
    }


def scores(ranks, store, count):
    """Score a model that behaves as a trained one on some windows; gives metrics, sums per window."""
    kit = prepare(store)
    model, generator = build_model(kit.spec, seed=0), torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    found = evaluate(
        model.eval(),
        replace(kit.scored, places=kit.scored.places[:count]),
        SamplingSettings(steps=2, members=3),
        batch=2,
        seed=0,
        device=ranks.device,
        ranks=ranks,
    )
    return {"metrics": found.as_metrics(), "crps": found.statistics.crps.tolist()}


def trial(ranks, store, output, limits, **changes):
    """Run a trial; gives its outcome, the rungs that were told, and the files this rank put in place."""
    kit = prepare(store, batch=4, mean_steps=6, residual_steps=9, report_every=3, **changes)
    tree = kit.config.model_dump() | {"output": output}
    tree["sampling"] |= {"steps": 2, "members": 2}
    job = TrialJob(Config.model_validate(tree), FieldStore.open(store), "sweep", LeasedClaims(), final=True)
    point = Point(PAIR, ScaleParameters(beta=0.02, context=2), "trial-000", limits)
    written, rungs, plain = [], [], os.replace

    def counted(source, target):
        written.append(os.path.basename(target))
        plain(source, target)

    os.replace = counted
    try:
        outcome = run_trial(
            job, point, owner="a", ranks=ranks, on_rung=lambda step, crps: rungs.append((step, crps))
        )
    finally:
        os.replace = plain
    return {"outcome": outcome.model_dump(), "rungs": rungs, "written": written}
