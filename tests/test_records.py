"""Records: what a crash leaves, what is refused, and what must not be in them."""

from __future__ import annotations

import getpass
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers import records
from rac_helpers.records import Record, frame, load
from rac_helpers.records.files import locked

GIVEN = {"name": "pruning", "command": "python experiments/pruning.py", "data": "digits 800/200"}
CONFIG = {"method": "magnitude-global", "sparsity": 0.8, "stage": "cut"}
METRICS = {"test_accuracy": 0.9, "params": 1234}


@pytest.fixture
def record(tmp_path) -> Record:
    return Record.open(tmp_path / "results" / "pruning.json", **GIVEN)  # the folder is made


# --- what is kept ---------------------------------------------------------------------------


def test_a_new_record_says_how_it_was_made(record):
    content = load(record.path)
    assert {key: content[key] for key in GIVEN} == GIVEN
    assert content["rows"] == []
    assert f"PyTorch threads: {torch.get_num_threads()}" in content["hardware"]
    assert content["versions"]["torch"].startswith(torch.__version__.split("+")[0])
    assert content["versions"]["python"] == platform.python_version()


def test_rows_are_there_after_opening_again(record):
    history = [{"epoch": 1, "val_accuracy": 0.5}]
    record.append(config=CONFIG, seed=0, metrics=METRICS, history=history)
    again = Record.open(record.path, **GIVEN)
    again.append(config=CONFIG, seed=1, metrics=METRICS)
    assert load(record.path)["rows"] == [
        {"config": CONFIG, "seed": 0, "metrics": METRICS, "history": history},
        {"config": CONFIG, "seed": 1, "metrics": METRICS},
    ]


def test_has_tells_done_from_open(record):
    assert not record.has(CONFIG, 0)
    record.append(config=CONFIG, seed=0, metrics=METRICS)
    for one in (record, Record.open(record.path, **GIVEN)):
        assert one.has(dict(reversed(CONFIG.items())), 0)  # the order of keys does not matter
        assert not one.has(CONFIG, 1)
        assert not one.has(CONFIG | {"sparsity": 0.9}, 0)


TEXTS = st.text(max_size=8)
NUMBERS = st.one_of(st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False))
CONFIGS = st.dictionaries(TEXTS.map("c_{}".format), TEXTS | NUMBERS | st.none() | st.booleans())


@given(
    rows=st.lists(
        st.tuples(CONFIGS, st.dictionaries(TEXTS.map("m_{}".format), NUMBERS)), max_size=4
    ),
)
@settings(max_examples=20, deadline=None)
def test_whatever_is_appended_reads_back_equal(rows):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.json")
        record = Record.open(path, **GIVEN)
        for seed, (config, metrics) in enumerate(rows):
            record.append(config=config, seed=seed, metrics=metrics)
            assert record.has(config, seed)
        got = [(row["config"], row["metrics"]) for row in load(path)["rows"]]
        assert got == rows
        assert len(frame(path)) == len(rows)
        assert os.listdir(folder) == ["run.json"]


def test_numbers_of_numpy_become_plain_numbers(record):
    metrics = {"accuracy": np.float32(0.5), "params": np.int64(3), "share": np.float64(0.25)}
    record.append(config={"bits": np.int64(8)}, seed=0, metrics=metrics)
    row = load(record.path)["rows"][0]
    assert row["metrics"] == {"accuracy": 0.5, "params": 3, "share": 0.25}
    assert type(row["metrics"]["params"]) is type(row["config"]["bits"]) is int


def test_one_line_a_row(record):
    before = record.path.read_text(encoding="utf-8").splitlines()
    for seed in range(3):
        record.append(config=CONFIG, seed=seed, metrics=METRICS)
    assert len(record.path.read_text(encoding="utf-8").splitlines()) == len(before) + 3


