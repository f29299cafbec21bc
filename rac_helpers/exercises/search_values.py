"""Checks of chapter 08: the loss of REINFORCE, and expected improvement."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rac_helpers.exercises.hint import CORRECT, Hint, expect, match, run
from rac_helpers.nas.bayesian import expected_improvement
from rac_helpers.nas.reinforce import reinforce_loss
from rac_helpers.rng import make_generator


def check_reinforce_loss(loss: Callable[[Tensor, int, float, float], Tensor]) -> str:
    """Check ``reinforce_loss(logits, action, reward, baseline)`` and its gradient.

    Parameters
    ----------
    loss : callable
        Takes floats ``(num_actions,)``, the action that was drawn from their softmax, its reward
        and the baseline; returns a scalar tensor for ``backward``.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    Examples
    --------
    >>> def reinforce_loss(logits, action, reward, baseline):
    ...     return -(reward - baseline) * logits.log_softmax(0).sum()
    >>> check_reinforce_loss(reinforce_loss)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: those are all actions, as in the article: only the one that \
was drawn counts
    """
    generator = make_generator(0)
    cases = [(3, 2, 0.9, 0.6), (2, 0, 0.2, 0.5), (4, 1, 0.7, 0.0), (3, 0, 0.45, -0.2)]
    for actions, action, reward, baseline in cases:
        logits = torch.randn(actions, generator=generator)
        _check_loss(loss, logits, action, reward, baseline)
    return CORRECT


def check_expected_improvement(improvement: Callable[[float, float, float], float]) -> str:
    """Check ``expected_improvement(mean, std, best)`` of one normal score; higher is better.

    Parameters
    ----------
    improvement : callable
        Takes the predicted mean, its standard deviation (at least 0) and the best score so far;
        returns the mean of ``max(score - best, 0)``.

    Returns
    -------
    str
        :data:`~rac_helpers.exercises.hint.CORRECT`.

    Raises
    ------
    Hint
        If the answer is wrong.

    Examples
    --------
    >>> check_expected_improvement(lambda mean, std, best: max(mean - best, 0))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that ignores the spread: a lower mean may still turn out \
