"""A Dask cluster loses a worker, and the one who started the sweep: no trial is lost or doubled."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from rac_helpers.rng import make_generator
from rac_helpers.sweep import add_arguments, open_executor, scheduler, sweep

GRID = [{"lr": 0.1, "seed": seed} for seed in range(16)]
ENOUGH = 4  # finished trials before something is killed


def trial(config: dict) -> dict:
    draws = torch.rand(3, generator=make_generator(config["seed"]))
    return {"score": draws.mean().item(), "seed": config["seed"]}


def noted_trial(config: dict, notes: str) -> dict:
    """The same, slowly, with a file when it begins and one when it ends: they survive any kill."""
    name = f"{config['seed']}-{os.getpid()}-"
    with tempfile.NamedTemporaryFile(dir=notes, prefix=name, suffix=".begun", delete=False) as file:
        time.sleep(0.15)
        result = trial(config)
        Path(file.name).with_suffix(".ended").touch()
    return result


def begun(notes: Path) -> list[tuple[int, int, bool]]:
    """Seed and process of each trial that began, and whether it ended."""
    found = []
    for file in notes.glob("*.begun"):
        seed, pid, _ = file.name.split("-", 2)
        found.append((int(seed), int(pid), file.with_suffix(".ended").exists()))
    return found


def lines_of(journal: Path) -> list[dict]:
    """What is finished, as the next sweep will read it."""
    if not journal.exists():
        return []
    whole = journal.read_bytes().rpartition(b"\n")[0].splitlines()
    return [json.loads(line) for line in whole[1:]]


def wait_for(condition) -> None:
    end = time.monotonic() + 240
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def undisturbed() -> list[tuple[dict, dict]]:
    return list(sweep(trial, GRID))


@pytest.fixture(scope="module")
def cluster():
    """Two workers, each a process of its own; who starts it also ends it."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        silence_logs=50,  # that a worker was lost is meant
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture
def journal(tmp_path) -> Path:
    return tmp_path / "cluster.jsonl"


@pytest.fixture
def notes(tmp_path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def assert_complete(journal: Path, results: list, undisturbed: list) -> None:
    """Each trial once, with the value it has when nothing is killed."""
    by_seed = sorted(results, key=lambda pair: pair[0]["seed"])
    assert by_seed == undisturbed
    kept = [(line["config"], line["result"]) for line in lines_of(journal)]
    assert len(kept) == len(GRID)
    assert sorted(kept, key=lambda pair: pair[0]["seed"]) == undisturbed


def test_a_worker_killed_in_the_middle_costs_nothing(cluster, journal, notes, undisturbed):
    """Somebody closes a lid: the trial runs again on the other worker, within the same sweep."""
    killed = []

    def kill_one() -> None:
        def running():
            ended = [pid for _, pid, done in begun(notes) if done]
            return [pid for _, pid, done in begun(notes) if not done and len(ended) >= ENOUGH]

        wait_for(running)
        killed.append(running()[0])
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one)
    with scheduler(cluster, timeout_s=60) as executor:
        killer.start()
        run = partial(noted_trial, notes=str(notes))
        results = list(sweep(run, GRID, journal=journal, executor=executor))
    killer.join()
    assert len({pid for _, pid, _ in begun(notes)}) >= 2  # both took part
    assert killed
    assert_complete(journal, results, undisturbed)


@pytest.fixture
def driver(cluster, journal, notes):
    """A process that runs this file as a script: the one who started the sweep."""
    command = [sys.executable, __file__, str(journal), str(notes), "--scheduler", cluster]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    yield process
    process.kill()
    process.communicate()


def test_a_driver_killed_in_the_middle_goes_on_where_it_stopped(
    driver, cluster, journal, notes, undisturbed
):
    def enough() -> bool:
        assert driver.poll() is None, driver.stderr.read()
        return len(lines_of(journal)) >= ENOUGH

    wait_for(enough)
    driver.kill()
    driver.wait()
    before = lines_of(journal)
    assert ENOUGH <= len(before) < len(GRID)
    with scheduler(cluster, timeout_s=60) as executor:
        run = partial(noted_trial, notes=str(notes))
        results = list(sweep(run, GRID, journal=journal, executor=executor, desc="driver"))
    assert_complete(journal, results, undisturbed)
    finished = {line["config"]["seed"] for line in before}
    assert {config["seed"] for config, _ in results[: len(before)]} == finished
    seeds = [seed for seed, _, _ in begun(notes)]
    assert all(seeds.count(seed) == 1 for seed in finished)  # none of them was run again
    assert set(seeds) == set(range(len(GRID)))
    again = list(sweep(never, GRID, journal=journal, desc="driver"))  # and no need for a cluster
    assert again == undisturbed


def never(config: dict) -> dict:
    raise AssertionError("a finished trial was run again")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("journal")
    parser.add_argument("notes")
    add_arguments(parser)
    options = parser.parse_args()
    run = partial(noted_trial, notes=options.notes)
    with open_executor(options) as executor:
        for _ in sweep(run, GRID, journal=options.journal, executor=executor, desc="driver"):
            pass


if __name__ == "__main__":  # the process that a test above kills
    main()
