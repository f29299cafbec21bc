"""The corruptions against imagecorruptions-imaug, whose code runs here with our constants.

That package has the constants of ImageNet-C, written into its functions. So its source is read,
the line ``c = ...`` of a function is replaced, and the result is run as it is. Its random numbers
come from the same generator in the same order as ours, so that even random kinds can be compared
pixel by pixel. Left out: frost (ours is drawn), elastic_transform (theirs is another warp; it is
compared with the OpenCV and scipy calls that the authors of CIFAR-10-C used).
"""

from __future__ import annotations

import ast
import functools
import inspect
import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from rac_helpers import corrupt, data
from rac_helpers.rng import make_generator

REASON = "imagecorruptions-imaug cannot be imported here (OpenCV needs libGL on Linux)"
peer = pytest.importorskip("imagecorruptions", reason=REASON, exc_type=ImportError)
cv2 = pytest.importorskip("cv2", reason=REASON, exc_type=ImportError)

# kind: most levels of difference, and largest share of values that may differ at all. Both sides
# cut values off to whole levels, ours in float32 and theirs in float64, so a rounding error of 1e-6
# can make one level. Where the true value is whole (0.2 * 255 = 51; the mean of five equal levels)
# that would be a matter of chance; SLACK, added on both sides, keeps whole values whole.
USUAL = (1, 0.01)
TOLERANCE = dict.fromkeys(corrupt.KINDS, USUAL) | {
    "shot_noise": (0, 0),
    "contrast": (0, 0),
    "pixelate": (0, 0),
    "jpeg_compression": (0, 0),
    "snow": (2, 0.05),  # the peer does not turn its flakes into 256 levels before it smears them
}
for kind in ("impulse_noise", "frost", "elastic_transform"):
    del TOLERANCE[kind]
SLACK = 1 / 4096
SIDE = 32


class TorchRandom:
    """``numpy.random`` as the peer calls it, but drawing as ours does: colours first."""

    def __init__(self, seed):
        self.generator = make_generator(seed)
        self.jumps = self._jumps()

    def normal(self, loc=0.0, scale=1.0, size=None):
        return loc + scale * self._draw(torch.randn, size)

    def uniform(self, low, high, size=()):
        return low + (high - low) * self._draw(torch.rand, size)

    def poisson(self, rate):
        rate = torch.from_numpy(np.moveaxis(rate, -1, 0).copy()).float()
        return np.moveaxis(torch.poisson(rate, generator=self.generator).numpy(), 0, -1)

    def default_rng(self):  # glass_blur seeds numba with it; numba is not used here
        return np.random.default_rng(0)

    def seed(self, value):
        pass

    def randint(self, low, high, size):
        assert (low, high, size) == (-1, 1, (2,))
        return next(self.jumps)

    def _draw(self, draw, size):
        if len(size) == 3:  # (H, W, 3): ours is (3, H, W)
            values = draw((size[2], *size[:2]), generator=self.generator)
            return np.moveaxis(values.numpy(), 0, -1)
        return draw(size or (1,), generator=self.generator).numpy().reshape(size)

    def _jumps(self):
        """One jump (x, y) for each step of the loop of glass_blur, which runs backwards."""
        while True:
            up, left = -torch.randint(2, (2, SIDE, SIDE), generator=self.generator)
            for row, column in itertools.product(range(SIDE - 1, 1, -1), repeat=2):
                yield int(left[row, column]), int(up[row, column])


class Numpy:
    """numpy with another ``random``."""

    def __init__(self, seed):
        self.random = TorchRandom(seed)

    def __getattr__(self, name):
        return getattr(np, name)


@functools.cache
def peer_code(kind):
    """Compile the peer's module with ``c = CONSTANTS`` in one function, and without numba."""
    tree = ast.parse(inspect.getsource(peer.corruptions))
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            function.decorator_list = []
            if function.name == kind:
                line = next(
                    x for x in function.body if isinstance(x, ast.Assign) and x.targets[0].id == "c"
                )
                line.value = ast.copy_location(ast.Name("CONSTANTS", ast.Load()), line.value)
    return compile(tree, peer.corruptions.__file__, "exec")


