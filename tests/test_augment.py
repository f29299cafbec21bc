"""RandAugment: the same draws and pixels as torchvision, and what torchvision does not check."""

import collections
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from rac_helpers import augment, data
from rac_helpers.augment import (
    KERAS_CV,
    LEVELS,
    OPS,
    PAPER,
    TORCHVISION,
    Op,
    RandAugment,
    apply_op,
    apply_ops,
    convert_magnitude,
    draw_ops,
)
from rac_helpers.rng import make_generator, scoped_seed

PICTURES = list(data.photographs(size_px=64).values())


def torchvision_amount(name, magnitude, *, bins=31, height=32, width=32):
    amounts, signed = v2.RandAugment._AUGMENTATION_SPACE[name]
    levels = amounts(bins, height, width)
    return (None if levels is None else float(levels[magnitude])), signed


# -- parity ---------------------------------------------------------------------------------------


def test_parity_with_torchvision_over_600_seeds():
    """The same seed gives torchvision's operations and torchvision's pixels: no mocks."""
    seen = collections.Counter()
    for seed in range(600):
        image = PICTURES[seed % len(PICTURES)]
        num_ops, magnitude = 1 + seed % 3, seed % 31
        with scoped_seed(seed):
            expected = v2.RandAugment(num_ops, magnitude)(image)
        ours = RandAugment(num_ops, magnitude, generator=make_generator(seed))(image)
        assert torch.equal(ours, expected), seed
        drawn = draw_ops(num_ops, magnitude, generator=make_generator(seed))
        seen.update(op.name for op in drawn)
    assert set(seen) == set(OPS)
    assert min(seen.values()) >= 40


@pytest.mark.parametrize("name", OPS)
def test_parity_of_every_operation_magnitude_and_sign(name):
    image = PICTURES[0]
    transform = v2.RandAugment()
    for magnitude in range(31):
        for sign in (1, -1):
            amount, signed = torchvision_amount(name, magnitude, height=64, width=64)
            amount = (amount or 0.0) * (sign if signed else 1)
            expected = transform._apply_image_or_video_transform(
                image, name, amount, interpolation=transform.interpolation, fill=transform._fill
            )
            assert torch.equal(apply_op(image, Op(name, magnitude, sign)), expected), magnitude


@pytest.mark.parametrize("bins", [2, 3, 10, 11, 31])
def test_level_table_is_torchvisions(bins):
    assert set(OPS) == set(v2.RandAugment._AUGMENTATION_SPACE)
    for name in OPS:
        for magnitude in range(bins):
            expected, signed = torchvision_amount(name, magnitude, bins=bins, height=30, width=50)
            level = LEVELS[name]
            ours = Op(name, magnitude, num_magnitude_bins=bins).amount(height=30, width=50)
            assert level.signed == signed
            if expected is None:
                assert ours is None
            elif level.unit == "threshold":
                assert ours == 255 * expected
            elif level.unit == "factor":
                assert ours == 1.0 + expected
            else:
                assert ours == expected


def test_where_torchvisions_pil_path_differs_from_its_tensor_path():
    """Documented in chapter 02: ours are the tensor path's pixels, also for PIL images."""
    picture = F.to_pil_image(PICTURES[0])
    transform = v2.RandAugment()
    largest = {}
    for name in OPS:
        difference = 0
        for magnitude in range(0, 31, 3):
            amount, _ = torchvision_amount(name, magnitude, height=64, width=64)
            pil = transform._apply_image_or_video_transform(
                picture,
                name,
                amount or 0.0,
                interpolation=transform.interpolation,
                fill=transform._fill,
            )
            ours = apply_op(PICTURES[0], Op(name, magnitude)).int()
            difference = max(difference, int((F.pil_to_tensor(pil).int() - ours).abs().max()))
        largest[name] = difference
    one_level = {"Color", "Contrast", "Sharpness", "AutoContrast"}
    other_pixels = {"ShearX", "ShearY", "Rotate", "Solarize"}
    assert {name for name, value in largest.items() if value > 1} <= other_pixels
    assert {name for name, value in largest.items() if value == 1} <= one_level | other_pixels
    assert largest["Color"] == largest["Contrast"] == 1
    assert largest["ShearX"] > 1


# -- drawing --------------------------------------------------------------------------------------


