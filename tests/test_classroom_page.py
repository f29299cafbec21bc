"""The page on the classroom's cluster: its commands work, and what it says of Dask is so."""

from __future__ import annotations

import contextlib
import importlib
import re
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rac_helpers.records import load

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "book" / "classroom_cluster.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(line)
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.S)
    for line in block.splitlines()
]
ADDRESS = "tcp://192.168.0.17:8786"
# it starts the clusters that it compares
NO_SCHEDULER = {"cluster_speedup"}
SWEEPING = sorted(
    path.stem
    for path in (ROOT / "experiments").glob("*.py")
    if re.search(r"\b(sweep|run_all)\(", path.read_text(encoding="utf-8"))
    and "def main(" in path.read_text(encoding="utf-8")
)


def module_commands(name: str) -> list[list[str]]:
    """The commands of the page that run this module; each without what stands before it."""
    found = []
    for words in COMMANDS:
        if "-m" in words and words[words.index("-m") + 1] == name:
            found.append(words[words.index("-m") + 2 :])
    return found


def help_of(script: str, capsys) -> str:
    with pytest.raises(SystemExit, match="0"):
        importlib.import_module(f"experiments.{script}").main(["--help"])
    return capsys.readouterr().out


def unknown_options(words: list[str], known: set[str]) -> list[str]:
    return [word for word in words if word.startswith("--") and word.split("=")[0] not in known]


@pytest.mark.parametrize("script", SWEEPING)
def test_every_experiment_that_sweeps_can_run_on_a_cluster(script, capsys):
    text = help_of(script, capsys)
    assert ("--scheduler ADDRESS" in text) is (script not in NO_SCHEDULER)


@pytest.mark.parametrize("script", SWEEPING)
def test_what_a_worker_must_import_is_not_in_main(script):
    """A cache goes to workers by its name, and ``__main__`` is another module there."""
    text = (ROOT / "experiments" / f"{script}.py").read_text(encoding="utf-8")
    by_name = f"    from experiments import {script}  #" in text and f"    {script}.main()" in text
    assert by_name or not re.search(r"@functools\.(lru_)?cache", text)


def test_the_list_of_experiments_is_not_empty():
    assert {"randaugment", "tuning", "tuning_tips", "cluster_speedup"} <= set(SWEEPING)


def test_options_of_dask_exist():
    from distributed.cli import dask_scheduler, dask_worker

    for name, command in (("scheduler", dask_scheduler.main), ("worker", dask_worker.main)):
        known = {option for parameter in command.params for option in parameter.opts}
        calls = [words[1:] for words in module_commands("dask") if words[0] == name]
        assert calls
        for words in calls:
            assert unknown_options(words, known) == []
    assert unknown_options(["--nprocs", "2"], known) == ["--nprocs"]  # the check can fail


def test_options_of_experiments_exist(capsys):
    for script in ("tuning", "cluster_speedup"):
        assert f"experiments.{script}" in PAGE
        known = set(re.findall(r"--[a-z-]+", help_of(script, capsys)))
        for words in module_commands(f"experiments.{script}"):
            assert unknown_options(words, known) == []
    assert [word for word in module_commands("experiments.tuning")[0] if ":" in word] == [ADDRESS]


def test_limits_are_those_of_dask(monkeypatch):
    import dask
    import distributed  # noqa: F401 - brings its defaults

    assert dask.config.get("distributed.scheduler.worker-ttl") == "5 minutes"
    assert "5 minutes" in PAGE
    allowed = dask.config.get("distributed.scheduler.allowed-failures")
    assert f"lost its worker {allowed + 1} times" in PAGE
    (name, value), *_ = [
        word.split("=") for words in COMMANDS for word in words if word.startswith("DASK_")
    ]
    found = dask.config.collect_env({name: value})
    assert dask.config.get("distributed.scheduler.worker-ttl", config=found) == "60s"


@contextlib.contextmanager
def started(words: list[str]) -> Iterator[None]:
    """A command of the page, as a process, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for_port(port: int) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.2)
    raise AssertionError("the scheduler did not start")


def test_the_commands_of_the_page_run_an_experiment(tmp_path):
    """For real, on this machine: a free port, one worker instead of two, a few pictures."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = {ADDRESS: f"tcp://127.0.0.1:{port}", "8786": str(port)}
    calls = {words[0]: [own.get(word, word) for word in words] for words in module_commands("dask")}
    calls["worker"][calls["worker"].index("--nworkers") + 1] = "1"
    small = ["--num-train", "20", "--epochs", "1", "--trials", "1", "--seeds", "1"]
    small += ["--work", str(tmp_path), "--record", str(tmp_path / "record.json")]
    with (
        started([*calls["scheduler"], "--host", "127.0.0.1", "--no-dashboard"]),
        started([*calls["worker"], "--no-dashboard"]),
    ):
        wait_for_port(port)
        command = [sys.executable, "-m", "experiments.tuning", "--scheduler", own[ADDRESS], *small]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=500)
    assert len(load(tmp_path / "record.json")["rows"]) == 4
