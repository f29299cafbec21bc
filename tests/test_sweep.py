"""Sweeps: every configuration once, on any executor, whatever kills it."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers.sweep import add_arguments, open_executor, processes, scheduler, sweep

GRID = [{"arm": arm, "seed": seed} for arm in ("none", "simple") for seed in range(3)]


def square(config: dict) -> dict:
    return {"square": config["seed"] ** 2, "arm": config["arm"], "pair": (1, None)}


def note(config: dict, folder: str) -> dict:
    """Leave a file for each run: the only trace that no process can lose."""
    name = "-".join(str(value) for value in config.values())
    with tempfile.NamedTemporaryFile(dir=folder, prefix=f"{name}+", delete=False):
        return square(config)


def fail_at_one(config: dict) -> dict:
    if config == GRID[1]:
        raise KeyError("no such weight")
    return square(config)


def return_tensor(config: dict) -> dict:
    return {"loss": [0.5, torch.tensor(1.0)]}


def return_nan(config: dict) -> dict:
    return {"loss": [0.5, math.nan]}


def die_at_one(config: dict) -> dict:
    if config == GRID[1]:
        os._exit(3)
    return square(config)


def count_threads(config: dict) -> int:
    return torch.get_num_threads()


def runs_noted(folder: Path) -> list[str]:
    return sorted(file.name.split("+")[0] for file in folder.iterdir())


def lines_of(journal: Path) -> list[str]:
    return journal.read_text(encoding="utf-8").splitlines()


def sorted_pairs(pairs) -> list:
    return sorted(pairs, key=lambda pair: json.dumps(pair, sort_keys=True))


def read_until_error(results) -> tuple[list, RuntimeError]:
    """What a sweep yields before it fails, and the failure."""
    kept = []
    try:
        for pair in results:
            kept.append(pair)
    except RuntimeError as error:
        return kept, error
    raise AssertionError("the sweep did not fail")


@pytest.fixture
def journal(tmp_path) -> Path:
    return tmp_path / "results" / "sweep.jsonl"  # the folder is made


@pytest.fixture
def notes(tmp_path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


@pytest.fixture(scope="module")
def pool():
    with processes(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def cluster():
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster.scheduler_address


@pytest.fixture(params=["here", "threads", "processes", "dask"])
def executor(request):
    if request.param == "here":
        yield None
    elif request.param == "threads":
        with ThreadPoolExecutor(2) as executor:
            yield executor
    elif request.param == "processes":
        yield request.getfixturevalue("pool")
    else:
        with scheduler(request.getfixturevalue("cluster")) as executor:
            yield executor


# --- the same on every executor -------------------------------------------------------------


def test_each_configuration_comes_once_with_its_result(executor, journal):
    got = list(sweep(square, GRID, journal=journal, executor=executor))
    want = [(c, {"square": c["seed"] ** 2, "arm": c["arm"], "pair": [1, None]}) for c in GRID]
    assert sorted_pairs(got) == sorted_pairs(want)
    assert (got == want) or executor is not None  # in order, at least here


def test_finished_ones_are_not_run_again(executor, journal, notes):
    run = partial(note, folder=str(notes))
    first = dict(zip("ab", sweep(run, GRID[1:3], journal=journal, executor=executor), strict=True))
    again = list(sweep(run, GRID, journal=journal, executor=executor))
    assert [config for config, _ in again[:2]] == GRID[1:3]
    assert sorted_pairs(again[:2]) == sorted_pairs(first.values())
    assert runs_noted(notes) == sorted(f"{c['arm']}-{c['seed']}" for c in GRID)
    assert len(lines_of(journal)) == 1 + len(GRID)
    third = list(sweep(run, reversed(GRID), journal=journal, executor=executor))
    assert third == sorted(again, key=lambda pair: GRID.index(pair[0]), reverse=True)
    assert len(runs_noted(notes)) == len(GRID)


def test_a_run_that_fails_is_named_and_the_others_are_kept(executor, journal):
    kept, error = read_until_error(sweep(fail_at_one, GRID, journal=journal, executor=executor))
    assert str(error) == (
        "the run with config {'arm': 'none', 'seed': 1} failed: KeyError: 'no such weight'"
    )
    assert isinstance(error.__cause__, KeyError)
    assert (GRID[0], {"square": 0, "arm": "none", "pair": [1, None]}) in kept
    resumed = list(sweep(square, GRID, journal=journal, executor=executor))
    assert sorted_pairs(resumed[: len(kept)]) == sorted_pairs(kept)
    assert len(resumed) == len(GRID)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (return_nan, r"ValueError: result\['loss'\]\[1\] must be a finite number, got nan"),
        (return_tensor, r"TypeError: result\['loss'\]\[1\] must be a text, .* got Tensor"),
    ],
)
def test_results_that_json_cannot_hold_are_named(executor, journal, run, message):
    with pytest.raises(RuntimeError, match=rf"config \{{'arm': 'none', .* failed: {message}"):
        list(sweep(run, GRID[:1], journal=journal, executor=executor))
    assert len(lines_of(journal)) == 1


class Box(NamedTuple):
    side: int


PLAIN = st.none() | st.booleans() | st.text() | st.integers() | st.floats(-1e9, 1e9)
RESULTS = st.recursive(PLAIN, lambda x: st.lists(x) | st.dictionaries(st.text(), x), max_leaves=8)


@given(result=RESULTS)
@settings(max_examples=50)
def test_plain_results_come_back_equal(result):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "j.jsonl")
        ((_, fresh),) = sweep(lambda _: result, GRID[:1], journal=path)
        ((_, kept),) = sweep(lambda _: "not run", GRID[:1], journal=path)
        assert fresh == kept == result
        assert repr(fresh) == repr(kept)  # equal types, too


def test_numbers_of_numpy_become_plain_and_tuples_lists():
    result = {"a": np.float32(0.5), "b": (np.int64(3), Box(2))}
    ((config, got),) = sweep(lambda _: result, [{"bits": np.int64(8)}])
    assert got == {"a": 0.5, "b": [3, [2]]}
    assert type(got["b"][0]) is type(config["bits"]) is int


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ({1, 2}, "result must be a text, a finite number.* got set"),
        ({"x": {1: 2}}, r"result\['x'\] must be .* got a dict with other keys"),
        ([1, b"x"], r"result\[1\] must be .* got bytes"),
        ({"x": math.inf}, r"result\['x'\] must be a finite number, got inf"),
    ],
)
def test_other_unfit_results_are_named(result, message):
    with pytest.raises(RuntimeError, match=message):
        list(sweep(lambda _: result, GRID[:1]))


def test_runs_cannot_change_their_configuration():
    def spoil(config):
        config["arm"] = "spoilt"

    with ThreadPoolExecutor(1) as executor:
        for where in (None, executor):
            assert [config for config, _ in sweep(spoil, GRID, executor=where)] == GRID


# --- handing out ----------------------------------------------------------------------------


class Counting(ThreadPoolExecutor):
    """Keeps what it was given, and counts the most that it held at once."""

    def __init__(self, workers: int) -> None:
        super().__init__(workers)
        self.futures, self.most = [], 0

    def submit(self, *args, **kwargs):
        self.futures.append(super().submit(*args, **kwargs))
        self.most = max(self.most, sum(not future.done() for future in self.futures))
        return self.futures[-1]


def test_a_long_list_does_not_flood_the_executor():
    configs = ({"seed": seed, "arm": "none"} for seed in range(300))
    with Counting(3) as executor:
        assert len(list(sweep(square, configs, executor=executor))) == 300
    assert len(executor.futures) == 300
    assert executor.most <= 3


def test_all_workers_are_busy_even_while_results_are_read():
    together, met = threading.Barrier(3, timeout=60), []  # opens when three are there at once

    def meet(config):
        if config["seed"]:
            together.wait()
            met.append(config["seed"])
        return config["seed"]

    with ThreadPoolExecutor(3) as executor:
        results = sweep(meet, [{"seed": seed} for seed in range(4)], executor=executor)
        assert next(results) == ({"seed": 0}, 0)  # not asked for more, yet 1 to 3 meet
        wait_for(lambda: len(met) == 3)
        assert sorted(seed for _, seed in results) == [1, 2, 3]


def test_after_an_error_running_ones_finish_and_no_more_begin(journal):
    failed, begun = threading.Event(), []

    def run(config):
        begun.append(config["seed"])
        if config["seed"] == 0:
            failed.set()
            raise ValueError("first")
        assert failed.wait(60)
        time.sleep(0.2)  # the failure is known by now
        if config["seed"] == 1:
            raise ValueError("second")
        return config["seed"]

    with ThreadPoolExecutor(3) as executor:
        configs = [{"seed": seed} for seed in range(10)]
        kept, error = read_until_error(sweep(run, configs, journal=journal, executor=executor))
    assert "'seed': 0} failed: ValueError: first" in str(error)
    assert error.__notes__ == ["also failed: config {'seed': 1}: ValueError('second')"]
    assert kept == [({"seed": 2}, 2)]
    assert lines_of(journal)[1:] == ['{"config": {"seed": 2}, "result": 2}']
    assert sorted(begun) == [0, 1, 2]


def test_a_sweep_that_is_closed_begins_no_more_and_keeps_what_is_done(journal):
    begun, go = [], threading.Event()

    def run(config):
        begun.append(config["seed"])
        if config["seed"] >= 2:
            assert go.wait(60)
        return config["seed"]

    with Counting(2) as executor:
        configs = [{"seed": seed} for seed in range(50)]
        results = sweep(run, configs, journal=journal, executor=executor)
        next(results)
        wait_for(lambda: all(future.done() for future in executor.futures[:2]))
        wait_for(lambda: 2 in begun)
        results.close()  # one is read, one is done, one or two run
        go.set()
    assert sorted(begun) in ([0, 1, 2], [0, 1, 2, 3])
    kept = [json.loads(line)["result"] for line in lines_of(journal)[1:]]
    assert sorted(kept) == [0, 1]


def test_a_worker_that_dies_names_the_configuration(journal):
    with (
        processes(1) as executor,
        pytest.raises(RuntimeError, match=r"'seed': 1\} failed: BrokenProcessPool.* was killed"),
    ):
        list(sweep(die_at_one, GRID, journal=journal, executor=executor))
    assert len(lines_of(journal)) == 2


def test_runs_that_cannot_be_sent_to_processes_are_refused_at_once(pool):
    def local(config):
        return 0

    for run in (lambda config: 0, local, partial(square, lock=threading.Lock())):
        with pytest.raises(TypeError, match="run must be a function at the top of a module"):
            sweep(run, GRID, executor=pool)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"run": "train"}, TypeError, "run must be callable, got 'train'"),
        ({"executor": 2}, TypeError, "executor must be a concurrent.futures.Executor .* got 2"),
        ({"desc": ""}, TypeError, "desc must be a text that is not empty, got ''"),
        ({"configs": [{"a": [1]}]}, TypeError, r"config\['a'\] must be .* got \[1\]"),
        ({"configs": [{"a": math.nan}]}, ValueError, r"config\['a'\] must be .* got nan"),
        ({"configs": ["a"]}, TypeError, "config must be a dict with texts as keys, got 'a'"),
        ({"configs": [{1: "a"}]}, TypeError, "config must be a dict with texts as keys"),
        (
            {"configs": [{"a": 1, "b": 2}, {"b": 2, "a": 1}]},
            ValueError,
            r"configs must differ from each other, got \{'b': 2, 'a': 1\} twice",
        ),
    ],
)
def test_unfit_arguments_are_refused_at_once(change, error, message):
    with pytest.raises(error, match=message):
        sweep(**({"run": square, "configs": GRID} | change))


def test_nothing_to_do_is_no_error(executor):
    assert list(sweep(square, [], executor=executor)) == []


# --- the journal ----------------------------------------------------------------------------


def test_a_journal_is_lines_of_json_under_a_name(journal):
    list(sweep(square, GRID[:2], journal=journal, desc="arms, synth_digits"))
    header, *rows = map(json.loads, lines_of(journal))
    assert header == {"sweep": "arms, synth_digits", "format": 1}
    assert rows == [
        {"config": c, "result": {"square": c["seed"] ** 2, "arm": "none", "pair": [1, None]}}
        for c in GRID[:2]
    ]


def test_each_line_is_there_before_its_result_is_seen(journal):
    for number, _ in enumerate(sweep(square, GRID, journal=journal), start=1):
        assert len(lines_of(journal)) == 1 + number


def test_a_grid_can_be_widened_and_rows_of_others_stay(journal):
    list(sweep(square, GRID, journal=journal))
    before = journal.read_bytes()
    other = {"arm": "cutout", "seed": 7, "width": 2.5, "flip": True, "frost": None}
    got = list(sweep(square, [other, GRID[0]], journal=journal))
    assert [config for config, _ in got] == [GRID[0], other]  # what is there comes first
    assert journal.read_bytes().startswith(before)
    assert len(lines_of(journal)) == 2 + len(GRID)


def write_full(path: Path) -> bytes:
    list(sweep(square, GRID[:3], journal=path))
    return path.read_bytes()


@given(data=st.data())
@settings(max_examples=60)
def test_wherever_a_kill_cuts_the_journal_only_the_cut_line_is_repeated(data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "sweep.jsonl")
        content = write_full(path)
        keep = data.draw(st.integers(0, len(content)))
        path.write_bytes(content[:keep])
        ran = []
        got = list(sweep(lambda c: ran.append(c) or square(c), GRID[:3], journal=path))
        whole = max(0, content[:keep].count(b"\n") - 1)
        assert ran == GRID[whole:3]
        assert [config for config, _ in got] == GRID[:3]
        assert path.read_bytes() == content


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ('{"config": {"arm": "no', "Unterminated string"),
        ('{"config": {"arm": "none", "seed": 1}, "result": NaN}', "NaN is no number in JSON"),
        ('{"config": {"arm": "none", "seed": 1}}', "it must hold config and result"),
        ('{"config": {"arm": ["none"]}, "result": 1}', r"config\['arm'\] must be"),
        ("[1]", "it must hold config and result"),
        ("", "Expecting value"),
        ("\udcff", "utf-8"),
    ],
)
@pytest.mark.parametrize("place", [1, 3])
def test_a_damaged_line_is_named_and_nothing_is_changed(journal, damage, reason, place):
    write_full(journal)
    lines = lines_of(journal)
    lines[place] = damage
    content = ("\n".join(lines) + '\n{"half').encode(errors="surrogateescape")
    journal.write_bytes(content)
    message = rf"sweep\.jsonl, line {place + 1} is damaged \(.*{reason}.*\); delete this line"
    with pytest.raises(ValueError, match=message):
        list(sweep(never, GRID, journal=journal))
    assert journal.read_bytes() == content


def never(config):
    raise AssertionError("a run was begun")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"sweep": "grid", "format": 1}\n', "is the journal of the sweep 'grid', not of 'arms'"),
        (b'{"sweep": "arms", "format": 2}\n', "is a journal in another format than 1"),
        (b'{"rows": []}\n', "is no journal of a sweep; nothing was changed"),
        (b"my notes", "is no journal of a sweep"),
        (b"[1]\n", "is no journal of a sweep"),
        (b"\xff\x00\n", "is no journal of a sweep"),
    ],
)
def test_files_of_others_are_refused_and_kept(journal, content, message):
    journal.parent.mkdir()
    journal.write_bytes(content)
    with pytest.raises(ValueError, match=rf"sweep\.jsonl {message}"):
        list(sweep(never, GRID, journal=journal, desc="arms"))
    assert journal.read_bytes() == content


def test_a_place_that_cannot_be_written_is_found_before_the_first_run(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path, tmp_path / "file" / "sweep.jsonl"):
        with pytest.raises(OSError, match="journal must be a file that can be written"):
            next(sweep(never, GRID, journal=path))


def test_a_read_only_folder_is_found_before_the_first_run(read_only_folder):
    message = r"journal must be a file .*Permission denied"
    with read_only_folder() as folder, pytest.raises(OSError, match=message):
        next(sweep(never, GRID, journal=folder / "sweep.jsonl"))


FULL_DISK = """
import resource, signal, sys
from rac_helpers.sweep import sweep
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
try:
    for config, _ in sweep(lambda config: "x" * 60, [{"seed": s} for s in range(9)],
                           journal=sys.argv[1]):
        print(config["seed"])
