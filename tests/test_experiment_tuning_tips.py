"""experiments/tuning_tips.py, for real, on a few pictures."""

from __future__ import annotations

import pytest

from experiments import tuning_tips
from rac_helpers.records import frame, load

TINY = ("--epochs", "2", "--pool", "2", "--fresh", "20", "--seeds", "1")


def where_in(folder) -> list[str]:
    return ["--work", str(folder / "work"), "--record", str(folder / "record.json")]


@pytest.fixture(scope="module")
def tips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tips")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning_tips, "FEW", (20,))
        tuning_tips.main([*TINY, *where_in(folder)])
    return folder


def test_every_arm_has_its_partners(tips):
    rows = frame(tips / "record.json")
    assert rows.groupby("tip").size().to_dict() == {
        "objective": 2,
        "augmentation": 4,
        "clipping": 6,
        "stopping": 3,
        "start": 2,
        "retune": 12,
    }
    where = ["tip", "epochs", "scale", "num_train"]
    arms = rows[~rows["tip"].eq("retune")].groupby(where, dropna=False)["arm"].nunique()
    assert (arms >= 2).all()
    assert not rows[[*where, "arm", "lr", "weight_decay"]].astype(str).duplicated().any()


def test_choices_are_the_best_of_what_they_chose_by(tips):
    rows = frame(tips / "record.json").set_index(["tip", "arm"])
    stopping = rows.loc["stopping"]
    assert stopping["test_accuracy"]["test"] == stopping["test_accuracy"].max()
    gap = stopping["test_accuracy"] - stopping["fresh_accuracy"]
    assert stopping["promised_too_much"].tolist() == pytest.approx(gap.tolist())
    clipping = rows.loc["clipping"]
    vanishing = clipping[clipping["scale"].eq(0.5)]
    assert vanishing["accuracy"].nunique() == 1  # E66: not one step was clipped
    assert vanishing["clipped_share"].eq(0).all()


def test_zeros_stay_in_fine_tuning(tips):
    rows = frame(tips / "record.json")
    cut = rows[rows["tip"].eq("retune")]
    assert cut["cut_accuracy"].nunique() == 1
    assert cut["sparsity"].between(0.9, 0.96).all()  # of all parameters, biases too


def test_tips_are_not_run_twice(tips, monkeypatch):
    def never(*_, **__):
        raise AssertionError("a finished run was run again")

    before = load(tips / "record.json")["rows"]
    monkeypatch.setattr(tuning_tips, "run", never)
    tuning_tips.main([*TINY, *where_in(tips)])
    assert load(tips / "record.json")["rows"] == before


@pytest.mark.parametrize(
    ("name", "least"), [("seeds", 1), ("pool", 1), ("fresh", 1), ("epochs", 2)]
)
def test_wrong_options(name, least, capsys):
    with pytest.raises(SystemExit, match="2"):
        tuning_tips.main([f"--{name}", "0"])
    assert f"--{name} must be at least {least}, got 0" in capsys.readouterr().err
