"""Retuning (beta, L, f) per factor pair: Optuna studies run by Ray Tune."""
