"""experiments/randaugment.py, for real, on a few pictures."""

import collections
import json

import pytest
import torch
from PIL import Image

from experiments import randaugment
from rac_helpers import augment, corrupt
from rac_helpers.records import frame, load
from rac_helpers.rng import make_generator
from rac_helpers.train.checkpoint import _read

TINY = ("--data", "synth_digits", "--num-train", "60", "--epochs", "1", "--num-corrupted", "5")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("randaugment")
    run(folder, "--studies", "arms", "--seeds", "1")
    return folder


def run(folder, *more):
    record = folder / "record.json"
    randaugment.main([*TINY, "--work", str(folder / "work"), "--record", str(record), *more])
    return record


def test_the_record_holds_every_arm_on_clean_and_on_corrupted_pictures(folder):
    rows = frame(folder / "record.json")
    assert set(rows["arm"]) == set(randaugment.ARMS)
    clean = rows[rows["corruption"].isna()]
    corrupted = rows[rows["corruption"].notna()]
    assert len(clean) == 5
    assert clean["num_images"].unique().tolist() == [2000]
    assert set(corrupted["corruption"]) == set(corrupt.KINDS)
    assert len(corrupted) == 5 * 19 * 5
    articles = (corrupted["corruption"] == "saturate") & (corrupted["severity"] == 5)
    assert corrupted[articles]["num_images"].unique().tolist() == [2000]
    assert corrupted[~articles]["num_images"].unique().tolist() == [5]
    for name in ("test_accuracy", "val_accuracy", "train_accuracy"):
        assert clean[name].between(0, 1).all()
    histories = [row["history"] for row in load(folder / "record.json")["rows"] if "history" in row]
    assert [len(history) for history in histories] == [1] * 5
    assert len({history[0]["train_loss"] for history in histories}) == 5  # five different arms


def test_the_runs_of_a_seed_begin_alike_and_train_as_long(folder):
    settings = [_read(path)["settings"] for path in (folder / "work").glob("*.pt")]
    assert len(settings) == 5
    for name in ("starting weights", "train", "validation", "seed", "epochs", "batch_size", "lr"):
        assert len({one[name] for one in settings}) == 1, name
    assert len({one["transform"] for one in settings}) == 5


def test_nothing_is_run_twice_and_the_journal_rebuilds_the_record(folder):
    record, work = folder / "record.json", folder / "work"
    before, checkpoints = load(record)["rows"], {p: p.stat().st_mtime for p in work.glob("*.pt")}
    assert len(checkpoints) == 5
    run(folder, "--studies", "arms", "--seeds", "1")
    assert load(record)["rows"] == before
    record.unlink()
    run(folder, "--studies", "arms", "--seeds", "1")
    assert load(record)["rows"] == before
    assert {p: p.stat().st_mtime for p in work.glob("*.pt")} == checkpoints


def test_a_study_can_be_added_later_and_other_settings_are_refused(folder):
    run(folder, "--studies", "arms", "--seeds", "1")
    with pytest.raises(ValueError, match=r"is a record with data .*60 training images"):
        run(folder, "--num-train", "61", "--seeds", "1")


def test_corrupted_pictures_are_of_all_classes_even_if_the_folder_is_sorted(tmp_path):
    for part in ("train", "test"):
        for name in "abcd":
            folder = tmp_path / part / name
            folder.mkdir(parents=True)
            for i in range(12):
                Image.new("RGB", (32, 32), (i, 0, 0)).save(folder / f"{i}.png")
    preset = randaugment.PRESETS["folder"] | {"num_train": 8, "num_corrupted": 8}
    settings = randaugment.Settings("folder", str(tmp_path), work="", **preset)
    labels = randaugment.clean_split("fog", 3, settings).labels
    assert labels.bincount().tolist() == [2, 2, 2, 2]
    assert len(randaugment.clean_split("saturate", 5, settings).labels) == 48


def test_every_study_is_complete():
    settings = randaugment.Settings(
        "synth_digits", None, work="", **randaugment.PRESETS["synth_digits"]
    )
    configs = randaugment.configurations(settings, 3)
    assert len({json.dumps(config, sort_keys=True) for config in configs}) == len(configs)
    studies = collections.Counter(config["study"] for config in configs)
    assert studies == {"arms": 15, "grid": 45, "leave-one-out": 45, "width": 48}
    left_out = [c["left_out"] for c in configs if c["study"] == "leave-one-out" and c["seed"] == 0]
    assert left_out == ["nothing", *augment.OPS]


@pytest.mark.parametrize("name", ["nothing", *augment.OPS])
def test_an_operation_that_is_left_out_is_not_drawn(name):
    config = {"arm": "randaugment", "num_ops": 2, "magnitude": 9, "left_out": name}
    drawn = randaugment.transform_of(config).draw_batch(400, make_generator(0))
    assert {op.name for ops in drawn for op in ops} == set(augment.OPS) - {name}


def test_the_arms_change_pictures_as_they_say():
    images = torch.randint(0, 256, (8, 3, 32, 32), generator=make_generator(0), dtype=torch.uint8)
    strength = {"num_ops": 2, "magnitude": 9}

    def changed(arm, **more):
        transform = randaugment.transform_of({"arm": arm, **more})
        return transform(images, generator=make_generator(1))

    assert randaugment.transform_of({"arm": "none"}) is None
    expected = augment.flip_crop(images, generator=make_generator(1))
    assert torch.equal(changed("flip-crop"), expected)
    generator = make_generator(1)
    both = augment.flip_crop(images, generator=generator)
    both = augment.RandAugment(2, 9)(both, generator=generator)
    assert torch.equal(changed("flip-crop-randaugment", **strength), both)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "folder"], "--root is needed with --data folder"),
        (
            ["--data", "synth_digits", "--root", "x"],
            "--root is needed with --data folder, and only",
        ),
        ([*TINY, "--seeds", "0"], "--seeds must be at least 1, got 0"),
        ([*TINY, "--epochs", "-1"], "--epochs must be at least 1, got -1"),
        (["--data", "mnist"], "invalid choice: 'mnist'"),
        ([*TINY, "--studies", "everything"], "invalid choice: 'everything'"),
    ],
)
def test_wrong_options(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        randaugment.main(arguments)
    assert message in capsys.readouterr().err


def test_a_missing_folder_is_named(tmp_path):
    missing = tmp_path / "missing"
    with pytest.raises(SystemExit, match=r"error: root must be an existing folder, got .*missing"):
        randaugment.main(["--data", "folder", "--root", str(missing), "--work", str(tmp_path)])
