"""The networks of the course, and trained weights of some of them."""

from rac_helpers.models.networks import (
    BasicBlock,
    Normalize,
    ResNet,
    SmallCNN,
    resnet20,
    resnet56,
)
from rac_helpers.models.shipped import (
    ARCHITECTURES,
    WEIGHTS_FOLDER,
    catalogue,
    load_weights,
)

__all__ = [
    "ARCHITECTURES",
    "WEIGHTS_FOLDER",
    "BasicBlock",
    "Normalize",
    "ResNet",
    "SmallCNN",
    "catalogue",
    "load_weights",
    "resnet20",
    "resnet56",
]
