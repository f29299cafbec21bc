"""The tools find what they are made to find; each check is tried on a planted defect."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tools import browser, notebooks, suites, summary

ROOT = Path(__file__).parents[1]


# notebooks: pictures, HTML and widgets out, text in


def dirty_notebook() -> nbformat.NotebookNode:
    picture = new_output(
        "display_data",
        data={"text/plain": "<Figure>", "image/png": "AAAA"},
        metadata={"image/png": {"width": 9}},
    )
    table = new_output(
        "execute_result",
        data={"text/plain": "a  1", "text/html": "<table>"},
        execution_count=7,
    )
    widget = new_output(
        "display_data", data={"application/vnd.jupyter.widget-view+json": {"model_id": "x"}}
    )
    glued = new_output(
        "display_data",
        data={"application/papermill.record/text/plain": "0.5"},
        metadata={"scrapbook": {"name": "half"}},
    )
    error = new_output(
        "error",
        ename="ValueError",
        evalue="\x1b[31mno\x1b[0m",
        traceback=["\x1b[0;31mFile /home/somebody/x.py\x1b[0m", "ValueError: no"],
    )
    cells = [
        new_markdown_cell("Text"),
        new_code_cell("1", outputs=[picture, table, widget], execution_count=7),
        new_code_cell("2", outputs=[glued], metadata={"execution": {"a": "2026"}, "tags": ["t"]}),
        new_code_cell("3", outputs=[error], execution_count=None),
        new_code_cell("4", outputs=[new_output("stream", name="stdout", text="α\n")]),
    ]
    return new_notebook(
        cells=cells,
        metadata={"widgets": {"x": 1}, "language_info": {"name": "python", "version": "3.11.2"}},
    )


@pytest.fixture
def dirty(tmp_path) -> Path:
    path = tmp_path / "dirty.ipynb"
    nbformat.write(dirty_notebook(), path)
    return path


def test_strip_keeps_text_and_drops_the_rest(dirty):
    ids = [cell.id for cell in nbformat.read(dirty, as_version=4).cells]
    assert notebooks.main([str(dirty)]) == 0
    text = dirty.read_text(encoding="utf-8")
    clean = nbformat.read(dirty, as_version=4)
    nbformat.validate(clean)
    for dropped in ("image/png", "text/html", "widget", "/home/somebody", "u001b", "2026", "3.11"):
        assert dropped not in text
    assert [cell.id for cell in clean.cells] == ids
    code = [cell for cell in clean.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4]
    assert [output.data for output in code[0].outputs] == [
        {"text/plain": "<Figure>"},
        {"text/plain": "a  1"},
    ]
    assert code[0].outputs[1].execution_count == 1
    assert code[1].outputs[0].metadata == {"scrapbook": {"name": "half"}}
    assert code[1].metadata == {"tags": ["t"]}
    assert code[2].outputs[0].traceback == ["ValueError: no"]
    assert code[3].outputs[0].text == "α\n"
    assert "α" in text


def test_strip_is_idempotent_and_ruff_leaves_the_result_alone(dirty):
    notebooks.main([str(dirty)])
    once = dirty.read_bytes()
    notebooks.main([str(dirty)])
    ruff = [sys.executable, "-m", "ruff", "format", "--isolated", str(dirty)]
    subprocess.run(ruff, check=True, capture_output=True, timeout=60)
    assert dirty.read_bytes() == once
    assert once.endswith(b"}\n")
    assert b"\r" not in once


DEFECTS = {
    "picture": lambda nb: nb.cells[1].outputs[0].data.update({"image/png": "AAAA"}),
    "html": lambda nb: nb.cells[1].outputs[1].data.update({"text/html": "<b>"}),
    "count": lambda nb: nb.cells[1].update(execution_count=None),
    "gap": lambda nb: nb.cells[2].update(execution_count=9),
    "widget state": lambda nb: nb.metadata.update(widgets={}),
    "python version": lambda nb: nb.metadata.language_info.update(version="3.12.0"),
    "time stamp": lambda nb: nb.cells[2].metadata.update(execution={"iopub.status.busy": "x"}),
    "jupytext leftover": lambda nb: nb.cells[2].metadata.update(lines_to_next_cell=2),
    "jupytext leftover in text": lambda nb: nb.cells[0].metadata.update(lines_to_next_cell=1),
    "traceback": lambda nb: nb.cells[3].outputs[0].traceback.append("File /home/x.py"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_check_names_an_unclean_notebook(dirty, capsys, defect):
    notebooks.main([str(dirty)])
    assert notebooks.main(["--check", str(dirty)]) == 0
    notebook = nbformat.read(dirty, as_version=4)
    DEFECTS[defect](notebook)
    nbformat.write(notebook, dirty)
    before = dirty.read_bytes()
    capsys.readouterr()
    assert notebooks.main(["--check", str(dirty)]) == 1
    assert f"not clean: {dirty}" in capsys.readouterr().out
    assert dirty.read_bytes() == before


def test_check_names_a_notebook_with_other_line_ends(dirty):
    notebooks.main([str(dirty)])
    dirty.write_bytes(dirty.read_bytes() + b"\n")
    assert notebooks.main(["--check", str(dirty)]) == 1


def test_broken_notebook_is_named(tmp_path):
    path = tmp_path / "broken.ipynb"
    path.write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"broken\.ipynb is no notebook"):
        notebooks.main(["--check", str(path)])


# browser: found where it is, and only there


def make_program(path: Path, script: str = "exit 0") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)
    return path


@pytest.fixture
def no_browser(tmp_path, monkeypatch):
    """Hide all browsers of this machine; return the only folder on PATH, which is empty."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.delenv("RAC_CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
    monkeypatch.setattr(browser, "PLACES", ())
    return folder


