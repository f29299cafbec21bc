"""The explorer: sliders, and what a render function makes of them."""

from __future__ import annotations

import base64
import itertools
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rac_helpers._check import check_int
from rac_helpers.explore.checks import brief, check_keys, check_render, check_text, check_values
from rac_helpers.explore.page import page_figure, value_text
from rac_helpers.explore.picture import check_picture, detach_figure, png_bytes

MAX_FRAMES = 400
STATIC_BUILD = "RAC_STATIC_BUILD"


@dataclass(frozen=True)
class Slider:
    """One slider: what ``render`` may receive, and how the reader sees it.

    Parameters
    ----------
    label : str
        Name next to the slider.
    values : sequence
        At least two different values, in the order of the slider.
    default : optional
        Value at the start, one of ``stops``. By default the first stop.
    stops : sequence, optional
        At least two of ``values``, those which the built page holds. By default all. Each needs
        its own text in the address of the page, where floats have six digits.
    texts : sequence of str, optional
        What the reader sees and hears for each of ``values``. By default ``str(value)``.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described; the message names it.

    Examples
    --------
    >>> Slider("Magnitude (M)", range(31), default=9, stops=[0, 9, 18, 27]).stops
    (0, 9, 18, 27)
    >>> Slider("Magnitude (M)", range(31), default=31)
    Traceback (most recent call last):
    ValueError: default must be one of the stops (0, 1, ..., 30), got 31
    """

    label: str
    values: Sequence
    default: Any = None
    stops: Sequence | None = None
    texts: Sequence[str] | None = None

    def __post_init__(self):
        check_text("label", self.label)
        values = check_values("values", self.values)
        stops = values if self.stops is None else check_values("stops", self.stops)
        for stop in stops:
            if stop not in values:
                raise ValueError(f"stops must be among the values {brief(values)}, got {stop!r}")
        check_keys(stops)
        default = stops[0] if self.default is None else self.default
        if default not in stops:
            raise ValueError(f"default must be one of the stops {brief(stops)}, got {default!r}")
        texts = tuple(map(value_text, values)) if self.texts is None else tuple(self.texts)
        if len(texts) != len(values):
            raise ValueError(f"texts must hold {len(values)} strings, got {len(texts)}")
        for text in texts:
            check_text("texts", text)
        stops = tuple(value for value in values if value in stops)  # in the slider's order
        checked = {"values": values, "stops": stops, "default": default, "texts": texts}
        for key, value in checked.items():
            object.__setattr__(self, key, value)

    def text(self, value) -> str:
        """Return what the reader sees for ``value``."""
        return self.texts[self.values.index(value)]


@dataclass(frozen=True)
class Frame:
    """What ``render`` returns: a picture and the sentence that says what it shows.

    Parameters
    ----------
    image : torch.Tensor, PIL.Image.Image or matplotlib.figure.Figure
        A tensor is uint8 of shape ``(3, H, W)``.
    caption : str
        Visible caption, alternative text of the picture, and text of the live region.

    Examples
    --------
    >>> import torch
    >>> Frame(torch.zeros(3, 32, 32, dtype=torch.uint8), "A black square.").caption
    'A black square.'
    """

    image: Any
    caption: str

    def __post_init__(self):
        check_picture("image", self.image)
        check_text("caption", self.caption)


class Explorer:
    """A render function with its sliders; made by :func:`explore`, shown by the notebook."""

    def __init__(self, render, sliders, *, name, title, upload, play, width_px):
        self.render, self.sliders, self.upload, self.play = render, sliders, upload, play
        self.name, self.title, self.width_px = name, title, width_px

    def draw(self, values: Mapping[str, Any], **extra) -> Frame:
        """Return the frame of one setting."""
        frame = self.render(**values, **extra)
        if not isinstance(frame, Frame):
            at = ", ".join(f"{key}={value!r}" for key, value in values.items())
            raise TypeError(f"render must return a Frame, got {type(frame).__name__} at {at}")
        detach_figure(frame.image)
        return frame

    @property
    def defaults(self) -> dict[str, Any]:
        """The setting shown first."""
        return {key: slider.default for key, slider in self.sliders.items()}

    @cached_property
    def html(self) -> str:
        """The figure of the built page, complete with its frames, style and script."""
        return page_figure(self, frames(self))

    def live(self):
        """Return the ipywidgets view."""
        from rac_helpers.explore.live import live_view

        return live_view(self)

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, Any]:
        png = png_bytes(self.draw(self.defaults).image)
        return {
            "text/html": self.html,
            "image/png": base64.b64encode(png).decode(),
            "text/plain": repr(self),
        }

    def _ipython_display_(self):
        from IPython.display import display

        if os.environ.get(STATIC_BUILD) == "1":
            display(self._repr_mimebundle_(), raw=True)
        else:
            display(self.live())

    def __repr__(self) -> str:
        return f"<Explorer {self.name}: {self.title}>"


