"""The package keeps its shape; and the checker fails on every kind of planted violation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tools import layers

ROOT = Path(__file__).parents[1]


def plant(package: Path, **sources: str) -> list[str]:
    """Write modules into an empty package (``a__b`` is ``a/b.py``) and check it."""
    for name, source in sources.items():
        path = package / (name.replace("___", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source, encoding="utf-8")
    return layers.check_package(package)


def test_package_has_no_violation():
    assert layers.check_package(ROOT / "rac_helpers") == []


@pytest.mark.parametrize("path", sorted((ROOT / "chapters").glob("*.ipynb")), ids=lambda p: p.stem)
def test_chapter_has_no_violation(path):
    assert layers.check_notebook(path) == []


def test_experiments_leave_global_state_alone():
    for path in (ROOT / "experiments").glob("*.py"):
        source = path.read_text(encoding="utf-8")
        assert list(layers.global_state_problems(layers.ast.parse(source), path.name)) == []


def test_allowed_imports_pass(tmp_path):
    problems = plant(
        tmp_path,
        __init__='"""Doc."""\n__version__ = "0"\n',
        _check="import math\n",
        rng="from rac_helpers._check import check_int\n",
        sweep="from rac_helpers import _progress, records\n",
        ops="from rac_helpers import __version__, _check, rng\n",
        prune____init__="from rac_helpers.prune.masks import mask\nfrom . import masks\n",
        prune___masks="from ..ops import shear\nimport rac_helpers.metrics\n",
        data="if TYPE_CHECKING:\n    from rac_helpers.ops import Op\n",
        plots="import matplotlib\n\ndef draw():\n    from rac_helpers import prune\n",
    )
    assert problems == []


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("ops", "from rac_helpers import augment", "only lower layers"),
        ("ops", "import rac_helpers.augment.draw", "only lower layers"),
        ("ops", "from .augment import draw_ops", "only lower layers"),
        ("ops", "from . import plots", "only lower layers"),
        ("ops", "def late():\n    from rac_helpers.data import Split", "only lower layers"),
        ("prune", "from rac_helpers.quantize import round_to", "only lower layers"),
        ("prune___masks", "from ..distill import kd_loss", "only lower layers"),
        ("prune___masks", "from rac_helpers import nas", "only lower layers"),
        ("ops", "if TYPE_CHECKING:\n    from rac_helpers.prune import Mask", "only lower layers"),
        ("ops", "if TYPE_CHECKING:\n    x = 1\nelse:\n    from . import data", "only lower layers"),
        ("exercises", "from rac_helpers.explore.page import page", "only lower layers"),
        ("rng", "from rac_helpers import records", "only lower layers"),
        ("records", "from rac_helpers import sweep", "only lower layers"),
        ("metrics", "from rac_helpers import sweep", "only lower layers"),
        ("_check", "from rac_helpers import rng", "only lower layers"),
        ("__init__", "from rac_helpers import ops", "must import none"),
        ("ops", "from rac_helpers import helpers", "stands in no layer"),
        ("helpers", "", "stands in no layer"),
    ],
)
def test_planted_import_is_found(tmp_path, module, source, message):
    (problem,) = plant(tmp_path, **{module: source + "\n"})
    assert message in problem
    assert module.replace("___", "/") in problem


def function(*, lines: int = 1, parameters: str = "") -> str:
    body = [
        '    """Docstrings,',
        "    however long, are free.",
        '    """',
        "    # as are comments",
        "",
    ]
    return "\n".join([f"def act({parameters}):", *body, *["    x = 1"] * lines]) + "\n"


def test_sizes_at_the_limit_pass(tmp_path):
    method = "class A:\n    def act(self, a, b, c, d, e, *rest, f=1, g=2): ...\n"
    assert plant(tmp_path, ops=function(lines=25), data="x = 1\n" * 300, models=method) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\n" * 301, "301 lines"),
        (function(lines=26), "26 lines of code"),
        (function(parameters="a, b, c, d, e, f"), "6 positional"),
        (function(parameters="a, b, /, c, d, e, f"), "6 positional"),
        ("class A:\n    def act(self, a, b, c, d, e, f): ...\n", "6 positional"),
    ],
)
def test_planted_size_is_found(tmp_path, source, message):
    (problem,) = plant(tmp_path, ops=source)
    assert message in problem