def test_variable_names_the_browser(no_browser, monkeypatch, tmp_path):
    program = make_program(tmp_path / "my-browser")
    monkeypatch.setenv("RAC_CHROMIUM", str(program))
    assert browser.find_chromium() == str(program)


def test_wrong_variable_is_an_error(no_browser, monkeypatch):
    monkeypatch.setenv("RAC_CHROMIUM", "/no/such/browser")
    with pytest.raises(FileNotFoundError, match=r"RAC_CHROMIUM .*'/no/such/browser'"):
        browser.find_chromium()


CANNOT_START = {
    "library missing": "exit 127",
    "crash": "kill -SEGV $$",
    "hangs": "while :; do :; done",
    "waits for input": "read answer && exit 0",
}


@pytest.mark.skipif(os.name == "nt", reason="Windows browsers do not print their version")
@pytest.mark.parametrize("script", CANNOT_START.values(), ids=CANNOT_START)
class TestBrowserThatCannotStart:
    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch):
        monkeypatch.setattr(browser, "START_SECONDS", 1)

    def test_on_path_is_passed_over(self, no_browser, script):
        make_program(no_browser / "chromium", script)
        assert browser.find_chromium() is None
        good = make_program(no_browser / "chrome")
        assert browser.find_chromium() == str(good)

    def test_in_a_usual_place_is_passed_over(self, no_browser, script, tmp_path, monkeypatch):
        monkeypatch.setattr(browser, "PLACES", (str(make_program(tmp_path / "x", script)),))
        assert browser.find_chromium() is None

    def test_of_playwright_is_passed_over(self, no_browser, script, tmp_path, monkeypatch):
        program = make_program(tmp_path / "playwright" / "chrome", script)
        monkeypatch.setattr(browser, "ASK_PLAYWRIGHT", f"print({str(program)!r})")
        assert browser.find_chromium() is None
        make_program(program)
        assert browser.find_chromium() == str(program)

    def test_named_by_the_variable_is_an_error(self, no_browser, script, tmp_path, monkeypatch):
        program = make_program(tmp_path / "my-browser", script)
        monkeypatch.setenv("RAC_CHROMIUM", str(program))
        with pytest.raises(OSError, match=r"RAC_CHROMIUM must name a browser that starts"):
            browser.find_chromium()

    def test_ensure_goes_on(self, no_browser, script):
        make_program(no_browser / "chromium", script)
        write = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('#!/bin/sh')"
        repair = [sys.executable, "-c", write, str(no_browser / "chromium")]
        assert browser.ensure_chromium([]) is None
        assert browser.ensure_chromium([repair]) == str(no_browser / "chromium")


