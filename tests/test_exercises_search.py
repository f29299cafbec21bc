"""The checks of chapter 08 accept right answers in several styles and reject typical mistakes."""

import math
from collections import deque
from statistics import NormalDist

import numpy as np
import torch
import torch.nn.functional as F
from torch.distributions import Categorical

from rac_helpers.nas.objective import pareto_front as front_of_package
from rac_helpers.nas.space import Space

# -- mutate ---------------------------------------------------------------------------------------


def _below(count, generator):
    return int(torch.randint(count, (), generator=generator))


def _open(sizes):
    return [place for place, size in enumerate(sizes) if size > 1]


def right_mutate(genome, sizes, generator):
    child, places = list(genome), _open(sizes)
    place = places[_below(len(places), generator)]
    others = [value for value in range(sizes[place]) if value != genome[place]]
    child[place] = others[_below(len(others), generator)]
    return tuple(child)


def mutate_by_a_step(genome, sizes, generator):
    places = _open(sizes)
    place = places[_below(len(places), generator)]
    value = (genome[place] + 1 + _below(sizes[place] - 1, generator)) % sizes[place]
    return (*genome[:place], value, *genome[place + 1 :])


def mutate_by_trying(genome, sizes, generator):
    while True:
        places = _open(sizes)
        place = places[_below(len(places), generator)]
        value = _below(sizes[place], generator)
        if value != genome[place]:
            return tuple(value if i == place else old for i, old in enumerate(genome))


def mutate_by_package(genome, sizes, generator):
    space = Space(tuple((str(i), tuple(range(size))) for i, size in enumerate(sizes)))
    return space.mutate(tuple(genome), generator=generator)


def _in_place(genome, sizes, generator):
    genome[:] = right_mutate(genome, sizes, generator)
    return tuple(genome)


def _any_gene(genome, sizes, generator):
    """Also one that has no other choice."""
    place = _below(len(sizes), generator)
    step = 1 + _below(max(1, sizes[place] - 1), generator)
    return (*genome[:place], (genome[place] + step) % sizes[place], *genome[place + 1 :])


def _any_choice(genome, sizes, generator):
    place = _open(sizes)[_below(len(_open(sizes)), generator)]
    return (*genome[:place], _below(sizes[place], generator), *genome[place + 1 :])


def _all_genes(genome, sizes, generator):
    return tuple((old + 1) % size for old, size in zip(genome, sizes, strict=True))


def _first_gene(genome, sizes, generator):
    place = _open(sizes)[0]
    step = 1 + _below(sizes[place] - 1, generator)
    return (*genome[:place], (genome[place] + step) % sizes[place], *genome[place + 1 :])


def _next_choice(genome, sizes, generator):
    place = _open(sizes)[_below(len(_open(sizes)), generator)]
    return (*genome[:place], (genome[place] + 1) % sizes[place], *genome[place + 1 :])


def _among_neighbours(genome, sizes, generator):
    found = [
        (*genome[:place], value, *genome[place + 1 :])
        for place, size in enumerate(sizes)
        for value in range(size)
        if value != genome[place]
    ]
    return tuple(found[_below(len(found), generator)])


def _mostly_the_next(genome, sizes, generator):
    place = _open(sizes)[_below(len(_open(sizes)), generator)]
    step = 1 + _below(sizes[place] - 1, generator) * (_below(4, generator) == 0)
    return (*genome[:place], (genome[place] + step) % sizes[place], *genome[place + 1 :])


def _one_too_many(genome, sizes, generator):
    place = _open(sizes)[_below(len(_open(sizes)), generator)]
    return (*genome[:place], genome[place] + 1, *genome[place + 1 :])


def _own_seed(genome, sizes, generator):
    return right_mutate(genome, sizes, torch.Generator().manual_seed(0))


def _no_seed(genome, sizes, generator):
    own = torch.Generator()
    own.seed()
    return right_mutate(genome, sizes, own)


# -- aging ----------------------------------------------------------------------------------------


def aging_by_deque(population, child):
    young = deque(population, maxlen=len(population))
    young.append(child)
    return young


def aging_by_pop(population, child):
    population = list(population)
    population.pop(0)
    population.append(child)
    return population


def _without(choose):
    """Answer in which another one dies."""

    def step(population, child):
        gone = choose(population)
        return [*(member for member in population if member != gone), child]

    return step


def _score(member):
    return member[1]


