"""What all measurements ask for."""

from __future__ import annotations

from pipeline.config import Config
from pipeline.errors import UserError
from pipeline.factors import FactorPair


def the_pair(config: Config) -> FactorPair:
    """Give the one pair that is to be measured.

    Raises
    ------
    UserError
        If there is none, or more than one.
    """
    if len(config.tuning.pairs) != 1:
        raise UserError(f"tuning.pairs: give one pair to measure, not {len(config.tuning.pairs)}")
    return config.tuning.pairs[0]
