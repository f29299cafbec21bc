"""experiments/nas_cifar.py, for real, on a few digits."""

import pytest
from tiny_experiments import few_digits, run, settings_of

from experiments import nas_cifar
from rac_helpers import nas
from rac_helpers.records import frame, load
from rac_helpers.rng import make_generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nas_cifar")
    with few_digits(20) as patch:
        patch.setattr(nas_cifar, "CANDIDATES", 5)
        patch.setattr(nas_cifar, "POPULATION", 3)
        run(nas_cifar, folder)
        yield folder


@pytest.fixture(scope="module")
def rows(folder):
    return frame(folder / "record.json")


def test_candidates_and_networks_are_recorded(rows):
    assert rows.groupby(["stage", "method"]).size().to_dict() == {
        ("candidate", "random"): 5,
        ("candidate", "evolution"): 5,
        ("final", "searched"): 1,
        ("final", "unsearched"): 1,
        ("final", "resnet20"): 1,
    }


def test_all_keep_the_limits(rows):
    assert (rows["size_bytes"] <= nas_cifar.LIMITS.size_bytes).all()
    assert (rows["macs"] <= nas_cifar.LIMITS.macs).all()


def test_the_best_candidate_is_the_one_that_is_trained(rows):
    candidates = rows[rows["stage"] == "candidate"]
    best = candidates.loc[candidates["val_accuracy"].idxmax()]
    final = rows[rows["stage"] == "final"].set_index("method")
    assert final.loc["searched", "genome"] == best["genome"]
    assert final.loc["searched", "macs"] == best["macs"]
    first = candidates[(candidates["method"] == "random") & (candidates["number"] == 0)]
    assert final.loc["unsearched", "genome"] == first["genome"].item()


def test_the_resnet_is_as_wide_as_it_may_be(rows):
    width = nas_cifar.slim_width(10)
    assert rows.set_index("method").loc["resnet20", "width"] == width
    wider = nas_cifar.costs_of(nas_cifar.models.resnet20(10, width + 1))
    assert nas_cifar.LIMITS.violation(wider) > 0


def test_the_processor_time_of_candidates_is_recorded(rows):
    spent = rows.loc[rows["stage"] == "candidate", "cpu_seconds"]
    assert (spent > 0).all()


def test_what_is_drawn_keeps_the_limits():
    generator = make_generator(0)
    genome = nas_cifar.SPACE.sample(generator=generator)
    for _ in range(20):
        child = nas_cifar.SPACE.mutate(genome, generator=generator)
        assert sum(a != b for a, b in zip(genome, child, strict=True)) == 1
        assert nas_cifar.LIMITS.violation(nas_cifar.costs(child)) == 0
        genome = child
    too_large = tuple(size - 1 for size in nas.Space(nas_cifar.GENES).sizes)
    assert nas_cifar.LIMITS.violation(nas_cifar.costs((0, 0, 0, *too_large[3:]))) > 0


def test_nothing_is_trained_twice(folder, monkeypatch):
    before = load(folder / "record.json")["rows"]

    def never(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(nas_cifar.train, "fit", never)
    run(nas_cifar, folder)
    assert load(folder / "record.json")["rows"] == before


def test_the_record_says_what_candidates_saw(folder):
    about = load(folder / "record.json")["data"]
    assert "1 epochs from lr 0.1; candidates 1 epochs from lr 0.1 on 12 images" in about
    settings = nas_cifar.Settings(**vars(settings_of(nas_cifar, folder)))
    assert settings.few == 12