def test_with_replacement_pairs_repeat_as_often_as_they_should():
    generator = make_generator(0)
    draws = [draw_ops(2, 9, generator=generator) for _ in range(6000)]
    repeats = sum(first.name == second.name for first, second in draws) / len(draws)
    assert abs(repeats - 1 / 14) < 4 * (1 / 14 * 13 / 14 / 6000) ** 0.5
    assert len({(a.name, b.name) for a, b in draws}) == 14**2


def test_without_replacement_no_operation_comes_twice():
    generator = make_generator(0)
    for _ in range(200):
        names = [op.name for op in draw_ops(14, 9, generator=generator, replacement=False)]
        assert sorted(names) == sorted(OPS)
    firsts = collections.Counter(
        draw_ops(1, 9, generator=generator, replacement=False)[0].name for _ in range(2800)
    )
    assert set(firsts) == set(OPS)
    assert all(120 < count < 290 for count in firsts.values())


def test_signs_are_fair_and_only_on_signed_operations():
    generator = make_generator(1)
    signs = collections.defaultdict(list)
    for _ in range(3000):
        for op in draw_ops(2, 9, generator=generator):
            signs[op.name].append(op.sign)
    for name, values in signs.items():
        if LEVELS[name].signed:
            assert abs(sum(values)) < 5 * len(values) ** 0.5, name
        else:
            assert set(values) == {1}, name


def test_constant_and_uniform_magnitudes():
    generator = make_generator(2)
    constant = [op.magnitude for op in draw_ops(500, 10, generator=generator)]
    assert set(constant) == {10}
    uniform = [
        op.magnitude for op in draw_ops(3000, 10, generator=generator, uniform_magnitude=True)
    ]
    assert set(uniform) == set(range(11))
    assert abs(sum(uniform) / 3000 - 5) < 4 * 10**0.5 / 3000**0.5


