"""The end of a sweep: test scores of each pair's best model, its registration, table, recipe and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.config import Config
from pipeline.data.store import FieldStore
from pipeline.environment import remotely, without_secrets
from pipeline.factors import FactorPair
from pipeline.files import join
from pipeline.recipe import Origin, Recipe, RecipeEntry
from pipeline.tracking import default_uri
from pipeline.tuning.results import PairResult, table, table_csv
from pipeline.tuning.study import Finished

if TYPE_CHECKING:
    from pipeline.tuning.sweep import Sweep


def report(sweep: Sweep, summary_run: str, runs: dict[FactorPair, str]) -> bool:
    """Evaluate, register, print and record; ends the studies' and the summary's runs.

    Returns
    -------
    bool
        Whether every pair has a scored trial.
    """
    results = _evaluate(sweep)
    models = {}
    for result in results:
        models[result.pair] = _record_study(sweep, result, runs[result.pair])
        sweep.tracker.end(runs[result.pair], "FINISHED")
    for pair, study in sweep.studies.items():
        if study.best() is None:
            print(f"{pair}: no trial could be scored; see its runs for the reasons")
            sweep.tracker.end(runs[pair], "FAILED")

    units = sweep.store.info.units
    text = table(results, units)
    print(f"\n{text}\n")
    recipe = Recipe(
        dataset=sweep.store.info.name,
        entries=tuple(
            RecipeEntry(
                pair=r.pair, parameters=r.best.parameters, origin=Origin.TUNED, score=r.test["crps"],
                study=sweep.studies[r.pair].name,
            )
            for r in results
        ),
    )  # fmt: skip
    recipe_url = join(sweep.config.output, "recipes", f"{sweep.name}.yaml")
    recipe.save(recipe_url)
    _record_summary(sweep, summary_run, results, text, recipe_url)
    complete = len(results) == len(sweep.studies)
    sweep.tracker.end(summary_run, "FINISHED" if complete else "FAILED")
    print(f"recipe: {recipe_url}")
    for pair, model in models.items():
        print(f"model of {pair}: {model}")
    print(f"compare the runs: {_how_to_look(sweep)}")
    return complete


def _evaluate(sweep: Sweep) -> list[PairResult]:
    """Score the best and the prior's model of every pair on the test split, in parallel on the cluster."""
    import ray

    from pipeline.tuning.trial import score_saved

    task = remotely(score_saved, sweep.config)
    pending: list[tuple[FactorPair, Finished, Any, Any]] = []
    for pair, study in sweep.studies.items():
        best, prior = study.best(), study.prior()
        if best is None:
            continue
        best_score = task.remote(sweep.config, sweep.store, best.model_url, "test")
        same = prior is None or prior.number == best.number
        prior_score = (
            None if same or prior is None else task.remote(sweep.config, sweep.store, prior.model_url, "test")
        )
        pending.append((pair, best, best_score, best_score if same and prior else prior_score))
    return [
        PairResult(
            pair,
            best,
            ray.get(score).as_metrics(),
            ray.get(prior_score).as_metrics() if prior_score is not None else None,
            len(sweep.studies[pair].finished),
        )
        for pair, best, score, prior_score in pending
    ]


