"""The experiments on tuning, for real, on a few pictures."""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor

import pytest
from tiny_experiments import few_digits

from experiments import cluster_speedup, tuning
from rac_helpers import train
from rac_helpers.records import frame, load

TINY = ("--num-train", "40", "--epochs", "3", "--trials", "7")


def arguments(folder, *more: str) -> list[str]:
    return [*more, "--work", str(folder / "work"), "--record", str(folder / "record.json")]


@pytest.fixture(scope="module")
def few():
    with few_digits(20) as patch:
        tuning._draw.cache_clear()
        yield patch
    tuning._draw.cache_clear()


# -- four searches --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def searches(few, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuning")
    tuning.main(arguments(folder, *TINY, "--seeds", "1"))
    return folder


def test_all_searches_cost_at_most_the_same(searches):
    rows = frame(searches / "record.json").set_index("strategy")
    assert set(rows.index) == set(tuning.SEARCHES)
    assert (rows["epochs"] <= 21).all()
    assert (rows.loc[["random", "tpe", "genetic"], "epochs"] == 21).all()
    assert rows.loc["hyperband", "epochs"] == 18  # three brackets of 6
    assert rows.loc["hyperband", "trainings"] > rows.loc["hyperband", "configurations"]
    assert (rows["cpu_seconds"] > 0).all()


def test_chosen_is_the_best_for_the_validation_images(searches):
    for row in load(searches / "record.json")["rows"]:
        history, found = row["history"], row["metrics"]
        best = max(history, key=lambda one: one["val_accuracy"])  # the first of equals
        assert found["val_accuracy"] == best["val_accuracy"]
        assert found["test_accuracy"] == best["test_accuracy"]
        assert found["chosen_lr"] == best["lr"]
        curve = [one["best_val_accuracy"] for one in history]
        assert curve == sorted(curve)
        assert history[-1]["spent_epochs"] == found["epochs"]


def test_the_first_round_of_the_genetic_search_is_random(searches):
    """So that the two are compared from the same start: equal trials, equal scores."""
    rows = {row["config"]["strategy"]: row for row in load(searches / "record.json")["rows"]}
    first = {name: rows[name]["history"][: tuning.POPULATION] for name in ("random", "genetic")}
    assert first["random"] == first["genetic"]
    assert rows["random"]["history"][-1]["lr"] != rows["genetic"]["history"][-1]["lr"]


def test_nothing_is_run_twice_and_journals_rebuild_the_record(searches, few):
    before = load(searches / "record.json")["rows"]
    (searches / "record.json").unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "run", never)
        tuning.main(arguments(searches, *TINY, "--seeds", "1"))
        assert load(searches / "record.json")["rows"] == before
    (searches / "record.json").unlink()
    (searches / "work" / "record.jsonl").unlink()  # now from the journals of the searches
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning, "try_out", never)
        tuning.main(arguments(searches, *TINY, "--seeds", "1"))
    assert load(searches / "record.json")["rows"] == before


def never(*_, **__):
    raise AssertionError("a finished run was run again")


def test_a_training_that_diverges_scores_nothing_and_other_errors_are_not_hidden(few, monkeypatch):
    settings = tuning.Settings(40, 1, 7, work="")
    config = cluster_speedup.CONFIG | {"seed": 0}

    def fails_with(message):
        def fit(*_, **__):
            raise RuntimeError(message)

        monkeypatch.setattr(train, "fit", fit)

    fails_with("the loss is nan in epoch 1, step 3")
    assert tuning.try_out(config, settings=settings)["score"] == 0
    fails_with("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        tuning.try_out(config, settings=settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--epochs", "0"], "--epochs must be at least 1, got 0"),
        (["--num-train", "0"], "--num-train must be at least 1, got 0"),
        (["--trials", "1"], "--trials times --epochs must be at least 27"),
    ],
)
def test_wrong_options(options, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        tuning.main(options)
    assert message in capsys.readouterr().err


def test_wrong_options_of_the_cluster(capsys):
    for name in ("repeats", "trainings", "num-train", "epochs"):
        with pytest.raises(SystemExit, match="2"):
            cluster_speedup.main([f"--{name}", "0"])
        assert f"--{name} must be at least 1, got 0" in capsys.readouterr().err


# -- a cluster ------------------------------------------------------------------------------------


@contextlib.contextmanager
def threads_of(workers, *, trim):
    if workers == 0:
        yield None
    else:
        with ThreadPoolExecutor(workers) as executor:
            yield executor


@pytest.mark.usefixtures("threads")
def test_speed_up_is_over_one_worker(few, tmp_path, monkeypatch):
    monkeypatch.setattr(cluster_speedup, "cluster_of", threads_of)
    record = tmp_path / "record.json"
    options = ["--num-train", "40", "--epochs", "1", "--trainings", "2", "--repeats", "2"]
    cluster_speedup.main([*options, "--record", str(record)])
    rows = frame(record)
    places = list(zip(rows["workers"], rows["trim"], strict=True))
    assert places == 2 * list(cluster_speedup.PLACES)
    one = rows[rows["workers"].eq(1) & ~rows["trim"].astype(bool)]
    assert one["speed_up"].eq(1).all()
    want = one["seconds"].iloc[0] / rows["seconds"].iloc[3]
    assert rows["speed_up"].iloc[3] == pytest.approx(want)


def test_workers_keep_their_memory_unless_dask_has_its_way():
    for trim, expected in ((True, "65536"), (False, None)):
        with cluster_speedup.cluster_of(1, trim=trim) as executor:
            assert executor.submit(os.environ.get, "MALLOC_TRIM_THRESHOLD_").result() == expected


def test_trainings_that_differ_between_places_are_found():
    rows = {n: {"seconds": 1.0, "mean_val_accuracy": 0.5 + n} for n in range(3)}
    with pytest.raises(RuntimeError, match="must score the same everywhere"):
        cluster_speedup.write(None, rows, 0)
