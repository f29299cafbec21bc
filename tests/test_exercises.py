"""Each check accepts a right answer and rejects a list of typical wrong ones."""

import itertools
import random
import statistics

import numpy as np
import pytest
import torch
from test_exercises_distillation import RIGHT as DISTILLATION
from test_exercises_lowrank import RIGHT as LOWRANK
from test_exercises_quantization import RIGHT as QUANTIZATION
from test_exercises_search import RIGHT as SEARCH
from test_exercises_tuning import RIGHT as TUNING

from rac_helpers import corrupt, exercises
from rac_helpers.augment import OPS, apply_ops, draw_ops
from rac_helpers.exercises import Hint


def right_factor(magnitude, sign):
    return 1 + sign * 0.9 * magnitude / 30


def right_draw(num_ops, generator):
    return [OPS[int(torch.randint(14, (), generator=generator))] for _ in range(num_ops)]


def right_batch(images, generator):
    return torch.stack([apply_ops(x, draw_ops(2, 9, generator=generator)) for x in images])


def right_probability(num_ops):
    new = 1.0
    for drawn in range(num_ops):
        new *= (14 - drawn) / 14
    return 1 - new


def right_convert(magnitude):
    if not 0 <= magnitude <= 10 or 3 * magnitude != int(3 * magnitude):
        raise ValueError(magnitude)
    return int(3 * magnitude)


def right_macs(c_in, c_out, kernel, side_out, groups):
    return c_out * c_in // groups * kernel**2 * side_out**2


def right_ratio(num_weights, zero_share, bits):
    return 32 * num_weights / (num_weights * (1 - zero_share) * bits + num_weights)


def right_latency(times_ms, warmup):
    return statistics.median(times_ms[warmup:])


def right_error(accuracy, num_images):
    return (accuracy * (1 - accuracy) / num_images) ** 0.5


def _sort_in_place(times_ms, warmup):
    del times_ms[:warmup]
    times_ms.sort()
    return statistics.median(times_ms)


def _in_place(images, generator):
    images.copy_(right_batch(images, generator))
    return images


def _same_for_all(images, generator):
    return apply_ops(images, draw_ops(2, 9, generator=generator))


def _two_halves(images, generator):
    return torch.cat([_same_for_all(half, generator) for half in images.chunk(2)])


def _unseeded(num_ops, generator):
    return [random.choice(OPS) for _ in range(num_ops)]


def _then(function, calls, late):
    """Answer as ``function`` for some calls (of one check), and then with ``late()``."""
    count = itertools.count()
    return lambda *args: function(*args) if next(count) < calls else late()


def _weighted(num_ops, generator):
    index = torch.randint(20, (num_ops,), generator=generator).clamp(max=13)
    return [OPS[i] for i in index]