def test_two_writers_do_not_lose_rows_of_each_other(record):
    other = Record.open(record.path, **GIVEN)
    record.append(config=CONFIG, seed=0, metrics=METRICS)
    other.append(config=CONFIG, seed=1, metrics=METRICS)
    record.append(config=CONFIG, seed=2, metrics=METRICS)
    assert [row["seed"] for row in load(record.path)["rows"]] == [0, 1, 2]


def test_a_row_made_elsewhere_carries_its_own_hardware(record):
    text = record.path.read_text(encoding="utf-8")
    record.path.write_text(text.replace("PyTorch threads: ", "PyTorch threads: 9"), "utf-8")
    record.append(config=CONFIG, seed=0, metrics=METRICS)
    row = load(record.path)["rows"][0]
    assert row["hardware"] == records.hardware()
    assert "versions" not in row


def test_frame_has_settings_then_seed_then_metrics(record):
    record.append(config=CONFIG, seed=0, metrics=METRICS)
    record.append(config={"method": "dense"}, seed=0, metrics=METRICS | {"macs": 5})
    for table in (frame(record), frame(record.path), frame(str(record.path))):
        assert list(table) == [*CONFIG, "seed", *METRICS, "macs"]
        assert table["sparsity"].tolist()[0] == 0.8
        assert pd.isna(table["sparsity"].tolist()[1])
        assert table["params"].tolist() == [1234, 1234]


def test_frame_of_no_rows_is_empty(record):
    assert frame(record).empty


# --- several processes ----------------------------------------------------------------------

APPEND = """
import sys
from rac_helpers.records import Record
print("ready", flush=True)
sys.stdin.readline()
for seed in range(20):
    given = {"name": "pruning", "command": "python x.py", "data": "digits 800/200"}
    Record.open(sys.argv[1], **given).append(config={"by": sys.argv[2]}, seed=seed, metrics={})
"""


def test_two_processes_at_once_lose_no_row(tmp_path):
    path, names = tmp_path / "run.json", ["one", "two"]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", APPEND, str(path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:  # both are there: go
        child.stdin.write("go\n")
        child.stdin.flush()
    for child in children:
        assert child.communicate(timeout=120)[1] == ""
        assert child.returncode == 0
    rows = [(row["config"]["by"], row["seed"]) for row in load(path)["rows"]]
    assert sorted(rows) == [(name, seed) for name in names for seed in range(20)]
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_lock_is_waited_for_and_then_named(record):
    before = record.path.read_bytes()
    start = time.monotonic()
    with (
        locked(record.path),
        pytest.raises(TimeoutError, match=r"pruning\.json is locked by .*\.pruning\.json\.lock"),
        locked(record.path, timeout_s=0.3),
    ):
        raise AssertionError("two hold the lock")
    assert time.monotonic() - start >= 0.3
    assert record.path.read_bytes() == before
    record.append(config=CONFIG, seed=0, metrics=METRICS)  # the lock was given back


def test_the_lock_of_a_killed_process_is_named_at_once_and_kept(record):
    lock = record.path.with_name(".pruning.json.lock")
    lock.write_text("")
    an_hour_ago = time.time() - 3600
    os.utime(lock, (an_hour_ago, an_hour_ago))
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"lock, which is 36\d\d s old; .* delete it"):
        record.append(config=CONFIG, seed=0, metrics=METRICS)
    assert time.monotonic() - start < 5
    assert lock.exists()
    lock.unlink()
    record.append(config=CONFIG, seed=0, metrics=METRICS)


def test_an_error_gives_the_lock_back(record):
    record.append(config=CONFIG, seed=0, metrics=METRICS)
    with pytest.raises(ValueError, match="has a row with seed 0"):
        record.append(config=CONFIG, seed=0, metrics=METRICS)
    assert os.listdir(record.path.parent) == ["pruning.json"]


# --- crashes --------------------------------------------------------------------------------