def _aging_in_place(population, child):
    population.append(child)
    del population[0]
    return population


def _only_if_better(population, child):
    better = child[1] > min(map(_score, population))
    return [*population[1:], child] if better else list(population)


# -- the front ------------------------------------------------------------------------------------


def right_front(points):
    def dominates(a, b):
        return a[0] <= b[0] and a[1] >= b[1] and a != b

    return [i for i, p in enumerate(points) if not any(dominates(q, p) for q in points)]


def front_by_numpy(points):
    costs, scores = np.array(points).T
    at_least = (costs[:, None] <= costs) & (scores[:, None] >= scores)
    better = (costs[:, None] < costs) | (scores[:, None] > scores)
    return np.flatnonzero(~(at_least & better).any(0))


def front_as_set(points):
    return set(right_front(points))


def _front(beats):
    def front(points):
        return [
            i
            for i, p in enumerate(points)
            if not any(beats(q, p) for j, q in enumerate(points) if j != i)
        ]

    return front


def _front_by_sorting(points):
    """Keeps one of equal points only."""
    order, found = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])), []
    for place in order:
        if not found or points[place][1] > points[found[-1]][1]:
            found.append(place)
    return found


def _front_in_place(points):
    front = right_front(points)
    points.sort()
    return front


def _hull(points):
    weights = [w / 500 for w in range(1, 500)]
    best = {max(range(len(points)), key=lambda i: w * points[i][1] - (1 - w) * points[i][0])
            for w in weights}  # fmt: skip
    return best


# -- REINFORCE ------------------------------------------------------------------------------------


def right_loss(logits, action, reward, baseline):
    return -(reward - baseline) * logits.log_softmax(0)[action]


def loss_by_categorical(logits, action, reward, baseline):
    return (baseline - reward) * Categorical(logits=logits).log_prob(torch.tensor(action))


def loss_by_cross_entropy(logits, action, reward, baseline):
    return (reward - baseline) * F.cross_entropy(logits[None], torch.tensor([action]))


def loss_by_softmax(logits, action, reward, baseline):
    return -(reward - baseline) * logits.double().softmax(0)[action].log()


def _loss(function):
    """Answer made of the log-probabilities, the action, the reward and the baseline."""
    return lambda z, a, R, b: function(z.log_softmax(0), a, R, b)


def _wrong_gradient(z, a, R, b):
    log_p = z.log_softmax(0)[a]
    return right_loss(z, a, R, b) + (log_p - log_p.detach())


def _logits_in_place(z, a, R, b):
    with torch.no_grad():
        z -= z.max() + 1
    return right_loss(z, a, R, b)


# -- expected improvement -------------------------------------------------------------------------

NORMAL = NormalDist()


def right_improvement(mean, std, best):
    if std == 0:
        return max(mean - best, 0.0)
    z = (mean - best) / std
    return (mean - best) * NORMAL.cdf(z) + std * NORMAL.pdf(z)


def improvement_by_floor(mean, std, best):
    std = max(std, 1e-15)
    z = (mean - best) / std
    return std * (z * NORMAL.cdf(z) + NORMAL.pdf(z))


def improvement_by_torch(mean, std, best):
    mean, std = (torch.tensor(x, dtype=torch.float64) for x in (mean, std))
    z = (mean - best) / std.clamp(min=1e-12)
    normal = torch.distributions.Normal(0.0, 1.0)
    return (mean - best) * normal.cdf(z) + std * normal.log_prob(z).exp()


def _improvement(function):
    """Answer made of the difference, the spread and z; right where there is no spread."""

    def improvement(mean, std, best):
        if std == 0:
            return max(mean - best, 0.0)
        return function(mean - best, std, (mean - best) / std)

    return improvement


def _divides(mean, std, best):
    z = (mean - best) / std
    return (mean - best) * NORMAL.cdf(z) + std * NORMAL.pdf(z)


def _divides_numpy(mean, std, best):
    with np.errstate(all="ignore"):
        z = float(np.float64(mean - best) / np.float64(std))
    return math.nan if math.isnan(z) else right_improvement(mean, std, best)


def _sure_difference(mean, std, best):
    return right_improvement(mean, std, best) if std else mean - best


def _sure_nothing(mean, std, best):
    return right_improvement(mean, std, best) if std else 0.0