except OSError as error:
    print("stopped", error)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_full_disk_stops_the_sweep_and_loses_nothing(journal):
    command = [sys.executable, "-c", FULL_DISK, str(journal)]
    child = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert child.stdout.startswith("0\nstopped")
    assert "bytes could be written" in child.stdout
    assert journal.stat().st_size == 200  # half a line is there
    ran = []
    run = lambda config: ran.append(config["seed"])  # noqa: E731
    assert len(list(sweep(run, [{"seed": s} for s in range(3)], journal=journal))) == 3
    assert ran == [1, 2]


# --- kills, Ctrl-C, two at once: real processes ------------------------------------------------

CHILD_GRID = [{"arm": "slow", "seed": seed} for seed in range(100)]


def slow_note(config: dict, folder: str) -> dict:
    time.sleep(0.2)
    return note(config, folder) | {"pid": os.getpid()}


@contextlib.contextmanager
def child(journal: Path, notes: Path, *, workers: int):
    """Another process that runs this file as a script."""
    command = [sys.executable, __file__, str(journal), str(notes), "--workers", str(workers)]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def done_in(journal: Path) -> list[dict]:
    if not journal.exists():
        return []
    whole = journal.read_bytes().rpartition(b"\n")[0].splitlines()
    return [json.loads(line) for line in whole[1:]]