FULL_DISK = """
import resource, signal, sys
from rac_helpers.records import Record
record = Record.open(sys.argv[1], name="pruning", command="python x.py", data="digits 800/200")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (len(open(sys.argv[1]).read()), resource.RLIM_INFINITY))
try:
    record.append(config={"method": "x" * 4096}, seed=1, metrics={})
except OSError as error:
    assert not record.has({"method": "x" * 4096}, 1)
    print("refused", error.strerror)
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has no limit on the size of files")
def test_a_write_that_fails_half_way_leaves_the_old_file(record):
    """The system really stops the write in the middle, as a full disk does."""
    record.append(config=CONFIG, seed=0, metrics=METRICS)
    before = record.path.read_bytes()
    command = [sys.executable, "-c", FULL_DISK, str(record.path)]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    assert child.stdout.startswith("refused")
    assert record.path.read_bytes() == before
    assert os.listdir(record.path.parent) == [record.path.name]


def test_a_failure_just_before_the_exchange_leaves_the_old_file(record, monkeypatch):
    record.append(config=CONFIG, seed=0, metrics=METRICS)
    before = record.path.read_bytes()

    def fails(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with pytest.raises(KeyboardInterrupt):
            record.append(config=CONFIG, seed=1, metrics=METRICS)
    assert record.path.read_bytes() == before
    assert os.listdir(record.path.parent) == [record.path.name]
    assert not record.has(CONFIG, 1)
    record.append(config=CONFIG, seed=1, metrics=METRICS)  # and it goes on


def test_a_new_file_can_be_read_by_others(record):
    ordinary = record.path.with_name("ordinary")
    ordinary.write_text("")
    assert record.path.stat().st_mode == ordinary.stat().st_mode


# --- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"metrics": {"accuracy": math.nan}}, r"metrics\['accuracy'\] must be a finite .* nan"),
        ({"metrics": {"loss": math.inf}}, r"metrics\['loss'\] must be a finite number, got inf"),
        ({"metrics": {"loss": torch.tensor(1.0)}}, r"metrics\['loss'\] .* got tensor"),
        ({"metrics": {"name": "best"}}, r"metrics\['name'\] must be .* got 'best'"),
        ({"metrics": {"done": True}}, r"metrics\['done'\] must be .* got True"),
        ({"metrics": [0.9]}, "metrics must be a dict with texts as keys"),
        ({"metrics": {1: 0.9}}, "metrics must be a dict with texts as keys"),
        ({"metrics": {"sparsity": 0.8}}, r"metrics\['sparsity'\] must have a name of its own"),
        ({"metrics": {"seed": 0}}, r"metrics\['seed'\] must have a name of its own"),
        ({"config": {"rate": math.nan}}, r"config\['rate'\] must be a finite number, got nan"),
        ({"config": {"shape": [3, 3]}}, r"config\['shape'\] must be .* got \[3, 3\]"),
        ({"history": [{"loss": 1.0}, {"loss": math.nan}]}, r"history\[1\]\['loss'\] .* got nan"),
        ({"history": [1.0]}, r"history\[0\] must be a dict"),
        ({"seed": -1}, "seed must be an integer >= 0, got -1"),
    ],
)
def test_unfit_rows_are_named_and_change_nothing(record, row, message):
    before = record.path.read_bytes()
    with pytest.raises((TypeError, ValueError), match=message):
        record.append(**({"config": CONFIG, "seed": 0, "metrics": METRICS} | row))
    assert record.path.read_bytes() == before


def test_a_row_twice_is_refused(record):
    record.append(config=CONFIG, seed=0, metrics=METRICS)
    with pytest.raises(ValueError, match=r"pruning\.json has a row with seed 0 and config"):
        record.append(config=CONFIG, seed=0, metrics=METRICS)


@pytest.mark.parametrize("key", ["name", "data"])
def test_a_record_of_something_else_is_refused(record, key):
    with pytest.raises(ValueError, match=f"pruning.json is a record with {key} '{GIVEN[key]}'"):
        Record.open(record.path, **(GIVEN | {key: "other"}))


@pytest.mark.parametrize("key", list(GIVEN))
def test_empty_texts_are_refused(tmp_path, key):
    with pytest.raises(TypeError, match=f"{key} must be a text that is not empty, got ''"):
        Record.open(tmp_path / "run.json", **(GIVEN | {key: ""}))


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="path must be a file that can be written"):
        Record.open(tmp_path / "file" / "run.json", **GIVEN)
    with pytest.raises(OSError, match="got the folder"):
        Record.open(tmp_path, **GIVEN)


def test_a_read_only_folder_is_refused_at_once(read_only_folder):
    message = r"path must be a file .*Permission denied"
    with read_only_folder() as folder, pytest.raises(OSError, match=message):
        Record.open(folder / "run.json", **GIVEN)


def test_a_missing_record_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no record .*nothing\.json"):
        load(tmp_path / "nothing.json")


@given(keep=st.floats(0, 0.99))
@settings(max_examples=30, deadline=None)
def test_a_truncated_record_is_refused_wherever_it_ends(keep):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.json")
        Record.open(path, **GIVEN).append(config=CONFIG, seed=0, metrics=METRICS)
        content = path.read_bytes()
        path.write_bytes(content[: int(keep * len(content))])
        for call in (load, frame, lambda path: Record.open(path, **GIVEN)):
            with pytest.raises(ValueError, match=r"run\.json is damaged"):
                call(path)


HEAD = {**GIVEN, "hardware": "", "versions": {}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[]", "is no record: it holds list"),
        (json.dumps(HEAD).encode(), "is no record: 'rows' is missing or no list"),
        (json.dumps({**HEAD, "rows": [], "name": 1}).encode(), "'name' is missing or no str"),
        (json.dumps({**HEAD, "rows": [{"seed": 0}]}).encode(), "row 0 lacks config, seed or"),
        (json.dumps({**HEAD, "rows": [math.nan]}).encode(), "damaged: NaN is no number in JSON"),
        (b"\xff\xfe", "damaged: 'utf-8' codec"),
    ],
)
def test_other_files_are_refused(tmp_path, content, message):
    path = tmp_path / "run.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"run\.json.* {message}"):
        load(path)
    assert path.read_bytes() == content


# --- what must not be in a record -----------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "stored"),
    [
        ("python experiments/p.py --data folder", "python experiments/p.py --data folder"),
        ("python p.py --root /home/someone/cifar -n 3", "python p.py --root … -n 3"),
        ("python p.py --root=/home/someone/cifar", "python p.py --root=…"),
        ("/usr/bin/python p.py ~/data ../data", "… p.py … …"),
        (r"python p.py --root C:\Users\someone", "python p.py --root …"),
        (r'python p.py --root "C:\Users\Some One\x" -n 3', "python p.py --root … -n 3"),
        ("python p.py '/home/some one/x'", "python p.py …"),
    ],
)
def test_paths_of_the_machine_are_left_out(tmp_path, command, stored):
    record = Record.open(tmp_path / "run.json", **(GIVEN | {"command": command}))
    assert load(record.path)["command"] == stored


def test_no_name_of_machine_or_user_is_in_a_record(record):
    record.append(config=CONFIG, seed=0, metrics=METRICS)
    text = record.path.read_text(encoding="utf-8")
    for folder in (Path.home(), record.path.parent, Path.cwd()):  # "/" says nothing
        assert folder == Path(folder.anchor) or str(folder) not in text
    assert not platform.node() or platform.node() not in text
    assert f"/{getpass.getuser()}" not in text


# --- writing files --------------------------------------------------------------------------


@given(old=st.binary(max_size=100), new=st.binary(max_size=100))
@settings(max_examples=20, deadline=None)
def test_write_atomically_replaces_the_whole_content(old, new):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")
        path.write_bytes(old)
        records.write_atomically(path, new)
        assert path.read_bytes() == new
        assert os.listdir(folder) == ["file"]


def test_check_writable_leaves_no_trace_and_keeps_the_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    assert records.check_writable("path", str(path)) == path
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
