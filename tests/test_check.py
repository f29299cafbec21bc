"""Every refusal names the argument, the allowed range and the value received."""

import math

import numpy as np
import pytest
import torch

from rac_helpers._check import check_images, check_int, check_labels, check_number


@pytest.mark.parametrize(
    ("arguments", "limits", "error", "message"),
    [
        (-1, {"low": 0}, ValueError, "n must be an integer >= 0, got -1"),
        (3, {"high": 2}, ValueError, "n must be an integer <= 2, got 3"),
        (3, {"low": 0, "high": 2}, ValueError, r"n must be an integer in \[0, 2\], got 3"),
        (1.0, {}, TypeError, "n must be an integer, got 1.0"),
        (True, {"low": 0}, TypeError, "n must be an integer >= 0, got True"),
        ("3", {}, TypeError, "n must be an integer, got '3'"),
    ],
)
def test_integers(arguments, limits, error, message):
    with pytest.raises(error, match=message):
        check_int("n", arguments, **limits)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1])
def test_numbers(value):
    with pytest.raises(ValueError, match=f"factor must be a finite number >= 0, got {value}"):
        check_number("factor", value, low=0)


@pytest.mark.parametrize("value", ["1", None, True, [1.0]])
def test_numbers_of_another_type(value):
    with pytest.raises(TypeError, match="factor must be a finite number, got"):
        check_number("factor", value)


def test_numpy_scalars_are_welcome():
    assert check_int("n", np.int64(3)) == 3
    assert check_number("x", np.float32(0.5)) == 0.5


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.tensor([0, 1, 10]), ValueError, r"labels must be in \[0, 9\], got 10 at position 2"),
        (torch.tensor([-1]), ValueError, r"labels must be in \[0, 9\], got -1 at position 0"),
        (torch.tensor([0.0]), TypeError, "int64 tensor of shape .*got torch.float32"),
        (torch.tensor([[0]]), TypeError, r"int64 tensor of shape .*of shape \(1, 1\)"),
        ([0, 1], TypeError, "int64 tensor of shape .*got list"),
    ],
)
def test_labels(labels, error, message):
    with pytest.raises(error, match=message):
        check_labels("labels", labels, num_classes=10)


def test_good_values_come_back():
    images = torch.zeros(2, 3, 4, 5, dtype=torch.uint8)
    labels = torch.tensor([0, 9])
    assert check_images("images", images) is images
    assert check_labels("labels", labels, num_classes=10) is labels
