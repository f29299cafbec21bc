"""A real JupyterLab server: run a notebook in the browser and move its sliders by keyboard."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from book_checks import count_explore_calls
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect

TOKEN = "course"
START_SECONDS = 120
RUN_MS = 400_000
MOVE_MS = 30_000
CHAPTERS = Path(__file__).parents[2] / "chapters"

TINY = """
import torch
from rac_helpers.explore import Frame, Slider, explore

def shade(red, green, image=None):
    picture = torch.zeros(3, 32, 32, dtype=torch.uint8)
    picture[0], picture[1] = red, green
    picture = picture if image is None else image
    return Frame(picture, f"Red {red}, green {green}, {picture.shape[-1]} pixels wide.")

explore(shade, name="shade", title="Two shades", upload=True,
        red=Slider("Red", range(0, 256, 5), default=100), green=Slider("Green", [0, 90, 200]))
"""
# No news from the network; and cells below the window are drawn, too.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


def tiny_notebook(folder: Path) -> Path:
    """Write a notebook with one explorer."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(TINY.strip())])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "tiny.ipynb")
    return folder / "tiny.ipynb"


def chapter_01(folder: Path) -> Path:
    """Copy the chapter on measuring."""
    return copy_chapter("01", folder)


def chapter_02(folder: Path) -> Path:
    """Copy the chapter on RandAugment."""
    return copy_chapter("02", folder)