RIGHT = {
    "mutate": [right_mutate, mutate_by_a_step, mutate_by_trying, mutate_by_package],
    "aging_step": [
        lambda population, child: [*population[1:], child],
        aging_by_deque,
        aging_by_pop,
    ],
    "pareto_front": [right_front, front_by_numpy, front_as_set, front_of_package],
    "reinforce_loss": [right_loss, loss_by_categorical, loss_by_cross_entropy, loss_by_softmax],
    "expected_improvement": [right_improvement, improvement_by_floor, improvement_by_torch],
}

WRONG = {
    "mutate": [
        (_in_place, "parent was changed"),
        (lambda *args: list(right_mutate(*args)), "must be a tuple, which nobody can change"),
        (lambda g, s, r: tuple(g), "sometimes changes nothing"),
        (_any_choice, "sometimes changes nothing: draw among the other choices"),
        (_any_gene, "only genes that have another one"),
        (_all_genes, "changes 3 genes: exactly one"),
        (_first_gene, "gene 2 never changes"),
        (_next_choice, r"changes to \[3\] only|changes to \[0\] only|only: every other"),
        (_mostly_the_next, "of gene .* are not equally likely"),
        (_among_neighbours, "genes with more choices come too often"),
        (_one_too_many, "has the numbers 0 to n - 1"),
        (_own_seed, "another generator gives the same|never changes"),
        (_no_seed, "same generator must give the same"),
        (lambda *args: right_mutate(*args)[:-1], "must hold 4 integers"),
        (lambda *args: tuple(map(float, right_mutate(*args))), "must hold 4 integers"),
        (lambda g: g, "raised TypeError"),
    ],
    "aging_step": [
        (lambda p, c: [*p, c], "has grown from 4 to 5"),
        (lambda p, c: [*p[2:], c], "has shrunk from 4 to 3"),
        (lambda p, c: p[1:], "has shrunk"),
        (_without(lambda p: min(p, key=_score)), "the worst has gone"),
        (_without(lambda p: max(p, key=_score)), "the best has gone"),
        (_without(lambda p: p[-1]), "the wrong one has gone"),
        (lambda p, c: sorted([*p, c], key=_score)[1:], "is missing: it joins"),
        (lambda p, c: [c, *p[1:]], "the child at the end"),
        (lambda p, c: sorted([*p[1:], c], key=_score), "keep the order of age"),
        (lambda p, c: [*p[1:], max([*p[:1], c], key=_score)], "is missing: it joins"),
        (_only_if_better, "is missing: it joins"),
        (_aging_in_place, "given list was changed"),
        (lambda p, c: p.append(c), "given list was changed"),
        (lambda p, c: (*p[1:], c), "must be a list, got tuple"),
        (lambda p, c: [g for g, _ in p], "must be pairs"),
        (lambda p: p, "raised TypeError"),
    ],
    "pareto_front": [
        (lambda p: [i for i in range(len(p)) if i not in right_front(p)], "front is the others"),
        (lambda p: list(range(len(p))), "that is every point"),
        (lambda p: [], "nothing is on the front"),
        (lambda p: [max(range(len(p)), key=lambda i: p[i][1])], "the highest score alone"),
        (lambda p: [min(range(len(p)), key=lambda i: p[i][0])], "the cheapest alone"),
        (_front(lambda a, b: a[0] >= b[0] and a[1] >= b[1] and a != b), "lower costs are better"),
        (_front(lambda a, b: a[0] <= b[0] and a[1] <= b[1] and a != b), "higher scores are"),
        (_front(lambda a, b: a[0] < b[0] and a[1] > b[1]), "as good in one and better in the"),
        (_front(lambda a, b: a[0] <= b[0] and a[1] >= b[1]), "do not dominate each other"),
        (_front_by_sorting, "of two equal points both"),
        (_hull, "convex hull"),
        (lambda p: right_front(p)[:-1], "lacks the point"),
        (_front_in_place, "list was changed"),
        (lambda p: [p[i] for i in right_front(p)], "not the points themselves"),
        (lambda p: [float(i) for i in right_front(p)], "integers, not the points"),
        (lambda p: right_front(p) * 2, "each once"),
        (lambda p: [i + 1 for i in right_front(p)], "count from 0, these from 1"),
        (lambda p, q: p, "raised TypeError"),
    ],
    "reinforce_loss": [
        (_loss(lambda log_p, a, R, b: (R - b) * log_p[a]), "wrong sign"),
        (_loss(lambda log_p, a, R, b: -(R - b) * log_p.sum()), "all actions, as in the article"),
        (_loss(lambda log_p, a, R, b: -R * log_p.sum()), "all actions, and the baseline"),
        (_loss(lambda log_p, a, R, b: -(R - b) * log_p.mean()), "mean over all actions"),
        (_loss(lambda log_p, a, R, b: -R * log_p), "must be a scalar"),  # as printed
        (_loss(lambda log_p, a, R, b: -R * log_p[a]), "the baseline is missing: every"),
        (_loss(lambda log_p, a, R, b: -(R + b) * log_p[a]), "do not add it"),
        (_loss(lambda log_p, a, R, b: -(R - b) * log_p[a].exp()), "logarithm is missing"),
        (_loss(lambda log_p, a, R, b: -log_p[a]), "the reward is missing"),
        (lambda z, a, R, b: -(R - b) * z[a], "log_softmax is missing"),
        (lambda z, a, R, b: right_loss(z.softmax(0), a, R, b), "softmax was taken twice"),
        (_loss(lambda log_p, a, R, b: -((R - b) ** 2) * log_p[a]), "must not be squared"),
        (_loss(lambda log_p, a, R, b: -R * log_p[a] - b), "before it is multiplied"),
        (lambda *args: right_loss(*args) + 0.1, "which is too large"),
        (lambda *args: right_loss(*args) - 0.1, "which is too small"),
        (lambda *args: right_loss(*args).item(), "backward can start from, got float"),
        (lambda *args: right_loss(*args).detach(), "no gradient reaches"),
        (lambda *args: right_loss(*args).detach().requires_grad_(), "no gradient reaches"),
        (_wrong_gradient, "wrong gradient"),
        (_logits_in_place, "logits were changed"),
        (lambda *args: right_loss(*args)[None], r"got shape \(1,\)"),
        (lambda z: z, "raised TypeError"),
    ],
    "expected_improvement": [
        (lambda m, s, b: max(m - b, 0.0), "ignores the spread: a lower mean"),
        (lambda m, s, b: m - b, "ignores the spread"),
        (_improvement(lambda d, s, z: NORMAL.cdf(z)), "probability of an improvement"),
        (lambda m, s, b: m + s, "upper confidence bound"),
        (_improvement(lambda d, s, z: d * NORMAL.cdf(z)), "second part"),
        (_improvement(lambda d, s, z: s * NORMAL.pdf(z)), "first part"),
        (_improvement(lambda d, s, z: d * NORMAL.cdf(z) + NORMAL.pdf(z)), "multiplied by std"),
        (_improvement(lambda d, s, z: d * NORMAL.cdf(z) - s * NORMAL.pdf(z)), "both parts are add"),
        (_improvement(lambda d, s, z: -d * NORMAL.cdf(-z) + s * NORMAL.pdf(z)), "falls below"),
        (_improvement(lambda d, s, z: d * NORMAL.cdf(d) + s * NORMAL.pdf(d)), "divided by std"),
        (_improvement(lambda d, s, z: d * NORMAL.pdf(z) + s * NORMAL.cdf(z)), "are swapped"),
        (_improvement(lambda d, s, z: d * NORMAL.cdf(-z) + s * NORMAL.pdf(z)), "not 1 - Phi"),
        (lambda m, s, b: right_improvement(m, s * s, b), "no square"),
        (lambda m, s, b: right_improvement(m, s**0.5, b), "no root"),
        (
            lambda m, s, b: m * NORMAL.cdf((m - b) / s) + s * NORMAL.pdf((m - b) / s),
            "taken off the mean",
        ),
        (_divides, "divides by 0"),
        (_divides_numpy, "is 0 / 0"),
        (_sure_difference, "without spread the score is the mean: no improvement"),
        (_sure_nothing, "without spread the score is the mean: no improvement"),
        (lambda *args: right_improvement(*args) + 0.1, "too large"),
        (lambda *args: right_improvement(*args) * 0.9, "too small"),
        (lambda m: m, "raised TypeError"),
    ],
}

OTHER = [None, [1.0], [[1], [2]], "ab", {"a": 1}, {1, 2}, True, 1j, float("nan"), 10**400, float]
OTHER += [torch.ones(3), np.ones((2, 2)), torch.tensor(True), (None, None), (1, torch.ones(2))]
OTHER += [torch.ones(4, 3), torch.tensor(1j), torch.tensor(float("nan"))]