def _record_study(sweep: Sweep, result: PairResult, run: str) -> str:
    """Put a pair's outcome on its run and register its model; gives where the model is."""
    import ray

    from pipeline.registry import register
    from pipeline.tuning.plan import plain

    parameters, tracker = result.best.parameters, sweep.tracker
    tracker.metrics(
        run,
        {f"test_{name}": value for name, value in result.test.items()}
        | {"validation_crps": result.best.crps, "beta": parameters.beta, "context": parameters.context}
        | {"power": parameters.conservation.power, "threshold": parameters.conservation.threshold}
        | ({"prior_test_crps": result.prior_test["crps"]} if result.prior_test else {}),
    )
    tracker.tag(
        run,
        {
            "finescale.pair": str(result.pair), "finescale.best_trial": str(result.best.number),
            "finescale.model": result.best.model_url, "finescale.conservation": str(parameters.conservation),
        },
    )  # fmt: skip
    picture = remotely(showcase, sweep.config).remote(sweep.config, sweep.store, result.best.model_url)
    tracker.image(run, "figures/wettest.png", ray.get(picture))
    if not sweep.config.tracking.register_models:
        return result.best.model_url
    name = f"finescale-{plain(sweep.store.info.name)}-{result.pair}"
    fingerprint = sweep.store.info.fingerprint
    return register(
        tracker, run, result.best.model_url, name, crps=result.test["crps"], data_fingerprint=fingerprint
    )


def _record_summary(
    sweep: Sweep, run: str, results: Sequence[PairResult], text: str, recipe_url: str
) -> None:
    """Put the comparison of all pairs on the sweep's run."""
    import ray

    from pipeline.evaluation.figures import SweepRow, sweep_figure, to_png
    from pipeline.files import read_text

    tracker, units = sweep.tracker, sweep.store.info.units
    tracker.text(run, "table.txt", text + "\n")
    tracker.text(run, "table.csv", table_csv(results))
    tracker.text(run, "recipe.yaml", read_text(recipe_url))
    for result in results:
        tracker.metrics(
            run,
            {
                f"{result.pair}_crps_skill": result.test["crps_skill"],
                f"{result.pair}_crps": result.test["crps"],
            },
        )
    if not results:
        return
    rows = [
        SweepRow(
            str(r.pair),
            r.test["bicubic_mae"],
            r.prior_test["crps"] if r.prior_test else None,
            r.test["crps"],
            r.best.parameters.beta,
            r.best.parameters.context,
        )
        for r in results
    ]
    tracker.image(run, "figures/sweep.png", to_png(sweep_figure(rows, units)))
    most_refined = max(results, key=lambda r: r.pair.pixels_per_cell)
    picture = remotely(showcase, sweep.config).remote(sweep.config, sweep.store, most_refined.best.model_url)
    tracker.image(run, f"figures/{most_refined.pair}.png", ray.get(picture))


def showcase(config: Config, store: FieldStore, model_url: str) -> bytes:
    """Draw the wettest scored test window of a model: LR, truth, bicubic, mean, members, spread; as PNG."""
    import torch

    from pipeline.evaluation.baselines import bicubic
    from pipeline.evaluation.evaluate import batches
    from pipeline.evaluation.figures import panel, to_png
    from pipeline.model_file import load_model
    from pipeline.tuning.trial import prepared

    model = load_model(model_url)
    pair = model.spec.pair
    data = prepared(config, store, pair)
    windows = data.scored_windows("test", model.spec.parameters.context, config.scoring, config.seed)
    amounts = [float(batch.last.sum()) for batch in batches(windows, 1)]
    batch = windows.batch([amounts.index(max(amounts))])
    with torch.no_grad():
        members = model.sample(batch, config.sampling, config.seed)
        figure = panel(
            batch.last[0, 0],
            batch.fine[0],
            bicubic(batch.coarse, pair, batch.coarse_mask)[0],
            model.predict_mean(batch)[0],
            members[0],
            batch.mask[0],
            store.info.units,
            f"{store.info.name}, factor pair {pair}: {model.spec.parameters}",
            coarse_mask=batch.last_mask[0, 0],
        )
    return to_png(figure)


def _how_to_look(sweep: Sweep) -> str:
    uri, output = sweep.tracker.uri, sweep.config.output
    if uri == default_uri(output):
        return f"make ui OUTPUT={output}, then open http://127.0.0.1:5000"
    if uri.startswith("sqlite:"):
        return f"mlflow server --backend-store-uri {uri}, then open http://127.0.0.1:5000"
    return f"open {without_secrets(uri)}"
