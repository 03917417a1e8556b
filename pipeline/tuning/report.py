"""The end of a sweep: test scores, what retuning gains, laws, recipe, registration, tables and figures."""

from __future__ import annotations

import torch

from pipeline.environment import fetched, remotely
from pipeline.errors import UserError
from pipeline.evaluation.blocks import block_of
from pipeline.evaluation.bootstrap import Difference, crps_difference, crps_interval
from pipeline.evaluation.evaluate import Evaluation
from pipeline.factors import FactorPair
from pipeline.mlflow_view.recipe_values import recipe_metrics
from pipeline.mlflow_view.views import sweep_view, trials_view
from pipeline.recipe import Origin, Recipe, RecipeEntry
from pipeline.storage.files import exists, join, read_text, write_bytes, write_text
from pipeline.tracking import Status, how_to_look
from pipeline.tuning import compare
from pipeline.tuning.notes import CRPS_HIGH, CRPS_LOW, study_note, sweep_note
from pipeline.tuning.pictures import pictures_of
from pipeline.tuning.plan import plain, registered_name, scored_on, validated_on
from pipeline.tuning.recipe_fit import Observation, fit_laws
from pipeline.tuning.results import Findings, PairResult, Rival, comparison, table, table_csv, verdict
from pipeline.tuning.scoring import prepared, score_saved, showcase
from pipeline.tuning.study import PairStudy
from pipeline.tuning.sweep import Sweep
from pipeline.tuning.trial import TrialJob


def report(sweep: Sweep, job: TrialJob, *, train: bool = True) -> bool:
    """Evaluate, compare, register, print and record; ends the studies' and the summary's runs.

    Parameters
    ----------
    sweep : Sweep
    job : TrialJob
    train : bool
        Whether settings to compare with may be trained; else only models that exist are compared.

    Returns
    -------
    bool
        Whether every pair has a scored trial.
    """
    found = _find(sweep, job, train=train and sweep.config.tuning.compare)
    for result in found.results:
        _record_study(sweep, result)
    for pair, study in sweep.studies.items():
        if study.best() is None:
            print(f"{pair}: no trial could be scored; see its runs for the reasons")
            sweep.tracker.end(study.name, _status(sweep, study))
        elif study.missing or study.exhausted:
            print(f"{pair}: {study.done} of {sweep.config.tuning.trials} trials so far")
    text = _text(sweep, found)
    print(f"\n{text}\n")
    recipe = _save_recipe(sweep, found)
    folder = _record_summary(sweep, found, text, recipe)
    statuses = {_status(sweep, study) for study in sweep.studies.values()}
    sweep.tracker.end(sweep.name, next(s for s in ("FAILED", "KILLED", "FINISHED") if s in statuses))
    _say_where(sweep, found, folder, recipe)
    return len(found.results) == len(sweep.studies)


def _status(sweep: Sweep, study: PairStudy) -> Status:
    """Say how a study ended: in full, given up after failures, or (in a report of its own) not yet."""
    if study.exhausted or (study.missing == 0 and study.best() is None):
        return "FAILED"
    # A pair may have ended with fewer trials than another was given later.
    return "KILLED" if study.missing and sweep.found.get(study.name) != "FINISHED" else "FINISHED"


def _find(sweep: Sweep, job: TrialJob, *, train: bool) -> Findings:
    """Train what is compared with, then score and draw everything at once on the cluster."""
    best = {pair: trial for pair, study in sweep.studies.items() if (trial := study.best()) is not None}
    observations = {
        pair: Observation(pair, [(trial.parameters, trial.crps) for trial in study.finished])
        for pair, study in (sweep.others | sweep.studies).items()
        if study.finished
    }
    chosen = compare.rivals(sweep, observations)
    models = compare.train_rivals(sweep, job, chosen, train=train)
    print("scoring on the test split", flush=True)
    score, draw = remotely(score_saved, sweep.config), remotely(showcase, sweep.config)
    urls = {trial.model_url for trial in best.values()} | {u for of in models.values() for u in of.values()}
    pending = {url: score.remote(sweep.config, sweep.store, url, "test") for url in sorted(urls)}
    drawn = {pair: draw.remote(sweep.config, sweep.store, trial.model_url) for pair, trial in best.items()}
    scores: dict[str, Evaluation] = {url: fetched(reference) for url, reference in pending.items()}
    results = []
    for pair, trial in best.items():
        tuned, study = scores[trial.model_url], sweep.studies[pair]
        rivals = {
            name: Rival(
                parameters,
                scores[models[pair][name]].ensemble.crps,
                _difference(sweep, pair, scores[models[pair][name]], tuned),
            )
            for name, parameters in chosen[pair].items()
            if name in models[pair]
        }
        test = tuned.as_metrics() | _interval(sweep, pair, tuned)
        results.append(PairResult(pair, trial, test, rivals, study.done, study.pruned))
    laws = fit_laws(list(observations.values())) if observations else None
    return Findings(results, observations, laws, {pair: fetched(one) for pair, one in drawn.items()})