def pids_in(journal: Path) -> set[int]:
    return {row["result"]["pid"] for row in done_in(journal)}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_sweep_goes_on_and_repeats_nothing_finished(journal, notes, workers):
    with child(journal, notes, workers=workers) as process:
        wait_for(lambda: len(done_in(journal)) >= 3 and len(pids_in(journal)) == workers)
        process.kill()
        process.wait()
    done, pids = done_in(journal), pids_in(journal)
    wait_for(lambda: os.name == "nt" or not any(map(is_alive, pids)))  # no orphans
    before = runs_noted(notes)
    assert len(done) <= len(before) <= len(done) + 2 * workers  # the others were cut short
    run = partial(note, folder=str(notes))
    got = list(sweep(run, CHILD_GRID, journal=journal, desc="child"))
    assert [config for config, _ in got[: len(done)]] == sorted(
        (row["config"] for row in done), key=CHILD_GRID.index
    )
    assert len(got) == len(CHILD_GRID)
    again = sorted(f"slow-{c['seed']}" for c, _ in got[len(done) :])
    assert sorted(runs_noted(notes)) == sorted([*before, *again])
    assert len(done_in(journal)) == len(CHILD_GRID)


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
@pytest.mark.parametrize("workers", [1, 2])
def test_ctrl_c_ends_a_sweep_soon_and_keeps_what_is_finished(journal, notes, workers):
    with child(journal, notes, workers=workers) as process:
        wait_for(lambda: len(done_in(journal)) >= 3 and len(pids_in(journal)) == workers)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("Traceback") == 1  # and none from workers
    done = [row["config"]["seed"] for row in done_in(journal)]
    assert 3 <= len(done) < len(CHILD_GRID)
    assert set(map(int, out.split())) <= set(done)
    assert not any(map(is_alive, pids_in(journal)))


