"""Which rank: where it pays at all, by the energy it keeps, by the weights it leaves."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

from rac_helpers._check import check_int, check_number
from rac_helpers.lowrank.layers import Layer
from rac_helpers.lowrank.replace import pick_layers, split_for
from rac_helpers.lowrank.splits import ChannelSplit, LayerSplit, Rank


def break_even_rank(rows: int, columns: int) -> float:
    r"""Return the rank at which two factors have as many weights as the matrix.

    .. math:: r (m + n) = m n \quad\Rightarrow\quad r = \frac{m n}{m + n}

    Below it the split saves weights. It is the same formula for each split, with its own matrix:

    ================= ========= ========== =======================================
    split             rows m    columns n  break-even rank
    ================= ========= ========== =======================================
    linear            out       in         ``out in / (out + in)``
    channels          out       in k k     ``out in k k / (out + in k k)``
    spatial           out k     in k       ``out in k / (out + in)``
    ================= ========= ========== =======================================

    For Tucker-2, with two ranks, see :func:`tucker_break_even`.

    Parameters
    ----------
    rows, columns : int
        The shape ``(m, n)`` of the matrix, at least 1.

    Returns
    -------
    float
        At least half of the smaller side, and smaller than it.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Examples
    --------
    >>> break_even_rank(100, 300)  # 75 * (100 + 300) = 100 * 300
    75.0
    """
    check_int("rows", rows, low=1)
    check_int("columns", columns, low=1)
    return rows * columns / (rows + columns)


def rank_for_energy(layer: Layer, share: float, *, split: type[LayerSplit] = ChannelSplit) -> Rank:
    """Return the smallest rank that keeps a share of the squared norm of the weights.

    Parameters
    ----------
    layer : nn.Linear or nn.Conv2d
        Not changed.
    share : float
        In ``(0, 1]``.
    split : type
        How a convolution would be split.

    Returns
    -------
    int or tuple of int
        It may be above break-even: energy knows nothing of bytes.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> import torch
    >>> layer = nn.Linear(3, 3)
    >>> layer.weight.data = torch.diag(torch.tensor([4.0, 3.0, 0.0]))
    >>> rank_for_energy(layer, 0.6), rank_for_energy(layer, 0.9)  # 16 / 25 is 64 %
    (1, 2)
    """
    _check_share("share", share)
    kept = split_for(layer, split).energies(layer)
    enough = (rank for rank, part in kept.items() if part >= share)
    return next(enough, list(kept)[-1])  # rounding can leave the last one just below 1


def rank_for_share(layer: Layer, share: float, *, split: type[LayerSplit] = ChannelSplit) -> Rank:
    """Return the largest rank that leaves at most a share of the weights, the smallest if none.

    For a split by a matrix it is the share times the break-even rank, rounded down.

    Parameters
    ----------
    layer : nn.Linear or nn.Conv2d
        Not changed.
    share : float
        Above 0. At 1 the split has as many weights as the layer, or a few less.
    split : type
        How a convolution would be split.

    Returns
    -------
    int or tuple of int
        At least 1, at most the full rank.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> rank_for_share(nn.Linear(300, 100), 0.5)  # half of 75
    37
    """
    if check_number("share", share, low=0) == 0:
        raise ValueError("share must be a finite number > 0, got 0")
    kind = split_for(layer, split)
    first, *others = kind.ranks(layer)
    limit = share * layer.weight.numel()
    fitting = (rank for rank in reversed(others) if kind.count_weights(layer, rank) <= limit)
    return next(fitting, first)


def ranks_for_energy(
    model: nn.Module,
    share: float,
    *,
    split: type[LayerSplit] = ChannelSplit,
    layers: Iterable[str] | None = None,
) -> dict[str, Rank]:
    """Return for each layer the rank of :func:`rank_for_energy`; layers it does not pay for stay.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    share : float
        In ``(0, 1]``, the same for all layers.
    split : type
        How convolutions would be split.
    layers : iterable of str, optional
        Names, see :func:`splittable`. ``None`` means all.

    Returns
    -------
    dict of str to int or tuple of int
        For :func:`factorize`. A layer whose split would have as many weights as before, or more,
        is not in it.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> from rac_helpers.models import SmallCNN
    >>> model = SmallCNN(width=4)
    >>> list(ranks_for_energy(model, 1.0)), len(ranks_for_energy(model, 0.2))
    ([], 4)
    """
    found = {}
    for name, layer in pick_layers(model, layers).items():
        rank = rank_for_energy(layer, share, split=split)
        if split_for(layer, split).count_weights(layer, rank) < layer.weight.numel():
            found[name] = rank
    return found


def ranks_for_share(
    model: nn.Module,
    share: float,
    *,
    split: type[LayerSplit] = ChannelSplit,
    layers: Iterable[str] | None = None,
) -> dict[str, Rank]:
    """Return for each layer the rank of :func:`rank_for_share`: all give up the same share.

    Parameters
    ----------
    model : nn.Module
        Not changed.
    share : float
        Above 0: the share of its weights that each layer keeps at most.
    split : type
        How convolutions would be split.
    layers : iterable of str, optional
        Names, see :func:`splittable`. ``None`` means all.

    Returns
    -------
    dict of str to int or tuple of int
        For :func:`factorize`. A layer that has more weights even at the smallest rank gets that.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> from rac_helpers.models import SmallCNN
    >>> ranks_for_share(SmallCNN(width=16), 0.5, layers=["block2.0", "block3.0"])
    {'block2.0': 13, 'block3.0': 26}
    """
    found = pick_layers(model, layers)
    return {name: rank_for_share(layer, share, split=split) for name, layer in found.items()}


def _check_share(name: str, share: float) -> float:
    if check_number(name, share, low=0, high=1) == 0:
        raise ValueError(f"{name} must be a finite number in (0, 1], got 0")
    return float(share)
