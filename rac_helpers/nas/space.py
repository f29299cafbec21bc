"""The search space: which genomes there are, and how to move among them.

A genome is a tuple of whole numbers, one for each gene: which of its choices is taken. Tuples
cannot be changed, so no two genomes can share a part by accident.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from numbers import Integral

import torch

from rac_helpers._check import check_generator

Genome = tuple[int, ...]
Choice = str | int | float


@dataclass(frozen=True)
class Space:
    """All combinations of some choices.

    Parameters
    ----------
    genes : tuple of (name, choices)
        Names differ; choices are texts or numbers, at least one a gene, none twice.

    Raises
    ------
    TypeError, ValueError
        If a gene is not as described.

    Examples
    --------
    >>> space = Space((("op", ("conv", "skip")), ("width", (4, 8, 16))))
    >>> len(space), space.decode((0, 2))
    (6, {'op': 'conv', 'width': 16})
    """

    genes: tuple[tuple[str, tuple[Choice, ...]], ...]

    def __post_init__(self) -> None:
        genes = tuple(map(_checked_gene, self.genes))
        if not genes or len({name for name, _ in genes}) < len(genes):
            names = [name for name, _ in genes]
            raise ValueError(f"genes must have names of their own, at least one, got {names}")
        object.__setattr__(self, "genes", genes)

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many choices each gene has."""
        return tuple(len(choices) for _, choices in self.genes)

    @functools.cached_property
    def _open(self) -> tuple[int, ...]:
        """The genes that have more than one choice."""
        return tuple(place for place, size in enumerate(self.sizes) if size > 1)

    @functools.cached_property
    def num_genomes(self) -> int:
        """How many genomes there are; ``len`` says the same, as far as Python lets it: to 2**63."""
        return math.prod(self.sizes)

    def __len__(self) -> int:
        """Return the number of genomes."""
        return self.num_genomes

    def genomes(self) -> Iterator[Genome]:
        """Yield all genomes in lexicographic order.

        Examples
        --------
        >>> list(Space((("op", ("conv", "skip")), ("width", (4,)))).genomes())
        [(0, 0), (1, 0)]
        """
        return itertools.product(*map(range, self.sizes))

    def check(self, genome: Genome) -> Genome:
        """Return ``genome`` if it is one of this space, else raise.

        Raises
        ------
        TypeError
            If it is no tuple of integers.
        ValueError
            If a number is not one of a choice, or there are too few or too many.

        Examples
        --------
        >>> Space((("width", (4, 8)),)).check((2,))
        Traceback (most recent call last):
        ValueError: genome[0] (width) must be in [0, 1], got 2
        """
        if not isinstance(genome, tuple):
            raise TypeError(f"genome must be a tuple of integers, got {genome!r}")
        if len(genome) != len(self.sizes):
            raise ValueError(f"genome must hold {len(self.sizes)} numbers, got {len(genome)}")
        for place, (value, size) in enumerate(zip(genome, self.sizes, strict=True)):
            if type(value) is not int and (isinstance(value, bool) or not _is_int(value)):
                raise TypeError(f"genome must be a tuple of integers, got {genome!r}")
            if not 0 <= value < size:
                name = self.genes[place][0]
                raise ValueError(
                    f"genome[{place}] ({name}) must be in [0, {size - 1}], got {value}"
                )
        return genome

    def decode(self, genome: Genome) -> dict[str, Choice]:
        """Return the choice of each gene by its name."""
        self.check(genome)
        pairs = zip(self.genes, genome, strict=True)
        return {name: choices[value] for (name, choices), value in pairs}

    def sample(self, *, generator: torch.Generator) -> Genome:
        """Draw one genome; all are equally likely.

        Examples
        --------
        >>> space = Space((("op", ("conv", "skip")), ("width", (4, 8, 16))))
        >>> space.sample(generator=torch.Generator().manual_seed(0))
        (0, 2)
        """
        shares = _uniform(len(self.sizes), generator)
        return tuple(int(u * size) for u, size in zip(shares, self.sizes, strict=True))

    def mutate(self, genome: Genome, *, generator: torch.Generator) -> Genome:
        """Return a new genome that differs in exactly one gene; all neighbours are possible.

        The gene is drawn first, then one of its other choices. Genes with one choice are left out.
        In a space of one genome there is no other: it comes back as it is.

        Examples
        --------
        >>> Space((("width", (4, 8)),)).mutate((0,), generator=torch.Generator().manual_seed(0))
        (1,)
        """
        self.check(genome)
        gene, choice = _uniform(2, generator)
        if not self._open:
            return genome
        place = self._open[int(gene * len(self._open))]
        step = 1 + int(choice * (self.sizes[place] - 1))
        value = (genome[place] + step) % self.sizes[place]
        return (*genome[:place], value, *genome[place + 1 :])

    def crossover(self, first: Genome, second: Genome, *, generator: torch.Generator) -> Genome:
        """Return a new genome: each gene comes from one of both parents, by a fair coin.

        Works for one gene, too: there is no point to cut at.

        Examples
        --------
        >>> space = Space((("op", ("conv", "skip")), ("width", (4, 8, 16))))
        >>> space.crossover((0, 0), (1, 2), generator=torch.Generator().manual_seed(0))
        (0, 2)
        """
        self.check(first), self.check(second)
        coins = _uniform(len(first), generator)
        return tuple(a if u < 0.5 else b for a, b, u in zip(first, second, coins, strict=True))

    def neighbours(self, genome: Genome) -> list[Genome]:
        """Return all genomes that differ from ``genome`` in one gene, in lexicographic order.

        Examples
        --------
        >>> Space((("op", ("conv", "skip")), ("width", (4, 8, 16)))).neighbours((0, 1))
        [(0, 0), (0, 2), (1, 1)]
        """
        self.check(genome)
        return sorted(
            (*genome[:place], value, *genome[place + 1 :])
            for place, size in enumerate(self.sizes)
            for value in range(size)
            if value != genome[place]
        )

    def one_hot(self, genomes: Iterable[Genome]) -> torch.Tensor:
        """Return float32 ``(num_genomes, sum of choices)``: a one for each choice that is taken.

        Examples
        --------
        >>> Space((("op", ("conv", "skip")), ("width", (4, 8)))).one_hot([(0, 1), (1, 1)])
        tensor([[1., 0., 0., 1.],
                [0., 1., 0., 1.]])
        """
        checked = [self.check(genome) for genome in genomes]
        starts = torch.tensor([0, *itertools.accumulate(self.sizes[:-1])])
        table = torch.zeros(len(checked), sum(self.sizes))
        if checked:
            table.scatter_(1, torch.tensor(checked) + starts, 1.0)
        return table


