"""Masks of single weights: which ones to cut, given a score for each.

All of them cut the lowest scores. They cut an exact number: among equal scores those in front go
first, in the order of the layers, and row by row within a layer. So the same scores always give the
same masks, and the masks of a higher sparsity cut all that those of a lower one do.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F

from rac_helpers._check import check_int, check_number
from rac_helpers.prune.masks import MaskSet
from rac_helpers.prune.scores import Scores, check_scores


def lowest(scores: torch.Tensor, count: int) -> torch.Tensor:
    """Mark exactly ``count`` lowest scores, among equals those in front.

    ``torch.topk`` leaves open which of the equals it takes, so its masks need not nest.

    Examples
    --------
    >>> lowest(torch.tensor([3.0, 1.0, 1.0, 1.0]), 2)
    tensor([False,  True,  True, False])
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    flat = scores.flatten()
    threshold = flat.kthvalue(count).values
    below, equal = flat < threshold, flat == threshold
    missing = count - below.sum()
    return (below | (equal & (equal.cumsum(0) <= missing))).reshape(scores.shape)


def threshold_masks(scores: Scores, threshold: float) -> MaskSet:
    """Cut every weight whose score is below ``threshold``.

    Parameters
    ----------
    scores : mapping of str to torch.Tensor
        Higher = more worth keeping, of the weights' shapes.
    threshold : float
        A score equal to it is kept. How much is cut depends on the scores; for a given share use
        :func:`layer_masks` or :func:`global_masks`.

    Returns
    -------
    MaskSet
        One mask for each entry of ``scores``.

    Raises
    ------
    TypeError, ValueError
        If scores are missing or NaN, or the threshold is not finite.

    References
    ----------
    Han, Pool, Tran, Dally: Learning both Weights and Connections for Efficient Neural Networks,
    NeurIPS 2015, section 3.

    Examples
    --------
    >>> weights = torch.arange(1, 11) / 10  # 0.1, 0.2, ..., 1.0
    >>> threshold_masks({"weight": weights}, 0.5)["weight"] * weights
    tensor([0.0000, 0.0000, 0.0000, 0.0000, 0.5000, 0.6000, 0.7000, 0.8000, 0.9000, 1.0000])
    """
    check_number("threshold", threshold)
    return MaskSet({name: score >= threshold for name, score in check_scores(scores).items()})


def layer_masks(scores: Scores, sparsity: float | Mapping[str, float]) -> MaskSet:
    """Cut the same share of each layer, or a share of its own.

    Parameters
    ----------
    scores : mapping of str to torch.Tensor
        Higher = more worth keeping, of the weights' shapes.
    sparsity : float or mapping of str to float
        Share to cut, in ``[0, 1)``; a mapping gives one for each entry of ``scores``. A layer of n
        weights loses ``round(sparsity * n)``, which is all of them where n is very small.

    Returns
    -------
    MaskSet
        One mask for each entry of ``scores``.

    Raises
    ------
    TypeError, ValueError
        If scores are missing or NaN, or a sparsity is missing or out of range.

    Examples
    --------
    >>> scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}
    >>> layer_masks(scores, 0.5).sparsity_by_layer()
    {'a': 0.5, 'b': 0.5}
    >>> layer_masks(scores, {"a": 0.0, "b": 0.5}).sparsity_by_layer()
    {'a': 0.0, 'b': 0.5}
    """
    shares = _share_by_name(check_scores(scores), sparsity)
    counts = {name: round(shares[name] * score.numel()) for name, score in scores.items()}
    return MaskSet({name: ~lowest(score, counts[name]) for name, score in scores.items()})


def global_masks(scores: Scores, sparsity: float) -> MaskSet:
    """Cut a share of all weights together; each layer loses what is lowest in the whole model.

    Parameters
    ----------
    scores : mapping of str to torch.Tensor
        Higher = more worth keeping, of the weights' shapes, comparable between layers.
    sparsity : float
        Share to cut, in ``[0, 1)``. Of n weights ``round(sparsity * n)`` go. A layer whose scores
        are low everywhere can lose all its weights: look at
        ``sparsity_by_layer`` of the result.

    Returns
    -------
    MaskSet
        One mask for each entry of ``scores``.

    Raises
    ------
    TypeError, ValueError
        If scores are missing or NaN, or the sparsity is out of range.

    Examples
    --------
    >>> scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0])}
    >>> global_masks(scores, 0.5).sparsity_by_layer()
    {'a': 1.0, 'b': 0.0}
    """
    check_scores(scores)
    check_sparsity("sparsity", sparsity)
    flat = torch.cat([score.flatten() for score in scores.values()])
    cut = lowest(flat, round(sparsity * len(flat)))
    pieces = cut.split([score.numel() for score in scores.values()])
    return MaskSet(
        {n: ~piece.reshape(scores[n].shape) for n, piece in zip(scores, pieces, strict=True)}
    )


