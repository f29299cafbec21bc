"""Reinforcement learning: a policy that makes what was rewarded more likely.

An episode makes one genome. The state is what has been chosen so far, an action is the choice for
the next gene, and the only reward is the score of the whole genome at the end. The policy is a
distribution over genomes; REINFORCE moves it along ``(reward - baseline) * grad log p(genome)``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from rac_helpers._check import check_int, check_number
from rac_helpers.nas.policies import IndependentPolicy, Policy
from rac_helpers.nas.search import Strategy
from rac_helpers.nas.space import Genome, Space


def reinforce_loss(log_prob: torch.Tensor, rewards: torch.Tensor, baseline: float) -> torch.Tensor:
    r"""Return the loss whose gradient makes genomes better than the baseline more likely.

    .. math:: -\frac{1}{n} \sum_i (R_i - b) \log p(g_i)

    Parameters
    ----------
    log_prob : torch.Tensor
        Floats ``(n,)``: the logarithm of the probability of each genome *that was sampled*.
    rewards : torch.Tensor
        Floats ``(n,)``, higher is better.
    baseline : float
        What is usual, for example a moving average of earlier rewards. It changes no mean of the
        gradient, only its spread, as long as it does not depend on the sampled genomes.

    Returns
    -------
    torch.Tensor
        A scalar.

    Raises
    ------
    ValueError
        If the shapes differ.

    References
    ----------
    Williams, 1992. Simple statistical gradient-following algorithms for connectionist
    reinforcement learning. Section 4. Zoph and Le, 2017. Neural architecture search with
    reinforcement learning. Section 3.2.

    Examples
    --------
    >>> log_prob = torch.tensor([0.5, 0.25]).log()
    >>> reinforce_loss(log_prob, torch.tensor([1.0, 0.0]), 0.5)
    tensor(-0.1733)
    """
    if log_prob.shape != rewards.shape or log_prob.ndim != 1:
        shapes = f"{tuple(log_prob.shape)} and {tuple(rewards.shape)}"
        raise ValueError(f"log_prob and rewards must both have the shape (n,), got {shapes}")
    return -((rewards - baseline) * log_prob).mean()


class Reinforce(Strategy):
    """REINFORCE with a moving average as baseline.

    Parameters
    ----------
    space : Space
        Where it searches.
    generator : torch.Generator
        What it draws comes from here.
    policy : callable
        Makes the policy: ``policy(space, generator=generator)``. By default the genes are
        independent; :class:`~rac_helpers.nas.policies.LSTMPolicy` chooses one after the other.
    lr : float
        Step size of Adam, above 0.
    decay : float
        In ``[0, 1)``: how much of the old baseline is kept when a reward comes in.
    entropy_weight : float
        At least 0: a bonus for staying undecided.
    batch_size : int
        Episodes for one step, at least 1. Ask for as many at once (``search(..., batch=)``).

    Attributes
    ----------
    baseline : float or None
        Moving average of the rewards so far; ``None`` before the first.
    probabilities : list
        For each episode, before its step: the probability of each choice of each gene, given the
        choices of that episode.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    References
    ----------
    Zoph and Le, 2017. Neural architecture search with reinforcement learning. Section 3.2.

    Examples
    --------
    >>> from rac_helpers.nas.search import search
    >>> from rac_helpers.rng import make_generator
    >>> space = Space((("first", (0, 1)), ("second", (0, 1))))
    >>> strategy = Reinforce(space, generator=make_generator(0))
    >>> history = search(strategy, lambda genome: float(genome == (1, 0)), num_trials=100)
    >>> [gene.index(max(gene)) for gene in strategy.probabilities[-1]]
    [1, 0]
    """

    def __init__(
        self,
        space: Space,
        *,
        generator: torch.Generator,
        policy: Callable[..., Policy] = IndependentPolicy,
        lr: float = 0.1,
        decay: float = 0.9,
        entropy_weight: float = 0.0,
        batch_size: int = 1,
    ) -> None:
        super().__init__(space, generator=generator)
        self.policy = policy(space, generator=generator)
        if not 0 <= check_number("decay", decay) < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if check_number("lr", lr) <= 0:
            raise ValueError(f"lr must be above 0, got {lr}")
        self.decay, self.baseline = decay, None
        self.entropy_weight = check_number("entropy_weight", entropy_weight, low=0)
        self.batch_size = check_int("batch_size", batch_size, low=1)
        self.probabilities: list[list[list[float]]] = []
        self._optimizer = torch.optim.Adam(self.policy.parameters(), lr=lr)
        self._episodes: list[tuple[Genome, float]] = []

    def ask(self) -> Genome:
        """Sample a genome from the policy."""
        return self.policy.sample(generator=self.generator)

    def tell(self, genome: Genome, score: float) -> None:
        """Collect the episode; when there are ``batch_size``, take a step."""
        self._episodes.append(self._checked(genome, score))
        if len(self._episodes) == self.batch_size:
            self._step()
            self._episodes = []

    def _step(self) -> None:
        genomes, rewards = zip(*self._episodes, strict=True)
        log_p = self.policy(genomes)  # (n, genes, choices)
        self.probabilities += _without_padding(log_p, self.space)
        baseline = rewards[0] if self.baseline is None else self.baseline
        loss = reinforce_loss(_log_prob(log_p, genomes), torch.tensor(rewards), baseline)
        if self.entropy_weight:
            loss = loss - self.entropy_weight * entropy(log_p).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        for reward in rewards:  # after the step: a reward is no part of its own baseline
            baseline = self.decay * baseline + (1 - self.decay) * reward
        self.baseline = baseline


def entropy(log_p: torch.Tensor) -> torch.Tensor:
    """Return the entropy of distributions in nats, summed over the genes.

    Parameters
    ----------
    log_p : torch.Tensor
        Log-probabilities ``(n, genes, choices)``; ``-inf`` where a gene has no such choice.

    Returns
    -------
    torch.Tensor
        Floats ``(n,)``, at least 0.

    Examples
    --------
    >>> entropy(torch.tensor([[[0.5, 0.5]]]).log())
    tensor([0.6931])
    """
    possible = log_p.masked_fill(log_p == -torch.inf, 0.0)  # 0 * -inf would be NaN
    return -(log_p.exp() * possible).sum((1, 2))


def _log_prob(log_p: torch.Tensor, genomes: tuple[Genome, ...]) -> torch.Tensor:
    """Add up the logarithms at the choices that were taken: (n, genes, choices) -> (n,)."""
    return log_p.gather(2, torch.tensor(genomes)[:, :, None]).sum((1, 2))


def _without_padding(log_p: torch.Tensor, space: Space) -> list[list[list[float]]]:
    rows = log_p.detach().exp().tolist()
    return [[gene[:size] for gene, size in zip(row, space.sizes, strict=True)] for row in rows]
