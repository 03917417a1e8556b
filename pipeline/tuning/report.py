"""The end of a sweep: test scores of each pair's best model, its registration, table, recipe and figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.config import Config
from pipeline.data.store import FieldStore
from pipeline.environment import remotely, without_secrets
from pipeline.factors import FactorPair
from pipeline.files import exists, join
from pipeline.recipe import Origin, Recipe, RecipeEntry
from pipeline.tracking import default_uri
from pipeline.tuning.results import PairResult, table, table_csv

if TYPE_CHECKING:
    from pipeline.tuning.sweep import Sweep


def report(sweep: Sweep, summary_run: str, runs: dict[FactorPair, str]) -> bool:
    """Evaluate, register, print and record; ends the studies' and the summary's runs.

    Returns
    -------
    bool
        Whether every pair has a scored trial.
    """
    results, pictures = _evaluate(sweep)
    models = {}
    for result in results:
        models[result.pair] = _record_study(sweep, result, runs[result.pair], pictures[result.pair])
        sweep.tracker.end(runs[result.pair], "FINISHED")
    for pair, study in sweep.studies.items():
        if study.best() is None:
            print(f"{pair}: no trial could be scored; see its runs for the reasons")
            sweep.tracker.end(runs[pair], "FAILED")

    text = table(results, sweep.store.info.units)
    print(f"\n{text}\n")
    recipe_url = _save_recipe(sweep, results)
    _record_summary(sweep, summary_run, results, text, recipe_url)
    if results:
        most_refined = max(results, key=lambda r: r.pair.pixels_per_cell).pair
        sweep.tracker.image(summary_run, f"figures/{most_refined}.png", pictures[most_refined])
    complete = len(results) == len(sweep.studies)
    sweep.tracker.end(summary_run, "FINISHED" if complete else "FAILED")
    print(f"recipe: {recipe_url}")
    for pair, model in models.items():
        print(f"model of {pair}: {model}")
    print(f"compare the runs: {_how_to_look(sweep)}")
    return complete


def _evaluate(sweep: Sweep) -> tuple[list[PairResult], dict[FactorPair, bytes]]:
    """Score every pair's best model and its prior's on the test split, and draw the best; all at once."""
    import ray

    from pipeline.tuning.trial import score_saved

    score, draw = remotely(score_saved, sweep.config), remotely(showcase, sweep.config)
    best = {pair: trial for pair, study in sweep.studies.items() if (trial := study.best()) is not None}
    prior = {pair: trial for pair in best if (trial := sweep.studies[pair].prior()) is not None}
    scores = {
        url: score.remote(sweep.config, sweep.store, url, "test")
        for url in sorted({trial.model_url for trial in (*best.values(), *prior.values())})
    }
    pictures = {pair: draw.remote(sweep.config, sweep.store, trial.model_url) for pair, trial in best.items()}
    tested = {url: ray.get(pending).as_metrics() for url, pending in scores.items()}
    results = [
        PairResult(
            pair,
            trial,
            tested[trial.model_url],
            tested[prior[pair].model_url] if pair in prior else None,
            len(sweep.studies[pair].finished),
        )
        for pair, trial in best.items()
    ]
    return results, {pair: ray.get(pending) for pair, pending in pictures.items()}


def _save_recipe(sweep: Sweep, results: Sequence[PairResult]) -> str:
    """Write the tuned values, beside those of pairs that the sweep tuned before; gives the URL."""
    url = join(sweep.config.output, "recipes", f"{sweep.name}.yaml")
    earlier = Recipe.load(url) if exists(url) else Recipe(dataset=sweep.store.info.name)
    entries = [
        RecipeEntry(
            pair=r.pair, parameters=r.best.parameters, origin=Origin.TUNED, score=r.test["crps"],
            study=sweep.studies[r.pair].name,
        )
        for r in results
    ]  # fmt: skip
    earlier.updated(entries).save(url)
    return url


def _record_study(sweep: Sweep, result: PairResult, run: str, picture: bytes) -> str:
    """Put a pair's outcome on its run and register its model; gives where the model is."""
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
    tracker.image(run, "figures/wettest.png", picture)
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
