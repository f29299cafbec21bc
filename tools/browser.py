"""Find Chromium or Chrome for the browser suite, and fetch one where that is allowed.

``python -m tools.browser`` prints the path; with ``--ensure`` it first tries to install one. It
exits with 3 where there is none, and says loudly what is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

NO_BROWSER = 3  # exit status
START_SECONDS = 15  # in which a browser has to tell its version

# Chrome first: Ubuntu's chromium is a snap, which cannot read other programs' temporary folders.
NAMES = (
    "google-chrome-stable",
    "google-chrome",
    "chromium",
    "chromium-browser",
    "chrome",
    "msedge",
    "microsoft-edge",
)
PLACES = (
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    r"%ProgramFiles%\Google\Chrome\Application\chrome.exe",
    r"%ProgramFiles(x86)%\Google\Chrome\Application\chrome.exe",
    r"%LocalAppData%\Google\Chrome\Application\chrome.exe",
    r"%ProgramFiles(x86)%\Microsoft\Edge\Application\msedge.exe",
    r"%ProgramFiles%\Microsoft\Edge\Application\msedge.exe",
)
# In a process of its own: Playwright refuses to start a second time inside one event loop.
ASK_PLAYWRIGHT = (
    "from playwright.sync_api import sync_playwright\n"
    "with sync_playwright() as p: print(p.chromium.executable_path)"
)
SUDO_WORKS = ["sudo", "-n", "true"]
# Where the download is not allowed Playwright shall give up soon; apt shall ask nothing.
INSTALLING = {
    "PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "10000",  # ms
    "DEBIAN_FRONTEND": "noninteractive",
}


def find_chromium() -> str | None:
    """Return the path of a Chromium-like browser that starts, or None.

    Looks at the variable ``RAC_CHROMIUM``, then on ``PATH``, in the usual places of macOS and
    Windows, and last at the browser that Playwright fetched.

    Raises
    ------
    FileNotFoundError
        If ``RAC_CHROMIUM`` is set and names no file: a wrong setting is not passed over.
    OSError
        If the program that it names does not start.
    """
    named = os.environ.get("RAC_CHROMIUM")
    if named:
        if not Path(named).is_file():
            raise FileNotFoundError(f"RAC_CHROMIUM must name a browser's program, got {named!r}")
        if not starts(named):
            raise OSError(f"RAC_CHROMIUM must name a browser that starts, {named!r} does not")
        return named
    for name in NAMES:
        if (path := shutil.which(name)) and starts(path):
            return path
    for place in PLACES:
        path = os.path.expandvars(place)
        if Path(path).is_file() and starts(path):
            return path
    return _playwrights_own()


def starts(path: str) -> bool:
    """Return whether the program tells its version; a file alone may lack its libraries.

    On Windows, where a browser does not print its version, every file passes.
    """
    if os.name == "nt":
        return True
    # No pipes: what a killed wrapper script leaves running would hold them open.
    quiet = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    try:
        done = subprocess.run([path, "--version"], timeout=START_SECONDS, check=False, **quiet)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _playwrights_own() -> str | None:
    command = [sys.executable, "-c", ASK_PLAYWRIGHT]
    answer = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    path = answer.stdout.strip()
    there = answer.returncode == 0 and Path(path).is_file() and starts(path)
    return path if there else None


def install_commands() -> list[list[str]]:
    """Return the commands that may bring a browser to this machine, the politest first."""
    commands = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get") is None:
        return commands
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        prefix = []
    elif shutil.which("sudo") and not subprocess.run(SUDO_WORKS, check=False).returncode:
        prefix = ["sudo", "-n"]
    else:
        return commands
    commands.append([*prefix, "apt-get", "update", "-qq"])
    for package in ("chromium", "chromium-browser"):  # Debian's name, then Ubuntu's
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        commands.append([*prefix, *install])
    return commands


def ensure_chromium(commands: Iterable[list[str]]) -> str | None:
    """Return a browser's path; while there is none, run the next of ``commands`` and look again."""
    environment = os.environ | INSTALLING
    found = find_chromium()
    for command in commands:
        if found:
            break
        print("no browser yet; trying:", " ".join(command), flush=True)
        try:
            subprocess.run(
                command, env=environment, stdin=subprocess.DEVNULL, timeout=600, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            print(f"that did not work: {error}", flush=True)
        found = find_chromium()
    return found


MISSING = """
****************************************************************************
*  NO BROWSER: the browser suite cannot run.                               *
*  Install Chromium or Chrome, or set RAC_CHROMIUM to the browser's path,  *
*  or run:  python -m playwright install chromium                          *
****************************************************************************
"""


def main() -> int:
    """Print the browser's path, or the reason why there is none."""
    parser = argparse.ArgumentParser(prog="python -m tools.browser", description=__doc__)
    parser.add_argument("--ensure", action="store_true", help="install a browser if none is found")
    arguments = parser.parse_args()
    path = ensure_chromium(install_commands() if arguments.ensure else [])
    if path is None:
        print(MISSING, file=sys.stderr)
        return NO_BROWSER
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
