"""Importing the package is cheap: the lower layers load neither matplotlib nor ipywidgets."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest

from tools.layers import LAYERS

HEAVY = ("matplotlib", "ipywidgets", "IPython")
LOWER = [
    f"rac_helpers.{name}"
    for layer in (0, 1, 2)
    for name in LAYERS[layer]
    if find_spec(f"rac_helpers.{name}")
]


def heavy_modules_after(statement: str) -> str:
    """Run a statement in a fresh interpreter and name the heavy modules it loaded."""
    code = f"import sys\n{statement}\nprint(*sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize(
    "statement",
    ["import rac_helpers", "import " + ", ".join(LOWER)],
    ids=["package", "layers 0 to 2"],
)
def test_import_loads_nothing_heavy(statement):
    assert heavy_modules_after(statement) == ""


def test_check_finds_a_heavy_import():
    assert heavy_modules_after("import matplotlib") == "matplotlib"


def test_lower_layers_exist():
    needed = {"rng", "records", "ops", "data", "models", "metrics", "augment", "train"}
    assert needed <= {name.removeprefix("rac_helpers.") for name in LOWER}
