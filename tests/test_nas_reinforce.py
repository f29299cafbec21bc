"""REINFORCE: its gradient against torch.distributions and differences; that it learns."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.distributions import Categorical

from rac_helpers.nas.policies import IndependentPolicy, LSTMPolicy
from rac_helpers.nas.reinforce import Reinforce, entropy, reinforce_loss
from rac_helpers.nas.search import search
from rac_helpers.nas.space import Space
from rac_helpers.rng import make_generator

POLICIES = (IndependentPolicy, LSTMPolicy)
SPACE = Space((("op", ("conv", "skip")), ("width", (4, 8, 16)), ("depth", (1,))))
MASKS = Space(tuple((f"layer{i}", (0, 1)) for i in range(3)))


def policy_of(kind, seed=0, space=SPACE):
    """A policy whose weights are not those of the beginning."""
    generator = make_generator(seed)
    policy = kind(space, generator=generator)
    with torch.no_grad():
        for weight in policy.parameters():
            weight += torch.randn(weight.shape, generator=generator)
    return policy


def log_prob(policy, genome):
    log_p = policy([genome])[0]
    return sum(log_p[gene, choice] for gene, choice in enumerate(genome))


def reward_of(genome):
    """The best mask keeps the two outer layers."""
    return 0.9 - 0.2 * sum(a != b for a, b in zip(genome, (1, 0, 1), strict=True))


@pytest.mark.parametrize("kind", POLICIES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_probabilities_of_all_genomes_sum_to_one(kind, seed):
    policy = policy_of(kind, seed)
    total = sum(log_prob(policy, genome).exp().item() for genome in SPACE.genomes())
    assert total == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("kind", POLICIES)
def test_genomes_are_sampled_as_often_as_their_probability_says(kind):
    policy, generator, n = policy_of(kind), make_generator(3), 800
    drawn = [policy.sample(generator=generator) for _ in range(n)]
    for genome in SPACE.genomes():
        p = log_prob(policy, genome).exp().item()
        assert abs(drawn.count(genome) / n - p) < 4 * (p * (1 - p) / n) ** 0.5 + 1e-3


def test_the_lstm_sees_the_choices_before_and_not_those_behind():
    policy = policy_of(LSTMPolicy)
    first, other = policy([(0, 1, 0), (1, 1, 0)])
    assert torch.allclose(first[0], other[0])
    assert not torch.allclose(first[1], other[1], atol=1e-3)
    behind = policy([(0, 2, 0)])[0]
    assert torch.allclose(first[:2], behind[:2])


def test_gradient_of_the_loss_is_that_of_torch_distributions():
    rewards, genomes = torch.tensor([0.9, 0.2, 0.5]), [(0, 2, 0), (1, 1, 0), (1, 0, 0)]
    policy = policy_of(IndependentPolicy)
    log_p = torch.stack([log_prob(policy, genome) for genome in genomes])
    [ours] = torch.autograd.grad(reinforce_loss(log_p, rewards, 0.4), policy.logits)

    logits = policy.logits.detach().clone().requires_grad_()
    taken = torch.tensor(genomes)
    log_p = sum(
        Categorical(logits=logits[gene, :size]).log_prob(taken[:, gene])
        for gene, size in enumerate(SPACE.sizes)
    )
    [theirs] = torch.autograd.grad(-((rewards - 0.4) * log_p).mean(), logits)
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("baseline", [0.0, 0.7])
def test_the_mean_gradient_is_that_of_the_expected_reward_whatever_the_baseline(baseline):
    """Over all genomes, each as often as it comes; the reference is a difference quotient."""
    policy = policy_of(IndependentPolicy).double()

    def expected():
        return sum(log_prob(policy, g).exp() * (sum(g) / 3) for g in SPACE.genomes())

    genomes = list(SPACE.genomes())
    log_p = torch.stack([log_prob(policy, genome) for genome in genomes])
    rewards = torch.tensor([sum(g) / 3 for g in genomes], dtype=torch.float64)
    weighted = log_p.detach().exp() * log_p * len(genomes)  # the mean becomes the expectation
    [ours] = torch.autograd.grad(reinforce_loss(weighted, rewards, baseline), policy.logits)
    for gene, size in enumerate(SPACE.sizes):
        for choice in range(size):
            with torch.no_grad():
                policy.logits[gene, choice] += 1e-5
                above = expected()
                policy.logits[gene, choice] -= 2e-5
                below = expected()
                policy.logits[gene, choice] += 1e-5
            assert -ours[gene, choice].item() == pytest.approx(
                (above - below).item() / 2e-5, abs=1e-7
            )


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=5))
def test_entropy_is_that_of_torch_distributions(logits):
    logits = torch.tensor(logits)
    padded = torch.cat([logits, torch.tensor([-torch.inf])]).log_softmax(0)
    ours = entropy(padded[None, None])
    assert ours.item() == pytest.approx(Categorical(logits=logits).entropy().item(), abs=1e-5)


def test_entropy_of_padded_genes_has_a_finite_gradient():
    policy = policy_of(IndependentPolicy)
    [gradient] = torch.autograd.grad(entropy(policy([(0, 0, 0)])).sum(), policy.logits)
    assert gradient.isfinite().all()


def test_it_finds_the_best_mask_in_nine_of_ten_seeds():
    found = 0
    for seed in range(10):
        strategy = Reinforce(MASKS, generator=make_generator(seed))
        search(strategy, reward_of, num_trials=150)
        likely = tuple(gene.index(max(gene)) for gene in strategy.probabilities[-1])
        found += likely == (1, 0, 1)
    assert found >= 9


def test_the_lstm_learns_what_independent_genes_cannot_say():
    """Both genes must be equal: independent genes can only choose one of the two pairs."""
    space = Space((("a", (0, 1)), ("b", (0, 1))))
    strategy = Reinforce(
        space, generator=make_generator(0), policy=LSTMPolicy, lr=0.02, entropy_weight=0.1
    )
    search(strategy, lambda genome: float(genome[0] == genome[1]), num_trials=250)
    p = {g: log_prob(strategy.policy, g).exp().item() for g in space.genomes()}
    assert p[0, 0] + p[1, 1] > 0.9


def test_the_baseline_is_a_moving_average_and_waits_for_the_step():
    strategy = Reinforce(MASKS, generator=make_generator(0), decay=0.8)
    seen = []
    for reward in (0.5, 0.7, 0.1):
        strategy.tell(strategy.ask(), reward)
        seen.append(strategy.baseline)
    assert seen[0] == 0.5
    assert seen[1] == pytest.approx(0.8 * 0.5 + 0.2 * 0.7)
    assert seen[2] == pytest.approx(0.8 * seen[1] + 0.2 * 0.1)


def test_the_first_reward_alone_moves_nothing():
    """It is its own baseline: there is nothing to compare it with yet."""
    strategy = Reinforce(MASKS, generator=make_generator(0))
    strategy.tell((1, 1, 1), 0.9)
    assert torch.equal(strategy.policy.logits, torch.zeros(3, 2))
    strategy.tell((1, 1, 1), 0.95)
    assert (strategy.policy.logits[:, 1] > 0).all()
    strategy.tell((1, 0, 1), 0.1)
    assert len(strategy.probabilities) == 3


def test_a_step_waits_for_its_batch():
    strategy = Reinforce(MASKS, generator=make_generator(0), batch_size=3)
    for count, reward in zip(itertools.count(1), (0.1, 0.9, 0.5, 0.3), strict=False):
        strategy.tell((1, 0, 1), reward)
        assert len(strategy.probabilities) == count // 3 * 3


def test_entropy_bonus_keeps_the_policy_undecided():
    spread = []
    for weight in (0.0, 0.3):
        strategy = Reinforce(MASKS, generator=make_generator(0), entropy_weight=weight)
        search(strategy, reward_of, num_trials=150)
        spread.append(entropy(strategy.policy([(0, 0, 0)])).item())
    assert spread[0] < spread[1]


def test_one_seed_is_one_search_and_global_state_stays():
    state = torch.get_rng_state()
    runs = [
        search(
            Reinforce(MASKS, generator=make_generator(seed), policy=LSTMPolicy),
            reward_of,
            num_trials=10,
        )
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert torch.equal(state, torch.get_rng_state())


def test_wrong_arguments_are_named():
    generator = make_generator(0)
    with pytest.raises(ValueError, match="lr must be above 0, got 0"):
        Reinforce(MASKS, generator=generator, lr=0)
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\), got 1"):
        Reinforce(MASKS, generator=generator, decay=1)
    with pytest.raises(ValueError, match="entropy_weight must be a finite number >= 0, got -1"):
        Reinforce(MASKS, generator=generator, entropy_weight=-1)
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        Reinforce(MASKS, generator=generator, batch_size=0)
    with pytest.raises(ValueError, match="hidden_size must be an integer >= 1, got 0"):
        LSTMPolicy(MASKS, generator=generator, hidden_size=0)
    with pytest.raises(TypeError, match="space must be a Space, got tuple"):
        IndependentPolicy((2, 3))
    for kind in POLICIES:  # None would be global state
        with pytest.raises(TypeError, match=r"generator must be a torch\.Generator, got NoneType"):
            policy_of(kind).sample(generator=None)
    with pytest.raises(ValueError, match=r"shape \(n,\), got \(2,\) and \(3,\)"):
        reinforce_loss(torch.zeros(2), torch.zeros(3), 0.0)
