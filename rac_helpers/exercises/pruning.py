"""Checks of chapter 04."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from rac_helpers import prune
from rac_helpers.exercises.hint import CORRECT, Hint, expect, match, run
from rac_helpers.rng import make_generator, scoped_seed

_SWAPPED = "kept and cut are swapped: True means kept, False means cut"
_LENGTH = "count from start: (step - start) / (end - start)"


def check_threshold_mask(mask: Callable[[Tensor, float], Tensor]) -> str:
    """Check ``mask(weights, sparsity)``: False for exactly the share of the smallest weights.

    Parameters
    ----------
    mask : callable
        Takes a float tensor of any shape and a share in ``[0, 1)``; returns a tensor of bools of
        the same shape, True = kept. Of n weights ``round(sparsity * n)`` are cut, those of the
        smallest size; among equals any will do.

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
    >>> check_threshold_mask(lambda weights, sparsity: weights >= weights.quantile(sparsity))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that cuts the most negative weights: ignore the sign
    """
    weights = torch.randn(8, 5, 3, 3, generator=make_generator(0)) - 0.3  # no two of one size
    for sparsity in (0.25, 0.6):
        kept = _mask_of(mask, weights, sparsity)
        _hint_at_choice(kept, weights, sparsity)
        _check_count(kept, sparsity)
        right = prune.layer_masks({"weights": weights.abs()}, sparsity)["weights"]
        expect(torch.equal(kept, right), "those of the smallest size in the whole tensor must go")
    _check_count(_mask_of(mask, weights, 0.0), 0.0, "; a sparsity of 0 cuts nothing")
    hundred = weights.flatten()[:100]
    _check_count(_mask_of(mask, hundred, 0.29), 0.29, "; 0.29 * 100 is a bit below 29: use round")
    tied = torch.tensor([0.5, -0.5, 0.5, 2.0, 0.1, -0.5, 0.5, 0.5, -3.0, 0.5])
    for sparsity in (0.3, 0.6):
        kept = _mask_of(mask, tied, sparsity)
        same = "; a threshold cannot tell weights of one size apart: choose by position among them"
        _check_count(kept, sparsity, same)
        smaller = tied[~kept].abs().max() <= tied[kept].abs().min()
        expect(bool(smaller), "a larger weight is cut while a smaller one is kept")
    return CORRECT


def check_after_step(
    make_after_step: Callable[[dict[str, Tensor]], Callable[[nn.Module, int], object]],
) -> str:
    """Check ``make_after_step(masks)``: it makes the function that keeps weights at zero.

    Parameters
    ----------
    make_after_step : callable
        Takes masks by the names of the weights, True = kept; returns a function
        ``after_step(model, step)``. As in ``train.fit``, that is called without gradients after
        each step of an optimizer, here SGD with momentum and weight decay.

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
    >>> check_after_step(lambda masks: lambda model, step: None)
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: after step 1 the weights that are cut are not zero: the \
optimizer has moved them, so set them to zero again
    """
    with scoped_seed(0):
        model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Linear(5, 3))
    inputs = torch.randn(16, 6, generator=make_generator(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.01)
    for _ in range(3):  # momentum gathers speed, also in the weights that are cut afterwards
        _update(model, optimizer, inputs)
    scores = prune.magnitude_scores(model)
    masks = prune.layer_masks({name: scores[name] for name in ("0.weight", "2.weight")}, 0.5)
    given = dict(masks)
    lent = dict(given)
    after_step = run(make_after_step, given)
    masks.apply_(model)
    for step in range(1, 7):
        _update(model, optimizer, inputs)
        intact = given.keys() == lent.keys() and all(given[n] is lent[n] for n in lent)
        expect(intact and prune.MaskSet(lent) == masks, "masks was changed: only read it")
        _check_step(after_step, model, masks, step=step)
    return CORRECT


def check_remaining(remaining: Callable[[int, float], float]) -> str:
    """Check ``remaining(k, p)``: how many of k parameters are left if the share p is cut.

    Parameters
    ----------
    remaining : callable
        Takes the number of parameters and the share to cut in ``[0, 1)``, returns the number left.

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
    >>> check_remaining(lambda k, p: k / (1 - p))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is more than there were: multiply by 1 - p (article A4 \
divides)
    """
    for k, p in [(576, 0.75), (9408, 0.125), (1000, 0.0)]:
        kept = 1 - p
        share, twice = "p is a share in [0, 1), not per cent", "multiply by 1 - p, subtract nothing"
        hints = {
            k / kept: "that is more than there were: multiply by 1 - p (article A4 divides)",
            k / kept - kept: f"{twice} (article A4 does both)",
            k / kept - 100 * kept: f"{twice} (article A4 does both)",
            p * k: "that is how many are cut: p is the share that goes",
            kept: "that is the share that is left; the number of parameters is asked for",
            k - p: "p is a share of k: p * k parameters go",
            k * (1 - p / 100): share,
            k * (100 - p): share,
            100 * kept * k: share,
            kept**2 * k: "multiply by 1 - p once",
        }
        match(f"remaining({k}, {p})", run(remaining, k, p), kept * k, hints)
    return CORRECT


def check_cubic(cubic: Callable[[int, int, int, float], float]) -> str:
    """Check ``cubic(step, start, end, final)``: the sparsity wanted after ``step`` steps.

    Equation 1 of Zhu and Gupta (2017), from sparsity 0 at ``start`` to ``final`` at ``end``.

    Parameters
    ----------
    cubic : callable
        Takes a step, the steps between which the sparsity rises, ``0 <= start < end``, and the
        last sparsity, in ``[0, 1)``; returns the sparsity. Before ``start`` it is 0, after ``end``
        it stays.

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
    >>> check_cubic(lambda step, start, end, final: final * (step - start) / (end - start))
    Traceback (most recent call last):
    rac_helpers.exercises.hint.Hint: that is a straight line: most should go early, while there \