CASES = {
    "enhance_factor": (
        right_factor,
        [
            (lambda m, s: s * 0.9 * m / 30, "factor 1"),  # forgets the 1
            (lambda m, s: 1 + s * 0.9 * m / 31, "number 30"),  # 31 bins, but the last is 30
            (lambda m, s: 1 + 0.9 * m / 30, "other way"),  # ignores the sign
            (lambda m, s: 0.18 * m / 3 + 0.1, "factor 1"),  # the released code's formula
            (lambda m, s: 1 + s * 0.9 * (m / 30) ** 2, "straight line"),
            (lambda m, s: "1.0", "must be a number, got str"),
            (lambda m: 1.0, "raised TypeError"),
            (1.0, "must be a function"),
        ],
    ),
    "draw_names": (
        right_draw,
        [
            (lambda n, g: random.Random(0).sample(OPS, n), "draws are the same"),
            (_unseeded, "use the generator"),
            (
                lambda n, g: [OPS[i] for i in torch.randperm(14, generator=g)[:n]],
                "with replacement",
            ),
            (lambda n, g: right_draw(1, g) * n, "too often"),
            (lambda n, g: right_draw(2, g), "list of 0 names"),
            (lambda n, g: tuple(right_draw(n, g)), "list of 0 names"),
            (_weighted, "not uniform"),
            (
                lambda n, g: [OPS[int(torch.randint(13, (), generator=g))] for _ in range(n)],
                "never came",
            ),
            (lambda n, g: ["Blur"] * n, "only names from OPS"),
            (lambda n, g: [["Rotate"]] * n, "only names from OPS"),
            (lambda n, g: [None, 1, "Blur"][:n], "only names from OPS"),
            (_then(right_draw, 5, lambda: None), "list of 3 names, got None"),
        ],
    ),
    "augment_batch": (
        right_batch,
        [
            (_same_for_all, "once per image"),
            (_in_place, "written to"),
            (_two_halves, "for every image"),
            (lambda x, g: right_batch(x, g).float() / 255, "must be uint8"),
            (lambda x, g: right_batch(x, g)[0], "must be a tensor of shape"),
            (lambda x, g: list(right_batch(x, g)), "must be a tensor of shape"),
            (lambda x, g: right_batch(x, g).numpy(), "tensor of shape .*, got ndarray"),
            (_then(right_batch, 1, lambda: None), "tensor of shape .*, got NoneType"),
            (_then(right_batch, 1, lambda: torch.zeros(48, 3, 16, 16)), "must be uint8"),
            (
                lambda x, g: right_batch(x, torch.Generator().manual_seed(torch.seed() % 999)),
                "seed",
            ),
        ],
    ),
    "repeat_probability": (
        right_probability,
        [
            (lambda n: n / 14, "cannot repeat"),
            (lambda n: 0.0 if n == 1 else 1 / 14, "num_ops=3"),
            (lambda n: (n - 1) / 14, "num_ops=3"),
            (lambda n: 0.0 if n == 1 else 1 / 14**n, "num_ops=2"),
            (lambda n: 0.0, "num_ops=2"),
            (lambda n: right_probability(n) if n < 14 else 0.5, "must repeat"),
        ],
    ),
    "to_torchvision": (
        right_convert,
        [
            (lambda m: m, "full strength"),
            (lambda m: 3 * m, "raise ValueError"),
            (lambda m: min(int(3 * m), 30), "raise ValueError"),
            (lambda m: m + 20 if m else 0, "12 degrees"),
            (lambda m: 3.0 * m, "integer"),
            (lambda m: torch.tensor(3.0 * m), "integer, got Tensor"),
            (lambda m: right_convert(m) if m in (0, 4, 10) else {}[m], "ValueError, not KeyError"),
            (lambda m: right_convert(m) if m in (0, 4, 10) else [m], r"ValueError, not \[14\]"),
            (lambda m: round(right_convert(m if m in (0, 4, 10) else 1)), "raise ValueError"),
        ],
    ),
}