def test_two_processes_on_one_journal_are_refused_and_the_first_goes_on(journal, notes):
    with child(journal, notes, workers=1) as process:
        wait_for(lambda: len(done_in(journal)) >= 1)
        with pytest.raises(OSError, match=r"sweep\.jsonl is in use by another process"):
            next(sweep(never, CHILD_GRID, journal=journal, desc="child"))
        before = len(done_in(journal))
        wait_for(lambda: len(done_in(journal)) > before)
        process.kill()
        process.wait()
    results = sweep(never, CHILD_GRID, journal=journal, desc="child")
    next(results)  # a kill gave the journal back
    results.close()


# --- the command line -------------------------------------------------------------------------


def parse(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(arguments)


def test_default_is_this_process_with_its_threads():
    before = torch.get_num_threads()
    for arguments in ([], ["--workers", "0"], ["--workers", "1"]):
        with open_executor(parse(*arguments)) as executor:
            assert executor is None
            assert torch.get_num_threads() == before
    with open_executor(parse("--threads", "3")) as executor:
        assert executor is None
        assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_workers_are_processes_that_share_the_cores_or_get_threads():
    with open_executor(parse("--workers", "2", "--threads", "3")) as executor:
        assert isinstance(executor, ProcessPoolExecutor)
        assert {n for _, n in sweep(count_threads, GRID, executor=executor)} == {3}
    with open_executor(parse("--workers", "40")) as executor:
        assert executor.submit(count_threads, {}).result() == 1


def test_a_scheduler_is_a_cluster(cluster):
    with open_executor(parse("--scheduler", cluster)) as executor:
        assert isinstance(executor, Executor)
        got = list(sweep(square, GRID, executor=executor))
    assert len(got) == len(GRID)


def test_nobody_at_the_address_is_named():
    message = r"no Dask scheduler answers at 'tcp://127.0.0.1:9' within 0.5 s"
    with (
        pytest.raises(ConnectionError, match=message),
        scheduler("tcp://127.0.0.1:9", timeout_s=0.5),
    ):
        raise AssertionError("connected")
    with pytest.raises(ConnectionError, match="no Dask scheduler answers at 'no address'"):
        scheduler("no address", timeout_s=0.5).__enter__()


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    message = "needs the package distributed: pip install distributed"
    with pytest.raises(ModuleNotFoundError, match=message):
        open_executor(parse("--scheduler", "tcp://127.0.0.1:9")).__enter__()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workers", "-1"], "workers must be an integer >= 0, got -1"),
        (["--threads", "0"], "threads must be an integer >= 1, got 0"),
        (["--workers", "2", "--threads", "0"], "threads must be an integer >= 1, got 0"),
        (["--scheduler", "tcp://x", "--threads", "2"], "threads must be chosen where the workers"),
    ],
)
def test_unfit_options_are_named(arguments, message):
    with pytest.raises(ValueError, match=message), open_executor(parse(*arguments)):
        raise AssertionError("opened")


