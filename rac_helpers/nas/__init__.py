"""Architecture search: a space of networks, strategies that search it, and what they look for.

Open a module for what you want to know; the three parts of a search stand apart.

The space:

- ``space``: genomes, and how to move among them; ``networks``: small networks from genomes;
- ``plan``: which layer is pruned and rounded by how much, as a space; ``compressed``: what comes of
  it, and its bytes.

The strategy:

- ``search``: ask, score, tell: the loop of all of them;
- ``random_search``, ``evolution``, ``reinforce`` (``policies``: what it learns), ``bayesian``,
  ``halving``; ``article``: the update rules that the articles print, to see what they do.

The score:

- ``table``: trained networks, looked up; ``objective``: limits and trade-offs;
- ``latency``: time from a table of parts; ``zero_cost``: estimates without a training;
  ``supernet``: one training for all networks.
"""

from rac_helpers.nas.bayesian import BayesianSearch, GaussianProcess, expected_improvement
from rac_helpers.nas.compressed import (
    compress,
    compressed_bytes,
    pack_compressed,
    unpack_compressed_,
)
from rac_helpers.nas.evolution import (
    AgingEvolution,
    GenerationalEvolution,
    Individual,
    tournament,
)
from rac_helpers.nas.halving import Halving, Rung, successive_halving
from rac_helpers.nas.latency import LatencyTable, parts_of
from rac_helpers.nas.networks import (
    DIGITS_LARGEST,
    DIGITS_SPACE,
    OPERATIONS,
    Stage,
    StagedNetwork,
    build,
)
from rac_helpers.nas.objective import Limits, hypervolume, limited, pareto_front
from rac_helpers.nas.plan import Plan, compressed_space, masks_of, plan_of
from rac_helpers.nas.policies import IndependentPolicy, LSTMPolicy
from rac_helpers.nas.random_search import RandomSearch
from rac_helpers.nas.reinforce import Reinforce, entropy, reinforce_loss
from rac_helpers.nas.search import History, Strategy, Trial, search
from rac_helpers.nas.space import Genome, Space, genome_of, text_of
from rac_helpers.nas.supernet import Supernet
from rac_helpers.nas.table import Benchmark
from rac_helpers.nas.zero_cost import gradient_norm, snip, spearman, synflow

__all__ = [
    "DIGITS_LARGEST",
    "DIGITS_SPACE",
    "OPERATIONS",
    "AgingEvolution",
    "BayesianSearch",
    "Benchmark",
    "GaussianProcess",
    "GenerationalEvolution",
    "Genome",
    "Halving",
    "History",
    "IndependentPolicy",
    "Individual",
    "LSTMPolicy",
    "LatencyTable",
    "Limits",
    "Plan",
    "RandomSearch",
    "Reinforce",
    "Rung",
    "Space",
    "Stage",
    "StagedNetwork",
    "Strategy",
    "Supernet",
    "Trial",
    "build",
    "compress",
    "compressed_bytes",
    "compressed_space",
    "entropy",
    "expected_improvement",
    "genome_of",
    "gradient_norm",
    "hypervolume",
    "limited",
    "masks_of",
    "pack_compressed",
    "pareto_front",
    "parts_of",
    "plan_of",
    "reinforce_loss",
    "search",
    "snip",
    "spearman",
    "successive_halving",
    "synflow",
    "text_of",
    "tournament",
    "unpack_compressed_",
]
