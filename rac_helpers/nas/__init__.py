"""Architecture search: a space of networks, strategies that search it, and what they look for.

The three parts of a search are three things here: a :class:`Space`, a strategy, and a score.
"""

from rac_helpers.nas.networks import DIGITS_SPACE, OPERATIONS, Stage, StagedNetwork, build
from rac_helpers.nas.space import Genome, Space

__all__ = [
    "DIGITS_SPACE",
    "OPERATIONS",
    "Genome",
    "Space",
    "Stage",
    "StagedNetwork",
    "build",
]