def copy_chapter(number: str, folder: Path) -> Path:
    """Copy a chapter and the records that it reads, so that nothing of ours is written."""
    found = sorted(CHAPTERS.glob(f"{number}_*.ipynb"))
    if not found:
        pytest.fail(f"{CHAPTERS} holds no chapter {number}")
    shutil.copytree(CHAPTERS.parent / "book" / "results", folder / "book" / "results")
    (folder / "chapters").mkdir()
    notebook = nbformat.read(found[0], as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":  # what is seen later is of this run
            cell.update(execution_count=None, outputs=[])
    nbformat.write(notebook, folder / "chapters" / found[0].name)
    return folder / "chapters" / found[0].name


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def lab_server(folder: Path) -> Iterator[str]:
    """Run ``jupyter lab`` on ``folder`` with settings of its own; yields its address."""
    home = folder / "home"
    for name, values in SETTINGS.items():
        path = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    port = free_port()
    options = [
        *("--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1"),
        *(f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "RAC_STATIC_BUILD"} | {
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    log = folder / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=environment,
            cwd=folder,
            stdout=output,
            stderr=output,
        )
        try:
            address = f"http://127.0.0.1:{port}"
            wait_until_up(address, server, log)
            yield address
        finally:
            stop(server)


def wait_until_up(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=5).close()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.3)
        else:
            return
    pytest.fail("JupyterLab did not start:\n" + log.read_text(encoding="utf-8")[-3000:])


def stop(server: subprocess.Popen) -> None:
    """End the server, which ends its kernels; if it does not listen, kill it."""
    server.send_signal(signal.SIGTERM)
    try:
        server.wait(timeout=20)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def open_and_run(page: Page, address: str, notebook: Path) -> None:
    """Open the notebook, choose Run > Run All Cells, wait for the last cell, look for errors."""
    page.goto(f"{address}/lab/tree/{notebook.name}?token={TOKEN}")
    expect(page.get_by_text("| Idle")).to_be_visible(timeout=RUN_MS)  # the kernel, below left
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = page.locator(".jp-CodeCell .jp-InputPrompt")
    expect(prompts.filter(has_text="[1]:")).to_have_count(1, timeout=RUN_MS)
    expect(prompts.filter(has_text="[*]:")).to_have_count(0, timeout=RUN_MS)
    cells = nbformat.read(notebook, as_version=4).cells
    meant = [cell for cell in cells if "raises-exception" in cell.metadata.get("tags", [])]
    outputs = page.locator(".jp-OutputArea-output")
    errors = outputs.filter(has_text="Traceback (most recent call last)")
    expect(errors).to_have_count(len(meant), timeout=MOVE_MS)  # the open exercises, no other
    expect(prompts.filter(has_text="[ ]:")).to_have_count(0)


def explorer_boxes(page: Page) -> Locator:
    """The boxes that hold at least one slider and a picture."""
    box = page.locator(".jp-OutputArea-output .widget-vbox")
    return box.filter(has=page.locator("[role=slider]")).filter(has=page.locator("img"))


def move_slider(box: Locator, number: int) -> str:
    """Move a slider by the arrow keys until picture and caption change; return its label."""
    handle = box.locator("[role=slider]").nth(number)
    label = box.locator(".widget-hslider .widget-label").nth(number).inner_text()
    handle.scroll_into_view_if_needed()
    handle.focus()
    image, caption = box.locator("img"), box.locator("[aria-live=polite]")
    before = image.get_attribute("src"), caption.inner_text()
    deadline = time.monotonic() + MOVE_MS / 1000
    key = "ArrowRight" if at_start(handle) else "ArrowLeft"
    while time.monotonic() < deadline:
        handle.press(key)
        box.page.wait_for_timeout(700)
        after = image.get_attribute("src"), caption.inner_text()
        if before[0] != after[0] and before[1] != after[1]:
            return label
    pytest.fail(f"slider {label!r}: picture or caption never changed")


def at_start(handle: Locator) -> bool:
    return handle.get_attribute("aria-valuenow") == handle.get_attribute("aria-valuemin")


@pytest.mark.parametrize("make_notebook", [tiny_notebook, chapter_01, chapter_02])
def test_sliders_compute_live(browser: Browser, tmp_path: Path, make_notebook, report):
    notebook = make_notebook(tmp_path)
    calls = count_explore_calls(notebook)
    with lab_server(notebook.parent) as address:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        open_and_run(page, address, notebook)
        boxes = explorer_boxes(page)
        expect(boxes.nth(calls - 1)).to_be_attached(timeout=RUN_MS)
        for number in range(boxes.count()):
            box = boxes.nth(number)
            title = box.locator("b").first.inner_text()
            for slider in range(box.locator("[role=slider]").count()):
                report(f"lab    {notebook.stem}  {title}: moved {move_slider(box, slider)!r}")
        if make_notebook is tiny_notebook:
            try_upload(boxes.first, report)
        page.screenshot(path=tmp_path / "lab.png")
        context.close()


def test_a_cell_that_fails_is_found(browser: Browser, tmp_path: Path):
    notebook = tiny_notebook(tmp_path)
    planted = nbformat.read(notebook, as_version=4)
    planted.cells += [nbformat.v4.new_code_cell(code) for code in ("1 / 0", "'never reached'")]
    nbformat.write(planted, notebook)
    with lab_server(tmp_path) as address:
        page = browser.new_page()
        with pytest.raises(AssertionError, match="Actual value: 1"):
            open_and_run(page, address, notebook)
        page.close()


def try_upload(box: Locator, report) -> None:
    """Give a picture, then a file that is none, to the real upload button."""
    buffer = io.BytesIO()
    Image.new("RGB", (48, 30), (9, 99, 200)).save(buffer, "PNG")
    mine = {"name": "mine.png", "mimeType": "image/png", "buffer": buffer.getvalue()}
    choose_file(box, mine)
    caption = box.locator("[aria-live=polite]")
    expect(caption).to_contain_text("48 pixels wide", timeout=MOVE_MS)
    choose_file(box, {"name": "bad.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(caption).to_contain_text("The file was not used", timeout=MOVE_MS)
    report("lab    upload: a picture was shown, a bad file was refused in words")


def choose_file(box: Locator, file: dict) -> None:
    with box.page.expect_file_chooser() as chooser:
        box.get_by_role("button", name="Your photograph").click()
    chooser.value.set_files(file)
