"""The built book and a browser; and a list, after the tests, of what was moved and measured.

``RAC_BOOK`` is the folder of the built book (default ``_build/html``). Without it, or without a
browser, the tests are skipped; with ``RAC_REQUIRE_BROWSER=1`` they fail instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from book_checks import BROWSER_FLAGS
from playwright.sync_api import Browser, sync_playwright

from tools.browser import find_chromium

BOOK = Path(os.environ.get("RAC_BOOK", "_build/html")).resolve()
LINES = pytest.StashKey[list[str]]()


def missing(what: str) -> None:
    """Skip loudly, or fail where a skip is a failure."""
    if os.environ.get("RAC_REQUIRE_BROWSER") == "1":
        pytest.fail(f"{what}, and RAC_REQUIRE_BROWSER=1")
    pytest.skip(what)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test a page; without a book one test, which says so."""
    chapters = sorted((BOOK / "chapters").glob("*.html"))
    others = sorted((BOOK / "book").glob("*.html"))
    for argument, pages in (("chapter", chapters), ("any_page", chapters + others)):
        if argument in metafunc.fixturenames:
            pages = pages or [None]
            names = [page.stem if page else "no-book" for page in pages]
            metafunc.parametrize(argument, pages, ids=names, indirect=True)


@pytest.fixture(scope="session")
def book() -> Path:
    """The folder of the built book."""
    if not (BOOK / "index.html").is_file():
        missing(f"no built book at {BOOK}: run `make book`, or set RAC_BOOK")
    return BOOK


@pytest.fixture
def chapter(request: pytest.FixtureRequest, book: Path) -> Path:
    """A page of chapters/."""
    if request.param is None:
        pytest.fail(f"the book at {book} holds no chapter")
    return request.param


@pytest.fixture
def any_page(request: pytest.FixtureRequest, book: Path) -> Path:
    """A page of the book."""
    if request.param is None:
        pytest.fail(f"the book at {book} holds no page")
    return request.param


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium or Chrome."""
    path = find_chromium()
    if path is None:
        missing("no Chromium or Chrome: see `python -m tools.browser --ensure`")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=BROWSER_FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Write a line below the results of all tests."""
    return request.config.stash.setdefault(LINES, []).append


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Show what was moved and measured, whether the tests passed or not."""
    if lines := config.stash.get(LINES, []):
        terminalreporter.section("the book in the browser")
        for line in lines:
            terminalreporter.write_line(line)