def text_of(genome: Genome) -> str:
    """Write a genome as it stands in records.

    Examples
    --------
    >>> text_of((0, 2, 1))
    '0-2-1'
    """
    return "-".join(map(str, genome))


def genome_of(text: str) -> Genome:
    """Read what :func:`text_of` wrote; whether a space has this genome is for its ``check``.

    Raises
    ------
    ValueError
        If a part of the text is no whole number.

    Examples
    --------
    >>> genome_of("0-2-1")
    (0, 2, 1)
    """
    return tuple(map(int, text.split("-")))


def _uniform(count: int, generator: torch.Generator) -> list[float]:
    """Draw ``count`` numbers in [0, 1) at once: calls of torch are what takes the time."""
    return torch.rand(count, generator=check_generator(generator)).tolist()


def _checked_gene(gene: tuple[str, tuple[Choice, ...]]) -> tuple[str, tuple[Choice, ...]]:
    if not isinstance(gene, tuple | list) or len(gene) != 2:
        raise TypeError(f"genes must be pairs of a name and its choices, got {gene!r}")
    name, choices = gene
    if not isinstance(name, str) or not name:
        raise TypeError(f"genes must have texts as names, got {name!r}")
    if isinstance(choices, str) or not isinstance(choices, Iterable):
        raise TypeError(f"choices of {name} must be a tuple, got {choices!r}")
    choices = tuple(choices)
    for choice in choices:
        if isinstance(choice, bool) or not isinstance(choice, str | int | float):
            raise TypeError(f"choices of {name} must be texts or numbers, got {choice!r}")
    if not choices or len(set(choices)) < len(choices):
        raise ValueError(f"choices of {name} must differ, at least one, got {choices}")
    return name, choices


def _is_int(value: object) -> bool:
    return isinstance(value, Integral)


def check_space(space: Space) -> Space:
    """Return ``space`` if it is one, else raise.

    Examples
    --------
    >>> check_space([("width", (8, 16))])
    Traceback (most recent call last):
    TypeError: space must be a Space, got list
    """
    if not isinstance(space, Space):
        raise TypeError(f"space must be a Space, got {type(space).__name__}")
    return space
