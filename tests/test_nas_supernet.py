"""nas/supernet.py: networks that share weights, and nothing else."""

import pytest
import torch
from torch import nn

from rac_helpers import data, metrics, train
from rac_helpers.nas import DIGITS_LARGEST, Space, Supernet, build
from rac_helpers.rng import make_generator

GENOME = (0, 1, 3, 1, 0)


@pytest.fixture(scope="module")
def digits():
    return data.synth_digits(60, 20, 20)


@pytest.fixture
def supernet():
    return Supernet(seed=0)


def test_a_path_computes_what_its_network_does(supernet, digits):
    images = digits.train.images
    for genome in (GENOME, (2, 2, 2, 0, 1), (3, 3, 3, 2, 0)):
        supernet.genome = genome
        network = build(genome, seed=1)
        network.load_state_dict(supernet._slices(genome))
        network.train(), supernet.train()
        assert torch.equal(supernet(images), network(images))


def test_all_genomes_of_the_space_fit(supernet):
    generator = make_generator(0)
    image = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    for _ in range(15):
        supernet.genome = supernet.space.sample(generator=generator)
        assert supernet(image).shape == (2, 10)


def test_narrow_networks_use_the_first_channels_of_wide_ones(supernet):
    wide, narrow = supernet._slices((0, 0, 0, 2, 1)), supernet._slices((0, 3, 1, 0, 0))
    name = "stage1.block1_conv3.0.weight"
    assert torch.equal(narrow[name], wide[name][:4, :4])
    assert narrow[name].data_ptr() == wide[name].data_ptr()


def test_a_step_changes_only_the_part_of_its_path(supernet, digits):
    before = {name: value.clone() for name, value in supernet.named_parameters()}
    supernet.genome = GENOME  # 8, 16 and 32 channels
    loss = nn.functional.cross_entropy(supernet(digits.train.images), digits.train.labels)
    loss.backward()
    torch.optim.SGD(supernet.parameters(), lr=0.1).step()
    changed = {n for n, v in supernet.named_parameters() if not torch.equal(v, before[n])}
    used = {name.replace(".", "/") for name in supernet._slices(GENOME)} & before.keys()
    assert changed <= used
    name = "stage1/block1_conv3/0/weight"
    value = supernet.get_parameter(name)
    assert not torch.equal(value[:8, :8], before[name][:8, :8])
    assert torch.equal(value[8:], before[name][8:])
    assert torch.equal(value[:, 8:], before[name][:, 8:])


def test_fit_trains_it_and_every_path_is_drawn(supernet, digits):
    drawn = []

    def after_step(model, step):
        supernet.draw_(model, step)
        drawn.append(supernet.genome)

    history = train.fit(
        supernet, digits.train, digits.validation, epochs=2, batch_size=10, after_step=after_step
    )
    assert len(history) == 2
    assert len(set(drawn)) > 8
    again = Supernet(seed=0)
    repeated = []
    for step in range(1, 13):
        again.draw_(step=step)
        repeated.append(again.genome)
    assert repeated == drawn  # the seed and the step decide, so that a training can be resumed


def test_a_training_that_is_resumed_ends_as_one_that_was_not_stopped(digits, tmp_path, monkeypatch):
    """The path of the next step must be in the checkpoint, too."""
    options = {"epochs": 2, "batch_size": 20, "checkpoint": tmp_path / "resumed.pt"}

    def trained(**changes):
        supernet = Supernet(seed=0)
        doors = {"after_step": supernet.draw_} | options | changes
        train.fit(supernet, digits.train, digits.validation, **doors)
        return supernet

    whole, save = trained(checkpoint=tmp_path / "whole.pt"), train.checkpoint.Checkpoint.save

    def save_and_stop(*state):
        save(*state)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(train.checkpoint.Checkpoint, "save", save_and_stop)
        with pytest.raises(KeyboardInterrupt):
            trained()
    resumed = trained()
    assert resumed.genome == whole.genome
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_genome_that_is_not_of_the_space_cannot_be_set(supernet):
    with pytest.raises(ValueError, match=r"genome\[0\] \(stage1\) must be in \[0, 3\], got 4"):
        supernet.genome = (4, 0, 0, 0, 0)


def test_each_picture_counts_the_same_for_batch_norm(supernet, digits):
    """21 pictures in batches of at most 20: the last one must not weigh as much as 20."""
    images = digits.train.images[:21]
    network = supernet.subnet(GENOME, images, batch_size=20)
    x = network.stem[0](network.normalize(images))
    assert torch.allclose(network.stem[1].running_mean, x.mean(dim=(0, 2, 3)), atol=0.01)


def test_subnet_counts_batch_norm_anew(supernet, digits):
    network = supernet.subnet(GENOME, digits.train.images, batch_size=60)
    assert not network.training
    x = network.stem[0](network.normalize(digits.train.images))
    assert torch.allclose(network.stem[1].running_mean, x.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(network.stem[1].running_var, x.var(dim=(0, 2, 3)), rtol=1e-3)
    assert network.stem[1].momentum == 0.1
    assert 0 <= metrics.accuracy(network, digits.validation) <= 1


def test_subnet_is_a_copy(supernet, digits):
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    network = supernet.subnet(GENOME, digits.train.images)
    train.fit(network, digits.train, digits.validation, epochs=1, batch_size=30)
    assert all(torch.equal(before[name], value) for name, value in supernet.state_dict().items())


def test_of_another_space(digits):
    space = Space((("width", (2, 4)),))

    def make(genome, *, seed, classes):
        return build((0, 0, 0, genome[0], 0), seed=seed, classes=classes)

    supernet = Supernet(space, make, [(1,)], seed=0)
    params = metrics.count_params(build((0, 0, 0, 1, 0), seed=0))
    assert metrics.count_params(supernet) == params
    narrow = Supernet(space, make, [(0,)], seed=0)
    narrow.genome = (1,)
    with pytest.raises(ValueError, match=r"largest must have every layer, stem.* of \(1,\)"):
        narrow(digits.train.images)


def test_wrong_arguments(supernet, digits):
    with pytest.raises(ValueError, match="images must hold at least one image"):
        supernet.subnet(GENOME, digits.train.images[:0])
    with pytest.raises(ValueError, match="genome must hold 5 numbers, got 1"):
        supernet.subnet((0,), digits.train.images)
    with pytest.raises(TypeError, match="space must be a Space, got NoneType"):
        Supernet(None)
    with pytest.raises(ValueError, match="seed must be an integer >= 0, got -1"):
        Supernet(seed=-1)
    assert len(DIGITS_LARGEST) == 4
