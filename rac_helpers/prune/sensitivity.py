"""How much each layer can lose: cut one layer at a time and look at the accuracy.

Layers differ. The first and the narrow ones are few weights that everything passes through; wide
ones late in the network can lose most of theirs.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from rac_helpers._check import check_int, check_number
from rac_helpers._progress import progress_bar
from rac_helpers.metrics.score import accuracy, check_split
from rac_helpers.prune.builders import check_sparsity, layer_masks
from rac_helpers.prune.masks import MaskSet
from rac_helpers.prune.scores import Scores, magnitude_scores
from rac_helpers.prune.weights import prunable

if TYPE_CHECKING:
    from rac_helpers.data import Split

Row = dict[str, Any]


def sensitivity_scan(
    model: nn.Module,
    validation: Split,
    sparsities: Sequence[float],
    *,
    score: Callable[[nn.Module], Scores] = magnitude_scores,
    choose: Callable[[Scores, float], MaskSet] = layer_masks,
    batch_size: int = 500,
    progress: bool | None = None,
) -> Iterator[Row]:
    """Measure the accuracy with one layer cut and all others whole, without training.

    Parameters
    ----------
    model : nn.Module
        Takes uint8 images ``(B, 3, H, W)``, returns logits ``(B, num_classes)``. A copy of it is
        cut; the model itself is not touched.
    validation : Split
        uint8 images ``(n, 3, H, W)`` and int64 labels ``(n,)``. Not the test set: what is chosen
        by the scan would be chosen on it.
    sparsities : sequence of float
        Shares of a layer to cut, in ``[0, 1)``, at least one.
    score : callable
        ``score(model)`` returns scores by the names of the weights; layers without are left out.
        Called once.
    choose : callable
        ``choose(scores, sparsity)`` returns a :class:`MaskSet`; gets the scores of one layer.
    batch_size : int
        At least 1.
    progress : bool, optional
        A bar on stderr. ``None`` shows it in a terminal or a notebook, unless the environment
        variable ``RAC_STATIC_BUILD`` or ``CI`` is set.

    Yields
    ------
    dict
        ``layer`` (the weight's name), ``weights`` (how many it has), ``sparsity``, ``accuracy``,
        and ``drop``, the accuracy of the whole model minus this one. Layer by layer, in the
        model's order.

    Raises
    ------
    TypeError, ValueError
        If the model, the data or a number does not fit.

    References
    ----------
    .. [1] Han, Pool, Tran and Dally, 2015. Learning both weights and connections for efficient
       neural networks, section 5.
    .. [2] Li, Kadav, Durdanovic, Samet and Graf, 2017. Pruning filters for efficient ConvNets,
       section 3.2.

    Examples
    --------
    >>> from rac_helpers.models import SmallCNN
    >>> images = torch.randint(256, (8, 3, 4, 4), dtype=torch.uint8)
    >>> split = (images, torch.arange(8))
    >>> rows = list(sensitivity_scan(SmallCNN(width=2), split, [0.0, 0.9]))
    >>> len(rows), rows[0]["layer"], rows[0]["weights"], rows[0]["sparsity"], rows[0]["drop"]
    (8, 'block1.0.weight', 54, 0.0, 0.0)
    """
    shares = _check_sparsities(sparsities)
    check_int("batch_size", batch_size, low=1)
    prunable(model)  # raises early
    trial = copy.deepcopy(model)
    check_split("validation", validation, model=trial)
    scores = score(trial)

    def measure() -> float:
        return accuracy(trial, validation, batch_size=batch_size)

    def cut(name: str, sparsity: float) -> MaskSet:
        return choose({name: scores[name]}, sparsity)

    return _scan(trial, list(scores), shares, measure=measure, cut=cut, progress=progress)


def _scan(
    trial: nn.Module,
    layers: list[str],
    sparsities: list[float],
    *,
    measure: Callable[[], float],
    cut: Callable[[str, float], MaskSet],
    progress: bool | None,
) -> Iterator[Row]:
    total = len(layers) * len(sparsities) + 1
    with progress_bar(total=total, desc="sensitivity", progress=progress) as bar:
        whole = measure()
        bar.update()
        for name, sparsity in itertools.product(layers, sparsities):
            masks = cut(name, sparsity)
            weight = masks.check(trial)[name]
            before = weight.detach().clone()
            masks.apply_(trial)
            now = measure()
            with torch.no_grad():
                weight.copy_(before)
            bar.update()
            yield {
                "layer": name,
                "weights": weight.numel(),
                "sparsity": sparsity,
                "accuracy": now,
                "drop": whole - now,
            }


def largest_sparsities(rows: Iterable[Row], *, max_drop: float) -> dict[str, float]:
    """Return for each layer the largest sparsity up to which no accuracy drops by more.

    ``layer_masks(scores, largest_sparsities(rows, max_drop=0.01))`` cuts each layer by its own
    share. Together the cuts cost more than each alone, so the result needs fine-tuning.

    Parameters
    ----------
    rows : iterable of dict
        From :func:`sensitivity_scan`, of one model.
    max_drop : float
        Largest loss of accuracy for one layer, as a fraction.

    Returns
    -------
    dict of str to float
        By the names of the weights; 0.0 where even the smallest cut of the scan costs more.

    Raises
    ------
    TypeError, ValueError
        If there are no rows, or ``max_drop`` is no number.

    Examples
    --------
    >>> drops = {0.3: 0.00, 0.5: 0.02, 0.7: 0.01, 0.9: 0.40}
    >>> rows = [{"layer": "fc.weight", "sparsity": s, "drop": drop} for s, drop in drops.items()]
    >>> largest_sparsities(rows, max_drop=0.02), largest_sparsities(rows, max_drop=0.01)
    ({'fc.weight': 0.7}, {'fc.weight': 0.3})
    """
    check_number("max_drop", max_drop)
    largest: dict[str, float] = {}
    stopped: set[str] = set()
    for row in sorted(rows, key=lambda row: row["sparsity"]):
        layer = row["layer"]
        largest.setdefault(layer, 0.0)
        if row["drop"] > max_drop:
            stopped.add(layer)  # a later, luckier sparsity does not count
        elif layer not in stopped:
            largest[layer] = row["sparsity"]
    if not largest:
        raise ValueError("rows must hold at least one row of sensitivity_scan, got none")
    return largest


def _check_sparsities(sparsities: Sequence[float]) -> list[float]:
    if isinstance(sparsities, str) or not isinstance(sparsities, Iterable):
        raise TypeError(f"sparsities must be a sequence of numbers, got {sparsities!r}")
    shares = [check_sparsity("each of sparsities", share) for share in sparsities]
    if not shares:
        raise ValueError("sparsities must hold at least one number, got none")
    return shares
