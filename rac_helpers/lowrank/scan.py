"""Rank by validation: split one layer at a time and look at the accuracy.

The energy of the weights is cheap to know, but what counts is what the network still recognises.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import nn

from rac_helpers._check import check_int, check_number
from rac_helpers._progress import progress_bar
from rac_helpers.lowrank.ranks import rank_for_share
from rac_helpers.lowrank.replace import factorize, pick_layers, split_for
from rac_helpers.lowrank.splits import ChannelSplit, LayerSplit, Rank
from rac_helpers.metrics.score import accuracy, check_split

if TYPE_CHECKING:
    from rac_helpers.data import Split as Images

Row = dict[str, Any]


def rank_scan(
    model: nn.Module,
    validation: Images,
    shares: Sequence[float],
    *,
    split: type[LayerSplit] = ChannelSplit,
    layers: Iterable[str] | None = None,
    batch_size: int = 500,
    progress: bool | None = None,
) -> Iterator[Row]:
    """Measure the accuracy with one layer split and all others whole, without training.

    Parameters
    ----------
    model : nn.Module
        Takes uint8 images ``(B, 3, H, W)``, returns logits ``(B, num_classes)``. Not changed.
    validation : (images, labels)
        uint8 images ``(n, 3, H, W)`` and int64 labels ``(n,)``. Not the test set: what is chosen
        by the scan would be chosen on it.
    shares : sequence of float
        Shares of its weights that the layer keeps at most, each above 0, at least one.
    split : type
        How convolutions are split.
    layers : iterable of str, optional
        Names, see :func:`splittable`. ``None`` means all.
    batch_size : int
        At least 1.
    progress : bool, optional
        A bar on stderr. ``None`` shows it in a terminal or a notebook, unless the environment
        variable ``RAC_STATIC_BUILD`` or ``CI`` is set.

    Yields
    ------
    dict
        ``layer``, ``share``, ``rank`` (see :func:`rank_for_share`), ``weights`` (how many the
        split has), ``energy`` (the share it keeps), ``accuracy``, and ``drop``: the accuracy of
        the whole model minus this one. Layer by layer, in the model's order.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described.

    Examples
    --------
    >>> from rac_helpers.data import synth_digits
    >>> from rac_helpers.models import SmallCNN
    >>> images = synth_digits(10, 10, 10).validation
    >>> rows = list(rank_scan(SmallCNN(width=4), images, [0.5, 0.9], layers=["block2.0"]))
    >>> [(row["layer"], row["rank"], row["weights"]) for row in rows]
    [('block2.0', 3, 132), ('block2.0', 5, 220)]
    """
    found = pick_layers(model, layers)
    check_int("batch_size", batch_size, low=1)
    check_split("validation", validation, model=model)
    if isinstance(shares, str) or not isinstance(shares, Iterable) or not list(shares):
        raise ValueError(f"shares must hold at least one number, got {shares!r}")
    tries = [(n, s, rank_for_share(found[n], s, split=split)) for n in found for s in shares]

    def measured() -> Iterator[Row]:
        with progress_bar(total=len(tries) + 1, desc="rank scan", progress=progress) as bar:
            whole = accuracy(model, validation, batch_size=batch_size)
            bar.update()
            kinds = {name: split_for(layer, split) for name, layer in found.items()}
            kept = {name: kinds[name].energies(layer) for name, layer in found.items()}
            for name, share, rank in tries:
                small = factorize(model, {name: rank}, split=split)
                now = accuracy(small, validation, batch_size=batch_size)
                bar.update()
                row = {"layer": name, "share": share, "rank": rank}
                row["weights"] = kinds[name].count_weights(found[name], rank)
                row["energy"] = kept[name][rank]
                yield row | {"accuracy": now, "drop": whole - now}

    return measured()


def smallest_ranks(rows: Iterable[Row], *, max_drop: float) -> dict[str, Rank]:
    """Return for each layer the smallest rank down to which no accuracy drops by more.

    Together the splits cost more than each alone, so the result needs fine-tuning.

    Parameters
    ----------
    rows : iterable of dict
        From :func:`rank_scan`, of one model.
    max_drop : float
        Largest loss of accuracy for one layer, as a fraction.

    Returns
    -------
    dict of str to int or tuple of int
        For :func:`factorize`. Layers whose largest rank of the scan already costs more are not
        in it.

    Raises
    ------
    TypeError, ValueError
        If there are no rows, or ``max_drop`` is no number.

    Examples
    --------
    >>> drops = {40: 0.00, 20: 0.02, 10: 0.01, 5: 0.40}
    >>> rows = [{"layer": "fc", "rank": r, "weights": 9 * r, "drop": d} for r, d in drops.items()]
    >>> smallest_ranks(rows, max_drop=0.02), smallest_ranks(rows, max_drop=0.01)
    ({'fc': 10}, {'fc': 40})
    """
    check_number("max_drop", max_drop)
    rows = list(rows)
    if not rows:
        raise ValueError("rows must hold at least one row of rank_scan, got none")
    smallest: dict[str, Rank] = {}
    stopped: set[str] = set()
    for row in sorted(rows, key=lambda row: -row["weights"]):
        if row["drop"] > max_drop:
            stopped.add(row["layer"])  # a smaller, luckier rank does not count
        elif row["layer"] not in stopped:
            smallest[row["layer"]] = row["rank"]
    order = dict.fromkeys(row["layer"] for row in rows)
    return {name: smallest[name] for name in order if name in smallest}