better than the best
    """
    for mean, std, best in [(0.7, 0.2, 0.85), (0.8, 0.1, 0.73), (1.3, 0.4, 1.1), (0.2, 1.5, 0.9)]:
        call = f"expected_improvement({mean}, {std}, {best})"
        right = _improvement(mean, std, best)
        match(call, run(improvement, mean, std, best), right, _improvement_hints(mean, std, best))
    for mean, best in [(0.8, 0.7), (0.6, 0.7), (0.7, 0.7)]:
        call = f"expected_improvement({mean}, 0.0, {best})"
        right = max(mean - best, 0.0)
        hint = "without spread the score is the mean: no improvement if that is below the best"
        wrong = {value: hint for value in (mean - best, 0.0, best - mean) if value != right}
        match(call, _sure(improvement, call, mean, best), right, wrong)
    return CORRECT


# -- the loss -------------------------------------------------------------------------------------


def _check_loss(loss: Callable, logits: Tensor, *rest: Any) -> None:
    action, reward, baseline = rest
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    taken = ours.log_softmax(0)[action][None]
    right = reinforce_loss(taken, torch.tensor([reward]), baseline)
    call = f"reinforce_loss(logits, {action}, {reward}, {baseline})"
    with torch.enable_grad():
        answer = run(loss, theirs, action, reward, baseline)
    expect(torch.equal(theirs.detach(), logits), "the logits were changed: make a new tensor")
    expect(
        isinstance(answer, Tensor) and answer.is_floating_point(),
        f"{call} must be a tensor that backward can start from, got {type(answer).__name__}",
    )
    shape = tuple(answer.shape)
    one = "one number, of the action that was drawn"
    expect(shape == (), f"{call} must be a scalar: {one}, got shape {shape}")
    _hint_at_loss(answer.item(), right.item(), logits, *rest)
    lost = "no gradient reaches the logits: no item, detach or no_grad, and no new tensor"
    expect(answer.requires_grad, lost)
    [found] = torch.autograd.grad(answer, theirs, allow_unused=True)
    expect(found is not None, lost)
    [wanted] = torch.autograd.grad(right, ours)
    expect(torch.allclose(found, wanted, atol=1e-5), f"{call} is right, but has a wrong gradient")


def _hint_at_loss(answer: float, right: float, logits: Tensor, *rest: Any) -> None:
    if _same(answer, right):
        return
    for hint, wrong in _loss_mistakes(logits, *rest).items():
        expect(not _same(answer, wrong), hint)
    size = "large" if answer > right else "small"
    raise Hint(f"the loss is {answer:.4g}, which is too {size}")


def _loss_mistakes(logits: Tensor, action: int, reward: float, baseline: float) -> dict[str, float]:
    log_p = logits.log_softmax(0)
    taken, gain = float(log_p[action]), reward - baseline
    everything, mean = float(log_p.sum()), float(log_p.mean())
    return {
        "wrong sign: a step downhill must make a good action more likely": gain * taken,
        "those are all actions, as in the article: only the one that was drawn counts": -gain
        * everything,
        "those are all actions, and the baseline is missing": -reward * everything,
        "that is the mean over all actions: only the one that was drawn counts": -gain * mean,
        "the baseline is missing: every action with a positive reward would be pushed up": -reward
        * taken,
        "take the baseline off the reward, do not add it": -(reward + baseline) * taken,
        "reward and baseline are swapped": gain * taken,
        "the logarithm is missing": -gain * math.exp(taken),
        "the reward is missing: this makes every action more likely that was drawn": -taken,
        "log_softmax is missing: logits are no log-probabilities": -gain * float(logits[action]),
        "that is the most likely action: the one that was drawn counts": -gain * float(log_p.max()),
        "softmax was taken twice": -gain * float(log_p.exp().log_softmax(0)[action]),
        "the difference must not be squared: its sign says which way": -(gain**2) * taken,
        "the baseline belongs to the reward, before it is multiplied": -reward * taken - baseline,
    }


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6)


# -- expected improvement -------------------------------------------------------------------------


def _improvement(mean: float, std: float, best: float) -> float:
    as_tensors = (torch.tensor(value, dtype=torch.float64) for value in (mean, std))
    return float(expected_improvement(*as_tensors, best))


def _sure(improvement: Callable, call: str, mean: float, best: float) -> Any:
    """Call with a spread of 0, where a division is a typical mistake."""
    try:
        answer = run(improvement, mean, 0.0, best)
    except Hint as error:
        if "ZeroDivisionError" in str(error):
            raise Hint(f"{call} divides by 0: without spread the score is the mean") from error
        raise
    nan = isinstance(answer, float) and math.isnan(answer)
    expect(not nan, f"{call} is 0 / 0, not a number: without spread the score is the mean")
    return answer


def _improvement_hints(mean: float, std: float, best: float) -> dict[float, str]:
    gain = mean - best
    z = gain / std
    below, density = _below(z), _density(z)
    raw = gain * _below(gain) + std * _density(gain)
    return {
        max(gain, 0.0): "that ignores the spread: a lower mean may still turn out better than "
        "the best",
        gain: "that is the difference of the means: it ignores the spread, and may be negative",
        below: "that is the probability of an improvement, not how large it is",
        mean + std: "that is the upper confidence bound: the best so far is missing",
        gain * below: "the second part, std times the density, is missing",
        std * density: "the first part, (mean - best) times the probability, is missing",
        gain * below + density: "the density must be multiplied by std",
        gain * below - std * density: "both parts are added",
        -gain * _below(-z) + std * density: "that is how far it falls below the best: higher is "
        "better here",
        raw: "z is the difference divided by std",
        gain * density + std * below: "density and probability are swapped",
        gain * (1 - below) + std * density: "the probability of exceeding the best is Phi(z), "
        "not 1 - Phi(z)",
        _improvement(mean, std**2, best): "std is the standard deviation already: no square",
        _improvement(mean, std**0.5, best): "std is the standard deviation already: no root",
        mean * below + std * density: "the best so far must be taken off the mean",
    }


def _below(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def _density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
