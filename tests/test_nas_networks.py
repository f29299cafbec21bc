"""nas/networks.py: every combination is a legal network."""

import pytest
import torch

from rac_helpers import metrics
from rac_helpers.nas import DIGITS_SPACE, OPERATIONS, Stage, StagedNetwork, build
from rac_helpers.rng import make_generator


def images(count=2, size=32):
    shape = (count, 3, size, size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=make_generator(0))


@pytest.mark.parametrize("op", range(4))
@pytest.mark.parametrize("width", range(3))
def test_every_combination_is_legal(op, width):
    """The article may skip any of three layers: 2 of its 8 networks crash, 2 have 20 logits."""
    batch = images()
    for other in range(4):
        for blocks in range(2):
            model = build((op, other, (op + other) % 4, width, blocks), seed=0)
            assert model(batch).shape == (2, 10)


def test_the_space_is_as_large_as_the_table_can_be():
    assert len(DIGITS_SPACE) == 384
    assert DIGITS_SPACE.genes[0][1] == tuple(OPERATIONS)


def test_counts_by_hand():
    model = build((0, 1, 3, 1, 0), seed=0)  # widths 8, 16, 32
    convs = 8 * 27 + 8 * 72 + (8 * 9 + 16 * 8) + 32 * 16
    norms = 2 * (8 + 8 + (8 + 16) + 32)
    assert metrics.count_params(model) == convs + norms + 33 * 10
    macs = 8 * 27 * 256 + 8 * 72 * 256 + (8 * 9 + 16 * 8) * 64 + 32 * 16 * 16 + 320
    assert metrics.count_macs(model, images(1)) == macs


@pytest.mark.parametrize("op", OPERATIONS)
def test_blocks_halve_and_widen(op):
    block = OPERATIONS[op](4, 6, 2).eval()
    assert block(torch.zeros(1, 4, 8, 8)).shape == (1, 6, 4, 4)
    same = OPERATIONS[op](4, 4, 1).eval()
    assert same(torch.zeros(1, 4, 8, 8)).shape == (1, 4, 8, 8)


def test_skip_does_nothing_where_nothing_changes():
    x = torch.randn(1, 4, 8, 8, generator=make_generator(0))
    assert torch.equal(OPERATIONS["skip"](4, 4, 1)(x), x)


def test_separable_is_a_depthwise_and_a_pointwise_convolution():
    convs = [m for m in OPERATIONS["sep3"](8, 16, 1).modules() if isinstance(m, torch.nn.Conv2d)]
    assert [(c.groups, c.kernel_size) for c in convs] == [(8, (3, 3)), (1, (1, 1))]


def test_seeds():
    before = torch.get_rng_state()
    one, two, other = (build((0, 1, 2, 0, 1), seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["stem.0.weight"], other["stem.0.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_all_can_be_trained():
    model = build((2, 1, 3, 0, 1), seed=0)
    model(images()).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Stage("conv7", 4, 1, 1), "op must be one of .*, got 'conv7'"),
        (lambda: Stage("conv3", 0, 1, 1), "channels must be an integer >= 1, got 0"),
        (lambda: Stage("conv3", 4, 1, 3), r"stride must be an integer in \[1, 2\], got 3"),
        (lambda: StagedNetwork([], stem_channels=4), "stages must hold at least one Stage"),
        (
            lambda: StagedNetwork([Stage("skip", 4, 1, 1)], stem_channels=4, stem_stride=0),
            "stem_stride must be an integer >= 1, got 0",
        ),
        (lambda: build((0, 0, 0, 3, 0), seed=0), r"genome\[3\] \(width\) must be in \[0, 2\]"),
        (lambda: build((0, 0, 0, 0, 0), seed=0, classes=1), "classes must be an integer >= 2"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_no_stage_is_named():
    with pytest.raises(TypeError, match="stages must hold Stage only, got tuple"):
        StagedNetwork([("conv3", 4, 1, 1)], stem_channels=4)
