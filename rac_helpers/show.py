"""What a chapter shows besides explorers: pictures, code, transcripts, numbers in the text."""

from __future__ import annotations

import ast
import base64
import html
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from IPython.display import Markdown

from rac_helpers.explore import Frame
from rac_helpers.explore.picture import encode, img_tag, png_bytes
from rac_helpers.metrics import paired_difference


class Picture:
    """A picture with its caption, which is also its alternative text; made by :func:`picture`."""

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        caption = self.frame.caption
        tag = img_tag(encode(self.frame.image), caption)
        return {
            "text/html": f"<figure>{tag}<figcaption>{html.escape(caption)}</figcaption></figure>",
            "image/png": base64.b64encode(png_bytes(self.frame.image)).decode(),
            "text/plain": repr(self),
        }

    def __repr__(self) -> str:
        return f"<Picture: {self.frame.caption}>"


def picture(image: Any, caption: str) -> Picture:
    """Show one picture that does not move, with a sentence that says what it shows.

    Parameters
    ----------
    image : torch.Tensor, PIL.Image.Image, matplotlib Figure or Axes
        A tensor is uint8 of shape ``(3, H, W)``.
    caption : str
        Visible caption and alternative text.

    Returns
    -------
    Picture
        An object that the notebook shows as the last line of a cell.

    Raises
    ------
    TypeError, ValueError
        If ``image`` is no picture or ``caption`` is empty.

    Examples
    --------
    >>> import torch
    >>> picture(torch.zeros(3, 8, 8, dtype=torch.uint8), "A black square.")
    <Picture: A black square.>
    """
    return Picture(Frame(getattr(image, "figure", None) or image, caption))


def source(*objects: Callable) -> Markdown:
    """Show the code of functions or classes as it stands in the package, without docstrings.

    Parameters
    ----------
    *objects : callable
        Functions or classes.

    Returns
    -------
    IPython.display.Markdown
        A Python code block; its first line names the file.

    Raises
    ------
    TypeError
        If an object is neither a function nor a class.

    Examples
    --------
    >>> from rac_helpers.rng import make_generator
    >>> print(source(make_generator).data)
    ```python
    # rac_helpers/rng.py
    def make_generator(seed: int) -> torch.Generator:
        return torch.Generator().manual_seed(check_int("seed", seed, low=0, high=_MAX_SEED))
    ```
    """
    blocks, module = [], None
    for item in objects:
        if not (inspect.isfunction(item) or inspect.isclass(item)):
            raise TypeError(f"objects must be functions or classes, got {type(item).__name__}")
        code = _without_docstrings(textwrap.dedent(inspect.getsource(item)))
        if item.__module__ != module:
            module = item.__module__
            code = f"# {_path(module)}\n{code}"
        blocks.append(code)
    return Markdown("```python\n" + "\n\n".join(blocks) + "\n```")


def transcript(steps: Sequence[Mapping[str, str]]) -> Markdown:
    """Show recorded steps: for each its title, its code and what it printed or raised.

    Parameters
    ----------
    steps : sequence of mapping
        Each with the keys ``title``, ``code`` and ``output``, as in
        ``book/results/article_samples.json``.

    Returns
    -------
    IPython.display.Markdown
        Code blocks with their outputs.

    Examples
    --------
    >>> print(transcript([{"title": "A sum", "code": "print(1 + 1)", "output": "2"}]).data)
    **A sum**
    <BLANKLINE>
    ```python
    print(1 + 1)
    ```
    <BLANKLINE>
    ```text
    2
    ```
    """
    parts = []
    for step in steps:
        parts.append(f"**{step['title']}**")
        parts.append(f"```python\n{step['code']}\n```")
        parts.append(f"```text\n{step['output']}\n```")
    return Markdown("\n\n".join(parts))


def put(**values: Any) -> None:
    """Hand numbers and words to the text of a chapter, where ``{glue:text}`` takes them by name.

    Parameters
    ----------
    **values
        NumPy's numbers become Python's: so a word in the text does not read ``np.float64(0.5)``.

    Examples
    --------
    >>> put(accuracy=0.5)  # in the text: {glue:text}`accuracy:.2f`
    """
    from myst_nb import glue  # late: it brings all of Sphinx, and only a chapter needs it

    for name, value in values.items():
        glue(name, value.item() if isinstance(value, np.generic) else value, display=False)


def versus(ours: Iterable[float], theirs: Iterable[float]) -> dict[str, float | str]:
    """Compare two lists of scores, seed by seed, as a row of a table.

    Parameters
    ----------
    ours, theirs : iterable of float
        Equally many, at least two, in the same order of seeds.

    Returns
    -------
    dict
        ``points``: the mean of the differences; ``from`` and ``to``: its 95 % t interval;
        ``first is``: "higher" or "lower" if the interval does not hold 0, else "cannot be told
        apart".

    Raises
    ------
    TypeError, ValueError
        As :func:`rac_helpers.metrics.paired_difference`.

    Examples
    --------
    >>> versus([82, 83, 82.5], [80, 81, 80.5])["first is"]
    'higher'
    >>> versus([82, 83], [83, 82])["first is"]
    'cannot be told apart'
    """
    gap = paired_difference(list(ours), list(theirs))
    unsure = "cannot be told apart"
    word = "higher" if gap.low > 0 else "lower" if gap.high < 0 else unsure
    return {"points": gap.mean, "from": gap.low, "to": gap.high, "first is": word}


def pm(values: Sequence[float]) -> str:
    """Write mean and standard deviation with two digits.

    Parameters
    ----------
    values : sequence of float
        At least two.

    Returns
    -------
    str

    Raises
    ------
    ValueError
        If there are fewer: one value has no spread.

    Examples
    --------
    >>> pm([82.0, 83.0, 84.0])
    '83.00 ± 1.00'
    """
    if len(values) < 2:
        raise ValueError(f"values must hold at least 2 numbers, got {len(values)}")
    return f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f}"


def _path(module: str) -> str:
    return module.replace(".", "/") + ".py"


def _without_docstrings(code: str) -> str:
    lines = code.rstrip().splitlines()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            statement = node.body[0]
            for index in range(statement.lineno - 1, statement.end_lineno):
                lines[index] = None
    kept = "\n".join(line for line in lines if line is not None)
    while "\n\n\n" in kept:
        kept = kept.replace("\n\n\n", "\n\n")
    return kept.replace(":\n\n    ", ":\n    ")
