"""Run the test suites one after the other: ``python -m tools.suites [suite ...]``.

==========  ====================================================================================
style       ruff, and the chapters hold no pictures
unit        unit, property and parity tests and doctests, with the coverage of ``rac_helpers``
notebooks   every chapter through nbval: each cell runs and prints what is committed
book        the whole book is built; a warning is an error
browser     the built book in a real Chromium
==========  ====================================================================================

With ``RAC_REQUIRE_BROWSER=1``, as in CI, a missing browser fails, and so does a skipped test of
the browser suite or, on Linux, of the unit suite. A skipped cell of a chapter always fails.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
import time
from dataclasses import replace
from pathlib import Path
from xml.sax.saxutils import quoteattr

from tools.browser import MISSING, ensure_chromium, install_commands
from tools.summary import SuiteResult, closing_lines, judge

REPORTS = Path(".reports")
COVERAGE_FLOOR = 95
PYTHON = [sys.executable]
PYTEST = [*PYTHON, "-m", "pytest"]
# Two workers with a thread each keep two cores busy; more threads would only wait for each other.
ONE_THREAD = {"OMP_NUM_THREADS": "1"}

UNIT = [
    *PYTEST,
    *("-n", "2", "--ignore=tests/book", "--ignore=tests/notebooks"),
    *("--cov=rac_helpers", f"--cov-fail-under={COVERAGE_FLOOR}", "--cov-report=term:skip-covered"),
]
NOTEBOOKS = [
    *PYTEST,
    *("-n", "2", "--dist", "loadscope", "--nbval"),
    *("--nbval-sanitize-with=tests/notebooks/sanitize.cfg", "chapters", "tests/notebooks"),
]
BROWSER = [*PYTEST, "tests/book"]
# --all: an incremental build is silent about the pages that it leaves as they are
JUPYTER_BOOK = str(Path(sysconfig.get_path("scripts")) / "jupyter-book")
BOOK = [JUPYTER_BOOK, "build", ".", "--all", "-n", "-W", "--keep-going"]
STYLE = {
    "ruff check": [*PYTHON, "-m", "ruff", "check", "."],
    "ruff format": [*PYTHON, "-m", "ruff", "format", "--check", "."],
    "notebooks": [*PYTHON, "-m", "tools.notebooks", "--check"],
}


def run(command: list[str], **environment: str) -> int:
    """Run a command with more environment variables and return its exit status."""
    print("$", " ".join(command[1:] if command[0] == sys.executable else command), flush=True)
    return subprocess.run(command, env=os.environ | environment, check=False).returncode


def run_pytest(name: str, command: list[str], **environment: str) -> SuiteResult:
    """Run a suite of pytest and judge its report."""
    report = REPORTS / f"{name}.xml"
    status = run([*command, f"--junitxml={report}"], **environment)
    return judge(name, report, status, may_skip=name == "unit" and not all_units_must_run())


def all_units_must_run() -> bool:
    """Return whether this is CI on Linux; on other systems some tests have nothing to test."""
    return in_ci() and sys.platform == "linux"


def in_ci() -> bool:
    """Return whether nothing may be left out for want of a browser."""
    return os.environ.get("RAC_REQUIRE_BROWSER") == "1"


def run_commands(name: str, commands: dict[str, list[str]]) -> SuiteResult:
    """Run commands that pass or fail as a whole; each is one test."""
    passed = {title: run(command) == 0 for title, command in commands.items()}
    cases = "".join(
        f"<testcase name={quoteattr(title)}>{'' if good else '<failure/>'}</testcase>"
        for title, good in passed.items()
    )
    report = REPORTS / f"{name}.xml"
    report.write_text(f"<testsuite name={quoteattr(name)}>{cases}</testsuite>", encoding="utf-8")
    return judge(name, report, 0 if all(passed.values()) else 1)


def run_browser() -> SuiteResult:
    """Run the browser suite; without a browser say so loudly, and fail where one is required."""
    required = in_ci()
    found = ensure_chromium(install_commands())
    if found is None:
        print(MISSING, flush=True)
        if required:
            return SuiteResult("browser", problem="no browser, and RAC_REQUIRE_BROWSER is 1")
    report = REPORTS / "browser.xml"
    status = run([*BROWSER, f"--junitxml={report}"])
    result = judge("browser", report, status, may_skip=not required, may_be_empty=found is None)
    return result if found else replace(result, note="NO BROWSER, so the book was not tried in one")


SUITES = {
    "style": lambda: run_commands("style", STYLE),
    "unit": lambda: run_pytest("unit", UNIT, **ONE_THREAD),
    "notebooks": lambda: run_pytest("notebooks", NOTEBOOKS, **ONE_THREAD),
    "book": lambda: run_commands("book", {"the book builds without a warning": BOOK}),
    "browser": run_browser,
}


def main() -> int:
    """Run the suites named on the command line, print what they did, fail if one did."""
    parser = argparse.ArgumentParser(prog="python -m tools.suites", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="suite", help=", ".join(SUITES))
    names = parser.parse_args().suites or list(SUITES)
    if unknown := set(names) - set(SUITES):
        parser.error(f"no such suite: {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    REPORTS.mkdir(exist_ok=True)
    results, seconds = [], {}
    for name in names:
        print(f"\n===== {name} =====", flush=True)
        (REPORTS / f"{name}.xml").unlink(missing_ok=True)
        start = time.monotonic()
        results.append(SUITES[name]())
        seconds[name] = time.monotonic() - start
    print("\n" + "\n".join(closing_lines(results, seconds)), flush=True)
    return 0 if all(result.ok for result in results) else 1


if __name__ == "__main__":
    sys.exit(main())
