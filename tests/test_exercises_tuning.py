"""The checks of chapter 09 accept right answers in several styles and reject typical mistakes."""

import math

import numpy as np
import torch

from rac_helpers import tune

# -- clipping -------------------------------------------------------------------------------------


def right_clip(gradients, max_norm, *, factor=lambda norm, bound: bound / max(bound, norm)):
    norm = math.sqrt(sum(g.square().sum().item() for g in gradients))
    return [factor(norm, max_norm) * g for g in gradients]


def clip_with_torch(gradients, max_norm):
    weights = [torch.nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for weight, gradient in zip(weights, gradients, strict=True):
        weight.grad = gradient.clone()
    torch.nn.utils.clip_grad_norm_(weights, max_norm)
    return [weight.grad for weight in weights]


def clip_by_norm_of_norms(gradients, max_norm):
    norm = torch.stack([g.norm() for g in gradients]).norm()
    return tuple(g * (max_norm / norm).clamp(max=1) for g in gradients)


def _clip(norm_of):
    """Answer with another norm."""

    def clip(gradients, max_norm):
        whole = torch.cat([g.flatten() for g in gradients])
        return [min(1.0, max_norm / norm_of(whole).item()) * g for g in gradients]

    return clip


def _quotient(norm, bound):
    return min(1.0, bound / norm)


def _clip_of_unit(gradients, max_norm):
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    return [g / norm * norm.clamp(max=max_norm) for g in gradients]


def _in_place(gradients, max_norm):
    clipped = right_clip(gradients, max_norm)
    for gradient, new in zip(gradients, clipped, strict=True):
        gradient.copy_(new)
    return gradients


def _one_norm_each(gradients, max_norm):
    return [min(1.0, max_norm / g.norm().item()) * g for g in gradients]


# -- early stopping -------------------------------------------------------------------------------


def right_stop(accuracies, patience):
    best, best_epoch = -1.0, 0
    for epoch, accuracy in enumerate(accuracies, start=1):
        if accuracy > best:
            best, best_epoch = accuracy, epoch
        if epoch - best_epoch >= patience:
            return epoch
    return len(accuracies)


def stop_by_slices(accuracies, patience):
    for epoch in range(patience + 1, len(accuracies) + 1):
        before, last = accuracies[: epoch - patience], accuracies[epoch - patience : epoch]
        if max(last) <= max(before):
            return epoch
    return len(accuracies)


def _stop(better, *, late=0, reset=True, to_last=False):
    """Answer by a mistaken rule."""

    def stop_epoch(accuracies, patience):
        best, waited = -1.0, 0
        for epoch, accuracy in enumerate(accuracies, start=1):
            if better(accuracy, best):
                best, waited = accuracy, 0 if reset else waited
            else:
                waited += 1
            if to_last:
                best = accuracy
            if waited >= patience + late:
                return epoch
        return len(accuracies)

    return stop_epoch


def _higher(new, old):
    return new > old


def _best_seen(accuracies, patience):
    seen = accuracies[: right_stop(accuracies, patience)]
    return 1 + seen.index(max(seen))


# -- values and places ----------------------------------------------------------------------------


def right_uniform(low, high, u):
    return torch.exp(math.log(low) + u * (math.log(high) - math.log(low)))


def right_choice(lrs, losses):
    return lrs[losses.index(min(losses))] / 10


def right_halve(scores, factor):
    order = sorted(range(len(scores)), key=lambda place: scores[place], reverse=True)
    return order[: len(scores) // factor]


def _halve(pick):
    """Answer with another part of the places, the best first."""
    return lambda scores, factor: pick(right_halve(scores, 1), len(scores) // factor)


RIGHT = {
    "clip": [right_clip, clip_with_torch, clip_by_norm_of_norms],
    "stop_epoch": [right_stop, stop_by_slices, _stop(_higher)],
    "log_uniform": [
        right_uniform,
        lambda low, high, u: low * (high / low) ** u,
        lambda low, high, u: 10 ** (math.log10(low) + u * math.log10(high / low)),
        lambda low, high, u: low ** (1 - u.double()) * high**u,
    ],
    "choose_lr": [
        right_choice,
        lambda lrs, losses: 0.1 * lrs[int(np.argmin(losses))],
        lambda lrs, losses: tune.suggest_lr(tune.LrRange(lrs, losses, losses, True)),
    ],
    "halve": [
        right_halve,
        lambda scores, factor: tune.best_of(scores, len(scores) // factor),
        lambda scores, factor: set(right_halve(scores, factor)),
        lambda scores, factor: torch.tensor(scores).topk(len(scores) // factor).indices,
        lambda scores, factor: np.argsort(scores)[::-1][: len(scores) // factor],
    ],
}

WRONG = {
    "clip": [
        (lambda g, m: right_clip(g, m, factor=lambda norm, bound: bound / norm), "makes short"),
        (lambda g, m: [one.clamp(-m, m) for one in g], "cuts each entry"),
        (_one_norm_each, "not one for each"),
        (lambda g, m: [one.clone() for one in g], "nothing is shorter"),
        (lambda g, m: right_clip(g, m, factor=lambda norm, bound: 1 / norm), "length 1"),
        (_clip(lambda whole: whole.square().sum()), "root of the sum of squares is missing"),
        (_clip(lambda whole: whole.abs().sum()), "adds up sizes"),
        (_clip(lambda whole: whole.abs().max()), "largest entry"),
        (lambda g, m: right_clip(g, m, factor=lambda norm, bound: norm / bound), "upside down"),
        (_in_place, "gradients were changed"),
        (lambda g, m: right_clip(g, m, factor=_quotient), "raised ZeroDivisionError"),
        (_clip_of_unit, "must be zeros, got nan"),
        (lambda g, m: [-one for one in right_clip(g, m)], "is right"),
        (lambda g, m: right_clip(g, m)[0], "list of 2 tensors, got Tensor"),
        (lambda g, m: right_clip(g, m)[:1], "list of 2 tensors"),
        (lambda g, m: [one.flatten()[:1] for one in g], "must have the shape"),
        (lambda g: g, "raised TypeError"),
    ],
    "stop_epoch": [
        (_stop(lambda new, old: new >= old), "equal accuracy is not better"),
        (lambda a, p: 1 + a.index(max(a)), "best of all epochs"),
        (_best_seen, "not the last one that is trained"),
        (_stop(_higher, to_last=True), "not with the one before"),
        (_stop(_higher, reset=False), "begins the count anew"),
        (lambda a, p: right_stop(a, p) - 1, "count from 1"),
        (_stop(_higher, late=1), "one epoch too late"),
        (lambda a, p: len(a), "never stops"),
        (lambda a, p: a[right_stop(a, p) - 1], "too small"),
        (lambda a, p: [right_stop(a, p)], "must be a number"),
        (lambda a: a, "raised TypeError"),
    ],
    "log_uniform": [
        (lambda low, high, u: low + u * (high - low), "not their logarithms"),
        (lambda low, high, u: right_uniform(low, high, u).log(), "exp brings"),
        (lambda low, high, u: right_uniform(low, high, u).log10(), "to base 10: 10 to"),
        (lambda low, high, u: 10 ** right_uniform(low, high, u).log(), "goes back by exp"),
        (lambda low, high, u: right_uniform(low, high, u).log10().exp(), "powers of 10, not"),
        (lambda low, high, u: right_uniform(high, low, u), "are exchanged"),
        (lambda low, high, u: low * high**u, "ratio of high to low"),
        (lambda low, high, u: (high / low) ** u, "low is missing"),
        (lambda low, high, u: right_uniform(low, high, u**2), "look there"),
        (lambda low, high, u: right_uniform(low, high, u)[:2], "must have the shape"),
        (lambda low, high, u: right_uniform(low, high, u).tolist(), "got list"),
        (lambda low, high: low, "raised TypeError"),
    ],
    "choose_lr": [
        (lambda lrs, losses: 10 * right_choice(lrs, losses), "about to be too high"),
        (lambda lrs, losses: 5 * right_choice(lrs, losses), "not half"),
        (lambda lrs, losses: 100 * right_choice(lrs, losses), "not ten times"),
        (lambda lrs, losses: min(losses), "lowest loss: at which"),
        (lambda lrs, losses: min(losses) / 10, "tenth of the loss"),
        (lambda lrs, losses: losses.index(min(losses)), "place in the list"),
        (lambda lrs, losses: lrs[-1] / 10, "that broke it"),
        (lambda lrs, losses: lrs[0] / 10, "too small"),
        (lambda lrs, losses: lrs[1 + int(np.argmin(np.diff(losses))) - 1], "falls fastest"),
        (lambda lrs, losses: 3 * right_choice(lrs, losses), "too large"),
        (lambda lrs, losses: lrs, "must be a number"),
        (lambda lrs: lrs, "raised TypeError"),
    ],
    "halve": [
        (lambda s, f: [s[place] for place in right_halve(s, f)], "these are scores"),
        (_halve(lambda order, keep: order[-keep:]), "these are the worst"),
        (_halve(lambda order, keep: list(range(keep))), "these are the first"),
        (_halve(lambda order, keep: [*order[: keep - 1], order[keep]]), "left out"),
        (_halve(lambda order, keep: order[: len(order) - keep]), "should stay"),
        (_halve(lambda order, keep: order[keep:]), "should stay"),
        (lambda s, f: right_halve(s, 1)[: math.ceil(len(s) / f)], "round down"),
        (_halve(lambda order, keep: order[:1]), "must be 2 places"),
        (_halve(lambda order, keep: [place + 1 for place in order[:keep]]), "left out|count from"),
        (_halve(lambda order, keep: order[:1] * keep), "a place twice"),
        (_halve(lambda order, keep: [float(place) for place in order[:keep]]), "integers only"),
        (_halve(lambda order, keep: order[0]), "list of places, got int"),
        (lambda s: s, "raised TypeError"),
    ],
}

OTHER = [None, [1.0], [[1], [2]], "ab", {"a": 1}, {1, 2}, True, 1j, float("nan"), 10**400, float]
OTHER += [torch.ones(3), np.ones((2, 2)), torch.tensor(True), (None, None), (1, torch.ones(2))]
OTHER += [torch.ones(4, 3), torch.tensor(1j), torch.tensor(float("nan"))]


def test_log_uniform_is_what_a_space_does():
    u = torch.rand(20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    parameter = tune.Real(0.003, 2, log=True)
    values = [parameter.value(unit) for unit in u.tolist()]
    torch.testing.assert_close(right_uniform(0.003, 2.0, u).tolist(), values)


def test_early_stopping_is_that_of_fit():
    """The rule of the exercise and that of the training loop, on many curves."""
    from rac_helpers.train.loop import _is_stale

    generator = torch.Generator().manual_seed(1)
    for _ in range(50):
        accuracies = (torch.randint(10, (12,), generator=generator) / 10).tolist()
        history = []
        for epoch, accuracy in enumerate(accuracies, start=1):
            if _is_stale(history, 3):
                break
            history.append({"epoch": epoch, "val_accuracy": accuracy, "val_loss": 0.0})
        assert len(history) == right_stop(accuracies, 3)
