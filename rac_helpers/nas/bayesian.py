"""Bayesian search: a model of the score says where to look next.

A Gaussian process predicts the score of every genome with an error bar; expected improvement
weighs both. The model is cheap, the training it saves is not.
"""

from __future__ import annotations

import math

import torch

from rac_helpers._check import check_int, check_number
from rac_helpers.nas.random_search import sample_new
from rac_helpers.nas.search import Strategy
from rac_helpers.nas.space import Genome, Space

LENGTH_SCALES = (0.7, 1.0, 1.5, 2.2, 3.3, 5.0)
NOISES = (1e-4, 1e-2, 1e-1)
_ALL = 5000  # of spaces with more genomes, a sample is looked at


class GaussianProcess:
    r"""A Gaussian process with the kernel of Hamming distances, and mean and scale of its data.

    .. math:: k(g, h) = \exp\left(-\frac{|x_g - x_h|^2}{2 \ell^2}\right)
              = \exp\left(-\frac{\mathrm{Hamming}(g, h)}{\ell^2}\right)

    for the one-hot codes :math:`x`: two choices that differ are two places that differ.

    Parameters
    ----------
    length_scale : float
        :math:`\ell`, above 0: over how many changes a score still says something.
    noise : float
        Variance of the scores' noise as a share of their variance, above 0.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    Rasmussen and Williams, 2006. Gaussian processes for machine learning. Algorithm 2.1.

    Examples
    --------
    >>> x = torch.eye(3)
    >>> process = GaussianProcess(length_scale=1.0, noise=1e-6).fit(x[:2], torch.tensor([0.0, 1.0]))
    >>> mean, std = process.predict(x)
    >>> [round(value, 2) for value in mean.tolist()], [round(value, 2) for value in std.tolist()]
    ([0.0, 1.0, 0.5], [0.0, 0.0, 0.45])
    """

    def __init__(self, length_scale: float, noise: float) -> None:
        for name, value in {"length_scale": length_scale, "noise": noise}.items():
            if check_number(name, value) <= 0:
                raise ValueError(f"{name} must be a finite number > 0, got {value}")
        self.length_scale, self.noise = length_scale, noise

    def fit(self, x: torch.Tensor, y: torch.Tensor) -> GaussianProcess:
        """Learn from codes ``(n, features)`` and scores ``(n,)``; returns itself."""
        self.x, y = x.double(), y.double()
        self.center = y.mean()
        self.scale = y.std(correction=0) or torch.ones(())  # equal scores: leave them
        z = (y - self.center) / self.scale
        covariance = self._kernel(self.x) + self.noise * torch.eye(len(y), dtype=torch.float64)
        self.factor = torch.linalg.cholesky(covariance)
        self.weights = torch.cholesky_solve(z[:, None], self.factor)[:, 0]
        self.log_likelihood = float(
            -z @ self.weights / 2
            - self.factor.diagonal().log().sum()
            - len(y) / 2 * math.log(2 * math.pi)
        )
        return self

    def predict(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return mean and standard deviation ``(m,)`` of the true scores of ``x``."""
        cross = self._kernel(x.double())  # (m, n)
        half = torch.linalg.solve_triangular(self.factor, cross.T, upper=False)  # (n, m)
        variance = (1 - half.square().sum(0)).clamp(min=0)
        return self.center + self.scale * (cross @ self.weights), self.scale * variance.sqrt()

    def _kernel(self, x: torch.Tensor) -> torch.Tensor:
        """Codes (m, features) against those that were learned -> (m, n)."""
        squares = x.square().sum(1)[:, None] + self.x.square().sum(1) - 2 * x @ self.x.T
        return torch.exp(-squares.clamp(min=0) / (2 * self.length_scale**2))


def fit_best(x: torch.Tensor, y: torch.Tensor) -> GaussianProcess:
    """Return the process whose length scale and noise make the scores most likely.

    Parameters
    ----------
    x : torch.Tensor
        One-hot codes ``(n, features)``, n at least 1.
    y : torch.Tensor
        Scores ``(n,)``.

    Examples
    --------
    >>> x = torch.eye(2)
    >>> fit_best(x, torch.tensor([0.0, 1.0])).length_scale in LENGTH_SCALES
    True
    """
    processes = (GaussianProcess(scale, noise) for scale in LENGTH_SCALES for noise in NOISES)
    return max((p.fit(x, y) for p in processes), key=lambda process: process.log_likelihood)


def expected_improvement(mean: torch.Tensor, std: torch.Tensor, best: float) -> torch.Tensor:
    r"""Return by how much a normal score is expected to exceed the best one so far.

    .. math:: E[\max(Y - b, 0)] = (\mu - b)\,\Phi(z) + \sigma\,\varphi(z),
              \quad z = (\mu - b) / \sigma

    Parameters
    ----------
    mean, std : torch.Tensor
        Floats of one shape; ``std`` at least 0. Where it is 0 the improvement is certain.
    best : float
        Highest score so far.

    Returns
    -------
    torch.Tensor
        Of the same shape, at least 0.

    Raises
    ------
    ValueError
        If the shapes differ or a standard deviation is negative.

    References
    ----------
    Jones, Schonlau and Welch, 1998. Efficient global optimization of expensive black-box
    functions. Section 4.1.

    Examples
    --------
    >>> expected_improvement(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.0)
    tensor([1.0000, 0.3989])
    """
    if mean.shape != std.shape or (std < 0).any():
        shapes = f"{tuple(mean.shape)} and {tuple(std.shape)}"
        raise ValueError(f"mean and std must have one shape and std be >= 0, got {shapes}")
    gain = mean - best
    z = gain / std.clamp(min=1e-12)
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return (gain * torch.special.ndtr(z) + std * density).clamp(min=0)


class BayesianSearch(Strategy):
    """Ask for the untried genome with the highest expected improvement.

    Parameters
    ----------
    space : Space
        Where it searches. Of more than 5,000 genomes a new sample of as many is looked at for
        each trial.
    generator : torch.Generator
        What it draws comes from here.
    num_initial : int
        Trials at random before the model is asked, at least 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range; by ``ask`` if all genomes have been tried.

    References
    ----------
    Jones, Schonlau and Welch, 1998. Efficient global optimization of expensive black-box
    functions. White, Neiswanger and Savani, 2021. BANANAS: Bayesian optimization with neural
    architectures for neural architecture search.

    Examples
    --------
    >>> from rac_helpers.nas.search import search
    >>> from rac_helpers.rng import make_generator
    >>> space = Space(tuple((name, (0, 1, 2, 3)) for name in "abcd"))
    >>> strategy = BayesianSearch(space, generator=make_generator(0))
    >>> search(strategy, sum, num_trials=40).best.genome
    (3, 3, 3, 3)
    """

    def __init__(self, space: Space, *, generator: torch.Generator, num_initial: int = 10) -> None:
        super().__init__(space, generator=generator)
        self.num_initial = check_int("num_initial", num_initial, low=1)
        self._asked: set[Genome] = set()
        self._genomes: list[Genome] = []
        self._scores: list[float] = []
        self._all = list(space.genomes()) if space.num_genomes <= _ALL else None

    def ask(self) -> Genome:
        """Return a random genome at first, then the most promising one; none comes twice."""
        genome = sample_new(self.space, self._asked, generator=self.generator)
        if len(self._asked) >= self.num_initial and self._scores:
            genome = self._most_promising(self._candidates(genome))
        self._asked.add(genome)
        return genome

    def tell(self, genome: Genome, score: float) -> None:
        """Add the trial to what the model learns from; its genome is not asked for again."""
        genome, score = self._checked(genome, score)
        self._asked.add(genome)
        self._genomes.append(genome)
        self._scores.append(score)

    def _candidates(self, random: Genome) -> list[Genome]:
        """All untried genomes; of a large space a sample, and what is near the best."""
        if self._all is not None:
            return [genome for genome in self._all if genome not in self._asked]
        best = self._genomes[self._scores.index(max(self._scores))]
        drawn = {self.space.sample(generator=self.generator) for _ in range(_ALL)}
        return [random, *sorted((drawn | set(self.space.neighbours(best))) - self._asked)]

    def _most_promising(self, candidates: list[Genome]) -> Genome:
        scores = torch.tensor(self._scores, dtype=torch.float64)
        process = fit_best(self.space.one_hot(self._genomes), scores)
        mean, std = process.predict(self.space.one_hot(candidates))
        return candidates[int(expected_improvement(mean, std, float(scores.max())).argmax())]
