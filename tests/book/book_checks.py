"""What a built page must hold, as plain functions: ``test_planted.py`` shows that each can fail."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from urllib.parse import parse_qs

from playwright.sync_api import Browser, Page

# No updates, no experiments: nothing but the page may want the network.
BROWSER_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

PAGE_BYTES = 3_000_000
REACTION_MS = 100

# The theme's own, on every page and outside the article.
THEME_RULES = {"region": "the title of the book in the side bar lies outside the landmarks"}

HERE = ("file:", "data:", "blob:", "about:")


@dataclass
class Visit:
    """A page, and what happened since it was opened."""

    page: Page
    outside: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def visit(browser: Browser, url: str, **options) -> Iterator[Visit]:
    """Open ``url`` with the network off and wait until it is complete, formulas too."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
    context.set_offline(True)
    page = context.new_page()
    seen = Visit(page)
    page.on("request", lambda r: None if r.url.startswith(HERE) else seen.outside.append(r.url))
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on("console", lambda m: seen.errors.append(m.text) if m.type == "error" else None)
    page.on("requestfailed", lambda r: seen.errors.append(f"failed: {r.url[:200]}"))
    page.goto(url, wait_until="load")
    page.evaluate("() => window.MathJax?.startup?.promise")
    try:
        yield seen
    finally:
        context.close()


def check_offline(seen: Visit) -> None:
    """Nothing left the machine, or tried to."""
    assert not seen.outside, f"outside requests: {seen.outside}"


def check_console(seen: Visit) -> None:
    """No error in the console, no exception, no missing file."""
    assert not seen.errors, f"console errors: {seen.errors}"


def check_axe(page: Page, *, only: str | None = None) -> None:
    """axe-core finds nothing but the theme's own, and that outside the article."""
    if not page.evaluate("() => 'axe' in window"):
        source = resources.files("axe_playwright_python").joinpath("axe.min.js")
        page.evaluate(source.read_text(encoding="utf-8"))
    # preload: axe would ask for the style sheets a second time, which a page from disk may not
    found = page.evaluate("scope => axe.run(scope, {preload: false})", only or "html")
    ours = []
    for violation in found["violations"]:
        for node in violation["nodes"]:
            target = str(node["target"][0])
            inside = page.evaluate("s => !!document.querySelector(s)?.closest('article')", target)
            if inside or violation["id"] not in THEME_RULES:
                ours.append(f"{violation['id']}: {target} ({violation['help']})")
    assert not ours, "axe-core: " + "; ".join(ours)


def slider_ids(page: Page) -> list[str]:
    """Return the identifiers of all range inputs, in the order of the page."""
    return page.evaluate("() => [...document.querySelectorAll('input[type=range]')].map(i => i.id)")


STATE = """id => {
  const input = document.getElementById(id), figure = input.closest("figure");
  const image = figure.querySelector("img");
  return {
    at: +input.value, last: +input.max, spoken: input.getAttribute("aria-valuetext"),
    shown: input.nextElementSibling.textContent, picture: image.src, alt: image.alt,
    caption: figure.querySelector("figcaption").textContent.trim(),
    live: figure.querySelector("[aria-live=polite]")?.textContent,
  };
}"""


def sweep(page: Page, ident: str) -> list[dict]:
    """Move a slider over all its stops by keyboard and return what the page showed at each."""
    page.focus(f"#{ident}")
    page.keyboard.press("Home")
    states = [page.evaluate(STATE, ident)]
    for _ in range(states[0]["last"]):
        page.keyboard.press("ArrowRight")
        states.append(page.evaluate(STATE, ident))
    page.keyboard.press("End")
    assert page.evaluate(STATE, ident) == states[-1], f"{ident}: End is not the last stop"
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(STATE, ident) == states[-2], f"{ident}: the way back differs"
    return states


def check_sweep(ident: str, states: list[dict]) -> None:
    """The slider reaches all stops, and picture, caption and live text follow it."""
    assert [s["at"] for s in states] == list(range(len(states))), f"{ident}: the keys do not move"
    assert len({s["spoken"] for s in states}) == len(states), f"{ident}: aria-valuetext repeats"
    for state in states:
        assert state["shown"] == state["spoken"], f"{ident}: value and aria-valuetext differ"
        assert state["alt"] == state["caption"] == state["live"] != "", f"{ident}: captions differ"
    for what in ("picture", "caption", "live"):
        assert len({s[what] for s in states}) > 1, f"{ident}: the {what} never changes"


