"""One render function, three editions: they agree, and bad input names its argument."""

import base64
import html
import io
import json
import os
import re
import subprocess
import sys
from datetime import datetime

import ipywidgets as widgets
import numpy as np
import pytest
import torch
from PIL import Image

from rac_helpers.explore import MAX_FRAMES, Frame, Slider, explore, frames
from rac_helpers.explore.picture import encode, img_tag, read_upload


def paint(hue, gain, image=None):
    """A picture with structure that depends on both values."""
    ramp = torch.arange(96).repeat(96, 1)  # (H, W)
    picture = torch.stack([ramp, ramp.T, torch.full_like(ramp, hue)]) * gain
    picture = picture.clamp(0, 255).to(torch.uint8) if image is None else image
    return Frame(picture, f"Hue {hue}, gain {gain:g} <&> {'yours' if image is not None else ''}")


def painter(**changes):
    settings = {
        "name": "paint",
        "title": "Paint",
        "hue": Slider("Hue", range(0, 200, 20), default=40, stops=[0, 40, 180]),
        "gain": Slider("Gain", [0.5, 1.0, 2.0], default=1.0, texts=["half", "one", "double"]),
    }
    return explore(paint, **settings | changes)


def page_data(explorer):
    found = re.search(r'<script type="application/json">(.*?)</script>', explorer.html, re.DOTALL)
    return json.loads(found.group(1))


def parts_of(view):
    """Return the sliders by label, the picture and the caption of a live view."""
    sliders = {child.description: child for child in view.children if hasattr(child, "options")}
    *_, picture, caption = view.children
    return sliders, picture, caption


def src_and_alt(tag):
    found = re.search(r'<img src="([^"]+)" alt="([^"]*)"', tag)
    return found.group(1), html.unescape(found.group(2))


def png_file(size=(700, 400), **options):
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 30, 90)).save(buffer, **{"format": "PNG"} | options)
    return buffer.getvalue()


def upload(view, data):
    """What the browser sends when the reader chooses a file."""
    row = next(child for child in view.children if hasattr(child, "children"))
    when = datetime(2026, 1, 1)
    item = {"name": "photo", "type": "image/png", "size": len(data), "last_modified": when}
    item["content"] = memoryview(data)
    row.children[0].value = ()
    row.children[0].value = (item,)
    return row


def test_page_and_live_view_agree_at_every_stop():
    explorer = painter()
    data, view = page_data(explorer), explorer.live()
    sliders, picture, caption = parts_of(view)
    seen = set()
    for number, (values, frame) in enumerate(frames(explorer)):
        for key, spec in explorer.sliders.items():
            sliders[spec.label].value = spec.values.index(values[key])
        image, words = data["frames"][number]
        on_page = data["images"][image], data["captions"][words]
        assert src_and_alt(picture.value) == on_page
        assert frame.caption == on_page[1]
        assert html.escape(frame.caption) in caption.value
        seen.add(on_page)
    assert number + 1 == len(data["frames"]) == 9
    assert len(seen) == 9, "all frames of this explorer differ, so the comparison can fail"


def test_agreement_test_can_fail():
    calls = iter(range(10_000))

    def drifting(n):
        level = next(calls) % 256
        return Frame(torch.full((3, 8, 8), level, dtype=torch.uint8), f"call {level}")

    explorer = explore(drifting, name="n", title="n", n=Slider("n", [1, 2]))
    data, view = page_data(explorer), explorer.live()
    assert src_and_alt(parts_of(view)[1].value)[0] != data["images"][0]


def test_live_view_has_all_values_and_the_page_only_the_stops():
    explorer = painter()
    sliders, _, _ = parts_of(explorer.live())
    assert [len(slider.options) for slider in sliders.values()] == [10, 3]
    assert [scale["keys"] for scale in page_data(explorer)["sliders"]] == [
        ["0", "40", "180"],
        ["0.5", "1", "2"],
    ]
    assert page_data(explorer)["sliders"][1]["texts"] == ["half", "one", "double"]


def test_live_slider_recomputes_beyond_the_stops():
    sliders, picture, caption = parts_of(painter().live())
    before = picture.value
    sliders["Hue"].value = 5  # 100, not a stop
    assert picture.value != before
    assert "Hue 100" in caption.value
    assert 'aria-live="polite"' in caption.value


