"""experiments/distillation.py, for real, on a few pictures."""

import json

import pytest
import torch
from tiny_experiments import TINY, few_digits, run, settings_of

from experiments import distillation
from rac_helpers.records import frame, load

WHERE = ["method", "student", "teacher", "transform", "temperature", "alpha"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("distillation")
    with few_digits(40):
        run(distillation, folder)
        yield folder


@pytest.fixture(scope="module")
def rows(folder):
    return frame(folder / "record.json")


def own_settings(work):
    return distillation.Settings(**vars(settings_of(distillation, work)))


def test_every_method_is_recorded(rows):
    temperatures, alphas = len(distillation.TEMPERATURES), len(distillation.ALPHAS)
    assert rows.groupby("method").size().to_dict() == {
        "teacher": 2,
        "teacher-ensemble": 1,
        "none": 3,
        "kd": 4 + temperatures + alphas,
        "printed": 1,
        "ensemble": 1,
        "hint": 1,
        "attention": 1,
        "relational": 1,
    }
    assert rows["test_accuracy"].between(0, 1).all()
    assert not rows[WHERE].astype(str).duplicated().any()


def test_each_has_a_partner_without_a_teacher(rows):
    """Of the same student, on the same pictures: what the comparison needs."""
    none = rows[rows["method"].eq("none")].set_index(["student", "transform"]).index
    students = rows[~rows["method"].str.startswith("teacher")]
    pairs = set(zip(students["student"], students["transform"], strict=True))
    assert pairs == set(none)


def test_sizes_are_those_of_the_student(rows):
    sizes = rows.dropna(subset=["student"]).groupby("student")
    assert (sizes["size_bytes"].nunique() == 1).all()  # no regressor, no teacher in the file
    assert (sizes["params"].nunique() == 1).all()
    params = sizes["params"].first()
    assert params[4] < params[8]
    teachers = rows.set_index(["method", "teacher"])["params"]
    assert teachers["teacher-ensemble", 16] == 3 * teachers["teacher", 16]
    assert teachers["teacher", 8] == params[8]  # self-distillation


def test_training_curves_are_in_the_record(folder):
    for row in load(folder / "record.json")["rows"]:
        trained = row["config"]["method"] != "teacher-ensemble"
        assert len(row.get("history", [])) == trained  # one epoch
        assert all("seconds" not in epoch for epoch in row.get("history", []))


def test_the_record_says_how_long_students_were_trained(folder):
    about = load(folder / "record.json")["data"]
    assert "teachers 1 epochs from lr 0.1, students 1 epochs from lr 0.1 (cosine)" in about
    assert "fine-tuning" not in about


def test_students_of_a_seed_begin_alike_and_not_as_their_teacher(folder):
    begin = []

    def watch(student, config, settings):
        begin.append(student.state_dict())
        return []

    settings = own_settings(folder / "work")
    with pytest.MonkeyPatch.context() as patch:
        for method in distillation.LESSONS:
            patch.setitem(distillation.LESSONS, method, watch)
        for method in ("none", "kd"):
            distillation.run({"method": method, "student": 16, "seed": 0}, settings=settings)
    one, two = begin
    assert all(torch.equal(one[name], two[name]) for name in one)
    teacher = settings.build(seed=0).state_dict()
    assert not torch.equal(one["classifier.weight"], teacher["classifier.weight"])


def test_answers_are_found_by_the_next_student(folder):
    settings = own_settings(folder / "work")
    config = {"method": "kd", "teacher": 16, "transform": "randaugment", "seed": 0}
    assert distillation.answers_file(config, settings).exists()
    teacher = distillation._teacher(config, settings)
    student = settings.build(seed=1, width=4)
    config |= {"student": 4, "temperature": 3.0, "alpha": 0.3}
    loss_fn = distillation.distill.DistillationLoss(teacher, temperature=3, alpha=0.3)
    distillation._fit(student, config | {"test": True}, settings, loss_fn)
    assert teacher.misses == 0
    assert teacher.hits == 60


def test_other_pictures_or_teachers_have_other_answers():
    settings = own_settings("x")
    config = {"method": "kd", "teacher": 16, "transform": "randaugment", "seed": 0}
    others = [{"method": "ensemble"}, {"teacher": 8}, {"transform": "none"}, {"seed": 1}]
    paths = {distillation.answers_file(config | other, settings) for other in ({}, *others)}
    assert len(paths) == 5
    same = [{"method": "printed"}, {"student": 4}, {"temperature": 2.0}, {"alpha": 0.5}]
    paths = {distillation.answers_file(config | other, settings) for other in ({}, *same)}
    assert len(paths) == 1


def test_nothing_is_run_twice_and_the_journal_rebuilds_the_record(folder, monkeypatch):
    record, work = folder / "record.json", folder / "work"
    before, files = load(record)["rows"], {p: p.stat().st_mtime for p in work.glob("*.pt")}
    record.unlink()

    def never(*_, **__):
        raise AssertionError("a finished run was run again")

    monkeypatch.setattr(distillation, "run", never)
    run(distillation, folder)
    assert load(record)["rows"] == before
    run(distillation, folder)  # and once more with all the rows there
    assert load(record)["rows"] == before
    assert {p: p.stat().st_mtime for p in work.glob("*.pt")} == files


def test_configurations_differ_and_all_have_a_function():
    settings = own_settings("x")
    configs = [
        distillation.complete(config, settings)
        for part in distillation.parts(settings)
        for config in part
    ]
    assert len({json.dumps(config, sort_keys=True) for config in configs}) == len(configs)
    methods = {config["method"] for config in configs}
    assert methods == set(distillation.LESSONS) | {"teacher", "teacher-ensemble"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "folder"], "--root is needed with --data folder"),
        ([*TINY, "--seeds", "0"], "--seeds must be at least 1, got 0"),
    ],
)
def test_wrong_options(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        distillation.main(arguments)
    assert message in capsys.readouterr().err
