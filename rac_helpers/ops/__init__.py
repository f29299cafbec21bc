"""The 14 image operations of RandAugment, as pure functions.

Every function takes a uint8 tensor of shape ``(..., 3, H, W)`` and returns a new one of the same
shape and dtype. How strong an operation is stands in its own unit (``angle_deg``, ``shift_px``,
``factor``, ``bits``, ``threshold``); :mod:`rac_helpers.augment` turns a magnitude into that amount.

The pixels are those of ``torchvision.transforms.v2`` on tensors, bit for bit. Where that fixes a
detail (the order of float operations, nearest-neighbour sampling, black outside the picture) a
comment says so.

References
----------
.. [1] E. D. Cubuk, B. Zoph, J. Shlens, Q. V. Le, "RandAugment: Practical automated data
   augmentation with a reduced search space", arXiv:1909.13719, section 3 and figure 2.
.. [2] E. D. Cubuk et al., "AutoAugment: Learning Augmentation Policies from Data",
   arXiv:1805.09501 (what each operation does).
"""

from rac_helpers.ops.blend import brightness, color, contrast, sharpness
from rac_helpers.ops.geometry import rotate, shear_x, shear_y, translate_x, translate_y
from rac_helpers.ops.levels import auto_contrast, equalize, identity, posterize, solarize

__all__ = [
    "auto_contrast",
    "brightness",
    "color",
    "contrast",
    "equalize",
    "identity",
    "posterize",
    "rotate",
    "sharpness",
    "shear_x",
    "shear_y",
    "solarize",
    "translate_x",
    "translate_y",
]
