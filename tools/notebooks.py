"""Keep the chapters clean: text outputs in git, pictures and widgets not.

``python -m tools.notebooks``             strips every chapter in place
``python -m tools.notebooks --check``     exits with 1 and names the chapters that are not clean
``python -m tools.notebooks --execute``   runs every chapter, then strips it

Paths of notebooks may follow; without them all of ``chapters/`` is meant.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

CHAPTERS = Path("chapters")
TEXT_TYPES = ("text/plain", "text/markdown", "text/latex")
GLUE_PREFIX = "application/papermill.record/"  # myst-nb's glue puts this before a type
VOLATILE_CELL_KEYS = (
    *("execution", "ExecuteTime", "collapsed", "scrolled", "outputId"),
    "lines_to_next_cell",  # jupytext leaves it
)
ANSI_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CELL_TIMEOUT_S = 600


def is_text(mime_type: str) -> bool:
    """Tell whether an output of this type is kept in git and compared by the tests."""
    return mime_type.removeprefix(GLUE_PREFIX) in TEXT_TYPES


def strip_(notebook: NotebookNode) -> NotebookNode:
    """Drop pictures, HTML, widgets and volatile metadata; number the code cells 1, 2, ..."""
    notebook.nbformat_minor = max(notebook.nbformat_minor, 5)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.get("language_info", {}).pop("version", None)
    code_cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code_cells, start=1):
        cell.execution_count = count
        cell.outputs = [clean for output in cell.outputs if (clean := _strip_output(output, count))]
    for cell in notebook.cells:
        for key in VOLATILE_CELL_KEYS:
            cell.metadata.pop(key, None)
    return notebook


def _strip_output(output: NotebookNode, count: int) -> NotebookNode | None:
    if output.output_type == "stream":
        return output if output.text else None
    if output.output_type == "error":
        output.evalue = ANSI_COLOUR.sub("", output.evalue)
        # The frames of a traceback name files of one machine; what went wrong is enough.
        output.traceback = [f"{output.ename}: {output.evalue}"]
        return output
    output.data = {mime: data for mime, data in output.data.items() if is_text(mime)}
    output.metadata = {
        key: value for key, value in output.metadata.items() if key == "scrapbook" and output.data
    }
    if output.output_type == "execute_result":
        output.execution_count = count
    return output if output.data else None


def execute_(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Run all cells in ``folder`` as the tests do: a trailing ``;`` hides nothing there."""
    from nbclient import NotebookClient

    environment = os.environ | {"RAC_STATIC_BUILD": "1"}  # no progress bars
    where = {"metadata": {"path": str(folder)}}
    settings = {"timeout": CELL_TIMEOUT_S, "kernel_name": "python3"}
    client = NotebookClient(notebook, resources=where, **settings)
    client.reset_execution_trackers()
    with client.setup_kernel(env=environment):
        for index, cell in enumerate(notebook.cells):
            if cell.cell_type == "code":
                client.execute_cell(cell, index, store_history=False)
    return notebook


def read(path: Path) -> NotebookNode:
    """Read a notebook, or say which file is none."""
    try:
        return nbformat.read(path, as_version=4)
    except (nbformat.reader.NotJSONError, nbformat.ValidationError, KeyError) as error:
        raise ValueError(f"{path} is no notebook: {error}") from error


def to_text(notebook: NotebookNode) -> str:
    """Return the one way in which a notebook is written here: sorted keys, indent 1."""
    return nbformat.writes(notebook, version=4).rstrip("\n") + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Strip, check or execute notebooks; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.notebooks", description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path)
    parser.add_argument("--check", action="store_true", help="write nothing, name what is unclean")
    parser.add_argument("--execute", action="store_true", help="run the notebooks first")
    options = parser.parse_args(arguments)
    unclean = []
    for path in options.paths or sorted(CHAPTERS.glob("*.ipynb")):
        before = path.read_text(encoding="utf-8")
        notebook = read(path)
        if options.execute:
            print("running", path, flush=True)
            execute_(notebook, path.parent)
        after = to_text(strip_(notebook))
        if after != before:
            unclean.append(path)
            if not options.check:
                path.write_text(after, encoding="utf-8", newline="\n")
    for path in unclean:
        print("not clean:" if options.check else "wrote", path)
    return 1 if options.check and unclean else 0


if __name__ == "__main__":
    sys.exit(main())