def _interval(sweep: Sweep, pair: FactorPair, tuned: Evaluation) -> dict[str, float]:
    """Say how sure the CRPS is."""
    config = sweep.config
    windows = prepared(config, sweep.store, pair).scored_windows("test", 1, config.scoring, config.seed)
    cadence = sweep.store.info.cadence_seconds
    interval = crps_interval(tuned, windows, config.scoring, config.seed, cadence_seconds=cadence)
    return {CRPS_LOW: interval.low, CRPS_HIGH: interval.high}


def _difference(sweep: Sweep, pair: FactorPair, rival: Evaluation, tuned: Evaluation) -> Difference:
    """Compare two models on the same test windows."""
    config = sweep.config
    windows = prepared(config, sweep.store, pair).scored_windows("test", 1, config.scoring, config.seed)
    side = config.scoring.block_patches * config.data.patch
    return crps_difference(
        rival.statistics,
        tuned.statistics,
        block_of(windows.places, config.scoring.block_frames(sweep.store.info.cadence_seconds), side),
        resamples=config.scoring.resamples,
        generator=torch.Generator().manual_seed(config.seed),
    )


def _record_study(sweep: Sweep, result: PairResult) -> None:
    """Put a pair's outcome on its run, register its model and end the run."""
    study, best, tracker = sweep.studies[result.pair], result.best, sweep.tracker
    parameters = best.parameters
    name = registered_name(sweep.store, result.pair) if sweep.config.tracking.register_models else None
    tracker.metrics(
        study.name,
        {f"test_{name}": value for name, value in result.test.items()}
        | {"validation_crps": best.crps}
        | recipe_metrics(parameters)
        | {f"{_slug(name)}_test_crps": rival.crps for name, rival in result.rivals.items()}
        | {f"{_slug(name)}_loss": rival.difference.value for name, rival in result.rivals.items()},
    )
    tags = {
        "finescale.pair": str(result.pair), "finescale.best_trial": str(best.number),
        "finescale.model": best.model_url, "finescale.conservation": str(parameters.conservation),
    }  # fmt: skip
    tracker.tag(study.name, tags)
    tracker.note(study.name, study_note(sweep.name, result, sweep.store.info.units, name))
    if name:
        tracker.register(
            study.name,
            best.model_url,
            name,
            crps=result.test["crps"],
            scored_on=scored_on(sweep.config, sweep.store),
            interval=(result.test[CRPS_LOW], result.test[CRPS_HIGH]),
            validation=(best.crps, validated_on(sweep.config, sweep.store)),
        )


def _slug(name: str) -> str:
    return plain(name.replace("paper's ", "")).replace("-", "_")


def _text(sweep: Sweep, found: Findings) -> str:
    """Give everything that is printed: scores, the comparison, the Pareto sets, what the laws say."""
    parts = [table(found.results, sweep.store.info.units)]
    compared = comparison(found.results)
    if compared:
        parts.append("\n".join(["does retuning matter?", compared, *verdict(found.results)]))
    if len(sweep.config.tuning.objectives) > 1:
        lines = [
            f"  {pair} #{trial.number}: CRPS {trial.crps:.4g}, log-spectral distance "
            f"{trial.outcome.metrics['log_spectral_distance']:.3g} dB, {trial.parameters}"
            for pair, study in sweep.studies.items()
            for trial in study.pareto()
        ]
        parts.append("\n".join(["Pareto sets (validation split)", *lines]))
    if found.laws is not None:
        parts.append("\n".join(["scaling laws", *(f"  {line}" for line in found.laws.statements)]))
    return "\n\n".join(parts)


