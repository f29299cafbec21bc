"""Code is shown as it stands in the package; pictures carry their caption as text."""

import ast
import json
from pathlib import Path

import myst_nb
import numpy as np
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


@pytest.mark.parametrize(
    ("theirs", "word"),
    [([1, 2, 2.9], "higher"), ([3, 4, 5.1], "lower"), ([3, 2, 4], "cannot be told apart")],
)
def test_a_difference_is_named_only_if_its_interval_does_not_hold_zero(theirs, word):
    row = show.versus([2, 3, 4], theirs)
    assert row["first is"] == word
    assert row["from"] < row["points"] < row["to"]
    assert row["points"] == pytest.approx(3 - sum(theirs) / 3)


def test_versus_takes_what_can_be_iterated_once():
    assert show.versus(iter([2, 3]), iter([1, 2.5])) == show.versus([2, 3], [1, 2.5])


def test_pm_writes_mean_and_spread_of_a_sample():
    assert show.pm(np.array([1.0, 3.0])) == "2.00 ± 1.41"
    with pytest.raises(ValueError, match="at least 2 numbers, got 1"):
        show.pm([82.0])


def test_put_hands_plain_numbers_to_the_text(monkeypatch):
    given = {}
    monkeypatch.setattr(myst_nb, "glue", lambda name, value, display: given.update({name: value}))
    show.put(score=np.float64(0.5), count=np.int64(3), word="higher")
    assert given == {"score": 0.5, "count": 3, "word": "higher"}
    assert [type(value) for value in given.values()] == [float, int, str]
