"""A table of trained networks: what every genome of a space is worth, looked up and not trained.

A search in the table takes milliseconds, so a strategy can be run hundreds of times, and what it
missed is known. The idea of such tables is that of NAS-Bench-101.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

from rac_helpers._check import check_int
from rac_helpers.nas.space import Genome, Space, genome_of
from rac_helpers.records import load


class Benchmark:
    """The accuracies and costs of all genomes of a space. Make it with :meth:`load`.

    Parameters
    ----------
    content : dict
        A record with ``genes``, ``architectures`` (costs by genome) and ``rows``; each row has the
        validation accuracy after each epoch, and the test accuracy after the last.

    Attributes
    ----------
    space : Space
        All its genomes are in the table.
    seeds : tuple of int
        Those that every genome was trained with.
    epochs : int
        How long each training was.

    Raises
    ------
    ValueError
        If a genome is missing, or lacks a seed that others have.

    References
    ----------
    Ying, Klein, Christiansen, Real, Murphy and Hutter, 2019. NAS-Bench-101: towards reproducible
    neural architecture search, sections 2 and 3.

    Examples
    --------
    >>> def row(genome, curve):
    ...     config, metrics = {"genome": genome}, {"test_accuracy": curve[-1]}
    ...     return {"config": config, "seed": 0, "val_accuracy": curve, "metrics": metrics}
    >>> rows = [row("0", [0.1, 0.5]), row("1", [0.1, 0.75])]
    >>> costs = {"0": {"macs": 10}, "1": {"macs": 20}}
    >>> table = Benchmark({"genes": {"width": [4, 8]}, "architectures": costs, "rows": rows})
    >>> table.validation((0,)), table.validation((0,), epochs=1), table.costs((1,))
    (0.5, 0.1, {'macs': 20})
    >>> table.best, table.regret((0,))
    ((1,), 0.25)
    """

    def __init__(self, content: dict) -> None:
        self.space = Space(tuple((n, tuple(choices)) for n, choices in content["genes"].items()))
        self._costs = {genome_of(text): costs for text, costs in content["architectures"].items()}
        self._curves: dict[Genome, dict[int, list[float]]] = {}
        self._tests: dict[Genome, dict[int, float]] = {}
        for row in content["rows"]:
            genome = self.space.check(genome_of(row["config"]["genome"]))
            self._curves.setdefault(genome, {})[row["seed"]] = row["val_accuracy"]
            self._tests.setdefault(genome, {})[row["seed"]] = row["metrics"]["test_accuracy"]
        self._check_complete()
        first = self._curves[next(self.space.genomes())]
        self.seeds = tuple(sorted(first))
        self.epochs = len(first[self.seeds[0]])
        self._means = {  # of the seeds, after each epoch: what a search asks for most
            genome: [sum(values) / len(values) for values in zip(*curves.values(), strict=True)]
            for genome, curves in self._curves.items()
        }

    @classmethod
    def load(cls, path: str | os.PathLike) -> Benchmark:
        """Read the record that ``experiments/nas_benchmark.py`` writes.

        Raises
        ------
        FileNotFoundError
            If there is no such file.
        ValueError
            If it is damaged, no table, or not complete.
        """
        content = load(path)
        for key in ("genes", "architectures"):
            if not isinstance(content.get(key), dict):
                raise ValueError(f"{Path(path)} is no table: {key!r} is missing or no dict")
        return cls(content)

    def validation(
        self, genome: Genome, seed: int | None = None, epochs: int | None = None
    ) -> float:
        """Return the validation accuracy: what a search may see. Usable as a score.

        Parameters
        ----------
        genome : Genome
            One of the space.
        seed : int, optional
            One of ``seeds``; ``None`` is the mean of all of them.
        epochs : int, optional
            After how many epochs, in ``[1, epochs]``; ``None`` is after the last. The learning
            rate falls over all epochs, so this is a training that was broken off.

        Raises
        ------
        ValueError
            If something is not in the table.
        """
        last = self.epochs if epochs is None else epochs
        check_int("epochs", last, low=1, high=self.epochs)
        if seed is None:
            return self._find(self._means, genome)[last - 1]
        return self._of_seed(self._find(self._curves, genome), seed)[last - 1]

    def test(self, genome: Genome, seed: int | None = None) -> float:
        """Return the test accuracy: what is reported of a genome after the search has ended.

        Parameters are those of :meth:`validation`.
        """
        values = self._find(self._tests, genome)
        if seed is None:
            return sum(values.values()) / len(values)
        return self._of_seed(values, seed)

    def costs(self, genome: Genome) -> dict[str, float]:
        """Return what a network costs: ``params``, ``macs``, ``size_bytes``, ``latency_ms``.

        ``latency_ms`` only if it was measured.
        """
        return dict(self._find(self._costs, genome))

    @functools.cached_property
    def best(self) -> Genome:
        """The genome with the highest mean test accuracy; the first of equal ones."""
        return max(self.space.genomes(), key=self.test)

    def regret(self, genome: Genome) -> float:
        """Return how much mean test accuracy is lost by ``genome`` instead of the best, >= 0."""
        return self.test(self.best) - self.test(genome)

    def _find(self, table: dict, genome: Genome):
        try:
            return table[genome]
        except (KeyError, TypeError):
            self.space.check(genome)
            raise

    def _of_seed(self, values: dict, seed: int):
        if seed not in values:
            raise ValueError(f"seed must be one of {list(self.seeds)}, got {seed!r}")
        return values[seed]

    def _check_complete(self) -> None:
        seeds = {frozenset(found) for found in self._curves.values()}
        lengths = {len(curve) for found in self._curves.values() for curve in found.values()}
        if len(seeds) > 1 or len(lengths) > 1:
            raise ValueError("rows must have the same seeds and epochs for each genome")
        for genome in self.space.genomes():
            if genome not in self._curves or genome not in self._costs:
                raise ValueError(
                    f"the table must hold every genome of its space, {genome} is missing"
                )
