"""Tuning: how hyper-parameters are chosen, and what helps a training that will not go well.

Open a module for what you want to know.

- ``space``: which values there are; ``search``: the loop that asks, runs and tells, with a journal
  and on any executor;
- ``random_search``, ``genetic``, ``bayesian``: what is asked for next; ``hyperband``: few epochs
  for many, many for few;
- ``lr_range``: a learning rate to begin with, from one short training;
- ``clipping``: bounds for gradients; ``recurrent``: where they are needed.

Early stopping is ``patience`` of :func:`rac_helpers.train.fit`.
"""

from rac_helpers.tune.bayesian import Tpe
from rac_helpers.tune.clipping import ClipNorm, clip_by_norm_, clip_by_value_, grad_norm
from rac_helpers.tune.genetic import Genetic, blend, mutate, tournament
from rac_helpers.tune.hyperband import Rung, best_of, brackets, cost_epochs, hyperband, rungs
from rac_helpers.tune.lr_range import LrRange, lr_range_test, rising, suggest_lr
from rac_helpers.tune.random_search import RandomSearch
from rac_helpers.tune.recurrent import RecallNet, norms_back, recall_task, train_recall
from rac_helpers.tune.search import Strategy, Trial, best_so_far, best_trial, search
from rac_helpers.tune.space import Choice, Integer, Real, Space

__all__ = [
    "Choice",
    "ClipNorm",
    "Genetic",
    "Integer",
    "LrRange",
    "RandomSearch",
    "Real",
    "RecallNet",
    "Rung",
    "Space",
    "Strategy",
    "Tpe",
    "Trial",
    "best_of",
    "best_so_far",
    "best_trial",
    "blend",
    "brackets",
    "clip_by_norm_",
    "clip_by_value_",
    "cost_epochs",
    "grad_norm",
    "hyperband",
    "lr_range_test",
    "mutate",
    "norms_back",
    "recall_task",
    "rising",
    "rungs",
    "search",
    "suggest_lr",
    "tournament",
    "train_recall",
]
