"""Check the shape of the package, from its source text alone.

The rules (``python -m tools.layers`` prints what breaks them and exits with 1):

1. A module of ``rac_helpers`` imports only modules of lower layers. Modules of layer 0 may also
   import ``_check``, which imports none. Imports inside functions count, too. A subpackage
   (``prune/``) is one module, whose parts may import each other. The package's own ``__init__``
   imports none.
2. Every module stands in ``LAYERS``.
3. A module has at most 300 lines, a function at most 25 lines of code in its body (docstring,
   comments and blank lines not counted), and at most 5 positional parameters beside ``self``.
   A code cell of a chapter has at most 15 lines (blank ones not counted); one cell a chapter may
   have 25. Folded cells (tags ``hide-input``, ``hide-cell``) and the first cell with imports may
   have 30.
4. Nobody seeds global random state (only ``rng.scoped_seed`` may) or touches ``sys.path``.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = "rac_helpers"
LAYERS = {
    0: ("_check", "_progress", "rng", "records"),
    1: ("sweep", "ops", "data", "models", "metrics"),
    2: ("augment", "corrupt", "train", "prune", "quantize", "distill", "lowrank"),
    3: ("nas", "tune"),
    4: ("plots",),
    5: ("explore", "exercises"),
    6: ("show",),
}
LAYER_OF = {name: layer for layer, names in LAYERS.items() for name in names}
TO_CHECK = {("_check", name) for name in LAYERS[0] if name != "_check"}
MAX_MODULE_LINES = 300
MAX_FUNCTION_LINES = 25
MAX_POSITIONAL = 5
MAX_CELL_LINES = 15
MAX_LONGEST_CELL_LINES = 25
MAX_FREE_CELL_LINES = 30
FOLDED_TAGS = {"hide-input", "hide-cell"}
GLOBAL_STATE = {
    "random.seed",
    "np.random.seed",
    "numpy.random.seed",
    "torch.seed",
    "torch.manual_seed",
    "torch.random.manual_seed",
    "torch.default_generator.manual_seed",
    "torch.cuda.manual_seed",
    "torch.cuda.manual_seed_all",
    "sys.path",
}


def imported_modules(tree: ast.Module, parts: tuple[str, ...]) -> Iterator[tuple[str, int, bool]]:
    """Yield the modules of the package that ``tree`` imports: name, line, whether for types only.

    Parameters
    ----------
    tree : ast.Module
        The source of the module ``parts``.
    parts : tuple of str
        The module's name below the package: ``("prune", "masks")``; ``("prune", "__init__")`` for
        a subpackage itself.
    """
    types_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and _dotted(node.test).endswith("TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            home = node.module or ""
            if node.level:  # from . import x, from ..ops import y
                anchor = (PACKAGE, *parts)[: len(parts) + 1 - node.level]
                home = ".".join((*anchor, home)).rstrip(".")
            names = [f"{home}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            below = name.split(".")[1:] if name.split(".")[0] == PACKAGE else []
            if below and not below[0].startswith("__"):
                yield below[0], node.lineno, node in types_only


def layer_problems(path: Path, parts: tuple[str, ...]) -> Iterator[str]:
    """Yield the forbidden imports of one module."""
    own = parts[0]
    if own != "__init__" and own not in LAYER_OF:
        yield f"{path}: module {own!r} stands in no layer; add it to LAYERS in tools/layers.py"
        return
    for name, line, types_only in imported_modules(_parse(path), parts):
        if name == own:
            continue
        if name not in LAYER_OF:
            yield f"{path}:{line}: imports {name!r}, which stands in no layer"
        elif own == "__init__":
            yield f"{path}:{line}: the package itself imports {name!r}; it must import none"
        elif LAYER_OF[name] >= LAYER_OF[own] + types_only and (name, own) not in TO_CHECK:
            yield (
                f"{path}:{line}: {own!r} (layer {LAYER_OF[own]}) imports {name!r} "
                f"(layer {LAYER_OF[name]}); only lower layers are allowed"
            )


def size_problems(path: Path) -> Iterator[str]:
    """Yield what is too long or takes too many positional parameters in one module."""
    lines = path.read_text(encoding="utf-8").splitlines()
    if len(lines) > MAX_MODULE_LINES:
        yield f"{path}: {len(lines)} lines, at most {MAX_MODULE_LINES}"
    for node in ast.walk(_parse(path)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        where = f"{path}:{node.lineno}: {node.name}"
        length = _code_lines(node, lines)
        if length > MAX_FUNCTION_LINES:
            yield f"{where}: {length} lines of code, at most {MAX_FUNCTION_LINES}"
        names = [argument.arg for argument in node.args.posonlyargs + node.args.args]
        positional = len(names) - (names[:1] in (["self"], ["cls"]))
        if positional > MAX_POSITIONAL:
            yield f"{where}: {positional} positional parameters, at most {MAX_POSITIONAL}"


def _code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body:
        return 0
    start = body[0].lineno
    if isinstance(body[0], ast.FunctionDef | ast.ClassDef) and body[0].decorator_list:
        start = body[0].decorator_list[0].lineno
    inside = lines[start - 1 : function.end_lineno]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in inside)


def global_state_problems(tree: ast.Module, where: str) -> Iterator[str]:
    """Yield the places where a source seeds global random state or touches ``sys.path``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            names = [_dotted(node)]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (f"{where}:{node.lineno}: uses {name}" for name in names if name in GLOBAL_STATE)


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def check_package(package: Path) -> list[str]:
    """Return every violation of the rules in the package's folder."""
    problems = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        problems += layer_problems(path, parts)
        problems += size_problems(path)
        if parts != ("rng",):
            problems += global_state_problems(_parse(path), str(path))
    return problems


