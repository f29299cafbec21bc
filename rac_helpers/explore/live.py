"""The live view of an explorer: ipywidgets that call ``render`` at each move."""

from __future__ import annotations

import html
import time
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from rac_helpers.explore.page import PLAY_MS
from rac_helpers.explore.picture import encode, img_tag, read_upload

if TYPE_CHECKING:
    from rac_helpers.explore.explorer import Explorer

CHEAP_SECONDS = 0.15  # slower pictures are drawn when the slider is let go


def live_view(explorer: Explorer) -> widgets.VBox:
    """Return sliders, picture and caption as one box.

    Only widgets that exist in ipywidgets 7 are used (Colab). ``HTML`` shows the picture because
    ``widgets.Image`` has no alternative text.
    """
    return _LiveView(explorer).box


class _LiveView:
    def __init__(self, explorer: Explorer):
        self.explorer = explorer
        self.photograph = None  # set by an upload
        self.picture, self.caption = widgets.HTML(), widgets.HTML()
        self.sliders = {key: _slider(s) for key, s in explorer.sliders.items()}
        start = time.perf_counter()
        self.refresh()
        cheap = time.perf_counter() - start < CHEAP_SECONDS
        for slider in self.sliders.values():
            slider.continuous_update = cheap
            slider.observe(self.refresh, names="value")
        title = widgets.HTML(f"<b>{html.escape(explorer.title)}</b>")
        upload = [self._upload_row()] if explorer.upload else []
        player = [self._player(explorer.play)] if explorer.play else []
        children = [title, *self.sliders.values(), *player, *upload, self.picture, self.caption]
        layout = widgets.Layout(border="1px solid #9aa5b1", padding="12px 16px", max_width="760px")
        self.box = widgets.VBox(children, layout=layout)

    def values(self) -> dict[str, Any]:
        specs = self.explorer.sliders
        return {key: specs[key].values[slider.value] for key, slider in self.sliders.items()}

    def refresh(self, _change=None) -> None:
        extra = {} if self.photograph is None else {"image": self.photograph}
        try:
            frame = self.explorer.draw(self.values(), **extra)
            picture = encode(frame.image)
            width_px = self.explorer.width_px
            self.picture.value = img_tag(picture, frame.caption, width_px=width_px)
            self.say(frame.caption)
        except Exception as error:  # whatever render raises: the reader sees it here, not in a log
            self.say(f"This setting cannot be drawn. {type(error).__name__}: {error}")

    def say(self, text: str) -> None:
        self.caption.value = f'<div role="status" aria-live="polite">{html.escape(text)}</div>'

    def _player(self, key: str) -> widgets.Play:
        """Return the buttons that move a slider: play, pause, back to the first."""
        slider = self.sliders[key]
        last = len(slider.options) - 1
        player = widgets.Play(min=0, max=last, value=slider.index, interval=PLAY_MS)
        widgets.link((player, "value"), (slider, "index"))
        return player

    def _upload_row(self) -> widgets.HBox:
        picker = widgets.FileUpload(accept="image/*", description="Your photograph")
        back = widgets.Button(description="The book's picture")
        for button in (picker, back):
            button.layout.width = "auto"
        picker.observe(self._take_upload, names="value")
        back.on_click(self._drop_upload)
        return widgets.HBox([picker, back])

    def _take_upload(self, change) -> None:
        chosen = change["new"]
        if not chosen:
            return
        files = list(chosen.values() if isinstance(chosen, dict) else chosen)  # a dict in version 7
        try:
            self.photograph = read_upload(bytes(files[-1]["content"]))
        except ValueError as error:
            self.say(f"The file was not used: {error}. Choose a JPEG, PNG or WebP picture.")
        else:
            self.refresh()

    def _drop_upload(self, _button) -> None:
        self.photograph = None
        self.refresh()


def _slider(spec) -> widgets.SelectionSlider:
    options = [(text, at) for at, text in enumerate(spec.texts)]  # equal texts stay apart
    return widgets.SelectionSlider(
        options=options,
        value=spec.values.index(spec.default),
        description=spec.label,
        style={"description_width": "10em"},
        layout=widgets.Layout(width="100%"),
    )
