"""Random search: the strategy that every other one must beat."""

from __future__ import annotations

import torch

from rac_helpers._check import check_generator
from rac_helpers.nas.search import Strategy
from rac_helpers.nas.space import Genome, Space


class RandomSearch(Strategy):
    """Draw genomes uniformly and learn nothing.

    Parameters
    ----------
    space : Space
        Where it searches.
    generator : torch.Generator
        What it draws comes from here.
    replacement : bool
        ``True`` may draw a genome again. ``False`` never does, so that each trial shows something
        new.

    Raises
    ------
    TypeError
        If an argument is of another type.

    References
    ----------
    Li and Talwalkar, 2019. Random search and reproducibility for neural architecture search.

    Examples
    --------
    >>> from rac_helpers.rng import make_generator
    >>> space = Space((("op", ("conv", "skip")), ("width", (8, 16))))
    >>> strategy = RandomSearch(space, generator=make_generator(0))
    >>> sorted(strategy.ask() for _ in range(4))
    [(0, 0), (0, 1), (1, 0), (1, 1)]
    >>> strategy.ask()
    Traceback (most recent call last):
    ValueError: the space has 4 genomes and all have been tried; ask for fewer trials
    """

    def __init__(
        self, space: Space, *, generator: torch.Generator, replacement: bool = False
    ) -> None:
        super().__init__(space, generator=generator)
        self.replacement = replacement
        self._seen: set[Genome] = set()

    def ask(self) -> Genome:
        """Return a genome drawn uniformly, of all or of those not yet drawn."""
        if self.replacement:
            return self.space.sample(generator=self.generator)
        genome = sample_new(self.space, self._seen, generator=self.generator)
        self._seen.add(genome)
        return genome

    def tell(self, genome: Genome, score: float) -> None:
        """Learn nothing."""


def sample_new(space: Space, seen: set[Genome], *, generator: torch.Generator) -> Genome:
    """Draw uniformly among the genomes that are not in ``seen``.

    Parameters
    ----------
    space : Space
        Where to draw.
    seen : set of Genome
        Genomes of the space that are not to come again.
    generator : torch.Generator
        What is drawn comes from here.

    Raises
    ------
    TypeError, ValueError
        If all genomes of the space have been seen, or ``generator`` is none.

    Examples
    --------
    >>> from rac_helpers.rng import make_generator
    >>> sample_new(Space((("width", (8, 16)),)), {(0,)}, generator=make_generator(0))
    (1,)
    """
    check_generator(generator)
    total = space.num_genomes
    if len(seen) >= total:
        raise ValueError(
            f"the space has {total} genomes and all have been tried; ask for fewer trials"
        )
    if 2 * len(seen) > total:  # few are left: draw from their list
        left = [genome for genome in space.genomes() if genome not in seen]
        return left[int(torch.randint(len(left), (), generator=generator))]
    while (genome := space.sample(generator=generator)) in seen:
        pass
    return genome