def check_notebook(path: Path) -> list[str]:
    """Return the cells of a notebook that are too long, seed global state or touch ``sys.path``."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = {f"{path} cell {n}": c for n, c in enumerate(cells) if c["cell_type"] == "code"}
    problems = list(cell_length_problems(code))
    for where, cell in code.items():
        tree = _parse_cell(cell)
        if tree is not None:
            problems += global_state_problems(tree, where)
        elif "raises-exception" not in _tags(cell):
            problems.append(f"{where}: is no Python")
    return problems


def cell_length_problems(cells: dict[str, dict]) -> Iterator[str]:
    """Yield the code cells of one chapter that are too long; ``cells`` maps places to cells."""
    imports = next((where for where, cell in cells.items() if _has_import(cell)), None)
    longest_seen = False
    for where, cell in cells.items():
        length = sum(bool(line.strip()) for line in _cell_lines(cell))
        if where == imports or FOLDED_TAGS & _tags(cell):
            if length > MAX_FREE_CELL_LINES:
                yield f"{where}: {length} lines, at most {MAX_FREE_CELL_LINES} (folded, imports)"
        elif length > MAX_LONGEST_CELL_LINES:
            yield f"{where}: {length} lines, at most {MAX_LONGEST_CELL_LINES}"
        elif length > MAX_CELL_LINES:
            if longest_seen:
                yield f"{where}: {length} lines, at most {MAX_CELL_LINES}; one cell may have more"
            longest_seen = True


def _cell_lines(cell: dict) -> list[str]:
    return "".join(cell["source"]).splitlines()


def _tags(cell: dict) -> set[str]:
    return set(cell["metadata"].get("tags", []))


def _parse_cell(cell: dict) -> ast.Module | None:
    lines = _cell_lines(cell)
    code = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in lines)
    try:
        return ast.parse(code)
    except SyntaxError:
        return None


def _has_import(cell: dict) -> bool:
    tree = _parse_cell(cell)
    return tree is not None and any(isinstance(x, ast.Import | ast.ImportFrom) for x in tree.body)


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def main() -> int:
    """Print the violations of the package, the experiments and the chapters."""
    problems = check_package(Path(PACKAGE))
    for script in sorted(Path("experiments").glob("*.py")):
        problems += global_state_problems(_parse(script), str(script))
    for notebook in sorted(Path("chapters").glob("*.ipynb")):
        problems += check_notebook(notebook)
    print("\n".join(problems) or "the layers hold")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
