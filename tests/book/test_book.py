"""The built book, opened from disk in a real browser with the network off."""

import json
import re
from pathlib import Path
from statistics import median

import book_checks as checks
import pytest
from playwright.sync_api import expect

PHONE = {"width": 390, "height": 844}
LOADS = 5


def notebook_of(chapter: Path) -> Path:
    return chapter.parents[1] / "_sources" / "chapters" / f"{chapter.stem}.ipynb"


def explorers(chapter: Path) -> list[str]:
    """Names of the explorers of a page, read without a browser."""
    parts = chapter.read_text(encoding="utf-8").split('class="rac-explorer"')[1:]
    return [part.split('data-name="')[1].split('"')[0] for part in parts]


def test_page_is_quiet_offline_and_accessible(browser, any_page):
    with checks.visit(browser, any_page.as_uri()) as seen:
        checks.check_axe(seen.page)
        seen.page.evaluate("document.documentElement.dataset.theme = 'dark'")
        if seen.page.query_selector(".rac-explorer"):
            checks.check_axe(seen.page, only=".rac-explorer")
        checks.check_unique_ids(seen.page)
        checks.check_offline(seen)
        checks.check_console(seen)


def test_every_slider_moves_by_keyboard(browser, chapter, report):
    dead = []
    with checks.visit(browser, chapter.as_uri()) as seen:
        names = checks.check_has_explorers(seen.page, notebook_of(chapter))
        for ident in checks.slider_ids(seen.page):
            try:
                states = checks.sweep(seen.page, ident)
                checks.check_sweep(ident, states)
            except AssertionError as error:
                dead.append(str(error).splitlines()[0])
            else:
                pictures = len({state["picture"] for state in states})
                report(f"moved  {chapter.stem}  {ident}: {len(states)} stops, {pictures} pictures")
            seen.page.goto("about:blank")  # the next slider starts from a fresh page
            seen.page.goto(chapter.as_uri())
        if not names:
            report(f"moved  {chapter.stem}  has no explorers, and calls none")
        checks.check_offline(seen)
        checks.check_console(seen)
    assert not dead, f"sliders that do not move everything: {dead}"


def test_sliders_are_reached_one_after_the_other(browser, chapter):
    with checks.visit(browser, chapter.as_uri()) as seen:
        for name in explorers(chapter):
            inside = f"#explore-{name} input"
            idents = [i.get_attribute("id") for i in seen.page.query_selector_all(inside)]
            seen.page.focus(f"#{idents[0]}")
            for ident in idents:
                expect(seen.page.locator(f"#{ident}")).to_be_focused()
                seen.page.keyboard.press("Tab")


def test_players_play(browser, chapter, report):
    with checks.visit(browser, chapter.as_uri()) as seen:
        for name in explorers(chapter):
            if seen.page.query_selector(f"#explore-{name} .rac-player"):
                stops = checks.check_player(seen.page, name)
                report(f"played {chapter.stem}  {name}: {stops} stops")
        checks.check_console(seen)


def test_state_is_in_the_address_and_comes_back(browser, chapter):
    moved = {}
    with checks.visit(browser, chapter.as_uri()) as seen:
        for name in explorers(chapter):
            moved[name] = checks.move_all(seen.page, name)
            url = checks.wait_for_address(seen.page, name)
            assert checks.state_in_address(url, name) == moved[name]
        if not moved:
            return
        seen.page.reload()
        for name, state in moved.items():
            assert checks.explorer_state(seen.page, name) == state, "lost by a reload"
        checks.check_console(seen)
    with checks.visit(browser, url) as seen:  # the same link in another reader's browser
        for name, state in moved.items():
            assert checks.explorer_state(seen.page, name) == state, "lost in the link"
        expect(seen.page.locator(f"#explore-{name}")).to_be_in_viewport()


def test_a_link_with_wrong_values_is_harmless(browser, chapter):
    for name in explorers(chapter)[:1]:
        with checks.visit(browser, chapter.as_uri()) as seen:
            first = checks.explorer_state(seen.page, name)
        wrong = "&".join(f"{key}=no%20such%20value" for key in first)
        with checks.visit(browser, f"{chapter.as_uri()}#{name}?{wrong}&x=%ff;;?;other?a=1") as seen:
            assert checks.explorer_state(seen.page, name) == first
            checks.check_console(seen)


def test_first_reaction_is_quick(browser, chapter, report):
    names = explorers(chapter)
    times_ms = {name: [] for name in names}
    for _ in range(LOADS if names else 0):
        with checks.visit(browser, chapter.as_uri()) as seen:
            for name in names:
                times_ms[name].append(checks.first_reaction_ms(seen.page, name))
    for name, times in times_ms.items():
        report(
            f"speed  {chapter.stem}  {name}: first reaction {median(times):.0f} ms "
            f"(median of {LOADS} loads, worst {max(times):.0f})"
        )
        assert median(times) <= checks.REACTION_MS


def test_page_is_small(chapter, report):
    size = checks.page_bytes(chapter)
    report(f"size   {chapter.stem}: {size / 1e6:.2f} MB")
    assert size <= checks.PAGE_BYTES


def test_without_javascript_the_first_picture_stands(browser, chapter):
    with checks.visit(browser, chapter.as_uri(), java_script_enabled=False) as seen:
        for name in explorers(chapter):
            figure = seen.page.locator(f"#explore-{name}")
            expect(figure.locator("noscript p")).to_be_visible()
            expect(figure.locator("img")).to_be_visible()
            assert figure.locator("img").evaluate("image => image.naturalWidth") > 0
            assert figure.locator("input:enabled").count() == 0


def test_explorers_fit_a_phone(browser, chapter):
    with checks.visit(browser, chapter.as_uri(), viewport=PHONE) as seen:
        for name in explorers(chapter):
            box = seen.page.locator(f"#explore-{name}")
            assert box.evaluate("f => f.scrollWidth <= f.clientWidth"), f"{name} overflows"
            for part in box.locator("input, img, output").all():
                around = part.bounding_box()
                assert around["x"] >= 0
                assert around["x"] + around["width"] <= PHONE["width"] + 1, f"{name} is too wide"


def test_the_book_has_explorers(book):
    pages = sorted((book / "chapters").glob("*.html"))
    if not any(map(explorers, pages)):
        pytest.fail(f"no page of {[page.name for page in pages]} has an explorer")


def test_no_page_names_an_outside_script_or_style(book):
    """Also what a click would load: nothing comes from a delivery network."""
    for page in book.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for start in ('<script src="http', '<link rel="stylesheet" href="http', 'src="//'):
            assert start not in text, f"{page.name} holds {start}"


def test_search_works_from_disk(browser, book):
    heading = re.search(r"<h1>([^<]+)", (book / "book" / "intro.html").read_text(encoding="utf-8"))
    word = max(re.findall(r"\w+", heading.group(1)), key=len)
    with checks.visit(browser, (book / "search.html").as_uri() + f"?q={word}") as seen:
        expect(seen.page.locator("#search-results li").first).to_be_visible(timeout=10_000)
        checks.check_offline(seen)
        checks.check_console(seen)


def test_sources_of_the_pages_are_notebooks(book):
    for page in (book / "chapters").glob("*.html"):
        assert json.loads(notebook_of(page).read_text(encoding="utf-8"))["cells"]
