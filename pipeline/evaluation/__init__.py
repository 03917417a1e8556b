"""Scores of ensembles of fields against the truth and against references.

Two ways to a score, with the same formulas (`statistics`, `spectra`):

- While training and tuning: `evaluate` scores one model with the few scores of `scores`, from statistics kept
  window by window; `bootstrap` says how sure a CRPS is and whether two models differ.
- In `jobs/evaluate.py`: `sums` adds up what `measures` see, by block of windows (`blocks`), so memory does
  not grow with their number; `metrics` is the catalogue of what is computed from them, `intervals` the
  bootstrap.

`baselines` and `quantile_mapping` are what a model has to beat, `figures` and `showcase` pictures (matplotlib
is imported only there). These are plain torch; the job is made of

- `model_folders`, `candidates`, `held_out`: which models, on which windows;
- `chunks`, `parts`, `pieces`: scoring, here or on a Ray cluster, and carrying on after a kill;
- `tidy`, `summary`, `table`, `report`, `record`: its tables, `scores.json`, the page and the run in MLflow;
- `run`: all of it, from models to files.
"""
