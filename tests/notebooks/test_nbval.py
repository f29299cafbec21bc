"""The way chapters are stored and the way nbval compares them fit; and planted defects are found.

The notebook is run and stripped by ``tools.notebooks``, then judged by the command of the
``notebooks`` suite in a process of its own.
"""

from __future__ import annotations

import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from tools import notebooks, suites

ROOT = Path(__file__).parents[2]

GOOD_CELLS = {
    "print": "print('the answer is', 42)",
    "table": "import pandas as pd\npd.DataFrame({'a': [1, 2]})",
    "figure": "import matplotlib.pyplot as plt\n_ = plt.plot([1, 2])",
    "address": "object()",
    "glue": "from myst_nb import glue\nglue('half', 0.5, display=False)",
    "glued table": "glue('table', pd.DataFrame({'a': [1]}), display=False)",
    "package": "import rac_helpers\nrac_helpers.__version__",
    "no progress bars": "import os\nos.environ['RAC_STATIC_BUILD']",
    "error": "int('one')",
    "timing": "import time\ntime.time()",
    "widget": "import ipywidgets\nipywidgets.IntSlider(description='N')",
    "silent": "x = 1",
}
TAGS = {"error": ["raises-exception"], "timing": ["nbval-ignore-output"]}
# What a cell becomes after its output was committed.
DEFECTS = {
    "print": "print('the answer is', 41)",
    "table": "import pandas as pd\npd.DataFrame({'a': [1, 3]})",
    "figure": "pass",
    "error": "int('two')",
    "timing": "1 / 0",
    "silent": "import sys\n_ = sys.stderr.write('a warning')",
}


@pytest.fixture
def notebook(tmp_path) -> Path:
    """A notebook, run and stripped as ``make notebooks`` does it."""
    cells = [
        new_code_cell(source, metadata={"tags": TAGS.get(name, [])})
        for name, source in GOOD_CELLS.items()
    ]
    path = tmp_path / "scratch.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    assert notebooks.main(["--execute", str(path)]) == 0
    assert notebooks.main(["--check", str(path)]) == 0
    return path


def failing_cells(path: Path) -> set[str]:
    """Judge a notebook with the suite's own command and return the names of its bad cells."""
    report = path.with_suffix(".xml")
    command = [word for word in suites.NOTEBOOKS if word not in ("chapters", "tests/notebooks")]
    settings = ["-p", "conftest", "-c", str(ROOT / "pyproject.toml"), f"--junitxml={report}"]
    subprocess.run([*command, *settings, str(path)], cwd=ROOT, timeout=300, check=False)
    cases = list(ET.parse(report).getroot().iter("testcase"))
    assert len(cases) == len(GOOD_CELLS)
    return {name for name, case in zip(GOOD_CELLS, cases, strict=True) if len(case)}


def test_clean_notebook_passes_and_planted_defects_are_found(notebook):
    assert failing_cells(notebook) == set()
    content = nbformat.read(notebook, as_version=4)
    for name, cell in zip(GOOD_CELLS, content.cells, strict=True):
        cell.source = DEFECTS.get(name, cell.source)
    nbformat.write(content, notebook)
    assert failing_cells(notebook) == set(DEFECTS)


def test_output_without_count_is_unclean(tmp_path):
    """nbval fails on an output of a cell that counts as not run; --check names it before."""
    path = tmp_path / "unrun.ipynb"
    cell = new_code_cell("1", outputs=[new_output("stream", name="stdout", text="1")])
    nbformat.write(new_notebook(cells=[cell]), path)
    assert notebooks.main(["--check", str(path)]) == 1
