"""The update rules of the article's two samples as they are printed, to measure what they do.

Nothing here is to be used: :mod:`rac_helpers.nas.reinforce` and :mod:`rac_helpers.nas.evolution`
do it right. Genes are lists ``[layer type, units]`` here, since the errors need genes that can be
changed.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import torch
from torch import nn

from rac_helpers._check import check_generator, check_int

Gene = list  # [layer type, units], changed in place
Chromosome = list[Gene]
LAYER_TYPES = ("linear", "relu", "sigmoid")


def printed_loss(log_probabilities: torch.Tensor, reward: float) -> torch.Tensor:
    """Return the article's loss, summed to a scalar: all actions instead of the one taken.

    As printed it has one entry for each action, so ``backward`` refuses it. Its sum is smallest
    where all actions are equally likely, whichever was rewarded.

    Parameters
    ----------
    log_probabilities : torch.Tensor
        Floats ``(actions,)``.
    reward : float
        Of the action that was taken.

    Examples
    --------
    >>> printed_loss(torch.tensor([0.5, 0.5]).log(), 1.0)
    tensor(1.3863)
    """
    return (-reward * log_probabilities).sum()


def train_policy(
    loss_of: Callable[[torch.Tensor, int], torch.Tensor],
    logits: list[float],
    *,
    num_steps: int,
    generator: torch.Generator,
    lr: float = 0.1,
) -> torch.Tensor:
    """Let a policy of one decision learn with some loss, and return its probabilities.

    Parameters
    ----------
    loss_of : callable
        ``loss_of(log_probabilities, action)`` returns a scalar.
    logits : list of float
        Where the policy begins, one for each action.
    num_steps : int
        Steps of plain gradient descent, at least 0.
    generator : torch.Generator
        Actions are drawn from here.
    lr : float
        Step size.

    Returns
    -------
    torch.Tensor
        Probabilities ``(num_steps + 1, actions)``, those of the beginning first.

    Examples
    --------
    >>> from rac_helpers.rng import make_generator
    >>> p = train_policy(
    ...     lambda log_p, action: printed_loss(log_p, 1.0),
    ...     [2.0, 0.0],
    ...     num_steps=200,
    ...     generator=make_generator(0),
    ... )
    >>> p[0].round(decimals=2), p[-1].round(decimals=2)
    (tensor([0.8800, 0.1200]), tensor([0.5000, 0.5000]))
    """
    check_int("num_steps", num_steps, low=0)
    check_generator(generator)
    weights = torch.tensor(logits, requires_grad=True)
    seen = [weights.detach().softmax(0)]
    for _ in range(num_steps):
        action = int(torch.multinomial(seen[-1], 1, generator=generator))
        loss = loss_of(weights.log_softmax(0), action)
        [gradient] = torch.autograd.grad(loss, weights)
        weights = (weights.detach() - lr * gradient).requires_grad_()
        seen.append(weights.detach().softmax(0))
    return torch.stack(seen)


def printed_width(mask: tuple[int, ...]) -> int | None:
    """Return the width of what the article's three layers return for a mask, 10 numbers going in.

    Parameters
    ----------
    mask : tuple of int
        Three numbers: 1 keeps a layer, 0 skips it.

    Returns
    -------
    int or None
        ``None`` if the shapes do not fit.

    Examples
    --------
    >>> printed_width((1, 1, 1)), printed_width((1, 1, 0)), printed_width((0, 1, 1))
    (10, 20, None)
    """
    layers = (nn.Linear(10, 20, device="meta"), nn.ReLU(), nn.Linear(20, 10, device="meta"))
    x = torch.zeros(1, 10, device="meta")  # shapes alone: nothing is drawn or computed
    for layer, kept in zip(layers, mask, strict=True):
        if kept:
            try:
                x = layer(x)
            except RuntimeError:
                return None
    return x.shape[1]


def printed_population(size: int) -> list[Chromosome]:
    """Return the article's first population: one individual, many times.

    Examples
    --------
    >>> printed_population(2)[1]
    [['linear', 10], ['relu', 20], ['linear', 10]]
    """
    check_int("size", size, low=1)
    return [[["linear", 10], ["relu", 20], ["linear", 10]] for _ in range(size)]


def printed_generation(
    population: list[Chromosome],
    fitness: Callable[[Chromosome], float],
    *,
    elite_size: int,
    generator: torch.Generator,
    copy_genes: bool = False,
) -> list[Chromosome]:
    """Return the article's next generation: two children a turn, made of the genes of the elite.

    It has ``2 P - E`` members, and changing a child changes everybody who holds the same gene.

    Parameters
    ----------
    population : list of list
        P chromosomes. Their genes are changed.
    fitness : callable
        ``fitness(chromosome)``, higher is better.
    elite_size : int
        E, how many live on, in ``[1, P]``.
    generator : torch.Generator
        Seeds Python's generator, which the article uses: its errors are Python's.
    copy_genes : bool
        ``True`` gives each child genes of its own, and nothing else is put right.

    Raises
    ------
    ValueError
        ``empty range ...`` if the chromosomes have one gene: there is no place to cut.

    Examples
    --------
    >>> from rac_helpers.rng import make_generator
    >>> population, generator = printed_population(10), make_generator(0)
    >>> len(printed_generation(population, len, elite_size=4, generator=generator))
    16
    """
    check_int("elite_size", elite_size, low=1, high=len(population))
    check_generator(generator)
    rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
    elite = sorted(population, key=fitness, reverse=True)[:elite_size]
    children = []
    for _ in range(len(population) - elite_size):
        first, second = rng.choice(elite), rng.choice(elite)
        cut = rng.randint(1, len(first) - 1)
        for child in (first[:cut] + second[cut:], second[:cut] + first[cut:]):
            genes = [list(gene) for gene in child] if copy_genes else child
            changed = genes[rng.randint(0, len(genes) - 1)]
            changed[:] = [rng.choice(LAYER_TYPES), rng.randint(10, 100)]
            children.append(genes)
    return elite + children


def count_gene_objects(population: list[Chromosome]) -> int:
    """Return how many different gene objects a population holds, equal ones counted twice.

    Examples
    --------
    >>> gene = ["relu", 10]
    >>> count_gene_objects([[gene, gene], [gene, ["relu", 10]]])
    2
    """
    return len({id(gene) for chromosome in population for gene in chromosome})
