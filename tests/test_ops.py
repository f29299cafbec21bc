"""The 14 operations: same pixels as torchvision, pure, and clear about bad input."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_sample_image
from torchvision.transforms.v2 import functional as F

from rac_helpers import ops
from rac_helpers.rng import make_generator

FACTORS = st.floats(0, 3)
ANGLES = st.floats(-360, 360)
SLOPES = st.floats(-1, 1)
SHIFTS = st.floats(-60, 60)


def affine(image, *, translate=(0, 0), shear=(0.0, 0.0), center=None):
    return F.affine(
        image, angle=0.0, translate=list(translate), scale=1.0, shear=list(shear), center=center
    )


# ours, torchvision's, strategy of the amount
PAIRS = {
    "brightness": (ops.brightness, F.adjust_brightness, FACTORS),
    "color": (ops.color, F.adjust_saturation, FACTORS),
    "contrast": (ops.contrast, F.adjust_contrast, FACTORS),
    "sharpness": (ops.sharpness, F.adjust_sharpness, FACTORS),
    "posterize": (ops.posterize, F.posterize, st.integers(0, 8)),
    "solarize": (ops.solarize, F.solarize, st.floats(0, 255)),
    "rotate": (ops.rotate, F.rotate, ANGLES),
    "shear_x": (
        ops.shear_x,
        lambda x, s: affine(x, shear=(math.degrees(math.atan(s)), 0.0), center=[0, 0]),
        SLOPES,
    ),
    "shear_y": (
        ops.shear_y,
        lambda x, s: affine(x, shear=(0.0, math.degrees(math.atan(s))), center=[0, 0]),
        SLOPES,
    ),
    "translate_x": (ops.translate_x, lambda x, s: affine(x, translate=(int(s), 0)), SHIFTS),
    "translate_y": (ops.translate_y, lambda x, s: affine(x, translate=(0, int(s))), SHIFTS),
}
PLAIN = {
    "identity": (ops.identity, lambda x: x),
    "auto_contrast": (ops.auto_contrast, F.autocontrast),
    "equalize": (ops.equalize, F.equalize),
}


@st.composite
def images(draw):
    """Noise or flat pictures of any small size, some with a narrow range of values."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    low = draw(st.integers(0, 255))
    high = draw(st.integers(low, 255))
    generator = make_generator(draw(st.integers(0, 10**6)))
    shape = (*draw(st.sampled_from([(), (1,), (2, 2)])), 3, height, width)
    return torch.randint(low, high + 1, shape, dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def photograph():
    picture = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1)
    return picture[:, 120:248, 200:337].contiguous()  # 128 x 137: not square


@pytest.mark.parametrize("name", PAIRS)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_same_pixels_as_torchvision(name, data):
    ours, reference, amounts = PAIRS[name]
    image, amount = data.draw(images()), data.draw(amounts)
    before = image.clone()
    result = ours(image, amount)
    assert torch.equal(result, reference(image, amount))
    assert result.dtype == torch.uint8
    assert torch.equal(image, before), "the input was written to"


@pytest.mark.parametrize("name", PLAIN)
@given(image=images())
@settings(max_examples=60, deadline=None)
def test_same_pixels_as_torchvision_without_amount(name, image):
    ours, reference = PLAIN[name]
    before = image.clone()
    assert torch.equal(ours(image), reference(image))
    assert torch.equal(image, before), "the input was written to"


@pytest.mark.parametrize("name", PAIRS)
def test_same_pixels_on_a_photograph(name, photograph):
    ours, reference, _ = PAIRS[name]
    for step in range(31):
        amount = {"posterize": step % 9, "solarize": 255 * step / 30, "rotate": step}.get(
            name, step / 30
        )
        assert torch.equal(ours(photograph, amount), reference(photograph, amount)), amount


@pytest.mark.parametrize("name", [*PAIRS, *PLAIN])
def test_result_is_a_new_tensor(name, photograph):
    if name in PLAIN:
        result = PLAIN[name][0](photograph)
    else:
        neutral = {"posterize": 8, "solarize": 256}.get(name, 1.0)
        result = PAIRS[name][0](photograph, neutral)
    assert result.data_ptr() != photograph.data_ptr()


