"""Random search: what every cleverer strategy must beat."""

from __future__ import annotations

import torch

from rac_helpers._check import check_generator
from rac_helpers.tune.space import Space, Value, check_space


class RandomSearch:
    """Each configuration is drawn anew; scores are not looked at.

    On a grid of k values each, k trials share one value of the parameter that matters. Here each
    trial has its own [1]_.

    Parameters
    ----------
    space : Space
        Where to look.
    generator : torch.Generator
        Source of the draws.

    References
    ----------
    .. [1] Bergstra, Bengio: Random Search for Hyper-Parameter Optimization, JMLR 2012, section 1.

    Examples
    --------
    >>> from rac_helpers.tune import Choice
    >>> strategy = RandomSearch(
    ...     Space({"batch_size": Choice((32, 64))}), generator=torch.Generator().manual_seed(0)
    ... )
    >>> [strategy.ask()["batch_size"] for _ in range(4)]
    [64, 64, 32, 64]
    """

    def __init__(self, space: Space, *, generator: torch.Generator) -> None:
        self.space, self._generator = check_space(space), check_generator(generator)

    def ask(self) -> dict[str, Value]:
        """Return the configuration to try next."""
        return self.space.draw(generator=self._generator)

    def tell(self, config: dict[str, Value], score: float) -> None:
        """Learn nothing."""