is plenty to cut
    """
    for settings in [(200, 100, 500, 0.8), (3000, 1000, 10_000, 0.5), (500, 100, 500, 0.8)]:
        _match_cubic(cubic, *settings, hints=_cubic_hints(*settings))
    for step in (600, 5000, 100, 60, 0):
        late, formula = step > 500, 0.8 * (1 - (1 - (step - 100) / 400) ** 3)
        stays = "after end the sparsity stays at final" if late else "until start the sparsity is 0"
        hints = dict.fromkeys((formula, abs(formula), 0.0, 0.8, 1.0, -1.0), stays)
        _match_cubic(cubic, step, 100, 500, 0.8, hints=hints)
    return CORRECT


def _mask_of(mask: Callable, weights: Tensor, sparsity: float) -> Tensor:
    """Return the reader's mask, or raise a hint if it is none."""
    given, call = weights.clone(), f"mask(weights, {sparsity})"
    answer: Any = run(mask, given, sparsity)
    expect(torch.equal(given, weights), "weights was changed: make a mask, and cut nothing yet")
    if not isinstance(answer, Tensor):
        raise Hint(f"{call} must be a tensor of bools, got {type(answer).__name__}")
    wanted, got = tuple(weights.shape), tuple(answer.shape)
    expect(got == wanted, f"{call} must have the shape of the weights, {wanted}, got {got}")
    expect(answer.dtype == torch.bool, f"{call} must be a tensor of bools, got {answer.dtype}")
    return answer.detach().cpu()


def _hint_at_choice(kept: Tensor, weights: Tensor, sparsity: float) -> None:
    """Raise a hint if the mask is that of a typical mistake."""
    scores = {"size": weights.abs(), "large": -weights.abs(), "signed": weights}
    masks = prune.layer_masks(scores, sparsity)
    rows = [prune.layer_masks({"row": row.abs()}, sparsity)["row"] for row in weights]
    share = "that keeps the share that should go, as article A4's sample does"
    for answer, hint in [
        (~masks["size"], _SWAPPED),
        (prune.layer_masks(scores, 1 - sparsity)["size"], share),
        (masks["large"], "that cuts the largest weights: the smallest ones matter least"),
        (masks["signed"], "that cuts the most negative weights: ignore the sign"),
        (torch.stack(rows), "that cuts the same share of each filter: take the whole tensor"),
    ]:
        expect(not torch.equal(kept, answer), hint)


