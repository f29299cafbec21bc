"""Training: ``loop`` holds the loop itself and is the place to read on."""

from rac_helpers.train.loop import evaluate, fit

__all__ = ["evaluate", "fit"]
