"""The constants of CIFAR-10-C: what severity 1 to 5 means for each kind of corruption."""

from __future__ import annotations

from types import MappingProxyType


def _rows(names: str, *rows: float | tuple[float, ...]) -> tuple[MappingProxyType, ...]:
    """Name the numbers of each severity; nobody can change them afterwards."""
    keys = names.split()
    tuples = [row if isinstance(row, tuple) else (row,) for row in rows]
    return tuple(MappingProxyType(dict(zip(keys, row, strict=True))) for row in tuples)


_FLAKES = "mean std zoom threshold radius_px sigma_px image_share"
_WATER = "mean std sigma_px threshold opacity"
_MUD = "mean std sigma_px threshold edge_sigma_px"

# The numbers stand in make_cifar_c.py, the authors' script that made the published files. They are
# milder than those of ImageNet-C: the pictures have 32 px. What a name means stands in the function
# of that kind.
SEVERITIES: dict[str, tuple[MappingProxyType, ...]] = {
    "gaussian_noise": _rows("std", 0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": _rows("photons", 500, 250, 100, 75, 50),
    "impulse_noise": _rows("share", 0.01, 0.02, 0.03, 0.05, 0.07),
    "defocus_blur": _rows(
        "radius_px alias_sigma_px", (0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)
    ),
    # the script has a third number, the reach of a jump; it is 1 px throughout
    "glass_blur": _rows("sigma_px passes", (0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)),
    "motion_blur": _rows("radius_px sigma_px", (6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
    # the script writes arange(1, 1.06, 0.01) and so on; rounding lets in the end of the first two
    "zoom_blur": _rows("max_zoom", 1.06, 1.11, 1.15, 1.20, 1.25),
    "snow": _rows(
        _FLAKES,
        (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
        (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
    ),
    "frost": _rows(
        "image_share frost_share", (1.0, 0.2), (1.0, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)
    ),
    "fog": _rows("thickness decay", (0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
    "brightness": _rows("offset", 0.05, 0.10, 0.15, 0.20, 0.30),
    "contrast": _rows("factor", 0.75, 0.50, 0.40, 0.30, 0.15),
    "elastic_transform": _rows(
        "shift_share sigma_share corner_share",
        (0.0, 0.0, 0.08),
        (0.05, 0.2, 0.07),
        (0.08, 0.06, 0.06),
        (0.1, 0.04, 0.05),
        (0.1, 0.03, 0.03),
    ),
    "pixelate": _rows("side_share", 0.95, 0.90, 0.85, 0.75, 0.65),
    "jpeg_compression": _rows("quality", 80, 65, 58, 50, 40),
    "speckle_noise": _rows("std", 0.06, 0.10, 0.12, 0.16, 0.20),
    "gaussian_blur": _rows("sigma_px", 0.4, 0.6, 0.7, 0.8, 1.0),
    "spatter": (
        *_rows(
            _WATER,
            (0.62, 0.1, 0.7, 0.7, 0.5),
            (0.65, 0.1, 0.8, 0.7, 0.5),
            (0.65, 0.3, 1.0, 0.69, 0.5),
        ),
        *_rows(_MUD, (0.65, 0.1, 0.7, 0.69, 0.6), (0.65, 0.1, 0.5, 0.68, 0.6)),
    ),
    "saturate": _rows("factor offset", (0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
}

KINDS: tuple[str, ...] = tuple(SEVERITIES)
STANDARD: tuple[str, ...] = KINDS[:15]
EXTRA: tuple[str, ...] = KINDS[15:]
