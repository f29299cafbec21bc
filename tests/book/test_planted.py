"""Planted defects: each check of the book fails on a page that deserves it."""

import book_checks as checks
import pytest
import torch

from rac_helpers.explore import Frame, Slider, explore

PAGE = """<!doctype html><html lang="en"><head><title>Planted</title></head>
<body><main><article><h1>Planted</h1>{body}</article></main></body></html>"""


def shade(level):
    return Frame(torch.full((3, 16, 16), level, dtype=torch.uint8), f"Grey level {level}.")


EXPLORER = explore(shade, name="grey", title="Grey", level=Slider("Level", [0, 99, 200])).html


LEVELS = Slider("Level", [0, 99, 200], default=99)
PLAYER = explore(shade, name="grey", title="Grey", play="level", level=LEVELS).html


def same(level):
    return Frame(torch.zeros(3, 16, 16, dtype=torch.uint8), f"Grey level {level}.")


ONE_PICTURE = explore(same, name="grey", title="Grey", level=Slider("Level", [0, 99, 200])).html


@pytest.fixture
def open_page(browser, tmp_path):
    """Open a page with the given body; returns the visit as a context."""

    def opened(body, fragment="", **options):
        path = tmp_path / "planted.html"
        path.write_text(PAGE.format(body=body), encoding="utf-8")
        return checks.visit(browser, path.as_uri() + fragment, **options)

    return opened


def without(text, part, new=""):
    """Plant a defect: ``part`` of ``text`` replaced."""
    assert part in text
    return text.replace(part, new)


def test_a_sound_page_passes_every_check(open_page):
    with open_page(EXPLORER) as seen:
        checks.check_axe(seen.page)
        checks.check_sweep("explore-grey-level", checks.sweep(seen.page, "explore-grey-level"))
        checks.check_unique_ids(seen.page)
        assert checks.first_reaction_ms(seen.page, "grey") > 0
        checks.check_offline(seen)
        checks.check_console(seen)


@pytest.mark.parametrize(
    "body",
    [
        '<img src="http://example.invalid/a.png" alt="a">',
        '<script src="https://example.invalid/a.js"></script>',
        '<link rel="stylesheet" href="https://example.invalid/a.css">',
        '<script>fetch("https://example.invalid/").catch(() => 0)</script>',
    ],
    ids=["image", "script", "style", "fetch"],
)
def test_an_outside_request_is_found(open_page, body):
    with open_page(body) as seen, pytest.raises(AssertionError, match=r"example\.invalid"):
        checks.check_offline(seen)


@pytest.mark.parametrize(
    "body",
    [
        "<script>throw new Error('planted')</script>",
        "<script>console.error('planted')</script>",
        '<img src="planted.png" alt="a file that is missing">',
    ],
    ids=["exception", "console", "missing file"],
)
def test_an_error_is_found(open_page, body):
    with open_page(body) as seen, pytest.raises(AssertionError, match="console errors"):
        checks.check_console(seen)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (
            without(EXPLORER, "show();\n      clearTimeout", "clearTimeout"),
            "aria-valuetext repeats",
        ),
        (ONE_PICTURE, "the picture never changes"),
        (without(EXPLORER, "image.src = ", "const unused = "), "the picture never changes"),
        (without(EXPLORER, "image.alt = caption.value =", "caption.value ="), "captions differ"),
        (without(EXPLORER, 'input.setAttribute("aria-valuetext", text);'), "valuetext repeats"),
        (without(EXPLORER, 'aria-live="polite"'), "captions differ"),
    ],
    ids=["dead", "equal frames", "picture", "alternative text", "value text", "live region"],
)
def test_a_dead_slider_is_found(open_page, page, message):
    with open_page(page) as seen:
        states = checks.sweep(seen.page, "explore-grey-level")
        with pytest.raises(AssertionError, match=message):
            checks.check_sweep("explore-grey-level", states)


def test_keys_that_do_nothing_are_found(open_page):
    page = EXPLORER + "<script>addEventListener('keydown', e => e.preventDefault(), true)</script>"
    with open_page(page) as seen, pytest.raises(AssertionError):
        checks.check_sweep("explore-grey-level", checks.sweep(seen.page, "explore-grey-level"))