def test_equal_frames_are_stored_once():
    def constant(n, m):
        return Frame(torch.full((3, 32, 32), m, dtype=torch.uint8), f"m is {m}")

    explorer = explore(
        constant, name="c", title="c", n=Slider("n", range(5)), m=Slider("m", [1, 99])
    )
    data = page_data(explorer)
    assert len(data["frames"]) == 10
    assert len(data["images"]) == len(data["captions"]) == 2


def test_page_is_self_contained_and_accessible():
    page = painter().html
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert page.count('type="range"') == page.count("<label for=") == 2
    assert 'aria-live="polite"' in page
    assert "<noscript>" in page
    assert "Hue 40, gain 1 &lt;&amp;&gt;" in page
    assert 'aria-valuetext="one"' in page
    assert page == painter().html, "identifiers and frames are deterministic"


def test_text_cannot_close_the_script():
    def hostile(n):
        return Frame(torch.zeros(3, 8, 8, dtype=torch.uint8), f"</script><!--<script> {n}")

    explorer = explore(hostile, name="h", title="<b>", n=Slider("<i>", [1, 2]))
    assert page_data(explorer)["captions"][0] == "</script><!--<script> 1"
    assert "<b>" not in explorer.html
    assert "<i>" not in explorer.html


def test_bundle_holds_page_print_and_text():
    bundle = painter()._repr_mimebundle_()
    assert set(bundle) == {"text/html", "image/png", "text/plain"}
    assert bundle["text/plain"] == "<Explorer paint: Paint>"
    with Image.open(io.BytesIO(base64.b64decode(bundle["image/png"]))) as picture:
        assert picture.size == (96, 96)
        assert picture.getpixel((95, 0)) == (95, 0, 40)


DISPLAY = """
import torch
from IPython.core.interactiveshell import InteractiveShell
from rac_helpers.explore import Frame, Slider, explore
shell = InteractiveShell.instance()
shell.display_pub.publish = lambda data, **_: print(*sorted(data))
show = explore(lambda n: Frame(torch.zeros(3, 8, 8, dtype=torch.uint8), f"n is {n}"),
               name="n", title="n", n=Slider("n", [1, 2]))
shell.display_formatter.format(show)
"""


def run_python(code, **environment):
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_notebook_displays_the_edition_of_its_environment():
    static = run_python(DISPLAY, RAC_STATIC_BUILD="1")
    assert static == "image/png text/html text/plain"
    live = run_python(DISPLAY, RAC_STATIC_BUILD="")
    assert "application/vnd.jupyter.widget-view+json" in live
    assert "text/html" not in live


def test_static_build_draws_every_stop_in_the_cell(monkeypatch):
    monkeypatch.setenv("RAC_STATIC_BUILD", "1")

    def fragile(n):
        if n == 3:
            raise ZeroDivisionError("n is 3")
        return Frame(torch.zeros(3, 8, 8, dtype=torch.uint8), f"n is {n}")

    with pytest.raises(ZeroDivisionError):
        explore(fragile, name="f", title="f", n=Slider("n", [1, 2, 3]))


def test_live_view_shows_an_error_of_render_in_words():
    def fragile(n):
        if n == 3:
            raise ZeroDivisionError("n is <3>")
        return Frame(torch.zeros(3, 8, 8, dtype=torch.uint8), f"n is {n}")

    view = explore(fragile, name="f", title="f", n=Slider("n", [1, 2, 3])).live()
    sliders, _, caption = parts_of(view)
    sliders["n"].value = 2
    assert "ZeroDivisionError: n is &lt;3&gt;" in caption.value
    sliders["n"].value = 0
    assert "n is 1" in caption.value


def test_upload_replaces_the_picture_and_back():
    view = painter(upload=True).live()
    sliders, picture, caption = parts_of(view)
    before = picture.value
    row = upload(view, png_file())
    assert "yours" in caption.value
    assert 'width="256"' in picture.value
    assert 'height="146"' in picture.value
    sliders["Hue"].value = 0
    assert "yours" in caption.value
    sliders["Hue"].value = 2
    row.children[1].click()
    assert picture.value == before


def test_upload_of_ipywidgets_7_is_a_dict():
    from rac_helpers.explore.live import _LiveView

    live = _LiveView(painter(upload=True))
    live._take_upload({"new": {"photo.png": {"content": png_file()}}})
    assert "yours" in live.caption.value


@pytest.mark.parametrize(
    "data",
    [b"", b"no picture at all", png_file()[:120], png_file(format="JPEG")[:600]],
    ids=["empty", "text", "cut PNG", "cut JPEG"],
)
def test_bad_upload_is_told_in_the_widget(data):
    view = painter(upload=True).live()
    _, picture, caption = parts_of(view)
    before = picture.value
    upload(view, data)
    assert "The file was not used" in caption.value
    assert "JPEG, PNG or WebP" in caption.value
    assert picture.value == before