@given(
    num_ops=st.integers(0, 14),
    magnitude=st.integers(0, 30),
    seed=st.integers(0, 10**9),
    replacement=st.booleans(),
    uniform=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_drawing_is_repeatable_and_touches_no_global_seed(
    num_ops, magnitude, seed, replacement, uniform
):
    before = torch.get_rng_state()
    options = {"replacement": replacement, "uniform_magnitude": uniform}
    first = draw_ops(num_ops, magnitude, generator=make_generator(seed), **options)
    second = draw_ops(num_ops, magnitude, generator=make_generator(seed), **options)
    assert first == second
    assert len(first) == num_ops
    assert torch.equal(before, torch.get_rng_state())


def test_operations_can_be_left_out():
    others = tuple(name for name in OPS if name != "Rotate")
    drawn = draw_ops(500, 9, generator=make_generator(0), ops=others)
    assert {op.name for op in drawn} == set(others)


# -- the transform --------------------------------------------------------------------------------


def test_replaying_a_draw_gives_the_transforms_pixels():
    image = PICTURES[1]
    drawn = draw_ops(3, 20, generator=make_generator(5))
    assert torch.equal(
        apply_ops(image, drawn), RandAugment(3, 20, generator=make_generator(5))(image)
    )


def test_zero_operations_leave_the_image_and_m_zero_does_not_always():
    image = PICTURES[0]
    assert torch.equal(RandAugment(0, 9)(image), image)
    dark = image // 2  # AutoContrast and Equalize have no strength: M = 0 does not stop them
    transform = RandAugment(2, 0, generator=make_generator(0))
    assert any(not torch.equal(transform(dark), dark) for _ in range(40))


def test_in_compose_on_pil_and_tensors_with_labels():
    image = PICTURES[0]
    pil = F.to_pil_image(image)
    steps = [v2.ToDtype(torch.float32, scale=True)]
    for picture in (pil, image, tv_tensors.Image(image)):
        transform = v2.Compose(
            [RandAugment(2, 9, generator=make_generator(7)), v2.ToImage(), *steps]
        )
        result = transform(picture)
        expected = RandAugment(2, 9, generator=make_generator(7))(image)
        assert torch.equal(result, F.to_dtype(expected, torch.float32, scale=True))
    sample = RandAugment(2, 9, generator=make_generator(7))({"image": image, "label": 3})
    assert sample["label"] == 3
    assert torch.equal(sample["image"], expected)
    assert isinstance(RandAugment(2, 9)(pil), type(pil))
    assert isinstance(RandAugment(2, 9)(tv_tensors.Image(image)), tv_tensors.Image)


def test_every_image_of_a_batch_has_its_own_draw():
    batch = PICTURES[0].expand(64, -1, -1, -1).contiguous()
    ours = RandAugment(2, 9, generator=make_generator(0))(batch)
    assert ours.shape == batch.shape
    assert len({image.numpy().tobytes() for image in ours}) > 30
    with scoped_seed(0):
        theirs = v2.RandAugment(2, 9)(batch)
    assert len({image.numpy().tobytes() for image in theirs}) == 1


def test_generator_given_to_the_call_is_used_and_the_own_one_left_alone():
    own = make_generator(0)
    transform = RandAugment(2, 9, generator=own)
    state = own.get_state()
    first = transform(PICTURES[0], generator=make_generator(3))
    assert torch.equal(first, RandAugment(2, 9, generator=make_generator(3))(PICTURES[0]))
    assert torch.equal(state, own.get_state())


class _Repeated(torch.utils.data.Dataset):
    """The same picture again and again, augmented."""

    def __init__(self):
        self.transform = RandAugment(2, 20, generator=make_generator(0))

    def __len__(self):
        return 16

    def __getitem__(self, index):
        return self.transform(PICTURES[0])


@pytest.mark.parametrize(("num_workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_data_loader_draws_anew_for_every_image_and_epoch_repeatably(num_workers, persistent):
    def epochs():
        loader = torch.utils.data.DataLoader(
            _Repeated(),
            batch_size=4,
            num_workers=num_workers,
            generator=make_generator(1),
            persistent_workers=persistent,
        )
        return [[x.numpy().tobytes() for batch in loader for x in batch] for _ in range(2)]

    first, second = epochs()
    assert len(set(first + second)) > 24, "workers or epochs repeat each other's draws"
    assert [first, second] == epochs()


def test_transform_can_be_sent_to_another_process():
    transform = pickle.loads(pickle.dumps(RandAugment(2, 9, generator=make_generator(4))))
    expected = RandAugment(2, 9, generator=make_generator(4))(PICTURES[0])
    assert torch.equal(transform(PICTURES[0]), expected)


# -- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_ops": -1}, ValueError, "num_ops must be an integer >= 0, got -1"),
        ({"num_ops": 1.5}, TypeError, "num_ops must be an integer >= 0, got 1.5"),
        ({"num_ops": True}, TypeError, "num_ops must be an integer >= 0, got True"),
        ({"magnitude": 31}, ValueError, r"magnitude must be an integer in \[0, 30\], got 31"),
        ({"magnitude": -1}, ValueError, r"magnitude must be an integer in \[0, 30\], got -1"),
        ({"magnitude": 9.5}, TypeError, r"magnitude must be an integer in \[0, 30\], got 9.5"),
        (
            {"num_magnitude_bins": 1},
            ValueError,
            "num_magnitude_bins must be an integer >= 2, got 1",
        ),
        ({"magnitude": 9, "num_magnitude_bins": 9}, ValueError, r"in \[0, 8\], got 9"),
        ({"ops": ("Rotate", "Blur")}, ValueError, r"ops must be one or more of.*got.*Blur"),
        ({"ops": ()}, ValueError, "ops must be one or more of"),
        (
            {"num_ops": 15, "replacement": False},
            ValueError,
            r"num_ops \(without replacement\) must be an integer in \[0, 14\], got 15",
        ),
        ({"generator": 3}, TypeError, "generator must be a torch.Generator or None, got int"),
    ],
)
def test_bad_settings_are_refused_at_construction(arguments, error, message):
    with pytest.raises(error, match=message):
        RandAugment(**arguments)
    if "generator" not in arguments:
        with pytest.raises(error, match=message):
            draw_ops(**{"num_ops": 2, "magnitude": 9, "generator": make_generator(0), **arguments})


def test_magnitude_31_is_an_index_error_in_torchvision():
    """Why ours checks: the same mistake surfaces there only when an image arrives."""
    transform = v2.RandAugment(num_ops=50, magnitude=31)
    with scoped_seed(0), pytest.raises(IndexError):
        transform(PICTURES[0])


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (torch.rand(3, 8, 8), TypeError, "got dtype torch.float32; convert with"),
        (torch.zeros(1, 8, 8, dtype=torch.uint8), ValueError, r"got shape \(1, 8, 8\)"),
        (torch.zeros(8, 8, dtype=torch.uint8), ValueError, r"got shape \(8, 8\)"),
        (F.to_pil_image(PICTURES[0]).convert("L"), ValueError, "mode 'RGB', got 'L'"),
    ],
)
def test_bad_images_are_refused_even_without_operations(image, error, message):
    for num_ops in (0, 2):
        with pytest.raises(error, match=message):
            RandAugment(num_ops, 9)(image)