def test_no_browser_is_none(no_browser):
    assert browser.find_chromium() is None


@pytest.mark.skipif(os.name == "nt", reason="Windows finds programs by their extension")
def test_browser_on_path_is_found(no_browser):
    program = make_program(no_browser / "chromium")
    assert browser.find_chromium() == str(program)


def test_browser_in_a_usual_place_is_found(no_browser, monkeypatch, tmp_path):
    program = make_program(tmp_path / "Chrome" / "chrome.exe")
    place = "%PROGRAMS%/Chrome/chrome.exe" if os.name == "nt" else "$PROGRAMS/Chrome/chrome.exe"
    monkeypatch.setenv("PROGRAMS", str(tmp_path))
    monkeypatch.setattr(browser, "PLACES", (place,))
    assert Path(browser.find_chromium()) == program


@pytest.mark.skipif(os.name == "nt", reason="Windows finds programs by their extension")
def test_ensure_goes_on_until_a_browser_is_there(no_browser, capfd):
    touch = (
        "import pathlib, sys; p = pathlib.Path(sys.argv[1]); "
        "p.write_text('#!/bin/sh'); p.chmod(0o755)"
    )
    commands = [
        ["/no/such/program"],
        [sys.executable, "-c", "raise SystemExit(1)"],
        [sys.executable, "-c", touch, str(no_browser / "chromium")],
        [sys.executable, "-c", "print('too far')"],
    ]
    assert browser.ensure_chromium(commands) == str(no_browser / "chromium")
    printed = capfd.readouterr().out
    assert "that did not work" in printed
    assert "too far" not in printed