def test_upload_is_turned_upright_and_small():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    image = read_upload(png_file((3000, 1500), format="JPEG", exif=exif))
    assert image.shape == (3, 256, 128)
    assert image.dtype == torch.uint8
    grey = io.BytesIO()
    Image.new("LA", (20, 10), (7, 255)).save(grey, "PNG")
    assert read_upload(grey.getvalue()).unique().tolist() == [7]


def test_upload_of_16_bits_keeps_its_greys():
    levels = np.array([[0, 255, 257, 32768, 65535]], dtype=np.uint16)
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    assert read_upload(file.getvalue())[0].tolist() == [[0, 1, 1, 128, 255]]
    frame = Frame(Image.fromarray(levels), "Five greys.")
    assert decode(encode(frame.image))[2].tolist() == [[0, 1, 1, 128, 255]]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_laid_on_white(mode):
    picture = Image.new("RGBA", (3, 1), (0, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    file = io.BytesIO()
    picture.convert(mode).save(file, "PNG")
    assert read_upload(file.getvalue())[1].tolist() == [[0, 255, 0]]


def test_half_transparent_is_half_white():
    file = io.BytesIO()
    Image.new("RGBA", (2, 2), (200, 0, 0, 128)).save(file, "PNG")
    red, green, blue = read_upload(file.getvalue())[:, 0, 0].tolist()
    assert (red, green, blue) == (227, 127, 127)


class Elsewhere(torch.Tensor):
    """A stand-in for a tensor on a GPU: its numbers must be fetched before numpy sees them."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def numpy(self):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")


def test_tensor_on_another_device_is_fetched():
    image = torch.full((3, 8, 8), 7, dtype=torch.uint8).as_subclass(Elsewhere)
    assert decode(encode(image)).unique().tolist() == [7]


def test_a_slider_can_be_played():
    explorer = painter(play="hue")
    for text in ("Play", "Step", "Reset"):
        assert f'<button type="button" disabled>{text}</button>' in explorer.html
        assert f">{text}</button>" not in painter().html
    view = explorer.live()
    [player] = [child for child in view.children if isinstance(child, widgets.Play)]
    slider = next(c for c in view.children if isinstance(c, widgets.SelectionSlider))
    assert (player.min, player.max, player.value) == (0, len(slider.options) - 1, slider.index)
    player.value = player.max
    assert slider.index == player.max
    slider.index = 0
    assert player.value == 0


def test_no_upload_without_the_option_or_on_the_page():
    assert not any(hasattr(child, "children") for child in painter().live().children)
    assert 'type="file"' not in painter(upload=True).html


def test_small_pictures_are_exact_and_large_ones_close():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=generator)
    assert torch.equal(decode(encode(noise)), noise)
    smooth = paint(40, 1.0).image
    difference = decode(encode(smooth)).float() - smooth.float()
    assert difference.abs().mean() < 3


def decode(encoded):
    data = base64.b64decode(encoded.uri.partition(",")[2])
    pixels = Image.open(io.BytesIO(data)).convert("RGB")
    return (
        torch.tensor(list(pixels.tobytes()), dtype=torch.uint8)
        .reshape(encoded.height_px, encoded.width_px, 3)
        .permute(2, 0, 1)
    )


@pytest.mark.parametrize(
    ("size", "width_px", "shown", "sharp"),
    [
        (128, None, 384, True),
        (32, None, 480, True),
        (600, None, 600, False),
        (128, 200, 200, False),
    ],
)
def test_small_pictures_are_enlarged_a_whole_number_of_times(size, width_px, shown, sharp):
    picture = encode(torch.zeros(3, size, size, dtype=torch.uint8))
    tag = img_tag(picture, "black", width_px=width_px)
    assert f'width="{shown}" height="{shown}"' in tag
    assert ("pixelated" in tag) == sharp


def test_figures_are_small_and_leave_pyplot():
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    def chart(n):
        figure, axes = plt.subplots(figsize=(6, 3))
        axes.plot(range(n))
        return Frame(figure, f"A line of {n} points.")

    explorer = explore(chart, name="chart", title="Chart", n=Slider("Points", [2, 5, 9]))
    assert 'width="576" height="288"' in explorer.html
    assert len(explorer.html) < 60_000
    assert plt.get_fignums() == []


def test_pil_images_are_accepted():
    frame = Frame(Image.new("L", (40, 30), 128), "Grey.")
    assert encode(frame.image).width_px == 40


def bad_sliders():
    def nothing(**_):
        return None

    one = Slider("n", [1, 2])
    many = {"a": Slider("a", range(30)), "b": Slider("b", range(20))}
    return [
        (lambda: Slider("n", []), ValueError, "values must be at least two"),
        (lambda: Slider("n", [1, 1]), ValueError, "values must be at least two different"),
        (lambda: Slider("n", "abc"), TypeError, "values must be a sequence"),
        (lambda: Slider("n", 3), TypeError, "values must be a sequence"),
        (lambda: Slider(" ", [1, 2]), ValueError, "label must not be an empty string"),
        (lambda: Slider(None, [1, 2]), TypeError, "label must be a string"),
        (lambda: Slider("n", [1, 2], default=3), ValueError, "default must be one of the stops"),
        (lambda: Slider("n", [1, 2, 3], stops=[1, 4]), ValueError, "stops must be among"),
        (lambda: Slider("n", [1, 2, 3], stops=[1]), ValueError, "stops must be at least two"),
        (
            lambda: Slider("n", [1000001.0, 1000002.0]),
            ValueError,
            r"stops must differ .* 1000001.0 and 1000002.0, both '1e\+06'",
        ),
        (lambda: Slider("n", [1, 2], texts=["one"]), ValueError, "texts must hold 2 strings"),
        (lambda: Slider("n", [1, 2], texts=["one", 2]), TypeError, "texts must be a string"),
        (lambda: Frame(torch.zeros(3, 8, 8), "x"), TypeError, "image must be a uint8"),
        (lambda: Frame(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "x"), ValueError, "image must"),
        (lambda: Frame("photo.png", "x"), TypeError, "image must be a uint8 tensor"),
        (lambda: Frame(Image.new("RGB", (2, 2)), ""), ValueError, "caption must not be"),
        (lambda: explore(paint, name="A b", title="t", n=one), ValueError, "name must be lower"),
        (lambda: explore(paint, name="a", title="", n=one), ValueError, "title must not be"),
        (lambda: explore(paint, name="a", title="t"), ValueError, "sliders must hold at least"),
        (
            lambda: explore(paint, name="a", title="t", n=3),
            TypeError,
            "n must be a Slider",
        ),
        (lambda: explore(paint, name="a", title="t", n=one), TypeError, "render must take .* n;"),
        (
            lambda: explore(paint, name="a", title="t", play="gain", hue=one),
            ValueError,
            r"play must name one of the sliders \['hue'\], got 'gain'",
        ),
        (lambda: explore("paint", name="a", title="t", n=one), TypeError, "render must be a func"),
        (lambda: explore(nothing, name="a", title="t", n=one), TypeError, "Frame, got None.* n=1"),
        (
            lambda: explore(lambda n: None, name="a", title="t", upload=True, n=one),
            TypeError,
            "image",
        ),
        (
            lambda: explore(lambda image: None, name="a", title="t", upload=True, image=one),
            ValueError,
            "sliders must not be called 'image'",
        ),
        (lambda: painter(width_px=3), ValueError, "width_px must be an integer in"),
        (lambda: explore(nothing, name="a", title="t", **many), ValueError, "30 a × 20 b = 600"),
    ]


@pytest.mark.parametrize(("call", "error", "message"), bad_sliders())
def test_bad_input_names_the_argument(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_values_beyond_the_stops_may_share_a_text():
    slider = Slider("n", [1.0, 1000001.0, 1000002.0], stops=[1.0, 1000002.0])
    assert len(slider.values) == 3


def test_slider_may_be_called_image_without_upload():
    explore(lambda image: paint(image, 1.0), name="a", title="t", image=Slider("n", [1, 2]))


def test_limit_counts_stops_not_values():
    wide = Slider("a", range(1000), stops=[0, 999])
    assert len(wide.values) > MAX_FRAMES
    explore(lambda a: paint(a % 200, 1.0), name="a", title="t", a=wide)


def test_stops_follow_the_order_of_the_slider():
    assert Slider("n", [1, 2, 3], stops=[3, 1], default=3).stops == (1, 3)


def test_import_loads_neither_matplotlib_nor_ipywidgets():
    code = "import sys, rac_helpers.explore; print({'matplotlib', 'ipywidgets'} & set(sys.modules))"
    assert run_python(code) == "set()"
