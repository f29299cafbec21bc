"""Data sets as tensors: uint8 images, int64 labels, class names, three splits.

``synth_digits`` (made here, the default) and ``digits`` need no download; ``cifar10`` and
``fashion_mnist`` come through torchvision; ``folder`` reads any tree with a folder a class;
``photographs`` are a few real pictures to look at; ``cifar10_c`` reads the published corrupted test
images.
"""

from rac_helpers.data.base import Dataset, Split
from rac_helpers.data.corrupted import cifar10_c
from rac_helpers.data.folders import folder
from rac_helpers.data.known import cifar10, digits, fashion_mnist, photographs
from rac_helpers.data.synth import synth_digits

__all__ = [
    "Dataset",
    "Split",
    "cifar10",
    "cifar10_c",
    "digits",
    "fashion_mnist",
    "folder",
    "photographs",
    "synth_digits",
]
