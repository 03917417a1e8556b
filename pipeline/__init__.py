"""Finescale: retune and train diffusion super-resolution of space-time fields for any factor pair.

Importing this package is quick: torch, Ray, MLflow and xarray are loaded only by the parts that use them.
"""

from pipeline.errors import UserError
from pipeline.factors import Conservation, FactorPair, ScaleParameters, Scope
from pipeline.prior import paper_prior
from pipeline.recipe import Recipe

__version__ = "0.1.0"
__all__ = ["Conservation", "FactorPair", "Recipe", "ScaleParameters", "Scope", "UserError", "paper_prior"]
