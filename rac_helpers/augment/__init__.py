"""RandAugment: draw operations, then apply them.

The algorithm is three small steps. The level table (:data:`LEVELS`) says what a magnitude means
for each operation; :func:`draw_ops` draws operations at random and touches no pixel;
:func:`apply_op` applies one drawn operation and draws nothing. :class:`RandAugment` joins them
into a transform, and :class:`BatchRandAugment` does the same for a whole batch at once.

References
----------
.. [1] E. D. Cubuk, B. Zoph, J. Shlens, Q. V. Le, "RandAugment: Practical automated data
   augmentation with a reduced search space", arXiv:1909.13719, section 3 and figure 2.
"""

from rac_helpers.augment.baselines import flip_crop, flip_rotate_zoom
from rac_helpers.augment.batch import BatchRandAugment
from rac_helpers.augment.draw import apply_op, apply_ops, draw_ops
from rac_helpers.augment.scales import KERAS_CV, PAPER, TORCHVISION, Scale, convert_magnitude
from rac_helpers.augment.table import LEVELS, NUM_MAGNITUDE_BINS, OPS, Level, Op
from rac_helpers.augment.transform import RandAugment

__all__ = [
    "KERAS_CV",
    "LEVELS",
    "NUM_MAGNITUDE_BINS",
    "OPS",
    "PAPER",
    "TORCHVISION",
    "BatchRandAugment",
    "Level",
    "Op",
    "RandAugment",
    "Scale",
    "apply_op",
    "apply_ops",
    "convert_magnitude",
    "draw_ops",
    "flip_crop",
    "flip_rotate_zoom",
]
