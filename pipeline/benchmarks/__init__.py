"""Measurements of this project by itself; `jobs/benchmark.py` runs them."""
