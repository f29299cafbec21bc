"""Sliders over one render function, in three editions.

``explore(render, ...)`` is the only interactive element of the course. With a kernel it is
ipywidgets and calls ``render`` at each move. In the built page it is plain range inputs over
frames drawn at build time. In print it is the default frame. All three call the same ``render``
and encode its pictures with the same function.
"""

from rac_helpers.explore.explorer import (
    MAX_FRAMES,
    STATIC_BUILD,
    Explorer,
    Frame,
    Slider,
    explore,
    frames,
)

__all__ = ["MAX_FRAMES", "STATIC_BUILD", "Explorer", "Frame", "Slider", "explore", "frames"]
