"""Code is shown as it stands in the package; pictures carry their caption as text."""

import ast
import json
from pathlib import Path

import pytest
import torch

from rac_helpers import augment, models, ops, plots, show

RESULTS = Path(__file__).parents[1] / "book" / "results"


@pytest.mark.parametrize(
    "item", [augment.draw_ops, augment.RandAugment, ops.color, models.resnet20]
)
def test_shown_code_is_the_packages_without_docstrings(item):
    text = show.source(item).data
    code = text.removeprefix("```python\n").removesuffix("\n```")
    assert code.startswith("# rac_helpers/")
    assert '"""' not in code
    tree = ast.parse(code)
    assert tree.body[0].name == item.__name__


def test_two_objects_of_one_file_name_it_once():
    text = show.source(ops.color, ops.contrast).data
    assert text.count("# rac_helpers/ops/blend.py") == 1
    assert "def color" in text
    assert "def contrast" in text


def test_source_wants_functions():
    with pytest.raises(TypeError, match="objects must be functions or classes, got int"):
        show.source(3)


def test_transcript_of_the_record():
    record = json.loads((RESULTS / "article_samples.json").read_text(encoding="utf-8"))
    steps = record["samples"]["rand_augment"]
    text = show.transcript(steps).data
    assert all(f"**{step['title']}**" in text for step in steps)
    assert all(step["output"] in text for step in steps)


def test_picture_has_its_caption_as_alternative_text():
    image = torch.zeros(3, 8, 8, dtype=torch.uint8)
    bundle = show.picture(image, 'Black & "small".')._repr_mimebundle_()
    assert 'alt="Black &amp; &quot;small&quot;."' in bundle["text/html"]
    assert "<figcaption>Black &amp; &quot;small&quot;.</figcaption>" in bundle["text/html"]
    assert bundle["text/plain"] == '<Picture: Black & "small".>'
    assert bundle["image/png"]


def test_picture_takes_axes_and_figures():
    axes = plots.new_axes()
    for image in (axes, axes.figure):
        assert "data:image/webp" in show.picture(image, "Empty.")._repr_mimebundle_()["text/html"]


def test_picture_wants_a_caption():
    with pytest.raises(ValueError, match="caption must not be an empty string"):
        show.picture(torch.zeros(3, 8, 8, dtype=torch.uint8), " ")