def test_apt_reads_its_lists_before_it_installs(monkeypatch):
    monkeypatch.setattr(browser.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(browser.os, "geteuid", lambda: 0, raising=False)
    commands = [" ".join(command) for command in browser.install_commands()]
    assert commands[0].endswith("playwright install chromium")
    assert commands[1] == "apt-get update -qq"
    assert [command.split()[-1] for command in commands[2:]] == ["chromium", "chromium-browser"]
    assert all(command.startswith("apt-get install -y") for command in commands[2:])


def test_ensure_gives_up(no_browser):
    assert browser.ensure_chromium([]) is None


def test_missing_browser_exits_with_3_and_says_so(no_browser, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tools.browser"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 0:
        pytest.skip("this machine has a browser outside PATH")
    assert done.returncode == browser.NO_BROWSER
    assert "NO BROWSER" in done.stderr


# summary: a suite that did not run cannot look green

PASSED, FAILED, SKIPPED = (
    "<testcase/>",
    "<testcase><failure/></testcase>",
    ("<testcase><skipped/></testcase>"),
)


def report(tmp_path: Path, *cases: str) -> Path:
    path = tmp_path / "report.xml"
    path.write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    return path


def test_counts(tmp_path):
    error = "<testcase><error/></testcase>"
    path = report(tmp_path, PASSED, PASSED, FAILED, error, SKIPPED)
    assert summary.read_report(path) == (2, 2, 1)


@pytest.mark.parametrize(
    ("cases", "status", "settings", "problem"),
    [
        ([PASSED], 0, {}, ""),
        ([PASSED, SKIPPED], 0, {}, ""),
        ([PASSED, FAILED], 1, {}, ""),
        ([SKIPPED], 0, {"may_be_empty": True}, ""),
        ([], 5, {"may_be_empty": True}, ""),
        ([], 0, {}, "ran no test"),
        ([], 5, {}, "ran no test"),
        ([SKIPPED], 0, {}, "ran no test"),
        ([], 2, {"may_be_empty": True}, "ran no test"),
        ([PASSED, SKIPPED], 0, {"may_skip": False}, "skipped 1 tests"),
        ([PASSED], 1, {}, "its command failed with 1"),
    ],
)
def test_judge(tmp_path, cases, status, settings, problem):
    result = summary.judge("x", report(tmp_path, *cases), status, **settings)
    assert problem in result.problem
    assert bool(problem) == bool(result.problem)
    assert result.ok == (not problem and FAILED not in cases)


@pytest.mark.parametrize("text", [None, "<testsuite>"])
def test_missing_or_broken_report_is_a_problem(tmp_path, text):
    path = tmp_path / "report.xml"
    if text is not None:
        path.write_text(text)
    assert "left no report" in summary.judge("x", path, 0).problem


def test_closing_line_adds_up():
    results = [
        summary.SuiteResult("unit", passed=5, failed=1),
        summary.SuiteResult("book", passed=1, skipped=2, problem="skipped 2 tests"),
    ]
    lines = summary.closing_lines(results, {"unit": 1.0, "book": 2.0})
    assert lines[-1] == "6 passed, 2 failed, 2 skipped"
    assert "skipped 2 tests" in lines[1]
    skipped = summary.SuiteResult("browser", skipped=3, note="NO BROWSER")
    assert "NO BROWSER" in summary.closing_lines([skipped], {"browser": 0.0})[0]
    assert summary.closing_lines(results[:0], {})[-1] == "0 passed, 0 failed"


# suites


def test_commands_become_a_report(tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "REPORTS", tmp_path)
    good, bad = ([sys.executable, "-c", f"raise SystemExit({status})"] for status in (0, 3))
    result = suites.run_commands("style", {"good": good, 'bad "one"': bad})
    assert (result.passed, result.failed, result.ok) == (1, 1, False)
    assert suites.run_commands("style", {"good": good}).ok


def test_suite_of_pytest_with_a_failing_test_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(suites, "REPORTS", tmp_path)
    test = tmp_path / "test_planted.py"
    test.write_text("def test_wrong():\n    assert False\n\ndef test_right():\n    pass\n")
    plain = [*suites.PYTEST, "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(test)]
    result = suites.run_pytest("unit", plain)
    assert (result.passed, result.failed, result.ok) == (1, 1, False)


@pytest.mark.parametrize(
    ("platform", "required", "fails"),
    [("linux", "1", True), ("linux", "", False), ("darwin", "1", False), ("win32", "1", False)],
)
def test_skipped_unit_test_fails_in_ci_on_linux(tmp_path, monkeypatch, platform, required, fails):
    monkeypatch.setattr(suites, "REPORTS", tmp_path)
    monkeypatch.setattr(suites.sys, "platform", platform)
    monkeypatch.setenv("RAC_REQUIRE_BROWSER", required)
    (tmp_path / "unit.xml").write_text(f"<testsuite>{PASSED}{SKIPPED}</testsuite>")
    (tmp_path / "notebooks.xml").write_text(f"<testsuite>{PASSED}{SKIPPED}</testsuite>")
    monkeypatch.setattr(suites, "run", lambda command, **environment: 0)
    assert suites.run_pytest("unit", []).ok == (not fails)
    assert not suites.run_pytest("notebooks", []).ok


def test_required_browser_that_is_missing_fails(no_browser, monkeypatch):
    monkeypatch.setattr(suites, "install_commands", list)
    monkeypatch.setenv("RAC_REQUIRE_BROWSER", "1")
    assert "no browser" in suites.run_browser().problem


def test_unknown_suite_is_refused():
    done = subprocess.run(
        [sys.executable, "-m", "tools.suites", "unti"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "no such suite: unti" in done.stderr


# one home for versions


def pins(lines: list[str]) -> dict[str, str]:
    return dict(line.split("==") for line in lines if "==" in line)


def test_requirements_are_pinned():
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [line for line in lines if line and not line.startswith("#")]
    assert wanted
    assert [line for line in wanted if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []


def test_pre_commit_pins_are_those_of_the_requirements():
    required = pins((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines())
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    for hook in hooks:
        for name, version in pins(hook.get("additional_dependencies", [])).items():
            assert required.get(name, version) == version, hook["id"]
