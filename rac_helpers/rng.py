"""Randomness that is passed in, never taken from global state.

Every function of the course that draws takes a keyword-only ``generator``; this module makes
generators. Where torch offers no generator (weight initialisation, dropout) the work sits inside
:func:`scoped_seed`, which leaves the global random state as it found it.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from numbers import Integral

import numpy as np
import torch

from rac_helpers._check import check_int

_MAX_SEED = 2**63 - 1


def derive_seed(*parts: int | str) -> int:
    """Mix several numbers or names into one seed, the same on every machine.

    Parameters
    ----------
    *parts : int or str
        For example a run's seed and the number of the epoch. Integers of numpy count as int.

    Returns
    -------
    int
        A seed in ``[0, 2**63)``; different parts give unrelated seeds.

    Raises
    ------
    TypeError
        If a part is neither an integer nor a text.

    Examples
    --------
    >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
    (True, False)
    """
    plain = tuple(_plain(part) for part in parts)
    digest = hashlib.sha256(repr(plain).encode()).digest()
    return int.from_bytes(digest[:8], "big") & _MAX_SEED


def _plain(part: int | str) -> int | str:
    """The same value as int or str of Python, whose ``repr`` is the same everywhere."""
    if isinstance(part, str):
        return str(part)
    if isinstance(part, bool) or not isinstance(part, Integral):
        raise TypeError(f"parts must be integers or texts, got {part!r}")
    return int(part)


def make_generator(seed: int) -> torch.Generator:
    """Return a CPU generator started at ``seed``.

    Parameters
    ----------
    seed : int
        In ``[0, 2**63)``.

    Raises
    ------
    TypeError, ValueError
        If ``seed`` is no integer or outside the range.

    Examples
    --------
    >>> torch.randint(10, (3,), generator=make_generator(0)).tolist()
    [4, 9, 3]
    """
    return torch.Generator().manual_seed(check_int("seed", seed, low=0, high=_MAX_SEED))


@contextlib.contextmanager
def scoped_seed(seed: int) -> Iterator[None]:
    """Seed python, numpy and torch inside a ``with`` block and restore all three after it.

    Parameters
    ----------
    seed : int
        In ``[0, 2**63)``.

    Examples
    --------
    >>> before = torch.get_rng_state()
    >>> with scoped_seed(0):
    ...     layer = torch.nn.Linear(4, 2)
    >>> torch.equal(before, torch.get_rng_state())
    True
    """
    check_int("seed", seed, low=0, high=_MAX_SEED)
    python_state, numpy_state = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)  # all devices
        try:
            yield
        finally:
            random.setstate(python_state)
            np.random.set_state(numpy_state)


class WorkerGenerator:
    """A generator that stays independent when a ``DataLoader`` copies it into its workers.

    A plain generator is copied with its state, so all workers would draw the same numbers, and
    the same again in the next epoch. In a worker, :meth:`get` therefore returns a generator
    seeded from the worker's own seed (which the loader draws anew for every epoch from the
    ``generator`` given to it) and this object's seed.

    Parameters
    ----------
    generator : torch.Generator or None
        Used as it is in the main process. ``None`` seeds one from the system's entropy.

    Examples
    --------
    >>> source = WorkerGenerator(make_generator(0))
    >>> torch.randint(10, (3,), generator=source.get()).tolist()
    [4, 9, 3]
    """

    def __init__(self, generator: torch.Generator | None = None) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(
                f"generator must be a torch.Generator or None, got {type(generator).__name__}"
            )
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        self._main = generator
        self._worker: tuple[int, torch.Generator] | None = None

    def get(self) -> torch.Generator:
        """Return the generator to draw from in this process."""
        info = torch.utils.data.get_worker_info()
        if info is None:
            return self._main
        if self._worker is None or self._worker[0] != info.seed:
            seed = derive_seed(info.seed, self._main.initial_seed())
            self._worker = (info.seed, make_generator(seed))
        return self._worker[1]