def test_workers_and_scheduler_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        parse("--workers", "2", "--scheduler", "tcp://x")
    assert "not allowed with" in capsys.readouterr().err


# --- progress -----------------------------------------------------------------------------------


def test_bar_counts_configurations_with_those_of_the_journal(journal, capfd):
    list(sweep(square, GRID[:4], journal=journal, desc="arms", progress=False))
    silent = capfd.readouterr()
    assert silent.out == silent.err == ""
    results = sweep(square, GRID, journal=journal, desc="arms", progress=True)
    next(results)
    assert "4/6" in capfd.readouterr().err
    list(results)
    shown = capfd.readouterr()
    assert "arms: 100%" in shown.err
    assert "6/6" in shown.err
    assert shown.out == ""


if __name__ == "__main__":  # the process that the tests above kill
    signal.signal(signal.SIGINT, signal.default_int_handler)  # else ignored in the background
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("journal")
    parser.add_argument("notes")
    add_arguments(parser)
    options = parser.parse_args()
    run = partial(slow_note, folder=options.notes)
    with open_executor(options) as executor:
        for config, _ in sweep(
            run, CHILD_GRID, journal=options.journal, executor=executor, desc="child"
        ):
            sys.stdout.write(f"{config['seed']}\n")
            sys.stdout.flush()
