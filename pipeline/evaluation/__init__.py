"""Scores of ensembles of fields against the truth, deterministic references and figures: plain torch.

`statistics` and `spectra` give sums per window, `scores` the scores computed from merged sums, `bootstrap`
whether two models differ, `baselines` the references that a model has to beat, and `figures` pictures
(matplotlib is imported only there).
"""
