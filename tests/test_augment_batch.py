"""The fast batch transform draws and computes what the per-image transform does, bit for bit."""

import collections
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors

from rac_helpers import data
from rac_helpers.augment import OPS, BatchRandAugment, RandAugment, apply_ops
from rac_helpers.rng import make_generator

PICTURES = torch.stack(list(data.photographs(size_px=32).values()))


def photographs(number):
    return PICTURES[torch.arange(number) % len(PICTURES)]


def noise(*shape, seed=0):
    return torch.randint(0, 256, shape, generator=make_generator(seed), dtype=torch.uint8)


@pytest.mark.parametrize("seed", range(60))
def test_same_draws_and_pixels_image_by_image(seed):
    settings = {"num_ops": seed % 4, "magnitude": seed % 31}
    images = photographs(1 + 7 * seed)
    before, fast_draws, slow_draws = images.clone(), make_generator(seed), make_generator(seed)
    fast = BatchRandAugment(**settings)(images, generator=fast_draws)
    slow = RandAugment(**settings)(images, generator=slow_draws)
    assert torch.equal(fast, slow)
    assert torch.equal(images, before)
    # as many random numbers were taken: the next batch is the same, too
    assert torch.equal(fast_draws.get_state(), slow_draws.get_state())


@given(
    number=st.integers(0, 40),
    num_ops=st.integers(0, 5),
    bins=st.integers(2, 40),
    names=st.sets(st.sampled_from(OPS), min_size=1),
    uniform=st.booleans(),
    replacement=st.booleans(),
    seed=st.integers(0, 2**40),
    data_=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_same_for_every_setting(number, num_ops, bins, names, uniform, replacement, seed, data_):
    names = sorted(names)
    if not replacement:
        num_ops = min(num_ops, len(names))
    images = noise(number, 3, data_.draw(st.integers(1, 12)), data_.draw(st.integers(1, 12)))
    setting = {
        "num_ops": num_ops,
        "magnitude": data_.draw(st.integers(0, bins - 1)),
        "num_magnitude_bins": bins,
        "ops": names,
        "uniform_magnitude": uniform,
        "replacement": replacement,
    }
    fast = BatchRandAugment(**setting)(images, generator=make_generator(seed))
    assert torch.equal(fast, RandAugment(**setting)(images, generator=make_generator(seed)))


@pytest.mark.parametrize("uniform", [False, True])
def test_the_drawn_operations_are_those_applied(uniform):
    transform = BatchRandAugment(3, 17, uniform_magnitude=uniform)
    images = photographs(50)
    drawn = transform.draw_batch(50, make_generator(3))
    reference, generator = RandAugment(3, 17, uniform_magnitude=uniform), make_generator(3)
    assert drawn == [reference.draw(generator) for _ in range(50)]
    result = transform(images, generator=make_generator(3))
    for image, ops, changed in zip(images, drawn, result, strict=True):
        assert torch.equal(apply_ops(image, ops), changed)


def test_every_operation_and_sign_is_drawn_about_equally_often():
    drawn = BatchRandAugment(1, 9).draw_batch(28_000, make_generator(0))
    names = collections.Counter(ops[0].name for ops in drawn)
    assert set(names) == set(OPS)
    for name in OPS:  # 2,000 expected, standard deviation 43
        assert abs(names[name] - 2000) < 5 * 43
    rotations = [ops[0].sign for ops in drawn if ops[0].name == "Rotate"]
    assert abs(sum(rotations)) < 5 * len(rotations) ** 0.5


def test_more_values_than_one_operation_gets_at_once():
    images = noise(5, 3, 300, 310)  # 279,000 values each
    fast = BatchRandAugment(2, 9)(images, generator=make_generator(0))
    assert torch.equal(fast, RandAugment(2, 9)(images, generator=make_generator(0)))


@pytest.mark.parametrize("shape", [(2, 3, 3, 8, 8), (2, 1, 2, 3, 8, 8), (0, 3, 8, 8), (1, 3, 1, 1)])
def test_other_shapes(shape):
    images = noise(*shape)
    fast = BatchRandAugment(2, 20)(images, generator=make_generator(1))
    assert fast.shape == images.shape
    assert torch.equal(fast, RandAugment(2, 20)(images, generator=make_generator(1)))


def test_single_images_videos_and_memory_layouts():
    image = PICTURES[0]
    for given_ in (image, tv_tensors.Image(image), tv_tensors.Video(photographs(4))):
        fast = BatchRandAugment(2, 20)(given_, generator=make_generator(1))
        slow = RandAugment(2, 20)(given_, generator=make_generator(1))
        assert type(fast) is type(slow)
        assert torch.equal(fast, slow)
    images = photographs(30)
    last = images.contiguous(memory_format=torch.channels_last)
    expected = BatchRandAugment(2, 9)(images, generator=make_generator(0))
    assert torch.equal(BatchRandAugment(2, 9)(last, generator=make_generator(0)), expected)


def test_own_generator_goes_on_and_survives_pickling():
    transform = BatchRandAugment(2, 9, generator=make_generator(0))
    images = photographs(64)
    first = transform(images)
    copy = pickle.loads(pickle.dumps(transform))
    second = transform(images)
    assert not torch.equal(first, second)
    assert torch.equal(copy(images), second)


def test_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    BatchRandAugment(2, 9)(photographs(20))
    assert torch.equal(torch.get_rng_state(), before)


def test_bad_input():
    with pytest.raises(ValueError, match=r"magnitude must be an integer in \[0, 30\], got 31"):
        BatchRandAugment(2, 31)
    with pytest.raises(TypeError, match=r"uint8 .* got dtype torch.float32"):
        BatchRandAugment()(torch.zeros(2, 3, 8, 8))
    for transform in (BatchRandAugment(), RandAugment()):
        with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got int"):
            transform(PICTURES, generator=0)
    with pytest.raises(TypeError, match=r"generator must be a torch.Generator, got int"):
        BatchRandAugment().draw_batch(5, generator=0)
    with pytest.raises(ValueError, match="num_images must be an integer >= 0, got -1"):
        BatchRandAugment().draw_batch(-1)