def _check_count(kept: Tensor, sparsity: float, hint: str = "") -> None:
    cut, wanted = int((~kept).sum()), round(sparsity * kept.numel())
    near = "off by one: " if abs(cut - wanted) == 1 else ""
    expect(
        cut == wanted, f"{near}of {kept.numel()} weights, {cut} are cut instead of {wanted}{hint}"
    )


def _update(model: nn.Module, optimizer: torch.optim.Optimizer, inputs: Tensor) -> None:
    optimizer.zero_grad()
    (model(inputs) - 1).square().mean().backward()
    optimizer.step()


def _check_step(after_step: Any, model: nn.Module, masks: prune.MaskSet, *, step: int) -> None:
    """Call the reader's function once, and look at what it did to each parameter."""
    own = dict(model.named_parameters())
    before = {name: (value.detach().clone(), value.grad.clone()) for name, value in own.items()}
    with torch.no_grad():
        run(after_step, model, step)
    after = dict(model.named_parameters())
    expect(
        after.keys() == own.keys() and all(after[name] is own[name] for name in own),
        "the parameters were replaced, but the optimizer holds the old ones: write into them, as "
        "with mul_ or copy_",
    )
    for name, value in own.items():
        weight, gradient = before[name]
        if name not in masks:
            expect(torch.equal(value, weight), f"{name!r} has no mask: leave it as it is")
            continue
        moved = value.grad is not None and not torch.equal(value.grad, gradient)
        _check_zeros(value.detach(), weight, masks[name], step=step, gradient_changed=moved)


def _check_zeros(
    after: Tensor, before: Tensor, mask: Tensor, *, step: int, gradient_changed: bool
) -> None:
    expect(bool(after[mask].any()), "kept weights are zero: True means kept, False means cut")
    why = "the optimizer has moved them, so set them to zero again"
    if gradient_changed:
        why = "momentum and weight decay move them without a gradient; set the weights to zero"
    zeros = not after[~mask].any()
    expect(zeros, f"after step {step} the weights that are cut are not zero: {why}")
    expect(torch.equal(after[mask], before[mask]), "kept weights were changed: leave them")


def _match_cubic(
    cubic: Callable, step: int, start: int, end: int, final: float, *, hints: dict[float, str]
) -> None:
    right = prune.CubicSchedule(final, start=start, end=end)(step)
    answer = run(cubic, step, start, end, final)
    match(f"cubic({step}, {start}, {end}, {final})", answer, right, hints)


def _cubic_hints(step: int, start: int, end: int, final: float) -> dict[float, str]:
    x = (step - start) / (end - start)
    right = final * (1 - (1 - x) ** 3)
    kept = "that is the share that is kept; the sparsity is the share that is cut"
    return {
        final * x: "that is a straight line: most should go early, while there is plenty to cut",
        final * (1 - (1 - x) ** 2): "that is the square; the cube is asked for",
        1 - right: kept,
        final * x**3: "that is slow at first and fast at the end; it should be the other way round",
        final * (1 - x) ** 3: "that is what is still missing: it falls from final to 0",
        1 - (1 - x) ** 3: "that rises to 1: final is missing",
        final * (1 - (1 - step / end) ** 3): _LENGTH,
        final * (1 - (1 - step / (end - start)) ** 3): _LENGTH,
        final * (1 - (1 - (step - start) / end) ** 3): _LENGTH,
        1 - (1 - final) ** x: "that cuts the same share of what is left; the cube is asked for",
        100 * right: "that is in per cent; a fraction is asked for",
    }
