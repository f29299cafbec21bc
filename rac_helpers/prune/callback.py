"""Pruning during training: cut a little, train on, cut more.

``train.fit`` calls ``after_step(model, step)`` after each update of the weights. A
:class:`Pruner` does two things there. It puts the zeros back, which the update has filled: by
the gradient, by momentum. And where its schedule asks for more sparsity, it cuts more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from rac_helpers._check import check_int
from rac_helpers.metrics.score import device_of
from rac_helpers.prune.builders import check_sparsity, global_masks
from rac_helpers.prune.masks import MaskSet, check_masks, nonzero_masks
from rac_helpers.prune.schedule import Schedule, check_schedule
from rac_helpers.prune.scores import Scores, check_scores, magnitude_scores

_BY_CHANCE = 1e-4  # torch.randn draws an exact zero now and then; far fewer than anyone prunes
_SUFFIX = "_mask"  # as in torch.nn.utils.prune: the mask of fc.weight is fc.weight_mask


@dataclass(frozen=True)
class Pruner:
    """Prunes a model while it is trained, as ``after_step`` of :func:`rac_helpers.train.fit`.

    Call ``attach_`` before training and ``detach_`` after it. In between, the masks are
    buffers of the model. So they move with it to another device, and they are in the checkpoint:
    a training that was killed goes on with the same masks.

    What is cut stays cut. A schedule that falls, or scores that change their mind, bring no
    weight back.

    Parameters
    ----------
    schedule : callable
        ``schedule(step)`` is the sparsity wanted after ``step`` steps, in ``[0, 1)``, such as
        :class:`CubicSchedule`. Cuts happen after the steps at which it rises. Let the last one
        come well before the end of training, and train without ``patience``: that would bring
        back the best weights, which are often those before the last cut.
    score : callable
        ``score(model)`` returns scores by the names of the weights; higher is more worth keeping.
        Layers without scores are not pruned. Called at ``attach_`` and at each cut. Let it
        depend on the model alone: a generator that goes on from call to call is in no checkpoint.
    choose : callable
        ``choose(scores, sparsity)`` returns a :class:`MaskSet`, such as :func:`global_masks`.
        Weights that are cut already have the score ``-inf``, so they come first.

    Raises
    ------
    TypeError
        If an argument is not callable.

    References
    ----------
    Zhu and Gupta, 2017. To prune, or not to prune: exploring the efficacy of pruning for model
    compression, section 3.

    Examples
    --------
    >>> from rac_helpers.prune.schedule import StepSchedule
    >>> model = nn.Linear(4, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    >>> pruner = Pruner(StepSchedule([(2, 0.5), (3, 0.75)]))
    >>> pruner.attach_(model)
    >>> for step in (1, 2, 3, 4):
    ...     model(torch.ones(8, 4)).square().mean().backward()
    ...     optimizer.step()  # fills the zeros
    ...     pruner(model, step)
    ...     print(step, int((model.weight == 0).sum()))
    1 0
    2 2
    3 3
    4 3
    >>> pruner.detach_(model)
    MaskSet: 1 layers, 75.0% of 4 weights cut
    """

    schedule: Schedule
    score: Callable[[nn.Module], Scores] = magnitude_scores
    choose: Callable[[Scores, float], MaskSet] = global_masks

    def __post_init__(self) -> None:
        check_schedule(self.schedule)
        for name in ("score", "choose"):
            if not callable(getattr(self, name)):
                raise TypeError(f"{name} must be callable, got {getattr(self, name)!r}")

    def attach_(self, model: nn.Module, masks: MaskSet | None = None) -> None:
        """Put masks into the model, as buffers, and cut what the schedule wants at step 0.

        Parameters
        ----------
        model : nn.Module
            With plain weights. Do the same to a model that goes on from a checkpoint.
        masks : MaskSet, optional
            What is cut already. ``None``: nothing is.

        Raises
        ------
        TypeError, ValueError
            If the model holds masks already, or zeros that no ``masks`` were given for (more than
            one in 10,000: a few come by chance), or if masks, scores or schedule do not fit. The
            model is not touched then.
        """
        if _buffers(model):
            raise ValueError("model holds masks of a Pruner already; call detach_ first")
        scores = self._scores(model)
        start = keep_all(scores)
        start.check(model)
        if masks is None:
            _check_no_zeros(model)
        else:
            check_masks(masks).check(model)
            start = start & masks.to(device_of(model))
        start = cut_more(start, scores, self._wanted(0), choose=self.choose)
        for name, mask in start.items():
            owner, _, own_name = name.rpartition(".")
            device = model.get_parameter(name).device
            model.get_submodule(owner).register_buffer(own_name + _SUFFIX, mask.to(device))
        start.apply_(model)

    def __call__(self, model: nn.Module, step: int) -> None:
        """Put the zeros back; cut more if the schedule rises at this step.

        Parameters
        ----------
        model : nn.Module
            After ``attach_``.
        step : int
            How many steps are done, at least 1.

        Raises
        ------
        ValueError
            If the model holds no masks.
        """
        check_int("step", step, low=1)
        masks = self.masks(model)
        masks.apply_(model)
        before, now = self._wanted(step - 1), self._wanted(step)
        if now > before:
            masks = cut_more(masks, self._scores(model), now, choose=self.choose)
            for name, buffer in _buffers(model).items():
                buffer.copy_(masks[name])
            masks.apply_(model)

    def masks(self, model: nn.Module) -> MaskSet:
        """Return the masks that the model holds now.

        Raises
        ------
        ValueError
            If it holds none.
        """
        buffers = _buffers(model)
        if not buffers:
            raise ValueError("model holds no masks of a Pruner; call attach_ first")
        return MaskSet(buffers)

    def detach_(self, model: nn.Module) -> MaskSet:
        """Take the masks out of the model and return them; the zeros stay in the weights.

        Raises
        ------
        ValueError
            If the model holds no masks.
        """
        masks = self.masks(model)
        for name in masks:
            owner, _, own_name = name.rpartition(".")
            delattr(model.get_submodule(owner), own_name + _SUFFIX)
        return masks

    def _wanted(self, step: int) -> float:
        return check_sparsity("what schedule returns", self.schedule(step))

    def _scores(self, model: nn.Module) -> Scores:
        with torch.enable_grad():  # after_step is called without, but some scores are gradients
            return self.score(model)


def keep_all(scores: Scores) -> MaskSet:
    """Return the masks of a dense model: all that has a score is kept.

    Examples
    --------
    >>> keep_all({"weight": torch.tensor([0.5, 2.0])})["weight"]
    tensor([True, True])
    """
    check_scores(scores)
    return MaskSet({name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()})


def cut_more(
    masks: MaskSet, scores: Scores, sparsity: float, *, choose: Callable[[Scores, float], MaskSet]
) -> MaskSet:
    """Choose masks of a higher sparsity that cut all that ``masks`` cut.

    What is cut already goes first, whatever its score, so the number of zeros is still exact.

    Examples
    --------
    >>> masks = MaskSet({"weight": torch.tensor([True, True, False, True])})
    >>> scores = {"weight": torch.tensor([1.0, 2.0, 9.0, 3.0])}
    >>> cut_more(masks, scores, 0.5, choose=global_masks)["weight"]
    tensor([False,  True, False,  True])
    """
    lowest = {name: torch.finfo(s.dtype).min for name, s in check_scores(scores).items()}
    ranked = {
        name: s.clamp(min=lowest[name]).masked_fill(~masks[name], -torch.inf)
        for name, s in scores.items()
    }
    return masks & choose(ranked, sparsity)


def _buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """The masks in the model, by the names of the weights they belong to."""
    buffers, parameters = dict(model.named_buffers()), dict(model.named_parameters())
    return {name: buffers[name + _SUFFIX] for name in parameters if name + _SUFFIX in buffers}


def _check_no_zeros(model: nn.Module) -> None:
    """Raise if a model looks pruned: training would fill zeros that nobody holds."""
    masks = nonzero_masks(model)
    if masks.sparsity > _BY_CHANCE:
        raise ValueError(
            f"model holds zeros already ({masks}), which would grow again; "
            "give masks=nonzero_masks(model) to keep them"
        )