SEEDING = [
    "import torch\ntorch.manual_seed(0)",
    "import torch\ntorch.cuda.manual_seed_all(0)",
    "import torch\ntorch.default_generator.manual_seed(0)",
    "import numpy as np\nnp.random.seed(0)",
    "import random\nrandom.seed(0)",
    "from torch import manual_seed",
    "from random import seed",
    "import sys\nsys.path.append('..')",
]


@pytest.mark.parametrize("source", SEEDING)
def test_planted_global_state_is_found_in_a_module(tmp_path, source):
    (problem,) = plant(tmp_path, ops=source + "\n")
    assert "uses" in problem


@pytest.mark.parametrize("source", SEEDING)
def test_planted_global_state_is_found_in_a_chapter(tmp_path, source):
    notebook = tmp_path / "01.ipynb"
    cells = [code_cell("%matplotlib inline\nx = 1"), code_cell(source)]
    notebook.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    (problem,) = layers.check_notebook(notebook)
    assert "cell 1" in problem


def test_chapter_that_is_no_python_is_found_unless_it_is_meant(tmp_path):
    notebook = tmp_path / "01.ipynb"
    cells = [code_cell("if:"), code_cell("if:", tags=["raises-exception"])]
    notebook.write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert layers.check_notebook(notebook) == [f"{notebook} cell 0: is no Python"]


def code_cell(source: str, tags: list[str] | None = None) -> dict:
    return {"cell_type": "code", "source": [source], "metadata": {"tags": tags or []}}


def write_chapter(folder: Path, *cells: dict) -> Path:
    path = folder / "01.ipynb"
    path.write_text(json.dumps({"cells": list(cells)}), encoding="utf-8")
    return path


def long_cell(lines: int, *tags: str, first: str = "x = 1") -> dict:
    return code_cell("\n\n".join([first, *["x = 1"] * (lines - 1)]), tags=list(tags))


def test_cells_at_the_limit_pass(tmp_path):
    cells = [
        code_cell("%matplotlib inline"),
        long_cell(30, first="import torch"),
        long_cell(25),
        long_cell(15),
        long_cell(15, first="import late"),
        long_cell(30, "hide-input"),
        long_cell(30, "remove-output", "hide-cell"),
        {"cell_type": "markdown", "source": ["word\n"] * 99, "metadata": {}},
    ]
    assert layers.check_notebook(write_chapter(tmp_path, *cells)) == []


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ([long_cell(26)], "cell 0: 26 lines, at most 25"),
        ([long_cell(25), long_cell(16)], "cell 1: 16 lines, at most 15; one cell may have more"),
        ([long_cell(16), long_cell(15), long_cell(17)], "cell 2: 17 lines, at most 15"),
        ([long_cell(31, "hide-input")], "cell 0: 31 lines, at most 30"),
        ([long_cell(31, "hide-cell")], "cell 0: 31 lines, at most 30"),
        ([long_cell(31, first="import torch")], "cell 0: 31 lines, at most 30"),
        ([code_cell("import os"), long_cell(26, first="import torch")], "cell 1: 26 lines"),
        ([long_cell(26, "raises-exception", first="if:")], "cell 0: 26 lines"),
        ([long_cell(26, "nbval-ignore-output")], "cell 0: 26 lines"),
    ],
)
def test_planted_long_cell_is_found(tmp_path, cells, message):
    (problem,) = layers.check_notebook(write_chapter(tmp_path, *cells))
    assert message in problem


def test_only_rng_may_seed(tmp_path):
    assert plant(tmp_path, rng="import torch\ntorch.manual_seed(0)\n") == []
    assert plant(tmp_path, ops="g = make_generator(0)\ng.manual_seed(0)\n") == []