def _save_recipe(sweep: Sweep, found: Findings) -> str:
    """Write tuned values, laws and predictions, beside pairs that the sweep tuned before; gives the URL."""
    url = join(sweep.config.output, "recipes", f"{sweep.name}.yaml")
    earlier = Recipe(dataset=sweep.store.info.name)
    if exists(url):
        try:
            earlier = Recipe.load(url)
        except UserError as error:  # it is made from the studies, so nothing of this sweep is lost
            print(f"note: {error}; it is written anew")
    tuned = [
        RecipeEntry(
            pair=r.pair, parameters=r.best.parameters, origin=Origin.TUNED, score=r.test["crps"],
            study=sweep.studies[r.pair].name,
        )
        for r in found.results
    ]  # fmt: skip
    recipe = earlier.updated(tuned, laws=found.laws)
    known = {entry.pair for entry in recipe.entries if entry.origin is Origin.TUNED}
    asked = [pair for pair in sweep.config.tuning.predict if pair not in known]
    if found.laws is not None:
        recipe = recipe.updated(
            RecipeEntry(
                pair=pair, parameters=predicted.parameters, interval=predicted.interval,
                origin=Origin.PREDICTED,
            )
            for pair in asked
            for predicted in [found.laws.predict(pair)]
        )  # fmt: skip
    recipe.save(url)
    if found.laws is not None:
        for entry in map(recipe.entry, asked):
            print(f"{entry.pair} predicted: {entry.parameters} (90 %: {entry.interval})")
    return url


def _record_summary(sweep: Sweep, found: Findings, text: str, recipe: str) -> str:
    """Put the comparison of all pairs on the sweep's run, and beside it into a folder; gives the folder."""
    tracker, folder = sweep.tracker, join(sweep.config.output, "reports", sweep.name)
    texts = {
        "table.txt": text + "\n",
        "table.csv": table_csv(found.results),
        "recipe.yaml": read_text(recipe),
    }
    for name, content in texts.items():
        write_text(join(folder, name), content)
        tracker.text(sweep.name, name, content)
    for name, png in pictures_of(sweep, found).items():
        write_bytes(join(folder, "figures", name), png)
        tracker.artifact(sweep.name, f"figures/{name}", png)
    for pair, png in found.showcases.items():
        write_bytes(join(folder, "figures", f"{pair}.png"), png)
        tracker.artifact(sweep.studies[pair].name, "figures/wettest.png", png)
        tracker.end(sweep.studies[pair].name, _status(sweep, sweep.studies[pair]))
    tracker.tag(sweep.name, {"finescale.pairs": ",".join(map(str, sweep.studies))})
    for result in found.results:
        scores = {
            f"{result.pair}_{name}": result.test[name] for name in ("crps", CRPS_LOW, CRPS_HIGH, "crps_skill")
        }
        tracker.metrics(sweep.name, scores)
    info, told = sweep.store.info, {pair: _status(sweep, study) for pair, study in sweep.studies.items()}
    tracker.view(sweep_view(sweep.name))
    tracker.note(sweep.name, sweep_note(sweep.name, info.name, info.units, found.results, told))
    return folder


def _say_where(sweep: Sweep, found: Findings, folder: str, recipe: str) -> None:
    tracker = sweep.tracker
    delivered = tracker.flush(sweep.config.tracking.patience)
    print(f"figures and tables: {folder}")
    print(f"recipe: {recipe}")
    for result in found.results:
        model = tracker.registered(sweep.studies[result.pair].name) or result.best.model_url
        print(f"model of {result.pair}: {model}")
    if not delivered:
        print("MLflow does not answer: what it lacks is kept, the same command delivers it", flush=True)
    if page := tracker.page(sweep.name):
        print(f"best values per pair, in MLflow: {page}")
    print(f"with all scores: {tracker.address(sweep_view(sweep.name))}")
    for pair in sweep.studies:
        print(f"trials of {pair}: {tracker.address(trials_view(sweep.name, pair), charts=True)}")
    print(f"compare the runs: {how_to_look(tracker.uri, sweep.config.output)}", flush=True)
