"""Plots show what they are given, on figures that pyplot does not know."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from rac_helpers import plots


def test_images_shows_each_picture_under_its_title():
    pictures = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1).expand(4, 3, 6, 6)
    figure = plots.images(pictures, titles=list("abcd"), columns=3)
    shown = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in shown] == list("abcd")
    assert [int(axes.images[0].get_array()[0, 0, 0]) for axes in shown] == [0, 1, 2, 3]
    assert not plt.get_fignums()


def test_images_refuses_wrong_titles_and_pictures():
    pictures = torch.zeros(2, 3, 6, 6, dtype=torch.uint8)
    with pytest.raises(ValueError, match="titles must be one for each of 2, got 1"):
        plots.images(pictures, titles=["a"])
    with pytest.raises(TypeError, match="pictures must be a uint8 tensor"):
        plots.images(pictures.float())
    with pytest.raises(ValueError, match="columns must be an integer >= 1, got 0"):
        plots.images(pictures, columns=0)


def test_curves_and_their_bands():
    axes = plots.curves(
        [0, 1, 2],
        {"a": [1, 2, 3], "b": [3, 2, 1]},
        spread={"a": [0.1, 0.1, 0.1]},
        x_label="epoch",
        y_label="accuracy",
    )
    assert [line.get_ydata().tolist() for line in axes.lines] == [[1, 2, 3], [3, 2, 1]]
    assert len(axes.collections) == 1
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("epoch", "accuracy")
    assert len({line.get_color() for line in axes.lines}) == 2


def test_many_curves_can_be_told_apart():
    names = [f"series {number}" for number in range(15)]
    axes = plots.curves([0, 1], {name: [0, 1] for name in names}, x_label="x", y_label="y")
    assert len({(line.get_color(), line.get_linestyle()) for line in axes.lines}) == 15


def test_bars_are_in_the_given_order_from_the_top():
    axes = plots.bars(["first", "second"], [3.0, 1.0], spread=[0.1, 0.2], x_label="points")
    assert [bar.get_width() for bar in axes.patches] == [3.0, 1.0]
    assert axes.yaxis_inverted()


def test_heat_map_matches_its_names():
    table = np.arange(6).reshape(2, 3)
    axes = plots.heat_map(table, rows=["a", "b"], columns=["x", "y", "z"], label="count")
    assert axes.images[0].get_array().tolist() == table.tolist()
    with pytest.raises(ValueError, match=r"shape \(2, 2\) to match the names, got \(2, 3\)"):
        plots.heat_map(table, rows=["a", "b"], columns=["x", "y"], label="count")
