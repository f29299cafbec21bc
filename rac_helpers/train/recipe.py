"""The settings of a training and what follows from them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from rac_helpers._check import check_images, check_int, check_number
from rac_helpers.rng import derive_seed, make_generator


@dataclass(frozen=True)
class Recipe:
    """The settings of a training, checked, and as plain numbers of Python."""

    epochs: int
    batch_size: int
    lr: float
    momentum: float
    weight_decay: float
    transform: Callable | None
    loss_fn: Callable | None
    before_step: Callable | None
    after_step: Callable | None
    seed: int

    def __post_init__(self) -> None:
        plain = {
            "epochs": check_int("epochs", self.epochs, low=1),
            "batch_size": check_int("batch_size", self.batch_size, low=1),
            "lr": check_number("lr", self.lr, low=0),
            "momentum": check_number("momentum", self.momentum, low=0, high=1),
            "weight_decay": check_number("weight_decay", self.weight_decay, low=0),
            "seed": check_int("seed", self.seed, low=0),
        }
        if plain["lr"] == 0:
            raise ValueError("lr must be a finite number > 0, got 0")
        for name, value in plain.items():
            object.__setattr__(self, name, value)  # a checkpoint cannot hold numbers of numpy
        for name in ("transform", "loss_fn", "before_step", "after_step"):
            value = getattr(self, name)
            if value is not None and not callable(value):
                raise TypeError(f"{name} must be callable or None, got {value!r}")

    def settings(self) -> dict[str, object]:
        """Return what a checkpoint compares; older ones know nothing of ``before_step``."""
        unused = {"before_step"} if self.before_step is None else set()
        return {name: value for name, value in vars(self).items() if name not in unused}

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """SGD over the parameters that are not frozen."""
        parameters = [value for value in model.parameters() if value.requires_grad]
        if not parameters:
            raise ValueError("model must have a parameter with requires_grad=True, got none")
        nesterov = self.momentum > 0
        return torch.optim.SGD(
            parameters, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=nesterov
        )

    def lr_at(self, epochs_done: float) -> float:
        """Half a cosine: ``lr`` at the start, 0 at the end."""
        return 0.5 * self.lr * (1 + math.cos(math.pi * epochs_done / self.epochs))

    def generator(self, use: str, epoch: int) -> torch.Generator:
        """A generator that depends on the epoch alone, not on what was drawn before."""
        return make_generator(derive_seed(self.seed, use, epoch))

    def transformed(self, images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
        """Images as the method wants them, of the same shape."""
        if self.transform is None:
            return images
        shape = tuple(images.shape)
        changed = self.transform(images, generator=generator)
        if tuple(check_images("what transform returns", changed).shape) != shape:
            raise ValueError(
                f"what transform returns must have the shape {shape} of its input, "
                f"got {tuple(changed.shape)}"
            )
        return changed

    def loss(
        self, logits: torch.Tensor, labels: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """The method's loss, or cross-entropy."""
        if self.loss_fn is None:
            return F.cross_entropy(logits, labels)
        loss = self.loss_fn(logits, labels, images)
        if not isinstance(loss, torch.Tensor) or loss.ndim != 0:
            got = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise ValueError(f"loss_fn must return a tensor of shape (), got {got}")
        return loss
