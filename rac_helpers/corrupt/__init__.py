"""The corruptions of CIFAR-10-C: 19 kinds, 5 severities each.

How well does a network do on pictures that are noisy, blurred, snowed in or badly compressed?
:func:`corrupt` is the entrance: a kind, a severity, a batch. Each kind is also a function of its
own, whose parameters are physical (:data:`SEVERITIES` holds what the severities mean): four kinds
of noise, five of blur, snow, frost, fog, brightness, spatter, and five that computers make.

The constants are those of ``make_cifar_c.py``, the script of the authors that made the published
files (github.com/hendrycks/robustness), not the stronger ones of ImageNet-C. The first 15 kinds
are the benchmark; the last four were meant for choosing settings. Nothing here should be trained
on: the point is to meet it for the first time in the test.

Like the published files, values are cut off to whole levels, not rounded. Not like them: frost is
drawn here (:func:`frost`), and random draws differ, of course.

References
----------
.. [1] D. Hendrycks, T. Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions
   and Perturbations", arXiv:1903.12261.
"""

from rac_helpers.corrupt.blur import (
    defocus_blur,
    gaussian_blur,
    glass_blur,
    motion_blur,
    zoom_blur,
)
from rac_helpers.corrupt.digital import (
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
    saturate,
)
from rac_helpers.corrupt.ice import frost_pictures
from rac_helpers.corrupt.lens import spatter, spatter_mud, spatter_water
from rac_helpers.corrupt.noise import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from rac_helpers.corrupt.suite import corrupt, find_constants
from rac_helpers.corrupt.table import EXTRA, KINDS, SEVERITIES, STANDARD
from rac_helpers.corrupt.weather import brightness, fog, frost, snow

__all__ = [
    "EXTRA",
    "KINDS",
    "SEVERITIES",
    "STANDARD",
    "brightness",
    "contrast",
    "corrupt",
    "defocus_blur",
    "elastic_transform",
    "find_constants",
    "fog",
    "frost",
    "frost_pictures",
    "gaussian_blur",
    "gaussian_noise",
    "glass_blur",
    "impulse_noise",
    "jpeg_compression",
    "motion_blur",
    "pixelate",
    "saturate",
    "shot_noise",
    "snow",
    "spatter",
    "spatter_mud",
    "spatter_water",
    "speckle_noise",
    "zoom_blur",
]
