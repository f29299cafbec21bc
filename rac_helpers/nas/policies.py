"""Distributions over genomes with weights that can be learned."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import nn

from rac_helpers._check import check_generator, check_int
from rac_helpers.nas.space import Genome, Space, check_space
from rac_helpers.rng import scoped_seed


class Policy(nn.Module):
    """What a policy must be able to do.

    ``policy(genomes)`` returns log-probabilities ``(n, genes, choices)``: of each choice of a
    gene, given the choices that the genome has in the genes before it. Genes with fewer choices
    than others are filled up with ``-inf``.
    """

    impossible: torch.Tensor  # bool (genes, choices)

    def __init__(self, space: Space) -> None:
        super().__init__()
        numbers = torch.arange(max(check_space(space).sizes))
        self.register_buffer("impossible", numbers >= torch.tensor(space.sizes)[:, None])

    @abstractmethod
    def sample(self, *, generator: torch.Generator) -> Genome:
        """Draw one genome."""


class IndependentPolicy(Policy):
    """One softmax for each gene; what one gene chooses says nothing about the others.

    Parameters
    ----------
    space : Space
        The genomes.
    generator : torch.Generator, optional
        Not used: it begins with all choices equally likely.

    Examples
    --------
    >>> policy = IndependentPolicy(Space((("op", ("conv", "skip")), ("width", (8, 16, 32)))))
    >>> policy([(0, 0)]).exp()[0]
    tensor([[0.5000, 0.5000, 0.0000],
            [0.3333, 0.3333, 0.3333]], grad_fn=...)
    """

    def __init__(self, space: Space, *, generator: torch.Generator | None = None) -> None:
        super().__init__(space)
        self.logits = nn.Parameter(torch.zeros(self.impossible.shape))

    def forward(self, genomes: Sequence[Genome]) -> torch.Tensor:
        """Return the same distributions for every genome."""
        return _log_softmax(self.logits, self.impossible).expand(len(genomes), -1, -1)

    def sample(self, *, generator: torch.Generator) -> Genome:
        """Draw one genome."""
        with torch.no_grad():
            p = _log_softmax(self.logits, self.impossible).exp()
        drawn = torch.multinomial(p, 1, generator=check_generator(generator))
        return tuple(drawn.flatten().tolist())


class LSTMPolicy(Policy):
    """A small recurrent network that chooses gene after gene and sees what it chose before.

    Parameters
    ----------
    space : Space
        The genomes.
    generator : torch.Generator
        The seed of its weights is drawn from here.
    hidden_size : int
        Units, at least 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range.

    References
    ----------
    Zoph and Le, 2017. Neural architecture search with reinforcement learning. Section 3.1.

    Examples
    --------
    >>> from rac_helpers.rng import make_generator
    >>> space = Space((("op", ("conv", "skip")), ("width", (8, 16, 32))))
    >>> policy = LSTMPolicy(space, generator=make_generator(0))
    >>> policy([(0, 0), (1, 2)]).shape, len(policy.sample(generator=make_generator(1)))
    (torch.Size([2, 2, 3]), 2)
    """

    def __init__(self, space: Space, *, generator: torch.Generator, hidden_size: int = 32) -> None:
        super().__init__(space)
        check_int("hidden_size", hidden_size, low=1)
        genes, choices = self.impossible.shape
        check_generator(generator)
        with scoped_seed(int(torch.randint(2**62, (), generator=generator))):
            self.cell = nn.LSTMCell(hidden_size, hidden_size)
        self.start = nn.Parameter(torch.zeros(hidden_size))
        noise = torch.randn(2, genes, choices, hidden_size, generator=generator)
        self.embedding = nn.Parameter(noise[0] / hidden_size**0.5)
        self.heads = nn.Parameter(noise[1] / hidden_size)  # all choices begin nearly even

    def forward(self, genomes: Sequence[Genome]) -> torch.Tensor:
        """Return the distributions of each genome's genes, given the choices before them."""
        taken = torch.tensor(genomes)  # (n, genes)
        return self._unroll(len(genomes), lambda place, _: taken[:, place])[1]

    def sample(self, *, generator: torch.Generator) -> Genome:
        """Draw one genome, gene after gene."""
        check_generator(generator)

        def draw(_: int, log_p: torch.Tensor) -> torch.Tensor:
            return torch.multinomial(log_p.exp(), 1, generator=generator)[:, 0]

        with torch.no_grad():
            return tuple(self._unroll(1, draw)[0][0].tolist())

    def _unroll(self, count: int, choose: Callable) -> tuple[torch.Tensor, torch.Tensor]:
        """Go from gene to gene; return choices (n, genes), and log-probabilities as `forward`."""
        x, state, steps = self.start.expand(count, -1), None, []
        for place, (head, impossible) in enumerate(zip(self.heads, self.impossible, strict=True)):
            state = self.cell(x, state)
            log_p = _log_softmax(state[0] @ head.T, impossible)  # (n, choices)
            steps.append((choose(place, log_p), log_p))
            x = self.embedding[place, steps[-1][0]]
        choices, log_p = zip(*steps, strict=True)
        return torch.stack(choices, 1), torch.stack(log_p, 1)


def _log_softmax(logits: torch.Tensor, impossible: torch.Tensor) -> torch.Tensor:
    return logits.masked_fill(impossible, -torch.inf).log_softmax(-1)