def n_m_masks(scores: Scores, *, n: int = 2, m: int = 4) -> MaskSet:
    """Keep the ``n`` highest of every ``m`` scores in a row along the input channels.

    Graphics cards of NVIDIA since Ampere multiply by 2:4 sparse matrices up to twice as fast.

    Parameters
    ----------
    scores : mapping of str to torch.Tensor
        Higher = more worth keeping, of the weights' shapes ``(out, in, ...)``.
    n, m : int
        ``1 <= n <= m``, and ``in`` is a multiple of ``m`` in each layer. Leave other layers, such
        as the first one with its three colours, out of ``scores``: they stay dense.

    Returns
    -------
    MaskSet
        One mask for each entry of ``scores``, of sparsity ``1 - n / m``.

    Raises
    ------
    TypeError, ValueError
        If scores are missing or NaN, n or m is out of range, or a layer does not fit.

    References
    ----------
    Mishra et al.: Accelerating Sparse Deep Neural Networks, 2021, arXiv:2104.08378, section 3.

    Examples
    --------
    >>> n_m_masks({"weight": torch.tensor([[1.0, 4.0, 2.0, 3.0]])})["weight"]
    tensor([[False,  True, False,  True]])
    """
    check_int("m", m, low=1)
    check_int("n", n, low=1, high=m)
    for name, score in check_scores(scores).items():
        if _check_matrix(name, score).shape[1] % m:
            raise ValueError(
                f"scores must have a multiple of m={m} input channels, but {name!r} has shape "
                f"{tuple(score.shape)}; leave it out"
            )
    return MaskSet({name: _keep_n_of_m(score, n, m) for name, score in scores.items()})


def _keep_n_of_m(score: torch.Tensor, n: int, m: int) -> torch.Tensor:
    groups = score.movedim(1, -1).unflatten(-1, (-1, m))  # (out, kh, kw, in / m, m)
    rank = groups.argsort(dim=-1, stable=True).argsort(dim=-1)  # 0 = lowest of its group
    return (rank >= m - n).flatten(-2).movedim(-1, 1)


def block_masks(
    scores: Scores, sparsity: float | Mapping[str, float], *, block: tuple[int, int] = (4, 4)
) -> MaskSet:
    """Cut whole blocks of each layer's weight matrix, those with the lowest mean score.

    The matrix of a layer has a row for each output channel; a convolution's input channels and
    kernel positions together make the columns.

    Parameters
    ----------
    scores : mapping of str to torch.Tensor
        Higher = more worth keeping, of the weights' shapes ``(out, ...)``.
    sparsity : float or mapping of str to float
        Share of the blocks to cut, in ``[0, 1)``. Blocks at the right and lower edge can be
        smaller, so the share of weights differs a little.
    block : tuple of int
        Rows and columns of a block, each at least 1.

    Returns
    -------
    MaskSet
        One mask for each entry of ``scores``.

    Raises
    ------
    TypeError, ValueError
        If scores are missing or NaN, or a sparsity or the block is out of range.

    Examples
    --------
    >>> scores = {"weight": torch.tensor([[1.0, 1.0, 5.0, 5.0], [1.0, 1.0, 5.0, 5.0]])}
    >>> block_masks(scores, 0.5, block=(2, 2))["weight"][0]
    tensor([False, False,  True,  True])
    """
    if not isinstance(block, tuple) or len(block) != 2:
        raise TypeError(f"block must be a pair (rows, columns), got {block!r}")
    rows, columns = (check_int("block", side, low=1) for side in block)
    shares = _share_by_name(check_scores(scores), sparsity)
    masks = {}
    for name, score in scores.items():
        _check_matrix(name, score)
        matrix = score.flatten(1)
        means = F.avg_pool2d(matrix[None], block, ceil_mode=True)[0]  # edges: of what is there
        kept = ~lowest(means, round(shares[name] * means.numel()))
        wide = kept.repeat_interleave(rows, 0).repeat_interleave(columns, 1)
        masks[name] = wide[: len(matrix), : matrix.shape[1]].reshape(score.shape)
    return MaskSet(masks)


def _check_matrix(name: str, score: torch.Tensor) -> torch.Tensor:
    if score.ndim < 2:
        raise ValueError(
            f"scores[{name!r}] must have the shape (out, in, ...), got {tuple(score.shape)}"
        )
    return score


def check_sparsity(name: str, value: float) -> float:
    """Return ``value`` if it is a share in [0, 1), else raise.

    Examples
    --------
    >>> check_sparsity("sparsity", 1)
    Traceback (most recent call last):
    ValueError: sparsity must be in [0, 1), the share of weights to cut, got 1
    """
    if not 0 <= check_number(name, value) < 1:
        raise ValueError(f"{name} must be in [0, 1), the share of weights to cut, got {value}")
    return float(value)


def _share_by_name(scores: Scores, sparsity: float | Mapping[str, float]) -> dict[str, float]:
    """One checked sparsity for each entry of ``scores``."""
    if not isinstance(sparsity, Mapping):
        return dict.fromkeys(scores, check_sparsity("sparsity", sparsity))
    if sparsity.keys() != scores.keys():
        raise ValueError(
            f"sparsity must have the names of scores, {list(scores)}, got {list(sparsity)}"
        )
    return {name: check_sparsity(f"sparsity[{name!r}]", sparsity[name]) for name in scores}
