"""Pictures for the chapters: arrays in, matplotlib Axes out.

Nothing here computes a result; a plot shows what it is given. Colours can be told apart by
readers with any colour vision (Okabe and Ito).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rac_helpers._check import check_images, check_int

SHARP_PX = 64  # smaller pictures are shown with their pixels, larger ones smoothly
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")


def new_axes(width_in: float = 6.4, height_in: float = 3.6) -> Axes:
    """Return empty Axes on a new figure that pyplot does not know, so nothing shows it twice.

    Parameters
    ----------
    width_in, height_in : float
        Size of the figure in inches.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> new_axes(4, 3).figure.get_size_inches().tolist()
    [4.0, 3.0]
    """
    axes = Figure(figsize=(width_in, height_in), layout="constrained").subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def images(
    pictures: torch.Tensor,
    *,
    titles: Sequence[str] | None = None,
    columns: int = 7,
    cell_in: float = 1.05,
) -> Figure:
    """Show pictures in a grid.

    Parameters
    ----------
    pictures : torch.Tensor
        uint8, shape ``(n, 3, H, W)``.
    titles : sequence of str, optional
        One for each picture.
    columns : int
        Pictures in a row, at least 1.
    cell_in : float
        Width of a picture in inches.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    TypeError, ValueError
        If ``pictures`` is no such tensor or the titles do not match.

    Examples
    --------
    >>> len(images(torch.zeros(3, 3, 8, 8, dtype=torch.uint8), columns=2).axes)
    4
    """
    check_images("pictures", pictures)
    check_int("columns", columns, low=1)
    if titles is not None and len(titles) != len(pictures):
        raise ValueError(f"titles must be one for each of {len(pictures)}, got {len(titles)}")
    rows = -(-len(pictures) // columns)
    height_in = cell_in * (1.28 if titles else 1.04)
    figure = Figure(figsize=(columns * cell_in, rows * height_in), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes in grid:
        axes.set_axis_off()
    smooth = "nearest" if min(pictures.shape[-2:]) < SHARP_PX else "bilinear"
    for index, (axes, picture) in enumerate(zip(grid, pictures, strict=False)):
        axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation=smooth)
        if titles:
            axes.set_title(titles[index], fontsize=8, pad=2)
    return figure


def curves(
    x: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    spread: Mapping[str, Sequence[float]] | None = None,
    x_label: str,
    y_label: str,
) -> Axes:
    """Draw one line for each series, with a band of its spread.

    Parameters
    ----------
    x : sequence of float
        Shape ``(n,)``.
    series : mapping of str to sequence of float
        Name of the line: its values, shape ``(n,)``.
    spread : mapping of str to sequence of float, optional
        Half-width of the band around a line, shape ``(n,)``.
    x_label, y_label : str
        With units.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> axes = curves([0, 1], {"a": [0.5, 0.7]}, x_label="epoch", y_label="accuracy")
    >>> len(axes.lines)
    1
    """
    axes = new_axes()
    for position, (name, values) in enumerate(series.items()):
        color = COLORS[position % len(COLORS)]
        style = ("-", "--", ":")[position // len(COLORS) % 3]
        values = np.asarray(values, dtype=float)
        axes.plot(x, values, style, color=color, label=name, marker="o", markersize=3)
        if spread and name in spread:
            half = np.asarray(spread[name], dtype=float)
            axes.fill_between(x, values - half, values + half, color=color, alpha=0.18, lw=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8)
    return axes


def bars(
    names: Sequence[str],
    values: Sequence[float],
    *,
    spread: Sequence[float] | None = None,
    x_label: str,
) -> Axes:
    """Draw horizontal bars, the first on top.

    Parameters
    ----------
    names : sequence of str
        Shape ``(n,)``.
    values : sequence of float
        Shape ``(n,)``.
    spread : sequence of float, optional
        Half-length of the error bars, shape ``(n,)``.
    x_label : str
        With unit.

    Returns
    -------
    matplotlib.axes.Axes

    Examples
    --------
    >>> len(bars(["a", "b"], [1.0, 2.0], x_label="size (kB)").patches)
    2
    """
    axes = new_axes(6.4, 0.6 + 0.27 * len(names))
    axes.barh(list(names), values, xerr=spread, color=COLORS[0], ecolor="0.3", capsize=2)
    axes.invert_yaxis()
    axes.set_xlabel(x_label)
    return axes


def heat_map(
    table: np.ndarray | torch.Tensor,
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    label: str,
    limits: tuple[float, float] | None = None,
) -> Axes:
    """Draw a table as coloured squares.

    Parameters
    ----------
    table : array or torch.Tensor
        Numbers, shape ``(len(rows), len(columns))``.
    rows, columns : sequence of str
        Names.
    label : str
        What the colours mean, with unit.
    limits : (float, float), optional
        Values of the darkest and the brightest colour; by default the table's own.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    ValueError
        If the names do not match the table.

    Examples
    --------
    >>> heat_map(np.eye(2), rows=["a", "b"], columns=["x", "y"], label="count").get_xlabel()
    ''
    """
    table = np.asarray(table, dtype=float)
    if table.shape != (len(rows), len(columns)):
        raise ValueError(
            f"table must have shape {(len(rows), len(columns))} to match the names, "
            f"got {table.shape}"
        )
    axes = new_axes(6.2, 5.0)
    low, high = limits or (table.min(), table.max())
    picture = axes.imshow(table, cmap="cividis", vmin=low, vmax=high)
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=7)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.figure.colorbar(picture, ax=axes, label=label)
    return axes