def test_a_sound_player_passes(open_page):
    with open_page(PLAYER) as seen:
        assert checks.check_player(seen.page, "grey") == 3
        checks.check_axe(seen.page)
        checks.check_console(seen)


@pytest.mark.parametrize(
    ("part", "new", "message"),
    [
        ("rest(); go(0);", "rest();", "reset does not go"),
        ("rest(); forward();", "rest();", "step does not go"),
        ("clock = setInterval", "setInterval", "cannot be paused|still plays|begin again"),
        ("=== input.max) rest()", "=== input.max) return", "still plays"),
        ("=== input.max) go(0)", "=== input.max) rest()", "begin again"),
        ("if (clock) return rest();", "", "cannot be paused"),
    ],
    ids=["reset", "step", "clock", "end", "again", "pause"],
)
def test_a_broken_player_is_found(open_page, part, new, message):
    with (
        open_page(without(PLAYER, part, new)) as seen,
        pytest.raises(AssertionError, match=message),
    ):
        checks.check_player(seen.page, "grey")


def test_a_lost_state_is_found(open_page):
    page = without(EXPLORER, "history.replaceState", "String")
    with open_page(page) as seen:
        checks.move_all(seen.page, "grey")
        with pytest.raises(Exception, match="Timeout"):
            checks.wait_for_address(seen.page, "grey")
    with open_page(EXPLORER, "#grey?level=200") as seen:
        assert checks.explorer_state(seen.page, "grey") == {"level": "200"}
    page = without(EXPLORER, "parts().find(mine)", "null")
    with open_page(page, "#grey?level=200") as seen:
        assert checks.explorer_state(seen.page, "grey") != {"level": "200"}


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (without(EXPLORER, '<label for="explore-grey-level">Level</label>'), "label: "),
        (without(EXPLORER, ' alt="Grey level 0."'), "image-alt: "),
        (EXPLORER + '<p style="color:#ccc;background:#fff">faint</p>', "color-contrast: "),
    ],
    ids=["label", "alt", "contrast"],
)
def test_a_barrier_is_found(open_page, page, message):
    page = without(page, "image.alt = caption.value =", "caption.value =")
    with open_page(page) as seen, pytest.raises(AssertionError, match=message):
        checks.check_axe(seen.page)


def test_the_themes_rule_is_not_excused_inside_the_article(open_page):
    assert "region" in checks.THEME_RULES
    body = "</article></main><article><p>lost</p></article><main><article>"
    with open_page(body) as seen, pytest.raises(AssertionError, match="region: "):
        checks.check_axe(seen.page)


def test_a_name_used_twice_is_found(open_page):
    with open_page(EXPLORER * 2) as seen, pytest.raises(AssertionError, match="occur twice"):
        checks.check_unique_ids(seen.page)


def test_a_slow_reaction_is_found(open_page):
    slow = "const until = performance.now() + 250; while (performance.now() < until); image.src ="
    with open_page(without(EXPLORER, "image.src =", slow)) as seen:
        assert checks.first_reaction_ms(seen.page, "grey") > checks.REACTION_MS


def test_missing_explorers_are_found(open_page, tmp_path):
    notebook = tmp_path / "planted.ipynb"
    source = '{"cells": [{"cell_type": "code", "source": ["# explore(a)\\n", "explore(b)\\n"]}]}'
    notebook.write_text(source, encoding="utf-8")
    assert checks.count_explore_calls(notebook) == 1
    with open_page("<p>No figure.</p>") as seen, pytest.raises(AssertionError, match="1 calls"):
        checks.check_has_explorers(seen.page, notebook)
    with open_page(EXPLORER) as seen:
        assert checks.check_has_explorers(seen.page, notebook) == ["grey"]


def test_a_large_page_is_found(tmp_path):
    (tmp_path / "a.png").write_bytes(bytes(checks.PAGE_BYTES))
    page = tmp_path / "a.html"
    page.write_text('<img src="a.png" alt=""><img src="data:image/png;base64,AA" alt="">')
    assert checks.page_bytes(page) > checks.PAGE_BYTES
