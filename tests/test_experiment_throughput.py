"""The benchmark runs, and its numbers are what they are called; how large they are is no test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from PIL import Image

from experiments import randaugment_peers, throughput
from experiments.randaugment_peers import IMPLEMENTATIONS, Contender
from rac_helpers.augment import OPS
from rac_helpers.records import frame, load

ROOT = Path(__file__).parents[1]
PEERS = {"timm", "kornia-batch-one-op", "albumentations"}


def contender(name: str = "rac-batch", **changes) -> Contender:
    given = {"implementation": name, "run": lambda: None, "num_images": 10, "image_px": 32}
    return Contender(**(given | {"batch_size": 1, "threads": 1} | changes))


def test_quick_run_records_every_part(tmp_path):
    out = tmp_path / "throughput.json"
    command = [sys.executable, "-W", "error", "-m", "experiments.throughput"]
    command += ["--quick", "--rounds", "5", "--threads", "1", "--out", str(out)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=os.environ | {"PYTHONUTF8": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert os.listdir(tmp_path) == ["throughput.json"]
    content, rows = load(out), frame(out)
    assert content["command"].startswith("python -m experiments.throughput --data synth_digits")
    assert "48 images of 32 px" in content["data"]

    found = set(rows["implementation"])
    assert found >= set(IMPLEMENTATIONS) - PEERS
    for name in PEERS:
        assert (name in found) != (f"{name}: left out" in done.stdout)
    for title in throughput.TITLES.values():
        assert title in done.stdout

    by_part = dict(list(rows.groupby("part")))
    assert set(by_part) == set(throughput.TITLES)
    assert set(by_part["op"]["op"]) == set(OPS)
    assert by_part["op"]["share"].sum() == pytest.approx(1, abs=1e-3)
    assert set(by_part["image"]["image_px"]) == set(throughput.IMAGE_SIZES_PX)
    reference = rows[rows["implementation"] == "torchvision-tensor"]
    assert (reference["ratio_to_torchvision"] == 1).all()
    assert set(reference["part"]) == {"peers", "image", "threads", "training"}
    one_op = rows[rows["own_ops"].eq(False)]
    assert set(one_op["implementation"]) <= {"torchvision-batch-one-op", "kornia-batch-one-op"}
    step = by_part["training"].set_index("implementation")["percent_of_step"]
    assert step["resnet20-step"] == 100
    assert (step > 0).all()
    for row in content["rows"]:
        metrics = row["metrics"]
        speeds = [turn["images_per_second"] for turn in row["history"]]
        assert len(speeds) == 5
        assert metrics["images_per_second"] == pytest.approx(median(speeds), rel=1e-3)
        assert metrics["images_per_second_best"] == pytest.approx(max(speeds), rel=1e-3)
        assert metrics["us_per_image"] == pytest.approx(1e6 / median(speeds), rel=1e-3)


def test_ratios_are_taken_within_rounds():
    contenders = [
        contender(),
        contender("torchvision-tensor"),
        contender("torchvision-tensor", threads=2),
        contender("clone", image_px=64),
    ]
    speeds = np.array([[100.0, 400.0, 900.0], [10.0, 20.0, 100.0], [1.0] * 3, [7.0] * 3])
    metrics = throughput.summary(contenders, speeds, 0)
    assert metrics["images_per_second"] == 400
    assert metrics["images_per_second_best"] == 900
    assert metrics["ratio_to_torchvision"] == 10  # of 10, 20, 9; not 400 / 20
    assert (metrics["ratio_to_torchvision_q25"], metrics["ratio_to_torchvision_q75"]) == (9.5, 15)
    assert "times_of_clone" not in metrics  # that clone is of another size


def test_percent_of_a_training_step():
    contenders = [contender("resnet20-step"), contender("rac-batch"), contender("clone")]
    metrics = throughput.summary(contenders, np.array([[10.0] * 3, [500.0] * 3, [9000.0] * 3]), 1)
    assert metrics["percent_of_step"] == pytest.approx(2)
    assert metrics["times_of_clone"] == pytest.approx(18)


def test_each_round_runs_each_once_and_rotates(threads):
    turns = []
    named = [contender(run=lambda name=name: turns.append(name), num_images=1) for name in "abc"]
    speeds = throughput.images_per_second(named, rounds=4, turn_s=0, desc="test")
    assert speeds.shape == (3, 4)
    assert (speeds > 0).all()
    assert "".join(turns[-12:]) == "abc" + "bca" + "cab" + "abc"
    assert set(turns[:-12]) == set("abc")  # warm-up


@pytest.mark.parametrize("name", sorted(set(IMPLEMENTATIONS) - PEERS - {"resnet20-step"}))
def test_implementation_returns_all_images(name):
    image = torch.randint(256, (3, 32, 32), generator=torch.Generator().manual_seed(0))
    images = image.to(torch.uint8).expand(40, -1, -1, -1).clone()
    made = Contender.of(name, images, batch_size=max(IMPLEMENTATIONS[name].batch_sizes))
    parts = [x if isinstance(x, torch.Tensor) else torch.tensor(np.array(x)) for x in made.run()]
    results = torch.stack(parts) if parts[0].ndim == 3 else torch.cat(parts)
    assert len(results) == 40
    assert results.dtype == torch.uint8
    different = len(results.flatten(1).unique(dim=0))
    assert (different > 5) == (made.own_ops and name != "clone")
    assert torch.equal(images, image.to(torch.uint8).expand(40, -1, -1, -1))


def test_who_counts_as_a_peer():
    smallest = {name: min(found.batch_sizes) for name, found in IMPLEMENTATIONS.items()}
    peers = {name for name, size in smallest.items() if contender(name, batch_size=size).is_peer}
    assert peers == {"torchvision-tensor", "torchvision-pil", *PEERS}
    assert not contender("kornia-batch-one-op", batch_size=256).is_peer


def test_missing_peer_is_named(monkeypatch, capsys):
    planted = randaugment_peers.Implementation(lambda *_: None, ("no-such-package",))
    monkeypatch.setitem(IMPLEMENTATIONS, "planted", planted)
    assert "planted" not in randaugment_peers.installed_implementations()
    assert "planted: left out, no-such-package is not installed" in capsys.readouterr().out


def test_old_record_stays_until_the_last_part_is_done(tmp_path, monkeypatch, threads):
    out = tmp_path / "throughput.json"
    out.write_text("old")

    def parts(*_):
        yield "threads", [contender("clone"), contender("torchvision-tensor")]
        raise RuntimeError("planted")

    monkeypatch.setattr(throughput, "parts", parts)
    with pytest.raises(RuntimeError, match="planted"):
        throughput.main(["--quick", "--threads", "1", "--out", str(out)])
    assert out.read_text() == "old"
    assert len(load(tmp_path / "throughput.partial.json")["rows"]) == 2


def make_folder(root: Path, *, each: int) -> Path:
    for value, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True)
        for i in range(each):
            Image.new("RGB", (32, 32), (value, i, 0)).save(root / name / f"{i}.png")
    return root


def test_images_of_all_classes_in_the_same_order(tmp_path):
    root = make_folder(tmp_path / "pets", each=20)
    name, images = throughput.load_images(root, 8)
    assert (name, tuple(images.shape)) == ("pets", (8, 3, 32, 32))
    assert set(images[:, 0, 0, 0].tolist()) == {0, 1}
    assert torch.equal(images, throughput.load_images(root, 8)[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rounds", "4"], "--rounds must be at least 5, got 4"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--data", "folder"], "--root FOLDER and --data folder belong together"),
        (["--root", "{tmp}"], "--root FOLDER and --data folder belong together"),
        (["--data", "folder", "--root", "{tmp}/no"], "root must be an existing folder"),
        (["--data", "folder", "--root", "{tmp}/pets"], "at least 48 images to train on, got 14"),
        (["--out", "{tmp}"], "--out must be a file that can be written, got the folder"),
    ],
)
def test_bad_arguments(tmp_path, arguments, message, capsys, threads):
    make_folder(tmp_path / "pets", each=9)
    given = ["--quick", "--out", str(tmp_path / "throughput.json")]
    given += [part.format(tmp=tmp_path) for part in arguments]
    with pytest.raises(SystemExit):
        throughput.main(given)
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.json"))


def test_a_trial_does_not_replace_the_record(capsys):
    with pytest.raises(SystemExit):
        throughput.main(["--quick"])
    assert "--quick needs --out FILE" in capsys.readouterr().err