def test_boxes_are_refused_since_they_would_not_move():
    boxes = tv_tensors.BoundingBoxes([[0, 0, 4, 4]], format="XYXY", canvas_size=(64, 64))
    with pytest.raises(TypeError, match="BoundingBoxes would not move"):
        RandAugment()(tv_tensors.Image(PICTURES[0]), boxes)


def test_bad_operations_by_hand():
    with pytest.raises(ValueError, match="sign must be 1 or -1, got 0"):
        Op("Rotate", 9, sign=0)
    with pytest.raises(ValueError, match=r"ops must be one or more of.*got \['Blur'\]"):
        Op("Blur", 9)


# -- scales ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "source", "target", "expected"),
    [
        (10, PAPER, TORCHVISION, 30),
        (5, PAPER, TORCHVISION, 15),
        (9, TORCHVISION, PAPER, 3),
        (0.5, KERAS_CV, TORCHVISION, 15),
        (0.8, KERAS_CV, PAPER, 8),
        (7, PAPER, KERAS_CV, 0.7),
        (14, PAPER, PAPER, 14),
    ],
)
def test_scale_translation(value, source, target, expected):
    assert convert_magnitude(value, source=source, target=target) == expected


@pytest.mark.parametrize(
    ("value", "source", "target", "message"),
    [
        (14, PAPER, TORCHVISION, "no equivalent.*would be 42, but that scale ends at 30"),
        (17, PAPER, KERAS_CV, "no equivalent.*would be 1.7, but that scale ends at 1"),
        (2.5, PAPER, TORCHVISION, "no equivalent.*would be 7.5, but that scale has whole numbers"),
        (31, TORCHVISION, PAPER, "31 is not on the scale of torchvision"),
        (9.5, TORCHVISION, PAPER, "9.5 is not on the scale of torchvision"),
        (1.2, KERAS_CV, PAPER, "1.2 is not on the scale of KerasCV"),
        (-1, PAPER, KERAS_CV, "magnitude must be a finite number >= 0, got -1"),
    ],
)
def test_scales_without_an_equivalent(value, source, target, message):
    with pytest.raises(ValueError, match=message):
        convert_magnitude(value, source=source, target=target)


@given(value=st.integers(0, 10))
def test_equal_places_of_paper_and_torchvision_are_equal_pixels(value):
    level = int(convert_magnitude(value, source=PAPER, target=TORCHVISION))
    assert Op("Rotate", level).amount(height=32, width=32) == pytest.approx(3.0 * value)
    assert convert_magnitude(level, source=TORCHVISION, target=PAPER) == value


def test_module_lists_what_it_offers():
    assert all(hasattr(augment, name) for name in augment.__all__)


# -- found in review ------------------------------------------------------------------------------


class _Given(torch.utils.data.Dataset):
    """The same picture again and again, with a generator given to each call."""

    def __init__(self, *, shared):
        self.transform = RandAugment(2, 20)
        self.shared = make_generator(0) if shared else None

    def __len__(self):
        return 16

    def __getitem__(self, index):
        generator = self.shared or make_generator(index)
        return self.transform(PICTURES[0], generator=generator)


@pytest.mark.parametrize("shared", [False, True])
def test_a_given_generator_is_used_as_it_is_in_workers_too(shared):
    results = []
    for num_workers in (0, 1):
        loader = torch.utils.data.DataLoader(
            _Given(shared=shared), num_workers=num_workers, generator=make_generator(1)
        )
        results.append([batch.numpy().tobytes() for batch in loader])
    assert results[0] == results[1]
    assert len(set(results[0])) > 10


@pytest.mark.parametrize(
    ("sample", "kinds"), [(PICTURES[0].numpy(), "ndarray"), ({"label": 3}, "int"), ([], "nothing")]
)
def test_a_sample_without_a_picture_is_refused(sample, kinds):
    with pytest.raises(TypeError, match=f"PIL image or a uint8 tensor, got {kinds}"):
        RandAugment()(sample)


def test_all_frames_of_a_video_get_the_same_draw():
    video = tv_tensors.Video(PICTURES[0].expand(6, -1, -1, -1))
    result = RandAugment(2, 20, generator=make_generator(0))(video)
    assert isinstance(result, tv_tensors.Video)
    assert len({frame.numpy().tobytes() for frame in result}) == 1


def test_an_empty_batch_comes_back_empty():
    assert RandAugment()(torch.zeros(0, 3, 8, 8, dtype=torch.uint8)).shape == (0, 3, 8, 8)
