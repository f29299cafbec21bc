"""The Gaussian process against scikit-learn, expected improvement against sampling, the search."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF

from rac_helpers.nas import bayesian
from rac_helpers.nas.bayesian import (
    BayesianSearch,
    GaussianProcess,
    expected_improvement,
    fit_best,
)
from rac_helpers.nas.random_search import RandomSearch
from rac_helpers.nas.search import search
from rac_helpers.nas.space import Space
from rac_helpers.rng import make_generator

SPACE = Space(tuple((f"gene{i}", tuple(range(size))) for i, size in enumerate((2, 3, 4, 5))))


def data_of(seed, n=25):
    strategy = RandomSearch(SPACE, generator=make_generator(seed))
    genomes = [strategy.ask() for _ in range(n)]
    noise = torch.randn(n, generator=make_generator(seed), dtype=torch.float64)
    y = torch.tensor([float(sum(g)) for g in genomes], dtype=torch.float64) + 0.2 * noise
    return SPACE.one_hot(genomes), y


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("length", "noise"), [(1.0, 1e-4), (2.2, 1e-1)])
def test_predictions_and_likelihood_are_those_of_scikit_learn(seed, length, noise):
    x, y = data_of(seed)
    ours = GaussianProcess(length, noise).fit(x, y)
    theirs = GaussianProcessRegressor(
        RBF(length), alpha=noise, optimizer=None, normalize_y=True
    ).fit(x.double(), y)
    new = SPACE.one_hot(SPACE.genomes())
    mean, std = ours.predict(new)
    their_mean, their_std = theirs.predict(new.double(), return_std=True)
    assert torch.allclose(mean, torch.from_numpy(their_mean), atol=1e-6)
    assert torch.allclose(std, torch.from_numpy(their_std), atol=1e-5)
    assert ours.log_likelihood == pytest.approx(theirs.log_marginal_likelihood_value_, abs=1e-6)


def test_the_kernel_is_one_of_hamming_distances():
    genomes = [(0, 0, 0, 0), (1, 0, 0, 0), (1, 2, 3, 4)]
    x = SPACE.one_hot(genomes)
    process = GaussianProcess(1.5, 1e-3).fit(x, torch.zeros(3))
    hamming = torch.tensor([[0.0, 1, 4], [1, 0, 3], [4, 3, 0]], dtype=torch.float64)
    assert torch.allclose(process._kernel(x.double()), torch.exp(-hamming / 1.5**2))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_equal_scores_are_no_error(n):
    x, _ = data_of(0, n)
    mean, std = fit_best(x, torch.full((n,), 0.5)).predict(SPACE.one_hot(SPACE.genomes()))
    assert torch.allclose(mean, torch.full_like(mean, 0.5))
    assert std.isfinite().all()


def test_the_likelihood_tells_noise_from_structure():
    x, y = data_of(0, 60)
    smooth = fit_best(x, y)
    assert smooth.length_scale >= 2.2  # scores are sums: distant genomes say something
    shuffled = y[torch.randperm(len(y), generator=make_generator(1))]
    assert fit_best(x, shuffled).log_likelihood < smooth.log_likelihood


@settings(max_examples=40)
@given(st.floats(-2, 2), st.floats(0.05, 2), st.floats(-2, 2))
def test_expected_improvement_is_the_mean_of_what_exceeds_the_best(mean, std, best):
    ours = expected_improvement(
        torch.tensor([mean], dtype=torch.float64), torch.tensor([std], dtype=torch.float64), best
    )
    low, high = max(best, mean - 10 * std), max(best, mean + 10 * std)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", integrate.IntegrationWarning)
        right = integrate.quad(lambda y: (y - best) * stats.norm.pdf(y, mean, std), low, high)[0]
    assert ours.item() == pytest.approx(right, abs=1e-6)


@given(st.floats(-5, 5), st.floats(-5, 5))
def test_without_spread_the_improvement_is_certain(mean, best):
    ours = expected_improvement(torch.tensor([mean], dtype=torch.float64), torch.zeros(1), best)
    assert ours.item() == pytest.approx(max(mean - best, 0), abs=1e-11)


def test_expected_improvement_grows_with_mean_and_spread():
    means, stds = torch.linspace(-1, 1, 9), torch.linspace(0, 1, 9)
    assert (expected_improvement(means, torch.ones(9), 0.0).diff() > 0).all()
    assert (expected_improvement(torch.zeros(9), stds, 0.1).diff() >= 0).all()


@pytest.mark.parametrize("batch", [1, 4])
def test_no_genome_comes_twice_and_the_space_ends(batch):
    space = Space((("a", (0, 1, 2)), ("b", (0, 1, 2, 3))))
    strategy = BayesianSearch(space, generator=make_generator(0), num_initial=3)
    history = search(strategy, sum, num_trials=12, batch=batch)
    assert sorted(trial.genome for trial in history.trials) == list(space.genomes())
    with pytest.raises(ValueError, match="all have been tried"):
        strategy.ask()


def test_a_genome_that_was_told_without_being_asked_for_is_not_asked_for():
    space = Space((("a", (0, 1, 2)), ("b", (0, 1))))
    strategy = BayesianSearch(space, generator=make_generator(0), num_initial=2)
    *known, left = space.genomes()
    for genome in known:
        strategy.tell(genome, float(sum(genome)))
    assert strategy.ask() == left


def test_it_beats_random_search():
    space, wins = Space(tuple((f"g{i}", (0, 1, 2, 3)) for i in range(4))), 0
    for seed in range(10):
        ours = BayesianSearch(space, generator=make_generator(seed))
        plain = RandomSearch(space, generator=make_generator(seed))
        a, b = (search(x, sum, num_trials=30).best.score for x in (ours, plain))
        wins += (a > b) + (a == b) / 2
    assert wins >= 9


def test_of_a_large_space_a_sample_is_looked_at(monkeypatch):
    monkeypatch.setattr(bayesian, "_ALL", 50)
    strategy = BayesianSearch(SPACE, generator=make_generator(0))
    history = search(strategy, sum, num_trials=30)
    assert len({trial.genome for trial in history.trials}) == 30
    assert history.best.score >= 9


def test_the_random_beginning_is_that_of_random_search():
    """So that both can be compared pair by pair."""
    ours = BayesianSearch(SPACE, generator=make_generator(5), num_initial=8)
    plain = RandomSearch(SPACE, generator=make_generator(5))
    assert [ours.ask() for _ in range(8)] == [plain.ask() for _ in range(8)]


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="num_initial must be an integer >= 1, got 0"):
        BayesianSearch(SPACE, generator=make_generator(0), num_initial=0)
    for name in ("length_scale", "noise"):
        with pytest.raises(ValueError, match=f"{name} must be a finite number > 0, got 0"):
            GaussianProcess(**{"length_scale": 1.0, "noise": 0.1} | {name: 0})
    for mean, std in [(torch.zeros(2), torch.zeros(3)), (torch.zeros(1), -torch.ones(1))]:
        with pytest.raises(ValueError, match="mean and std must have one shape and std be >= 0"):
            expected_improvement(mean, std, 0.0)