def check_player(page: Page, name: str) -> int:
    """The buttons reset, step, play to the end and pause a slider; return how many stops it has."""
    buttons = f"#explore-{name} .rac-player button"
    play, step, reset = page.query_selector_all(buttons)
    player = f"document.querySelector('#explore-{name} .rac-player')"
    ident = f"explore-{name}-" + page.evaluate(f"() => {player}.dataset.plays")

    def at() -> int:
        return page.evaluate(STATE, ident)["at"]

    last = page.evaluate(STATE, ident)["last"]
    reset.click()
    assert at() == 0, f"{name}: reset does not go to the first stop"
    step.click()
    assert at() == 1, f"{name}: step does not go to the next stop"
    page.evaluate(f"() => {{ {player}.dataset.ms = 20; }}")
    play.click()
    at_end = "([id, last]) => +document.getElementById(id).value === last"
    page.wait_for_function(at_end, arg=[ident, last], timeout=20_000)
    assert play.inner_text() == "Play", f"{name}: at the end it still plays"
    page.evaluate(f"() => {{ {player}.dataset.ms = 60_000; }}")
    play.click()
    assert (at(), play.inner_text()) == (0, "Pause"), f"{name}: play does not begin again"
    play.click()
    assert play.inner_text() == "Play", f"{name}: it cannot be paused"
    return last + 1


def check_unique_ids(page: Page) -> None:
    """No identifier of an explorer occurs twice."""
    script = "() => [...document.querySelectorAll('[id^=explore-]')].map(element => element.id)"
    twice = [ident for ident, count in Counter(page.evaluate(script)).items() if count > 1]
    assert not twice, f"identifiers occur twice: {twice}"


def move_all(page: Page, name: str) -> dict[str, str]:
    """Move every slider of an explorer to the other end; return the state its address must hold."""
    figure = f"#explore-{name}"
    script = "f => [...document.querySelectorAll(f + ' input')].map(i => [i.id, i.value, i.max])"
    for ident, value, last in page.evaluate(script, figure):
        page.focus(f"#{ident}")
        page.keyboard.press("Home" if value == last else "End")
    return explorer_state(page, name)


def explorer_state(page: Page, name: str) -> dict[str, str]:
    """Return the values of an explorer's sliders, as its address holds them."""
    return page.evaluate(
        """selector => {
          const figure = document.querySelector(selector);
          const data = JSON.parse(figure.querySelector("[type='application/json']").textContent);
          const inputs = [...figure.querySelectorAll("input")];
          return Object.fromEntries(inputs.map((i, n) => [i.name, data.sliders[n].keys[+i.value]]));
        }""",
        f"#explore-{name}",
    )


def wait_for_address(page: Page, name: str) -> str:
    """Return the address once the state of explorer ``name`` is in it."""
    page.wait_for_function("name => location.hash.includes(name + '?')", arg=name, timeout=5000)
    page.wait_for_timeout(400)  # the last of several moves is written 0.3 s after it
    return page.url


def state_in_address(url: str, name: str) -> dict[str, str]:
    """Return what ``url`` says of the explorer ``name``."""
    for part in url.partition("#")[2].split(";"):
        explorer, _, query = part.partition("?")
        if explorer == name:
            return {key: values[0] for key, values in parse_qs(query).items()}
    return {}


FIRST_REACTION = """selector => {
  const figure = document.querySelector(selector);
  const input = figure.querySelector("input"), image = figure.querySelector("img");
  window.reaction = new Promise((done) => {
    let start;
    input.addEventListener("keydown", (event) => { start = event.timeStamp; }, {once: true});
    input.addEventListener("input", async () => {
      await image.decode();
      requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - start)));
    }, {once: true});
  });
  input.focus({preventScroll: true});
  figure.scrollIntoView();
  return input.value === input.max;
}"""


def first_reaction_ms(page: Page, name: str) -> float:
    """Return the time from a key press to the painted picture, the first of this explorer."""
    at_end = page.evaluate(FIRST_REACTION, f"#explore-{name}")
    page.keyboard.press("ArrowLeft" if at_end else "ArrowRight")
    return page.evaluate("() => window.reaction")


def page_bytes(page_file: Path) -> int:
    """Return the size of a page with the pictures beside it."""
    text = page_file.read_text(encoding="utf-8")
    pictures = {
        page_file.parent / source
        for source in re.findall(r'<img[^>]+src="([^":]+)"', text)  # a colon: data or outside
    }
    return page_file.stat().st_size + sum(p.stat().st_size for p in pictures if p.is_file())


def count_explore_calls(notebook: Path) -> int:
    """Return how many calls of ``explore`` the code cells of a notebook hold."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    lines = [
        line
        for cell in cells
        if cell["cell_type"] == "code"
        for line in "".join(cell["source"]).splitlines()
    ]
    return sum(bool(re.match(r"[^#'\"]*\bexplore\(", line)) for line in lines)


def check_has_explorers(page: Page, notebook: Path) -> list[str]:
    """The page shows at least as many explorers as its notebook calls; return their names."""
    script = "() => [...document.querySelectorAll('.rac-explorer')].map(f => f.dataset.name)"
    names, calls = page.evaluate(script), count_explore_calls(notebook)
    assert len(names) >= calls, f"{notebook.name}: {calls} calls of explore, on the page {names}"
    return names
