"""The figure of an explorer in the built page: plain HTML over frames drawn at build time."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from importlib import resources
from typing import TYPE_CHECKING, Any

from rac_helpers.explore.picture import encode, img_tag

if TYPE_CHECKING:
    from rac_helpers.explore.explorer import Explorer, Frame, Slider

_FIGURE = """\
<figure class="rac-explorer" id="explore-{name}" data-name="{name}" role="group" \
aria-labelledby="explore-{name}-title">
<style>{style}</style>
<p class="rac-title" id="explore-{name}-title">{title}</p>
<div class="rac-sliders">
{inputs}
</div>{player}
<noscript><p>Without JavaScript the sliders rest: this is the first picture.</p></noscript>
{image}
<figcaption><output class="rac-caption" for="{inputs_ids}" aria-live="polite">{caption}</output>\
</figcaption>
<script type="application/json">{data}</script>
<script>{script}</script>
</figure>"""


BUTTONS = ("Play", "Step", "Reset")
PLAY_MS = 900  # for each stop


def page_figure(explorer: Explorer, frames: Iterable[tuple[dict[str, Any], Frame]]) -> str:
    """Return the figure with its frames, style and script; it needs no other file."""
    sliders = explorer.sliders
    data, image, caption = _store(explorer, frames)
    data["sliders"] = [
        {"keys": [value_text(stop) for stop in s.stops], "texts": list(map(s.text, s.stops))}
        for s in sliders.values()
    ]
    return _FIGURE.format(
        name=explorer.name,
        title=html.escape(explorer.title),
        inputs="\n".join(_range_input(explorer.name, key, s) for key, s in sliders.items()),
        player=_player(explorer.play, sliders),
        inputs_ids=" ".join(f"explore-{explorer.name}-{key}" for key in sliders),
        image=image,
        caption=html.escape(caption),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        style=_asset("page.css"),
        script=_asset("page.js"),
    )


def value_text(value) -> str:
    """Return ``value`` as the reader and the address of the page show it."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _store(explorer: Explorer, frames: Iterable) -> tuple[dict[str, Any], str, str]:
    """Return equal pictures and captions once, with the first ``<img>`` and its caption."""
    images, captions, order = {}, {}, []
    for values, frame in frames:
        picture = encode(frame.image)
        at = images.setdefault(picture.uri, len(images))
        order.append([at, captions.setdefault(frame.caption, len(captions))])
        if values == explorer.defaults:
            image = img_tag(picture, frame.caption, width_px=explorer.width_px)
            caption = frame.caption
    data = {"frames": order, "captions": list(captions), "images": list(images)}
    return data, image, caption


def _range_input(name: str, key: str, slider: Slider) -> str:
    text, at = html.escape(slider.text(slider.default)), slider.stops.index(slider.default)
    ident = f"explore-{name}-{key}"
    return (
        f'<div class="rac-slider"><label for="{ident}">{html.escape(slider.label)}</label>'
        f'<input type="range" id="{ident}" name="{key}" min="0" max="{len(slider.stops) - 1}" '
        f'step="1" value="{at}" aria-valuetext="{text}" autocomplete="off" disabled>'
        f'<output for="{ident}" aria-live="off">{text}</output></div>'
    )


def _player(play: str | None, sliders: dict[str, Slider]) -> str:
    """Return the buttons that move a slider, if there is one to play."""
    if play is None:
        return ""
    buttons = "".join(f'<button type="button" disabled>{text}</button>' for text in BUTTONS)
    label = html.escape(sliders[play].label)
    return (
        f'\n<div class="rac-player" data-plays="{play}" data-ms="{PLAY_MS}" role="group" '
        f'aria-label="{label}">{buttons}</div>'
    )


def _asset(name: str) -> str:
    return resources.files("rac_helpers.explore").joinpath(name).read_text(encoding="utf-8").strip()