CASES |= {
    "conv_macs": (
        right_macs,
        [
            (lambda i, o, k, s, g: o * i * k**2, "the parameters"),
            (lambda i, o, k, s, g: 2 * right_macs(i, o, k, s, g), "FLOPs"),
            (lambda i, o, k, s, g: o * i * k**2 * s, "output has two sides"),
            (lambda i, o, k, s, g: o * i * k * s**2, "kernel has two sides"),
            (lambda i, o, k, s, g: k * k, "channels are missing"),  # the article's product
            (lambda i, o, k, s, g: k * k * s**2, "channels are missing"),
            (lambda i, o, k, s, g: i * k**2 * s**2, "one output channel"),
            (lambda i, o, k, s, g: right_macs(i, o, k, s, 1), "c_in / groups"),
            (lambda i, o, k, s, g: right_macs(i, o, k, s, g) // g, "once"),
            (lambda i, o, k, s, g: right_macs(i, o, k, s, g) + o * s**2, "bias"),
            (lambda i, o, k, s, g: 7 * right_macs(i, o, k, s, g), "too large"),
            (lambda i, o, k, s, g: None, "must be a number"),
        ],
    ),
    "compression_ratio": (
        right_ratio,
        [
            (lambda n, z, b: 1 / right_ratio(n, z, b), "compressed / original"),  # article A3
            (lambda n, z, b: 100 / right_ratio(n, z, b), "per cent"),
            (lambda n, z, b: n / (n + n * z), "zeros twice"),  # article A4
            (lambda n, z, b: 100 * n / (n + n * z), "zeros twice"),
            (lambda n, z, b: 1 / (1 - z), "instead of 32"),
            (lambda n, z, b: 32 / b, "zeros are not stored"),
            (lambda n, z, b: 32 / ((1 - z) * b), "mask is missing"),
            (lambda n, z, b: 32 / ((1 - z) * (b + 1)), "not only the kept ones"),
            (lambda n, z, b: 32 / (z * b + 1), "weights that are not stored"),
            (lambda n, z, b: right_ratio(n, z, b) / 8, "same unit"),
            (lambda n, z, b: right_ratio(n, z, b) * 8, "same unit"),
            (lambda n, z, b: right_ratio(n, z, b) / n, "cancels"),
            (lambda n, z, b: n / (n - n * z) * 2, "too"),
        ],
    ),
    "typical_latency": (
        right_latency,
        [
            (lambda t, w: sum(t) / len(t), "mean of all"),
            (lambda t, w: statistics.mean(t[w:]), "one slow run"),
            (lambda t, w: statistics.median(t), "median of all"),
            (lambda t, w: min(t[w:]), "fastest"),
            (lambda t, w: t[0], "first run"),
            (lambda t, w: t[w:][len(t[w:]) // 2], "sort"),
            (lambda t, w: statistics.median(sorted(t)[w:]), "before you sort"),
            (lambda t, w: statistics.median(sorted(t)[:-w]), "not the slowest"),
            (lambda t, w: statistics.median(t[w + 1 :]), "exactly the first"),
            (lambda t, w: statistics.median(t[w - 1 :]), "exactly the first"),
            (lambda t, w: sorted(t[w:])[len(t[w:]) // 2], "two in the middle"),
            (lambda t, w: statistics.median(t[-w or 0 :]), "too small"),
            (_sort_in_place, "was changed"),
        ],
    ),
    "standard_error": (
        right_error,
        [
            (lambda a, n: (a * (1 - a)) ** 0.5, "one image"),
            (lambda a, n: a * (1 - a) / n, "square root"),
            (lambda a, n: (a * (1 - a)) ** 0.5 / n, "not by num_images"),
            (lambda a, n: (a / n) ** 0.5, r"\(1 - accuracy\) is missing"),
            (lambda a, n: ((1 - a) / n) ** 0.5, "factor accuracy is missing"),
            (lambda a, n: n**-0.5, "depends on the accuracy"),
            (lambda a, n: 0.5 * n**-0.5, "largest it can be"),
            (lambda a, n: 100 * right_error(a, n), "percentage points"),
            (lambda a, n: 1.96 * right_error(a, n), "95 % interval"),
            (lambda a, n: right_error(min(a, 0.99), n), "too large"),
        ],
    ),
}


def right_difference(a, b, num_images):
    return ((a * (1 - a) + b * (1 - b)) / num_images) ** 0.5


def right_corrupted(rows):
    return rows[rows["corruption"].isin(corrupt.STANDARD)]["test_accuracy"].mean()


def right_choice(grid):
    return grid.groupby(["num_ops", "magnitude"])["val_accuracy"].mean().idxmax()


def right_flip(images, generator):
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


def _best(column, by=("num_ops", "magnitude")):
    return lambda grid: grid.groupby(list(by))[column].mean().idxmax()


def _best_row(grid):
    row = grid.loc[grid["val_accuracy"].idxmax()]
    return int(row["num_ops"]), int(row["magnitude"])


def _drop_column(grid):
    choice = right_choice(grid)
    del grid["test_accuracy"]
    return choice


def _scored(select, finish=lambda scores: scores.mean()):
    return lambda rows: finish(rows[select(rows)]["test_accuracy"])


def _standard(rows):
    return rows["corruption"].isin(corrupt.STANDARD)


def _overwrite(rows):
    mean = right_corrupted(rows)
    rows["test_accuracy"] = 0.0
    return mean


def _flip_in_place(images, generator):
    images.copy_(right_flip(images, generator))
    return images


def _flip_whole_batch(images, generator):
    return images.flip(-1) if torch.rand((), generator=generator) < 0.5 else images


def _flip_share(share):
    def flip(images, generator):
        mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < share
        return torch.where(mirrored, images.flip(-1), images)

    return flip


def _flip_each_row(images, generator):
    mirrored = torch.rand(*images.shape[:3], 1, generator=generator) < 0.5
    return torch.where(mirrored, images.flip(-1), images)


def _flip_halves(images, generator):
    order = torch.arange(len(images)).reshape(-1, 1, 1, 1)
    return torch.where(order < len(images) // 2, images.flip(-1), images)


def _flip_random_half(images, generator):
    result = images.clone()
    half = torch.randperm(len(images), generator=generator)[: len(images) // 2]
    result[half] = images[half].flip(-1)
    return result


def _unseeded_flip(images, generator):
    return right_flip(images, torch.Generator().manual_seed(random.randrange(2**32)))


def _flip_vertically(images, generator):
    mirrored = torch.rand(len(images), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, images.flip(-2), images)


CASES |= {
    "difference_error": (
        right_difference,
        [
            (lambda a, b, n: right_error(a, n), "of a alone"),
            (lambda a, b, n: right_error(b, n), "of b alone"),
            (lambda a, b, n: right_error(a, n) + right_error(b, n), "add the squares"),
            (lambda a, b, n: abs(right_error(a, n) - right_error(b, n)), "do not cancel"),
            (lambda a, b, n: abs(a * (1 - a) - b * (1 - b)) ** 0.5 / n**0.5, "do not cancel"),
            (lambda a, b, n: right_difference(a, b, n) ** 2, "square root"),
            (lambda a, b, n: right_difference(a, b, 2 * n), "do not halve"),
            (lambda a, b, n: right_error(abs(a - b), n), "no share of images"),
            (lambda a, b, n: 2**0.5 * right_error((a + b) / 2, n), "pooled"),
            (lambda a, b, n: right_difference(a, b, 1), "one pair of images"),
            (lambda a, b, n: right_difference(a, b, n * n), "under the root"),
            (lambda a, b, n: 100 * right_difference(a, b, n), "percentage points"),
            (lambda a, b, n: 1.96 * right_difference(a, b, n), "95 % interval"),
            (lambda a, b, n: (a - b) / right_difference(a, b, n), "in standard errors"),
            (lambda a, b, n: 3 * right_difference(a, b, n), "too large"),
            (lambda a, b: 0.0, "raised TypeError"),
        ],
    ),
    "corrupted_accuracy": (
        right_corrupted,
        [
            (lambda rows: rows["test_accuracy"].mean(), "mean of all rows"),
            (_scored(lambda rows: rows["corruption"].notna()), "all 19 kinds"),
            (_scored(lambda rows: _standard(rows) | rows["corruption"].isna()), "clean row"),
            (_scored(lambda rows: _standard(rows) & rows["severity"].eq(5)), "take all five"),
            (_scored(lambda rows: rows["severity"].eq(5)), "and of all 19 kinds"),
            (_scored(lambda rows: rows["corruption"].isin(corrupt.EXTRA)), "4 extra kinds"),
            (_scored(_standard, lambda scores: scores.median()), "median"),
            (_scored(_standard, lambda scores: scores.sum()), "that is the sum"),
            (_scored(_standard, lambda scores: scores.sum() / 15), "divide by the severities"),
            (_scored(_standard, lambda scores: scores.sum() / 95), "not 95"),
            (_scored(_standard, lambda scores: 1 - scores.mean()), "that is the error"),
            (_scored(_standard, lambda scores: 100 * scores.mean()), "per cent"),
            (_scored(_standard, lambda scores: scores.min()), "too small"),
            (_overwrite, "was changed"),
            (lambda rows: rows["accuracy"].mean(), "raised KeyError"),
        ],
    ),
    "choose_setting": (
        right_choice,
        [
            (_best("test_accuracy"), "no fair test left"),
            (_best("train_accuracy"), "favour weak augmentation"),
            (_best_row, "best single run"),
            (lambda g: right_choice(g[g["seed"] == 0]), "seed 0 alone"),
            (_best("val_accuracy", by=("magnitude", "num_ops")), "the order is"),
            (
                lambda g: g.groupby(["num_ops", "magnitude"])["val_accuracy"].mean().idxmin(),
                "worst",
            ),
            (lambda g: (3, 3), "not the best mean"),
            (lambda g: (2, 9, 0), "must be a pair"),
            (lambda g: (2.5, 9), "of integers"),
            (lambda g: right_choice(g)[0], "must be a pair"),
            (lambda g: ("2", "9"), "must be a number"),
            (_drop_column, "was changed"),
        ],
    ),
    "flip_batch": (
        right_flip,
        [
            (_flip_whole_batch, "once per image"),
            (_flip_in_place, "written to"),
            (lambda x, g: x.flip(-1), "all images were mirrored"),
            (lambda x, g: x.clone(), "no image was mirrored"),
            (_flip_vertically, "left to right"),
            (_flip_share(0.1), "probability 1/2"),
            (_flip_share(0.9), "probability 1/2"),
            (_flip_each_row, "neither the same nor mirrored"),
            (_flip_halves, "another seed mirrored the same"),
            (_flip_random_half, "always exactly half"),
            (_unseeded_flip, "the same seed gave other pixels"),
            (lambda x, g: right_flip(x, g) / 255, "must be uint8"),
            (lambda x, g: right_flip(x, g)[:5], "must be a tensor of shape"),
            (lambda x, g: list(right_flip(x, g)), "must be a tensor of shape"),
        ],
    ),
}


def right_mask(weights, sparsity):
    return _lowest(weights.abs(), round(sparsity * weights.numel()))


def right_after_step(masks):
    def after_step(model, step):
        for name, mask in masks.items():
            model.get_parameter(name).mul_(mask)

    return after_step


def right_remaining(k, p):
    return (1 - p) * k


def right_cubic(step, start, end, final):
    left = 1 - min(max(step - start, 0) / (end - start), 1)
    return final * (1 - left**3)


def _lowest(scores, count):
    """Keep all but the lowest."""
    kept = torch.ones(scores.numel(), dtype=torch.bool)
    kept[scores.flatten().argsort()[:count]] = False
    return kept.reshape(scores.shape)


def _cut_first(weights, sparsity):
    kept = right_mask(weights, sparsity)
    weights.mul_(kept)
    return kept


def _by_threshold(keep):
    """Sort, take the weight at the place of the sparsity as threshold, and compare."""

    def mask(weights, sparsity):
        sizes = weights.abs()
        place = round(sparsity * weights.numel())
        return keep(sizes, sizes.flatten().sort().values[place])

    return mask


def _topk(weights, sparsity):
    """E59: the threshold of the ``sparsity`` largest."""
    largest = weights.abs().flatten().topk(max(1, round(sparsity * weights.numel()))).values
    return weights.abs() >= largest[-1]


def _each_row(weights, sparsity):
    if weights.ndim < 2:
        return right_mask(weights, sparsity)
    return torch.stack([right_mask(row, sparsity) for row in weights])


def _without_zero(weights, sparsity):
    """``kthvalue`` counts from 1, so a sparsity of 0 needs a case of its own."""
    place = max(1, round(sparsity * weights.numel()))
    return weights.abs() > weights.abs().flatten().kthvalue(place).values


def _any_three(weights, sparsity):
    """Right without ties; with ties as many as asked for, but the wrong ones."""
    if len(weights) != 10:
        return right_mask(weights, sparsity)
    return torch.arange(10) >= round(sparsity * 10)


def _after(change, *, when=lambda step: True):
    """Make a maker of after_step that calls ``change(model, name, mask)``."""

    def make(masks):
        def after_step(model, step):
            for name, mask in masks.items():
                if when(step):
                    change(model, name, mask)

        return after_step

    return make


def _cut_weight(model, name, mask):
    model.get_parameter(name).mul_(mask)


def _cut_gradient(model, name, mask):
    model.get_parameter(name).grad.mul_(mask)


def _replace_parameter(model, name, mask):
    layer = model.get_submodule(name.removesuffix(".weight"))
    layer.weight = torch.nn.Parameter(layer.weight * mask)


def _dead_attribute(model, name, mask):
    """E60: sets ``model.__dict__["0.weight"]``, which no layer reads."""
    setattr(model, name, model.get_parameter(name) * mask)


def _scale_up(model, name, mask):
    model.get_parameter(name).mul_(mask / mask.float().mean())


def _cut_bias_too(model, name, mask):
    _cut_weight(model, name, mask)
    model.get_parameter(name.replace("weight", "bias")).zero_()


def _cut_last_layer_too(masks):
    def after_step(model, step):
        right_after_step(masks)(model, step)
        model[3].weight.clamp_(min=0)

    return after_step


def _forget_mask(masks):
    del masks["2.weight"]
    return right_after_step(masks)


def _invert_masks(masks):
    for mask in masks.values():
        mask.logical_not_()
    return _after(lambda model, name, mask: model.get_parameter(name).mul_(~mask))(masks)


def _grow_masks(masks):
    masks["3.bias"] = torch.ones(3, dtype=torch.bool)
    return right_after_step(masks)


def _way(step, start, end):
    return (step - start) / (end - start)


def _clamped(curve):
    """Answer as ``curve(x, final)`` between start and end, x in [0, 1], and clamp."""
    return lambda step, start, end, final: curve(min(max(_way(step, start, end), 0), 1), final)


CASES |= {
    "threshold_mask": (
        right_mask,
        [
            (lambda w, s: ~right_mask(w, s), "swapped"),
            (_topk, "keeps the share that should go"),  # E59
            (lambda w, s: right_mask(w, 1 - s), "keeps the share that should go"),
            (lambda w, s: _lowest(-w.abs(), round(s * w.numel())), "cuts the largest"),
            (lambda w, s: _lowest(w, round(s * w.numel())), "ignore the sign"),
            (_each_row, "of each filter"),
            (lambda w, s: w.abs() >= s, "are cut instead of 90"),  # sparsity as threshold
            (lambda w, s: _lowest(w.abs(), round(s * w.numel()) - 1), "off by one: .* 89 are"),
            (lambda w, s: _lowest(w.abs(), round(s * w.numel()) + 1), "off by one: .* 91 are"),
            (_by_threshold(lambda sizes, t: sizes > t), "off by one: .* 91 are"),
            (_by_threshold(lambda sizes, t: sizes >= t), "one size apart"),
            (lambda w, s: w.abs() >= w.abs().quantile(s), "10 weights, 1 are .* one size apart"),
            (lambda w, s: w.abs() > w.abs().quantile(s), "a sparsity of 0 cuts nothing"),
            (_without_zero, "360 weights, 1 are cut instead of 0; a sparsity of 0 cuts"),
            (lambda w, s: _lowest(w.abs(), int(s * w.numel())), "28 are .* use round"),
            (
                lambda w, s: _lowest(w.abs() if w.numel() > 10 else w, round(s * w.numel())),
                "larger",
            ),
            (_any_three, "larger weight is cut"),
            (lambda w, s: _lowest(w.square() % 1, round(s * w.numel())), "smallest size in the"),
            (_cut_first, "weights was changed"),
            (lambda w, s: w * right_mask(w, s), "tensor of bools, got torch.float32"),
            (lambda w, s: right_mask(w, s).float(), "tensor of bools, got torch.float32"),
            (lambda w, s: right_mask(w, s).flatten(), r"\(8, 5, 3, 3\), got \(360,\)"),  # E60
            (lambda w, s: right_mask(w, s).numpy(), "tensor of bools, got ndarray"),
            (lambda w, s: w.abs().sort(descending=True)[int(s * w.numel())], "raised"),  # E28
            (_then(right_mask, 3, lambda: None), "tensor of bools, got NoneType"),
        ],
    ),
    "after_step": (
        right_after_step,
        [
            (_after(lambda model, name, mask: None), "step 1 .* set them to zero again"),
            (_after(_cut_weight, when=lambda step: step == 1), "step 2 .* to zero again"),
            (_after(_cut_weight, when=lambda step: step % 2), "step 2 .* to zero again"),
            (_after(_cut_weight, when=lambda step: step < 5), "step 5 .* to zero again"),
            (_after(_cut_gradient), "momentum and weight decay move them"),
            (_after(lambda m, n, mask: m.get_parameter(n).mul_(~mask)), "kept weights are zero"),
            (_after(lambda m, n, mask: m.get_parameter(n).zero_()), "kept weights are zero"),
            (_after(_replace_parameter), "optimizer holds the old ones"),
            (_after(_dead_attribute), "to zero again"),
            (_after(lambda m, n, mask: m.get_parameter(n) * mask), "to zero again"),  # a copy
            (_after(_scale_up), "kept weights were changed"),
            (_after(_cut_bias_too), "'0.bias' has no mask"),
            (_cut_last_layer_too, "'3.weight' has no mask"),
            (_forget_mask, "masks was changed"),
            (_invert_masks, "masks was changed"),
            (_grow_masks, "masks was changed"),
            (lambda masks: None, "must be a function, got NoneType"),
            (lambda masks: lambda model: None, "raised TypeError"),
            (lambda model, step: None, "raised TypeError"),  # after_step itself
        ],
    ),
    "remaining": (
        right_remaining,
        [
            (lambda k, p: k / (1 - p), "more than there were"),  # E52
            (lambda k, p: k / (1 - p) - (1 - p), "subtract nothing"),  # the article's formula
            (lambda k, p: k / (1 - p) - 100 * (1 - p), "subtract nothing"),
            (lambda k, p: p * k, "how many are cut"),
            (lambda k, p: 1 - p, "the share that is left"),
            (lambda k, p: k - p, "share of k"),
            (lambda k, p: k * (1 - p / 100), "not per cent"),
            (lambda k, p: k * (100 - p), "not per cent"),
            (lambda k, p: k * (1 - p) * 100, "not per cent"),
            (lambda k, p: k * (1 - p) ** 2, "once"),
            (lambda k, p: k - 432, "too large"),  # right for the first case alone
            (lambda k, p: (1 - p) * k if p else 0, "how many are cut"),
        ],
    ),
    "cubic": (
        right_cubic,
        [
            (_clamped(lambda x, f: f * x), "straight line"),
            (_clamped(lambda x, f: f * (1 - (1 - x) ** 2)), "square"),
            (_clamped(lambda x, f: 1 - f * (1 - (1 - x) ** 3)), "share that is kept"),
            (_clamped(lambda x, f: f * x**3), "slow at first"),
            (_clamped(lambda x, f: f * (1 - x) ** 3), "still missing"),
            (_clamped(lambda x, f: 1 - (1 - x) ** 3), "final is missing"),
            (_clamped(lambda x, f: 1 - (1 - f) ** x), "same share"),
            (lambda t, a, b, f: right_cubic(t, 0, b, f), "count from start"),
            (lambda t, a, b, f: right_cubic(t, 0, b - a, f), "count from start"),
            (lambda t, a, b, f: right_cubic(t - a, 0, b, f), "count from start"),
            (lambda t, a, b, f: 100 * right_cubic(t, a, b, f), "per cent"),
            (lambda t, a, b, f: f * (1 - (1 - _way(t, a, b)) ** 3), "after end"),
            (lambda t, a, b, f: f * (1 - (1 - max(_way(t, a, b), 0)) ** 3), "after end"),
            (lambda t, a, b, f: f * (1 - (1 - min(_way(t, a, b), 1)) ** 3), "until start"),
            (lambda t, a, b, f: right_cubic(t, a, b, f) if a <= t <= b else 0.0, "after end"),
            (lambda t, a, b, f: right_cubic(t, a, b, f) if a <= t else f, "until start"),
            (lambda t, a, b, f: min(f * (1 - (1 - _way(t, a, b)) ** 3), 1.0), "after end"),
            (lambda t, a, b, f: abs(f * (1 - (1 - min(_way(t, a, b), 1)) ** 3)), "until start"),
            (lambda t, a, b, f: round(right_cubic(t, a, b, f), 1), "too large"),
        ],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_right_answer_is_accepted(name):
    check = getattr(exercises, f"check_{name}")
    assert check(CASES[name][0]) == exercises.CORRECT


@pytest.mark.parametrize(
    ("name", "position"), [(name, i) for name, case in CASES.items() for i in range(len(case[1]))]
)
def test_typical_mistake_is_rejected_with_its_hint(name, position):
    wrong, hint = CASES[name][1][position]
    state = torch.get_rng_state()
    with pytest.raises(Hint, match=hint):
        getattr(exercises, f"check_{name}")(wrong)
    torch.set_rng_state(state)


NO_NUMBERS = ("draw_names", "augment_batch", "choose_setting", "flip_batch")
NO_NUMBERS += ("threshold_mask", "after_step")
NUMBERS = [name for name in CASES if name not in NO_NUMBERS]
KINDS = {
    "numpy": lambda value: np.asarray(value)[()],  # np.int64 or np.float64
    "float32": lambda value: value if isinstance(value, int) else np.float32(value),
    "tensor": torch.tensor,
    "array": np.asarray,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NUMBERS)
def test_right_number_of_another_library_is_accepted(name, kind):
    def answer(*args):
        return KINDS[kind](CASES[name][0](*args))

    assert getattr(exercises, f"check_{name}")(answer) == exercises.CORRECT


WRONG_TYPES = {
    "None": None,
    "list": [1.0],
    "nested list": [[1], [2]],
    "string": "1",
    "dict": {"a": 1},
    "set": {1},
    "bool": True,
    "complex": 1j,
    "nan": float("nan"),
    "huge": 10**400,
    "vector": torch.ones(3),
    "matrix": np.ones((2, 2)),
    "flag": torch.tensor(True),
    "type": float,
}


@pytest.mark.parametrize("kind", WRONG_TYPES)
@pytest.mark.parametrize("name", CASES)
def test_wrong_type_gets_a_hint(name, kind):
    """Of the answer itself, and of what it returns."""
    check = getattr(exercises, f"check_{name}")
    with pytest.raises(Hint):
        check(lambda *args: WRONG_TYPES[kind])
    with pytest.raises(Hint):
        check(WRONG_TYPES[kind])


@pytest.mark.parametrize("name", CASES)
def test_open_exercise_stays_open(name):
    def todo(*args):
        raise NotImplementedError("your turn")

    with pytest.raises(NotImplementedError):
        getattr(exercises, f"check_{name}")(todo)


def test_every_check_is_covered_here():
    checks = {name.removeprefix("check_") for name in exercises.__all__ if "check_" in name}
    elsewhere = (QUANTIZATION, DISTILLATION, LOWRANK, SEARCH, TUNING)
    assert checks == set(CASES).union(*elsewhere)