def explore(
    render: Callable[..., Frame],
    *,
    name: str,
    title: str,
    upload: bool = False,
    play: str | None = None,
    width_px: int | None = None,
    **sliders: Slider,
) -> Explorer:
    """Let the reader move sliders and see what ``render`` makes of them.

    Parameters
    ----------
    render : callable
        Called as ``render(num_ops=2, magnitude=9)`` with one keyword a slider; returns a
        :class:`Frame`. The same values must give the same frame.
    name : str
        Short name, unique on its page: lower-case letters, digits, ``-`` and ``_``. The address
        of a setting is ``page.html#name?num_ops=2&magnitude=9``.
    title : str
        Heading of the figure.
    upload : bool
        If true, the live view also takes any photograph, which ``render`` receives as the keyword
        ``image``, a uint8 tensor ``(3, H, W)`` with both sides at most 256 pixels. Without
        one, and in the built page, the keyword is left out.
    play : str, optional
        Keyword of the slider that time runs along: buttons play it from stop to stop, make one
        step, and go back to the first stop.
    width_px : int, optional
        Width of the picture on the page. By default a figure has its size in inches at 96 dpi, and
        a small picture is enlarged a whole number of times, up to about 480.
    **sliders : Slider
        At least one. With ``upload`` none may be called ``image``.

    Returns
    -------
    Explorer
        An object that the notebook shows as the last line of a cell.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described, ``render`` does not take the sliders or does not return
        a :class:`Frame`, or the built page would hold more than 400 frames.

    Examples
    --------
    >>> import torch
    >>> def grey(level):
    ...     image = torch.full((3, 32, 32), level, dtype=torch.uint8)
    ...     return Frame(image, f"A square of grey level {level}.")
    >>> explore(grey, name="grey", title="Grey levels", level=Slider("Level", range(0, 256, 51)))
    <Explorer grey: Grey levels>
    """
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_-]*", name):
        raise ValueError(f"name must be lower-case letters, digits, - or _, got {name!r}")
    check_text("title", title)
    if width_px is not None:
        check_int("width_px", width_px, low=16, high=2000)
    _check_sliders(sliders)
    if upload and "image" in sliders:
        raise ValueError("sliders must not be called 'image': upload=True needs that keyword")
    if play is not None and play not in sliders:
        raise ValueError(f"play must name one of the sliders {[*sliders]}, got {play!r}")
    check_render(render, [*sliders, "image"] if upload else list(sliders))
    more = {"upload": upload, "play": play, "width_px": width_px}
    explorer = Explorer(render, sliders, name=name, title=title, **more)
    explorer.draw(explorer.defaults)  # an error belongs to this cell, not to the display
    if os.environ.get(STATIC_BUILD) == "1":
        _ = explorer.html
    return explorer


def frames(explorer: Explorer) -> Iterator[tuple[dict[str, Any], Frame]]:
    """Yield ``(values, frame)`` for each stop of the built page; the last slider runs fastest.

    Examples
    --------
    >>> import torch
    >>> black = torch.zeros(3, 32, 32, dtype=torch.uint8)
    >>> show = explore(lambda n: Frame(black, f"n is {n}"), name="n", title="n",
    ...                n=Slider("n", [1, 2, 3], stops=[1, 3]))
    >>> [values for values, frame in frames(show)]
    [{'n': 1}, {'n': 3}]
    """
    stops = [slider.stops for slider in explorer.sliders.values()]
    for setting in itertools.product(*stops):
        values = dict(zip(explorer.sliders, setting, strict=True))
        yield values, explorer.draw(values)


def _check_sliders(sliders: Mapping[str, Slider]) -> None:
    if not sliders:
        raise ValueError("sliders must hold at least one Slider, got none")
    for key, slider in sliders.items():
        if not isinstance(slider, Slider):
            raise TypeError(f"{key} must be a Slider, got {type(slider).__name__}")
    count = math.prod(len(slider.stops) for slider in sliders.values())
    if count > MAX_FRAMES:
        sizes = " × ".join(f"{len(s.stops)} {key}" for key, s in sliders.items())
        raise ValueError(f"stops must give at most {MAX_FRAMES} frames, got {sizes} = {count}")