def peer_constants(kind, severity):
    """Our constants in the peer's form."""
    values = tuple(corrupt.SEVERITIES[kind][severity - 1].values())
    if kind == "zoom_blur":
        return 1 + 0.01 * np.arange(round((values[0] - 1) * 100) + 1)
    if kind == "glass_blur":
        return values[0], 1, values[1]
    if kind == "spatter":
        return (*values, int(severity > 3))
    return values[0] if len(values) == 1 else values


def run_peer(kind, image, constants, *, seed, slack=SLACK):
    space = {"__name__": "peer", "__package__": "imagecorruptions"}
    exec(peer_code(kind), space)
    space |= {"CONSTANTS": constants, "np": Numpy(seed)}
    space["clipped_zoom"] = centred(space["clipped_zoom"])
    if kind == "glass_blur":  # cuts off after the first blur, too
        smooth, slack = space["gaussian"], 0
        space["gaussian"] = lambda *args, **kwargs: smooth(*args, **kwargs) + SLACK / 255
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    result = np.array(space[kind](picture))
    if kind == "motion_blur":  # ImageMagick, which the authors used, rounds; the peer leaves floats
        result = np.round(result)
    whole = (result + slack if result.dtype.kind == "f" else result).astype(np.uint8)
    return torch.from_numpy(whole).permute(2, 0, 1)


def centred(clipped_zoom):
    """The authors of CIFAR-10-C cut off what is too much on all sides; the peer forgets to."""

    def zoom(picture, factor):
        result = clipped_zoom(picture, factor)
        margin = (len(result) - SIDE) // 2
        return result[margin : margin + SIDE, margin : margin + SIDE]

    return zoom


@pytest.fixture(scope="module")
def photographs():
    return torch.stack(list(data.photographs(size_px=SIDE).values()))


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("kind", TOLERANCE)
def test_same_pixels_as_the_peer_with_our_constants(kind, severity, photographs):
    most, share = TOLERANCE[kind]
    constants = peer_constants(kind, severity)
    differences = []
    for seed, image in enumerate(photographs):
        ours = corrupt.corrupt(image, kind, severity, generator=make_generator(seed))
        theirs = run_peer(kind, image, constants, seed=seed)
        assert not torch.equal(theirs, image), "the peer did nothing"
        differences.append((ours.int() - theirs.int()).abs())
    difference = torch.stack(differences)
    assert difference.max() <= most
    assert (difference > 0).float().mean() <= share


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("gaussian_noise", 0.045),
        ("shot_noise", 450),
        ("defocus_blur", (0.3, 0.45)),
        ("glass_blur", (0.3, 1, 1)),
        ("motion_blur", (6, 1.2)),
        ("zoom_blur", (1, 1.01, 1.02, 1.03, 1.04)),
        ("snow", (0.1, 0.2, 1.0, 0.65, 8, 3.0, 0.95)),
        ("fog", (0.2, 2.5)),
        ("brightness", 0.06),
        ("contrast", 0.7),
        ("pixelate", 0.9),
        ("jpeg_compression", 78),
        ("speckle_noise", 0.07),
        ("gaussian_blur", 0.42),
        ("spatter", (0.62, 0.1, 0.65, 0.7, 0.5, 0)),
        ("saturate", (0.35, 0)),
    ],
)
def test_a_slightly_wrong_constant_is_found(kind, wrong, photographs):
    """The tolerances are narrow enough to see a planted mistake in severity 1."""
    most, share = TOLERANCE[kind]
    ours = [corrupt.corrupt(x, kind, 1, generator=make_generator(0)) for x in photographs]
    theirs = [run_peer(kind, x, wrong, seed=0) for x in photographs]
    difference = (torch.stack(ours).int() - torch.stack(theirs).int()).abs()
    assert difference.max() > most or (difference > 0).float().mean() > share


