"""Finescale: retune and train diffusion super-resolution of space-time fields for any factor pair.

Importing this package is quick: torch, Ray, MLflow and xarray are loaded only by the parts that use them.
"""

from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from pipeline.factors import Conservation, FactorPair, ScaleParameters, Scope
from pipeline.prior import paper_prior
from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from pipeline.downscaling.notebook import downscale as downscale

__version__ = "0.1.0"
__all__ = [
    "Conservation",
    "FactorPair",
    "Recipe",
    "ScaleParameters",
    "Scope",
    "UserError",
    "downscale",
    "paper_prior",
]


def __getattr__(name: str) -> Any:
    """Load `downscale` when it is first asked for."""
    if name == "downscale":
        from pipeline.downscaling.notebook import downscale

        return downscale
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