@pytest.mark.parametrize("name", PAIRS)
def test_a_batch_is_treated_like_its_images(name, photograph):
    batch = torch.stack([photograph, photograph // 2, 255 - photograph])
    amount = 5 if name == "posterize" else 0.7
    ours = PAIRS[name][0]
    assert torch.equal(ours(batch, amount), torch.stack([ours(x, amount) for x in batch]))


@pytest.mark.parametrize("name", ["auto_contrast", "equalize"])
def test_a_batch_of_histogram_operations(name, photograph):
    batch = torch.stack([photograph, photograph // 2, torch.full_like(photograph, 9)])
    ours = PLAIN[name][0]
    assert torch.equal(ours(batch), torch.stack([ours(x) for x in batch]))


@pytest.mark.parametrize("name", [n for n in PAIRS if n != "posterize"])
@pytest.mark.parametrize("amount", [math.nan, math.inf, -math.inf])
def test_amount_must_be_finite(name, amount, photograph):
    with pytest.raises(ValueError, match=r"must be a finite number.*got (nan|inf|-inf)"):
        PAIRS[name][0](photograph, amount)


@pytest.mark.parametrize(
    ("operation", "amount", "message"),
    [
        (ops.brightness, -0.1, "factor must be a finite number >= 0, got -0.1"),
        (ops.color, -1, "factor must be a finite number >= 0, got -1"),
        (ops.posterize, 9, r"bits must be an integer in \[0, 8\], got 9"),
        (ops.solarize, 300, r"threshold must be a finite number in \[0, 256\], got 300"),
        (ops.rotate, 400, r"angle_deg must be a finite number in \[-360, 360\], got 400"),
        (ops.shear_x, 1.5, r"slope must be a finite number in \[-1, 1\], got 1.5"),
    ],
)
def test_amount_out_of_range(operation, amount, message, photograph):
    with pytest.raises(ValueError, match=message):
        operation(photograph, amount)


def test_bits_must_be_an_integer(photograph):
    with pytest.raises(TypeError, match=r"bits must be an integer in \[0, 8\], got 4.0"):
        ops.posterize(photograph, 4.0)


@pytest.mark.parametrize("name", [*PAIRS, *PLAIN])
def test_bad_images(name):
    if name in PLAIN:
        operation = PLAIN[name][0]
    else:
        amount = 4 if name == "posterize" else 0.5

        def operation(image):
            return PAIRS[name][0](image, amount)

    with pytest.raises(TypeError, match=r"uint8 tensor.*got dtype torch.float32"):
        operation(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"got shape \(1, 8, 8\); repeat a grey channel"):
        operation(torch.zeros(1, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"got shape \(4, 8, 8\)"):
        operation(torch.zeros(4, 8, 8, dtype=torch.uint8))
    with pytest.raises(ValueError, match=r"H, W >= 1, got shape \(3, 0, 8\)"):
        operation(torch.zeros(3, 0, 8, dtype=torch.uint8))
    with pytest.raises(TypeError, match="got list"):
        operation([[1, 2, 3]])


@pytest.mark.parametrize("name", [name for name in (*PAIRS, *PLAIN) if name != "equalize"])
def test_operations_stay_on_the_device_of_the_image(name):
    """``meta`` stands for any other device: mixing it with the CPU is an error, too.

    Equalize counts values, which meta tensors do not have.
    """
    image = torch.zeros(3, 16, 16, dtype=torch.uint8, device="meta")
    amount = {"posterize": (4,)}.get(name, () if name in PLAIN else (0.5,))
    result = (PLAIN if name in PLAIN else PAIRS)[name][0](image, *amount)
    assert result.device.type == "meta"
    assert result.shape == image.shape


@pytest.mark.parametrize("name", [*PAIRS, *PLAIN])
def test_one_pixel_and_strided_images(name, photograph):
    amount = {"posterize": (4,)}.get(name, () if name in PLAIN else (0.5,))
    ours, reference = (PLAIN if name in PLAIN else PAIRS)[name][:2]
    for image in (photograph[:, :1, :1], photograph.flip(-1)[:, ::3, 1::2]):
        assert torch.equal(ours(image, *amount), reference(image, *amount))


def test_large_images_are_not_kept_in_the_cache():
    from rac_helpers.ops.geometry import _source_index

    _source_index.cache_clear()
    ops.rotate(torch.zeros(3, 600, 600, dtype=torch.uint8), 12.0)
    assert _source_index.cache_info().currsize == 0
    ops.rotate(torch.zeros(3, 32, 32, dtype=torch.uint8), 12.0)
    assert _source_index.cache_info().currsize == 1


def test_shifts_beyond_the_image_leave_it_black(photograph):
    for shift in (1e9, -1e9):
        assert ops.translate_x(photograph, shift).sum() == 0
        assert ops.translate_y(photograph, shift).sum() == 0