def test_the_replaced_line_is_all_that_changed(photographs):
    """With the peer's own constants its rebuilt function gives what the package itself gives."""
    picture = photographs[0].permute(1, 2, 0).contiguous().numpy()
    constants = {"gaussian_blur": 1, "contrast": 0.4, "brightness": 0.1, "defocus_blur": (3, 0.1)}
    for kind, constant in constants.items():
        package = peer.corrupt(picture, corruption_name=kind, severity=1)
        rebuilt = run_peer(kind, photographs[0], constant, seed=0, slack=0)
        assert np.array_equal(package, rebuilt.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("severity", [1, 2])
def test_saturate_as_the_package_ships_it(severity, photographs):
    """The only kind whose constants coincide: severities 1 and 2 of saturate."""
    for image in photographs:
        picture = image.permute(1, 2, 0).contiguous().numpy()
        theirs = peer.corrupt(picture, corruption_name="saturate", severity=severity)
        ours = corrupt.corrupt(image, "saturate", severity, generator=make_generator(0))
        difference = (ours.int() - torch.from_numpy(theirs).permute(2, 0, 1).int()).abs()
        assert difference.max() <= 1  # nothing keeps their whole values whole
        assert (difference > 0).float().mean() <= 0.05


@pytest.mark.parametrize("severity", range(1, 6))
def test_impulse_noise_as_often_as_scikit_image(severity, photographs):
    """Its generator cannot be exchanged. 46,080 values are hit with chance p: bound 5 sigma."""
    share = corrupt.SEVERITIES["impulse_noise"][severity - 1]["share"]
    clean = (photographs.repeat(10, 1, 1, 1) // 2 + 40).contiguous()  # neither 0 nor 255
    ours = corrupt.corrupt(clean, "impulse_noise", severity, generator=make_generator(0))
    space = {"__name__": "peer", "__package__": "imagecorruptions"}
    exec(peer_code("impulse_noise"), space)
    space["CONSTANTS"] = share
    pictures = clean.permute(0, 2, 3, 1).numpy()
    noisy = [space["impulse_noise"](x, seed=i).astype(np.uint8) for i, x in enumerate(pictures)]
    theirs = torch.from_numpy(np.stack(noisy)).permute(0, 3, 1, 2)
    bound = 5 * (share / 2 / clean.numel()) ** 0.5
    for result in (ours, theirs):
        for level in (0, 255):
            assert abs((result == level).float().mean() - share / 2) < bound
    untouched = (ours != 0) & (ours != 255)
    assert torch.equal(ours[untouched], clean[untouched])


def authors_warp(image, severity, *, seed):
    """elastic_transform by the OpenCV and scipy calls of the authors, with our draws."""
    from scipy.ndimage import gaussian_filter, map_coordinates

    shift, sigma, corner = (SIDE * x for x in peer_constants("elastic_transform", severity))
    generator = make_generator(seed)
    moves = corner * (2 * torch.rand(3, 2, generator=generator).numpy() - 1)
    before = SIDE // 2 + SIDE // 3 * np.float32([[1, 1], [1, -1], [-1, -1]])
    matrix = cv2.getAffineTransform(before, before + moves)
    picture = image.permute(1, 2, 0).contiguous().numpy().astype(np.float32)
    picture = cv2.warpAffine(picture, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REFLECT_101)
    field = 2 * torch.rand(2, SIDE, SIDE, generator=generator).numpy() - 1
    field = [shift * gaussian_filter(x, sigma, mode="reflect", truncate=3) for x in field]
    y, x = np.mgrid[:SIDE, :SIDE]
    place = [y + field[1], x + field[0]]
    warped = [map_coordinates(picture[..., c], place, order=1, mode="reflect") for c in range(3)]
    return torch.from_numpy(np.stack(warped))


@pytest.mark.parametrize("severity", range(1, 6))
def test_elastic_transform_as_the_authors_calls(severity, photographs):
    """Their values are not cut off to levels: half a level more or less."""
    differences = []
    for seed, image in enumerate(photographs):
        ours = corrupt.corrupt(image, "elastic_transform", severity, generator=make_generator(seed))
        differences.append((ours + 0.5 - authors_warp(image, severity, seed=seed)).abs())
    difference = torch.stack(differences)
    assert difference.max() <= 0.52
