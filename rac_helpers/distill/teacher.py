"""The teacher: a network that answers and never learns.

Two mistakes are easy to make and hard to see. A teacher in training mode normalizes each batch by
itself and moves its running statistics, so it gives other answers each time, and gets worse
meanwhile. And a teacher with gradients costs memory, or even learns from its student.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Sequence

import torch
from torch import nn

from rac_helpers._check import check_module
from rac_helpers.distill.losses import at_least_float32

_DIGEST_BYTES = 16


class Teacher(nn.Module):
    """A network in eval mode and without gradients, whatever happens around it.

    It keeps a copy of its own. So it stays the same if the original is trained on, and nothing of
    the original is changed: neither its mode nor which of its parameters have gradients.

    Parameters
    ----------
    model : torch.nn.Module
        Takes images, returns logits ``(n, num_classes)``. Copied.

    Raises
    ------
    TypeError
        If ``model`` is no module.

    Examples
    --------
    >>> model = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(4, 3))
    >>> teacher = Teacher(model).train()
    >>> images = torch.ones(2, 1, 2, 2)
    >>> torch.equal(teacher(images), teacher(images)), teacher(images).requires_grad
    (True, False)
    >>> model.training
    True
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = copy.deepcopy(check_module("model", model)).requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Teacher:
        """Stay in eval mode: a student that holds its teacher calls this for all its parts."""
        return super().train(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(n, num_classes)``, without gradients."""
        if any(module.training for module in self.model.modules()):
            self.model.eval()  # someone reached past train()
        with torch.no_grad():  # not inference_mode: the student's loss must save these numbers
            return self.model(images)


class Ensemble(nn.Module):
    """Several networks that answer together: the average of their probabilities.

    It returns the logarithms of these averages. They serve as logits: softmax gives the averages
    back, and at another temperature T it gives them to the power of 1/T, normalized. That is to
    average first, then to soften; the average of softened answers is not the same. Nor is the
    average of the logits: it stands for the geometric mean of the probabilities, where one network
    that says "impossible" overrules all others.

    Parameters
    ----------
    models : sequence of torch.nn.Module
        At least one; all return logits ``(n, num_classes)`` for the same images.

    Raises
    ------
    TypeError, ValueError
        If there is none, or one is no module; from the call, if their shapes differ.

    References
    ----------
    Hinton, Vinyals and Dean, 2015. Distilling the knowledge in a neural network, sections 1 and 4.

    Examples
    --------
    >>> class Says(nn.Module):
    ...     def __init__(self, *probabilities):
    ...         super().__init__()
    ...         self.logits = torch.tensor([probabilities]).log()
    ...     def forward(self, images):
    ...         return self.logits.expand(len(images), -1)
    >>> ensemble = Ensemble([Says(0.6, 0.4), Says(0.2, 0.8)])
    >>> ensemble(torch.zeros(1, 3, 2, 2)).exp()
    tensor([[0.4000, 0.6000]])
    """

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        models = list(models)
        if not models:
            raise ValueError("models must hold at least one network, got none")
        self.models = nn.ModuleList(
            check_module(f"models[{k}]", model) for k, model in enumerate(models)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities ``(n, num_classes)``, float32 or float64."""
        answers = [model(images) for model in self.models]
        shapes = {tuple(logits.shape) for logits in answers}
        if len(shapes) > 1:
            raise ValueError(f"models must return logits of one shape, got {sorted(shapes)}")
        logs = [at_least_float32(logits).log_softmax(dim=1) for logits in answers]
        return torch.stack(logs).logsumexp(dim=0) - math.log(len(logs))  # (n, classes)


class CachedTeacher(nn.Module):
    """A teacher that remembers its answers: a picture that comes again costs no second pass.

    Pictures are known by their content. With plain pictures all epochs after the first are free,
    with flips nearly all. RandAugment makes a new picture nearly each time: then the cache costs
    memory and brings nothing, as ``hits`` and ``misses`` show. (To look answers up by the number of
    the picture would always hit. But then the teacher looks at another picture than its student.)

    Answers are kept as float32, and all of them: some 150 bytes a picture for 10 classes. The same
    picture in another batch can differ in the last digits; so a training that was killed and
    resumed may differ there, too.

    Parameters
    ----------
    teacher : Teacher
        Asked for what is not known yet.

    Raises
    ------
    TypeError
        If it is no Teacher.

    Examples
    --------
    >>> teacher = CachedTeacher(Teacher(nn.Sequential(nn.Flatten(), nn.Linear(12, 2))))
    >>> images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2) / 255
    >>> for batch in (images, images.flip(0), images.flip(3)):
    ...     logits = teacher(batch)
    ...     print(tuple(logits.shape), teacher.hits, teacher.misses)
    (2, 2) 0 2
    (2, 2) 2 2
    (2, 2) 2 4
    """

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        if not isinstance(teacher, Teacher):
            raise TypeError(f"teacher must be a Teacher, got {type(teacher).__name__}")
        self.teacher = teacher
        # none of these in state_dict: a checkpoint must not tell trainings apart by them
        self._places: dict[bytes, int] = {}
        self._logits: list[torch.Tensor] = []
        self._counts = {"hits": 0, "misses": 0}

    @property
    def hits(self) -> int:
        """How many pictures were known."""
        return self._counts["hits"]

    @property
    def misses(self) -> int:
        """How many pictures the teacher had to look at."""
        return self._counts["misses"]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits ``(n, num_classes)`` of the teacher, float32, without gradients."""
        keys = [_key(image) for image in images.detach().cpu()]
        new = {key: k for k, key in enumerate(keys) if key not in self._places}
        if new:
            self._add(list(new), self.teacher(images[list(new.values())]).float().cpu())
        self._counts["misses"] += len(new)
        self._counts["hits"] += len(keys) - len(new)
        return self._table()[[self._places[key] for key in keys]].to(images.device)

    def answers(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return all that is known, to be stored.

        Returns
        -------
        keys : torch.Tensor
            uint8, shape ``(m, 16)``: a hash of each picture.
        logits : torch.Tensor
            float32, shape ``(m, num_classes)``.
        """
        keys = torch.tensor([list(key) for key in self._places], dtype=torch.uint8)
        return keys.view(-1, _DIGEST_BYTES), self._table()

    def remember_(self, keys: torch.Tensor, logits: torch.Tensor) -> None:
        """Add answers that the same teacher gave before, in another run; what is known stays.

        Parameters
        ----------
        keys, logits : torch.Tensor
            As :meth:`answers` returned them.

        Raises
        ------
        ValueError
            If they do not fit together.
        """
        if keys.dtype != torch.uint8 or tuple(keys.shape) != (len(logits), _DIGEST_BYTES):
            raise ValueError(
                f"keys must be uint8 of shape ({len(logits)}, {_DIGEST_BYTES}), one row for each "
                f"row of logits, got {keys.dtype} {tuple(keys.shape)}"
            )
        rows = {row.numpy().tobytes(): k for k, row in enumerate(keys)}
        new = {key: k for key, k in rows.items() if key not in self._places}
        if new:
            self._add(list(new), logits[list(new.values())].float())

    def _add(self, keys: list[bytes], logits: torch.Tensor) -> None:
        start = len(self._places)
        self._places |= {key: start + k for k, key in enumerate(keys)}
        self._logits.append(logits)

    def _table(self) -> torch.Tensor:
        """All logits in one tensor, joined where new ones came."""
        if len(self._logits) > 1:
            self._logits = [torch.cat(self._logits)]
        return self._logits[0] if self._logits else torch.zeros(0, 0)


def _key(image: torch.Tensor) -> bytes:
    data = image.contiguous().numpy().tobytes()
    kind = f"{image.dtype} {tuple(image.shape)}".encode()
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES, key=kind[:64]).digest()
