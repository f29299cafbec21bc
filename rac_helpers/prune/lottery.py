"""The lottery ticket hypothesis: prune, go back to the first weights, train the rest alone.

A large network, drawn at random, holds a small one that trains as well by itself, if it starts
from the very numbers that were drawn for it: the winning ticket. To find it, train the whole,
cut the weights that ended small, set the others back to where they started, and repeat.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rac_helpers.prune.builders import global_masks
from rac_helpers.prune.callback import cut_more, keep_all
from rac_helpers.prune.masks import MaskSet, check_masks
from rac_helpers.prune.schedule import round_sparsities
from rac_helpers.prune.scores import Scores, magnitude_scores
from rac_helpers.prune.weights import prunable


@dataclass(frozen=True)
class TicketRound:
    """One training of the search for a ticket.

    Attributes
    ----------
    round : int
        0 is the whole network.
    masks : MaskSet
        Which weights took part; ``masks.sparsity`` is the share that did not.
    result : object
        What ``train`` returned.
    """

    round: int
    masks: MaskSet
    result: Any


def rewind_(model: nn.Module, state: Mapping[str, torch.Tensor], masks: MaskSet) -> None:
    """Set ``model`` back to an earlier state, then cut it: θ₀ ⊙ m.

    Parameters
    ----------
    model : nn.Module
        Any weights; only their names and shapes count.
    state : mapping of str to torch.Tensor
        ``copy.deepcopy(model.state_dict())`` from before training, or from early in it: large
        networks need some steps first [2]_. It holds everything, biases and batch norm, too.
    masks : MaskSet
        Found after training.

    Raises
    ------
    TypeError, ValueError
        If state or masks do not fit, or if ``state`` is a view of the present weights. The model
        is not touched then.

    References
    ----------
    .. [1] Frankle and Carbin, 2019. The lottery ticket hypothesis: finding sparse, trainable
       neural networks, section 1.
    .. [2] Frankle, Dziugaite, Roy and Carbin, 2020. Linear mode connectivity and the lottery
       ticket hypothesis, section 4.

    Examples
    --------
    >>> model = nn.Linear(2, 1)
    >>> start = copy.deepcopy(model.state_dict())
    >>> with torch.no_grad():
    ...     _ = model.weight.copy_(torch.tensor([[5.0, 0.1]]))  # training
    >>> rewind_(model, start, MaskSet({"weight": torch.tensor([[True, False]])}))
    >>> torch.equal(model.weight, start["weight"] * torch.tensor([[1.0, 0.0]]))
    True
    """
    check_masks(masks).check(model)
    _check_state(model, state)
    model.load_state_dict(state)
    masks.apply_(model)


def find_ticket_(
    model: nn.Module,
    train: Callable[[nn.Module, MaskSet], Any],
    *,
    sparsity: float,
    rounds: int,
    score: Callable[[nn.Module], Scores] = magnitude_scores,
    choose: Callable[[Scores, float], MaskSet] = global_masks,
) -> Iterator[TicketRound]:
    """Train ``model``, cut it, rewind it, train what is left, and so on; yield each training.

    After each yield ``model`` holds the trained weights of that round, after the last one those
    of the ticket. ``rewind_(model, start, masks)`` makes the untrained ticket.

    Parameters
    ----------
    model : nn.Module
        With the starting weights. Changed in place.
    train : callable
        ``train(model, after_step)`` trains in place; it must call ``after_step(model, step)``
        after each step, as :func:`rac_helpers.train.fit` does, for the zeros to stay. What it
        returns is handed on. Let it do the same in each round, with the same seed.
    sparsity : float
        After the last round, in ``[0, 1)``.
    rounds : int
        Cuts, at least 1; each cuts the same share of what is left. So there are ``rounds + 1``
        trainings. One round alone finds worse tickets.
    score, choose : callable
        As in :class:`Pruner`.

    Yields
    ------
    TicketRound
        ``rounds + 1`` of them, the first of the whole network.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of range, before anything is trained.
    RuntimeError
        If ``train`` let weights grow that are cut.

    References
    ----------
    Frankle and Carbin, 2019. The lottery ticket hypothesis: finding sparse, trainable neural
    networks, sections 1 and 2.

    Examples
    --------
    >>> def train(model, after_step):
    ...     optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ...     for step in (1, 2, 3):
    ...         model(torch.eye(8)).square().mean().backward()
    ...         optimizer.step()
    ...         after_step(model, step)
    >>> for row in find_ticket_(nn.Linear(8, 1), train, sparsity=0.75, rounds=2):
    ...     print(row.round, row.masks.sparsity)
    0 0.0
    1 0.5
    2 0.75
    """
    if not callable(train):
        raise TypeError(f"train must be callable, got {train!r}")
    sparsities = round_sparsities(sparsity, rounds)
    prunable(model)  # raises early
    masks = keep_all(score(model))
    masks.check(model)
    start = copy.deepcopy(model.state_dict())

    def cut(masks: MaskSet, sparsity: float) -> MaskSet:
        return cut_more(masks, score(model), sparsity, choose=choose)

    return _search(model, start, masks, train=train, cut=cut, sparsities=sparsities)


def _search(
    model: nn.Module,
    start: Mapping[str, torch.Tensor],
    masks: MaskSet,
    *,
    train: Callable[[nn.Module, MaskSet], Any],
    cut: Callable[[MaskSet, float], MaskSet],
    sparsities: list[float],
) -> Iterator[TicketRound]:
    yield TicketRound(0, masks, train(model, masks))
    for number, sparsity in enumerate(sparsities, start=1):
        masks = cut(masks, sparsity)
        rewind_(model, start, masks)
        result = train(model, masks)
        _check_kept(model, masks)
        yield TicketRound(number, masks, result)


def _check_state(model: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Raise if ``state`` is not one of this model, or is what the model holds now."""
    own = model.state_dict()
    if not isinstance(state, Mapping) or state.keys() != own.keys():
        names = sorted(state.keys() ^ own.keys()) if isinstance(state, Mapping) else state
        raise ValueError(f"state must have the names of model.state_dict(), but differs in {names}")
    for name, value in own.items():
        if state[name].shape != value.shape:
            raise ValueError(
                f"state[{name!r}] must have shape {tuple(value.shape)}, "
                f"got {tuple(state[name].shape)}"
            )
        if value.numel() and state[name].data_ptr() == value.data_ptr():
            raise ValueError(
                f"state[{name!r}] is the model's own tensor, which training has changed; "
                "take copy.deepcopy(model.state_dict()) before training"
            )


def _check_kept(model: nn.Module, masks: MaskSet) -> None:
    for name, weight in masks.check(model).items():
        grown = int((weight[~masks[name]] != 0).sum())
        if grown:
            raise RuntimeError(
                f"train let {grown} weights of {name!r} grow that are cut; it must call "
                "after_step(model, step) after each step"
            )
