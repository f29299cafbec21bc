"""Distillation from inside the network: what layers put out, not only the last one.

A loss function sees the logits alone. :class:`WithFeatures` keeps what other layers put out, by
forward hooks, and :class:`FeatureLoss` compares the student's with the teacher's.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from rac_helpers._check import check_module, check_number
from rac_helpers.distill.losses import check_alpha, check_temperature, kd_loss
from rac_helpers.distill.objective import check_teacher
from rac_helpers.distill.teacher import Teacher

Features = dict[str, torch.Tensor]


class Shelf:
    """Where a network leaves its features; copies of the network leave theirs at the same place.

    So a loss that takes them from here works for a copy of the network, too, such as the one that
    is compiled and trained.
    """

    def __init__(self, layers: Sequence[str]) -> None:
        self.layers = tuple(layers)
        self.features: Features = {}

    def __deepcopy__(self, memo: dict) -> Shelf:
        return self

    def take(self) -> Features:
        """Return what the last forward pass left, and leave nothing.

        Raises
        ------
        RuntimeError
            If there is nothing: features of an earlier batch must not be used again. Or not all:
            then compiled code of another network is at work.
        """
        features, self.features = self.features, {}
        if not features:
            raise RuntimeError("there are no features: call the network with the batch first")
        missing = [name for name in self.layers if name not in features]
        if missing:
            raise RuntimeError(
                f"there are no features of {missing}; before torch.compile, "
                "set torch._dynamo.config.skip_nnmodule_hook_guards = False"
            )
        return features


class WithFeatures(nn.Module):
    """A network that keeps what some of its layers put out; its logits stay the same.

    Train it like the network itself, which is trained in place. ``release_`` takes the hooks out of
    the network afterwards. Regressors are trained along, and are no part of the network: its file
    does not hold them.

    Parameters
    ----------
    model : torch.nn.Module
        Takes images, returns logits. Hooks are put on it.
    layers : sequence of str
        Names as in ``model.named_modules()``, at least one.
    regressors : mapping of str to torch.nn.Module, optional
        By the name of a layer: applied to its output before it is kept, such as
        :func:`make_regressor`.

    Raises
    ------
    TypeError, ValueError
        If a name is no layer of the model, or an argument is not as described.

    Examples
    --------
    >>> from rac_helpers import models
    >>> student = models.resnet20(width=4)
    >>> watched = WithFeatures(student, ["stage2", "stage3"])
    >>> logits = watched(torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    >>> {name: tuple(value.shape) for name, value in watched.shelf.take().items()}
    {'stage2': (2, 8, 16, 16), 'stage3': (2, 16, 8, 8)}
    >>> watched.release_() is student
    True
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Sequence[str],
        *,
        regressors: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        layers = _check_layers(check_module("model", model), layers)
        regressors = dict(regressors or {})
        for name, regressor in regressors.items():
            if name not in layers:
                raise ValueError(f"regressors must be named as one of {list(layers)}, got {name!r}")
            check_module(f"regressors[{name!r}]", regressor)
        self.model, self.layers = model, tuple(layers)
        self.shelf = Shelf(layers)
        self.regressors = nn.ModuleDict({_key(name): r for name, r in regressors.items()})
        self._handles = [
            layer.register_forward_hook(_hook(self.shelf, name)) for name, layer in layers.items()
        ]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(n, num_classes)`` of the network; the features are on the shelf."""
        logits = self.model(images)
        features = self.shelf.features
        for name in features:
            if _key(name) in self.regressors:
                features[name] = self.regressors[_key(name)](features[name])
        return logits

    def release_(self) -> nn.Module:
        """Take the hooks out of the network and return it."""
        for handle in self._handles:
            handle.remove()
        return self.model


class FeatureLoss(nn.Module):
    """A ``loss_fn`` of :func:`rac_helpers.train.fit`: labels, soft targets if wanted, and features.

    It is ``kd_loss + weight * (sum of the comparisons)``, with one comparison for each pair of
    layers.

    Parameters
    ----------
    teacher : Teacher
        Of a network :class:`WithFeatures`.
    student : WithFeatures
        The network that is trained, or one that it is a copy of.
    layers : mapping of str to str
        Layers of the student, and for each the layer of the teacher it is compared with.
    compare : callable
        ``compare(student_features, teacher_features)`` returns a scalar, such as
        :func:`hint_loss`, :func:`attention_loss` or :func:`relational_loss`.
    weight : float
        At least 0.
    temperature, alpha : float
        Of :func:`kd_loss`. The default, ``alpha=1``, is the cross-entropy with the labels alone.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, or a layer is not among those that are kept.

    Examples
    --------
    >>> from rac_helpers import data, models, train
    >>> from rac_helpers.distill import attention_loss
    >>> digits = data.synth_digits(60, 20, 20)
    >>> teacher = Teacher(WithFeatures(models.SmallCNN(width=4, seed=1), ["block3"]))
    >>> student = WithFeatures(models.SmallCNN(width=2), ["block3"])
    >>> loss_fn = FeatureLoss(
    ...     teacher, student, layers={"block3": "block3"}, compare=attention_loss, weight=10.0)
    >>> history = train.fit(student, digits.train, digits.validation, epochs=1, loss_fn=loss_fn)
    >>> student.release_()(digits.test.images[:2]).shape
    torch.Size([2, 10])
    """

    def __init__(
        self,
        teacher: Teacher,
        student: WithFeatures,
        *,
        layers: Mapping[str, str],
        compare: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        weight: float,
        temperature: float = 1.0,
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        self.teacher = check_teacher(teacher)
        if not isinstance(getattr(teacher, "model", None), WithFeatures):
            raise TypeError("teacher must be a Teacher of WithFeatures(model, layers)")
        if not isinstance(student, WithFeatures):
            raise TypeError(f"student must be WithFeatures, got {type(student).__name__}")
        if not callable(compare):
            raise TypeError(f"compare must be callable, got {compare!r}")
        self.layers = _check_pairs(layers, student, teacher.model)
        self.compare = compare
        self.weight = check_number("weight", weight, low=0)
        self.temperature = check_temperature(temperature)
        self.alpha = check_alpha(alpha)
        self._shelf = student.shelf

    def forward(
        self, logits: torch.Tensor, labels: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss of a batch, after the student has seen it: a scalar."""
        ours = self._shelf.take()
        answers = self.teacher(images)
        theirs = self.teacher.model.shelf.take()
        loss = kd_loss(logits, answers, labels, temperature=self.temperature, alpha=self.alpha)
        for mine, other in self.layers.items():
            if len(ours[mine]) != len(logits):
                raise RuntimeError(
                    f"the features are of {len(ours[mine])} pictures, the logits of {len(logits)}: "
                    "call the loss right after the network"
                )
            loss = loss + self.weight * self.compare(ours[mine], theirs[other])
        return loss

    def extra_repr(self) -> str:
        """Show the settings; a checkpoint tells trainings apart by this text."""
        compare = getattr(self.compare, "__qualname__", repr(self.compare))
        return (
            f"compare={compare}, layers={self.layers}, weight={self.weight:g}, "
            f"temperature={self.temperature:g}, alpha={self.alpha:g}"
        )


def _hook(shelf: Shelf, name: str) -> Callable:
    def keep(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
        shelf.features[name] = output

    return keep


def _key(name: str) -> str:
    """A module's name must hold no dot."""
    return name.replace(".", "-")


def _check_layers(model: nn.Module, layers: Sequence[str]) -> dict[str, nn.Module]:
    if isinstance(layers, str) or not list(layers):
        raise ValueError(f"layers must be one or more names, got {layers!r}")
    modules = dict(model.named_modules())
    for name in layers:
        if name not in modules or name == "":
            raise ValueError(f"layers must be names of modules in the model, got {name!r}")
    return {name: modules[name] for name in layers}


def _check_pairs(
    layers: Mapping[str, str], student: WithFeatures, teacher: WithFeatures
) -> dict[str, str]:
    if not isinstance(layers, Mapping) or not layers:
        raise ValueError(f"layers must map layers of the student to the teacher's, got {layers!r}")
    for mine, other in layers.items():
        for name, network, role in ((mine, student, "student"), (other, teacher, "teacher")):
            if name not in network.layers:
                raise ValueError(f"layers: the {role} keeps {list(network.layers)}, got {name!r}")
    return dict(layers)
