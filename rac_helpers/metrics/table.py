"""The ledger: one row a run, the same columns in every chapter."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import nn

from rac_helpers._check import check_int, check_number
from rac_helpers.metrics.cost import latency_ms, size_bytes
from rac_helpers.metrics.count import count_macs, count_nonzeros, count_params
from rac_helpers.metrics.score import accuracy, device_of

if TYPE_CHECKING:
    import pandas as pd

    from rac_helpers.data import Split

_MISSING = "—"
_COUNTS = {
    "parameters": "params",
    "non-zeros": "nonzeros",
    "MACs": "macs",
    "file (bytes)": "size_bytes",
}


@dataclass(frozen=True)
class LedgerRow:
    """What one run of one method ends in. ``None`` stands for "not measured".

    Parameters
    ----------
    name : str
        The method. Rows with the same name are runs of it with other seeds.
    accuracy : float, optional
        In ``[0, 1]``, on held-out data.
    params, nonzeros : int, optional
        Parameters, and those that are not exactly zero; at least 0.
    macs : int, optional
        Multiply-accumulates of one image, at least 0.
    size_bytes : int, optional
        Size of the file, at least 0.
    latency_ms, latency_iqr_ms : float, optional
        Median time of one image and the distance of the quartiles, at least 0.

    Raises
    ------
    TypeError, ValueError
        If the name is empty or a number is out of range.

    Examples
    --------
    >>> row = LedgerRow("dense", accuracy=0.9, params=1000)
    >>> row.accuracy, row.macs
    (0.9, None)
    """

    name: str
    accuracy: float | None = None  # a fraction, on held-out data
    params: int | None = None
    nonzeros: int | None = None
    macs: int | None = None  # of one image
    size_bytes: int | None = None
    latency_ms: float | None = None  # median, one image
    latency_iqr_ms: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise TypeError(f"name must be a text that is not empty, got {self.name!r}")
        for field in fields(self)[1:]:
            value = getattr(self, field.name)
            high = 1 if field.name == "accuracy" else None
            if value is not None:
                check_number(field.name, value, low=0, high=high)


def ledger_row(
    model: nn.Module, name: str, *, test: Split, example: torch.Tensor | None = None, runs: int = 30
) -> LedgerRow:
    """Measure everything the ledger holds.

    Parameters
    ----------
    model : nn.Module
        Takes uint8 images ``(B, 3, H, W)``, returns logits.
    name : str
        The method. Rows with the same name are runs of it with other seeds.
    test : Split
        Held-out images and labels.
    example : torch.Tensor, optional
        Input for MACs and latency, default: the first test image, as a batch of one.
    runs : int
        Measured runs for the latency; 0 leaves the latency out.

    Returns
    -------
    LedgerRow
        With every field measured, except the latency if ``runs`` is 0.

    Raises
    ------
    TypeError, ValueError
        If ``runs`` is below 0, the name is empty, or the data do not fit the model.

    Examples
    --------
    >>> class Tiny(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = nn.Linear(3 * 4 * 4, 2)
    ...     def forward(self, images):
    ...         return self.linear(images.flatten(1) / 255)
    >>> test = (torch.zeros(5, 3, 4, 4, dtype=torch.uint8), torch.zeros(5, dtype=torch.int64))
    >>> row = ledger_row(Tiny(), "tiny", test=test, runs=10)
    >>> row.params, row.macs, row.latency_ms > 0
    (98, 96, True)
    """
    check_int("runs", runs, low=0)
    example = test[0][:1].to(device_of(model)) if example is None else example
    latency = latency_ms(model, example, runs=runs) if runs else None
    return LedgerRow(
        name=name,
        accuracy=accuracy(model, test),
        params=count_params(model),
        nonzeros=count_nonzeros(model),
        macs=count_macs(model, example),
        size_bytes=size_bytes(model),
        latency_ms=latency and latency.median_ms,
        latency_iqr_ms=latency and latency.iqr_ms,
    )


def ledger_numbers(rows: Iterable[LedgerRow]) -> pd.DataFrame:
    """Return the ledger as numbers to compute and plot with.

    Parameters
    ----------
    rows : iterable of LedgerRow
        Rows with the same name are averaged.

    Returns
    -------
    pandas.DataFrame
        One row a name, in the order of first appearance. Columns: ``accuracy`` (mean),
        ``accuracy_std`` (of the sample; NaN for one run), ``n`` (runs with an accuracy), the
        means of ``params``, ``nonzeros``, ``macs``, ``size_bytes``, and the medians of
        ``latency_ms`` and ``latency_iqr_ms``. NaN where nothing was measured.

    Raises
    ------
    TypeError, ValueError
        If there are no rows or something else is among them.

    Examples
    --------
    >>> rows = [LedgerRow("dense", accuracy=0.90), LedgerRow("dense", accuracy=0.92)]
    >>> ledger_numbers(rows)[["accuracy", "n"]].round(3).to_dict("index")
    {'dense': {'accuracy': 0.91, 'n': 2}}
    """
    import pandas as pd

    rows = list(rows)
    if not rows:
        raise ValueError("rows must hold at least one LedgerRow, got none")
    for row in rows:
        if not isinstance(row, LedgerRow):
            raise TypeError(f"rows must hold LedgerRow only, got {type(row).__name__}")
    names = [field.name for field in fields(LedgerRow)]
    table = pd.DataFrame([[getattr(row, name) for name in names] for row in rows], columns=names)
    groups = table.set_index("name").astype(float).groupby("name", sort=False)
    result = groups.mean()
    result.insert(1, "accuracy_std", groups["accuracy"].std())
    result.insert(2, "n", groups["accuracy"].count())
    for name in ("latency_ms", "latency_iqr_ms"):
        result[name] = groups[name].median()
    return result.rename_axis("method")


def ledger(rows: Iterable[LedgerRow]) -> pd.DataFrame:
    """Return the ledger as a table to read.

    Parameters
    ----------
    rows : iterable of LedgerRow
        Rows with the same name are runs with other seeds and share a line.

    Returns
    -------
    pandas.DataFrame
        Texts: accuracy as mean ± standard deviation over ``n`` runs, counts with separators,
        latency as median with the distance of its quartiles; "—" where nothing was measured.
        :func:`ledger_numbers` has the numbers.

    Raises
    ------
    TypeError, ValueError
        If there are no rows or something else is among them.

    Examples
    --------
    >>> rows = [LedgerRow("dense", accuracy=0.90, params=1000, size_bytes=4100),
    ...         LedgerRow("dense", accuracy=0.92, params=1000, size_bytes=4100),
    ...         LedgerRow("half", accuracy=0.89, params=500, size_bytes=2100)]
    >>> ledger(rows)[["accuracy (%)", "parameters", "file (bytes)"]]
    method        accuracy (%) parameters file (bytes)
    dense   91.00 ± 1.41 (n=2)      1,000        4,100
    half           89.00 (n=1)        500        2,100
    """
    import pandas as pd

    numbers = ledger_numbers(rows)
    table = pd.DataFrame(index=numbers.index)
    table["accuracy (%)"] = [
        _spread(100 * row.accuracy, 100 * row.accuracy_std, ".2f", " ± {}") + f" (n={row.n:.0f})"
        if row.n
        else _MISSING
        for row in numbers.itertuples()
    ]
    for title, name in _COUNTS.items():
        table[title] = [_text(value, ",.0f") for value in numbers[name]]
    table["latency (ms)"] = [
        _spread(row.latency_ms, row.latency_iqr_ms, ",.2f", " (IQR {})")
        for row in numbers.itertuples()
    ]
    return table.rename_axis(index=None, columns="method")  # one line of headings


def _text(value: float, form: str) -> str:
    return _MISSING if math.isnan(value) else format(value, form)


def _spread(value: float, spread: float, form: str, words: str) -> str:
    return _text(value, form) + ("" if math.isnan(spread) else words.format(_text(spread, form)))
