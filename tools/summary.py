"""Add up the reports of the test suites and print one closing line.

A suite counts as failed when its command failed without a failed test (a coverage floor, a crash),
when it left no report, when it ran no test, or when it skipped a test that had to run.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SuiteResult:
    """What one suite did.

    ``problem`` says what is wrong with the suite as a whole; ``note`` is no failure.
    """

    name: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    problem: str = ""
    note: str = ""

    @property
    def ok(self) -> bool:
        return not self.failed and not self.problem


def read_report(path: Path) -> tuple[int, int, int]:
    """Return how many test cases of a JUnit XML file passed, failed and were skipped."""
    passed = failed = skipped = 0
    for case in ET.parse(path).getroot().iter("testcase"):
        kinds = {child.tag for child in case}
        if kinds & {"failure", "error"}:
            failed += 1
        elif "skipped" in kinds:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def judge(
    name: str, report: Path, exit_status: int, *, may_skip: bool = True, may_be_empty: bool = False
) -> SuiteResult:
    """Judge a suite by its report and its exit status.

    Parameters
    ----------
    name : str
    report : Path
        The JUnit XML file that the suite wrote.
    exit_status : int
        Of the suite's command.
    may_skip : bool
        Whether a skipped test is all right.
    may_be_empty : bool
        Whether it is all right that no test ran at all (the browser suite without a browser).
    """
    try:
        passed, failed, skipped = read_report(report)
    except (FileNotFoundError, ET.ParseError):
        return SuiteResult(name, problem=f"left no report (exit status {exit_status})")
    problem = ""
    if not passed and not failed and not (may_be_empty and exit_status in (0, 5)):
        problem = "ran no test"
    elif skipped and not may_skip:
        problem = f"skipped {skipped} tests that have to run"
    elif exit_status not in (0, 5) and not failed:
        problem = f"all tests passed, but its command failed with {exit_status} (see above)"
    return SuiteResult(name, passed, failed, skipped, problem)


def closing_lines(results: list[SuiteResult], seconds: dict[str, float]) -> list[str]:
    """Return a line for each suite and, last, ``N passed, N failed`` with what was skipped."""
    lines = []
    for result in results:
        counts = f"{result.passed} passed, {result.failed} failed, {result.skipped} skipped"
        remark = result.problem or result.note
        note = f"  <-- {remark}" if remark else ""
        lines.append(f"  {result.name:<10} {counts:<40} {seconds[result.name]:6.0f} s{note}")
    passed = sum(result.passed for result in results)
    failed = sum(result.failed + bool(result.problem) for result in results)
    skipped = sum(result.skipped for result in results)
    return [*lines, f"{passed} passed, {failed} failed" + (f", {skipped} skipped" * bool(skipped))]
