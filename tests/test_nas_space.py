"""nas/space.py: all genomes, and how to move among them."""

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers.nas import Space
from rac_helpers.rng import make_generator

SMALL = Space((("op", ("conv", "sep", "skip")), ("width", (4, 8)), ("fixed", (1,))))


@st.composite
def spaces(draw):
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=5))
    return Space(tuple((f"g{i}", tuple(range(10, 10 + n))) for i, n in enumerate(sizes)))


@st.composite
def spaces_and_genomes(draw, count=1):
    space = draw(spaces())
    genomes = [tuple(draw(st.integers(0, n - 1)) for n in space.sizes) for _ in range(count)]
    return space, *genomes


def test_all_genomes_once_and_in_order():
    genomes = list(SMALL.genomes())
    assert genomes == sorted(set(genomes))
    assert len(genomes) == len(SMALL) == 6
    assert genomes == list(itertools.product(range(3), range(2), range(1)))


def test_decode():
    assert SMALL.decode((2, 0, 0)) == {"op": "skip", "width": 4, "fixed": 1}


def test_lists_become_tuples_so_that_nothing_can_change():
    space = Space([["width", [4, 8]]])
    assert space.genes == (("width", (4, 8)),)
    assert hash(space) == hash(Space((("width", (4, 8)),)))


@settings(max_examples=60, deadline=None)
@given(spaces_and_genomes(), st.integers(0, 2**31))
def test_mutate_changes_exactly_one_gene_of_a_new_genome(both, seed):
    space, genome = both
    child = space.mutate(genome, generator=make_generator(seed))
    space.check(child)
    changed = sum(a != b for a, b in zip(genome, child, strict=True))
    assert changed == (len(space) > 1)
    if changed:
        assert child in space.neighbours(genome)


@settings(max_examples=60, deadline=None)
@given(spaces_and_genomes(count=2), st.integers(0, 2**31))
def test_crossover_takes_each_gene_from_a_parent(both, seed):
    space, first, second = both
    child = space.crossover(first, second, generator=make_generator(seed))
    space.check(child)
    assert all(c in pair for c, pair in zip(child, zip(first, second, strict=True), strict=True))


@settings(max_examples=60, deadline=None)
@given(spaces_and_genomes())
def test_neighbours_are_all_at_distance_one(both):
    space, genome = both
    if len(space) > 400:
        return
    near = [g for g in space.genomes() if sum(a != b for a, b in zip(g, genome, strict=True)) == 1]
    assert space.neighbours(genome) == near


@settings(max_examples=30, deadline=None)
@given(spaces_and_genomes(count=3))
def test_one_hot_has_a_one_for_each_gene(both):
    space, *genomes = both
    table = space.one_hot(genomes)
    assert table.shape == (3, sum(space.sizes))
    assert table.dtype == torch.float32
    columns = torch.tensor(genomes).unbind(1)
    for part, column in zip(table.split(list(space.sizes), dim=1), columns, strict=True):
        assert torch.equal(part.argmax(1), column)
        assert torch.equal(part.sum(1), torch.ones(3))


def test_one_hot_of_nothing():
    assert SMALL.one_hot([]).shape == (0, 6)


def chi_square(counts, expected):
    return sum((counts[key] - share) ** 2 / share for key, share in expected.items())


def test_samples_are_uniform():
    generator = make_generator(0)
    counts = Counter(SMALL.sample(generator=generator) for _ in range(6000))
    assert chi_square(counts, dict.fromkeys(SMALL.genomes(), 1000)) < 20.5  # 5 df, p = 0.001


def test_mutations_draw_the_gene_first_and_never_the_fixed_one():
    generator = make_generator(0)
    counts = Counter(SMALL.mutate((0, 0, 0), generator=generator) for _ in range(4000))
    expected = {(1, 0, 0): 1000, (2, 0, 0): 1000, (0, 1, 0): 2000}
    assert counts.keys() == expected.keys()
    assert chi_square(counts, expected) < 13.8  # 2 df, p = 0.001


def test_the_same_generator_gives_the_same_and_nothing_global_is_touched():
    before = torch.get_rng_state()
    draws = [
        (s.sample(generator=g), s.mutate((0, 0, 0), generator=g))
        for s, g in ((SMALL, make_generator(3)) for _ in range(2))
    ]
    assert draws[0] == draws[1]
    assert torch.equal(before, torch.get_rng_state())


def test_one_gene_and_one_choice_do_not_crash():
    """The article's crossover cuts at randint(1, len - 1), which has no answer for one gene."""
    one = Space((("width", (4, 8)),))
    assert one.crossover((0,), (0,), generator=make_generator(0)) == (0,)
    assert one.mutate((0,), generator=make_generator(0)) == (1,)
    lonely = Space((("width", (4,)),))
    assert lonely.mutate((0,), generator=make_generator(0)) == (0,)
    assert lonely.neighbours((0,)) == []


@pytest.mark.parametrize(
    ("genes", "error", "message"),
    [
        ((), ValueError, "genes must have names of their own, at least one, got"),
        ((("a", (1,)), ("a", (2,))), ValueError, "names of their own"),
        ((("a", ()),), ValueError, "choices of a must differ, at least one, got"),
        ((("a", (1, 1)),), ValueError, "choices of a must differ"),
        ((("", (1,)),), TypeError, "genes must have texts as names"),
        ((("a", (None,)),), TypeError, "choices of a must be texts or numbers, got None"),
        ((("a", ([1],)),), TypeError, r"choices of a must be texts or numbers, got \[1\]"),
        ((("op", ("conv")),), TypeError, "choices of op must be a tuple, got 'conv'"),
        ((("a", 3),), TypeError, "choices of a must be a tuple, got 3"),
        ((("op", "conv", "skip"),), TypeError, "genes must be pairs of a name and its choices"),
        (("op",), TypeError, "genes must be pairs of a name and its choices, got 'op'"),
    ],
)
def test_wrong_genes(genes, error, message):
    with pytest.raises(error, match=message):
        Space(genes)


@pytest.mark.parametrize(
    ("genome", "error", "message"),
    [
        ([0, 0, 0], TypeError, "genome must be a tuple of integers"),
        ((0, 0), ValueError, "genome must hold 3 numbers, got 2"),
        ((3, 0, 0), ValueError, r"genome\[0\] \(op\) must be in \[0, 2\], got 3"),
        ((0, -1, 0), ValueError, r"genome\[1\] \(width\) must be in \[0, 1\], got -1"),
        ((0.0, 0, 0), TypeError, "genome must be a tuple of integers"),
        ((True, 0, 0), TypeError, "genome must be a tuple of integers"),
    ],
)
def test_wrong_genomes(genome, error, message):
    with pytest.raises(error, match=message):
        SMALL.check(genome)
    with pytest.raises(error, match=message):
        SMALL.mutate(genome, generator=make_generator(0))


def test_wrong_generator():
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got int"):
        SMALL.sample(generator=0)
