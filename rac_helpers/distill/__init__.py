"""Distillation: a small network learns from a large one.

Open a module for what you want to know; in this order they build on each other.

- ``losses``: labels and soft targets, temperature, the direction of KL, and the article's variant;
- ``teacher``: a network that answers and never learns; several that answer together; a memory;
- ``objective``: the ``loss_fn`` for ``train.fit``;
- ``comparisons``: hints, attention maps, distances between pictures;
- ``features``: how a loss gets at what layers inside put out.
"""

from rac_helpers.distill.comparisons import (
    attention_loss,
    attention_map,
    hint_loss,
    make_regressor,
    relational_loss,
)
from rac_helpers.distill.features import FeatureLoss, WithFeatures
from rac_helpers.distill.losses import (
    KDTerms,
    kd_loss,
    kd_terms,
    printed_kd_loss,
    soft_targets,
)
from rac_helpers.distill.objective import DistillationLoss
from rac_helpers.distill.teacher import CachedTeacher, Ensemble, Teacher

__all__ = [
    "CachedTeacher",
    "DistillationLoss",
    "Ensemble",
    "FeatureLoss",
    "KDTerms",
    "Teacher",
    "WithFeatures",
    "attention_loss",
    "attention_map",
    "hint_loss",
    "kd_loss",
    "kd_terms",
    "make_regressor",
    "printed_kd_loss",
    "relational_loss",
    "soft_targets",
]
