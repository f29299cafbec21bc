"""Tied channels and narrow networks, compared with Torch-Pruning's dependency graph."""

import copy

import pytest
import torch
import torch_pruning
import torchvision
from torch import nn

from rac_helpers import metrics, models
from rac_helpers.prune import prunable
from rac_helpers.prune.groups import channel_groups, uniform_group_masks
from rac_helpers.prune.surgery import shrink, zero_channels_
from rac_helpers.rng import scoped_seed


class ProjectionBlock(models.BasicBlock):
    """The block with a 1x1 convolution on the shortcut, where it changes shape (option B)."""

    def __init__(self, in_channels, out_channels, stride):
        super().__init__(in_channels, out_channels, stride)
        self.project = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
            self.project = nn.Sequential(conv, nn.BatchNorm2d(out_channels))

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        return self.relu2(out + self.project(x))


def resnet56_with_projections():
    model = models.resnet56(width=8)
    for stage in (model.stage1, model.stage2, model.stage3):
        block = stage[0]
        stage[0] = ProjectionBlock(block.conv1.in_channels, block.conv1.out_channels, block.stride)
    return model


NETWORKS = {
    "mobilenet_v2": torchvision.models.mobilenet_v2,
    "resnet18": torchvision.models.resnet18,
    "resnet56_with_projections": resnet56_with_projections,
}


def build(builder, px=32):
    """Build a network whose batch norms have seen pictures, with shifts that are not zero."""
    with scoped_seed(0):
        model, images = builder(), torch.rand(8, 3, px, px) * torch.rand(8, 3, 1, 1)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.bias, -0.5, 0.5)
                module.momentum = 1.0
        with torch.no_grad():
            model.train()(images)
    return model.eval(), images


def theirs(model, images, name, channels):
    """Torch-Pruning's group: everything that goes when ``channels`` of layer ``name`` go."""
    graph = torch_pruning.DependencyGraph().build_dependency(model, images[:1])
    layer = model.get_submodule(name.removesuffix(".weight"))
    cut = torch_pruning.prune_conv_out_channels
    if layer.groups > 1:
        cut = torch_pruning.prune_depthwise_conv_out_channels
    return graph, graph.get_pruning_group(layer, cut, idxs=channels)


def outputs_in(graph, group, model):
    """The output channels of convolutions and linear layers in a group of Torch-Pruning."""
    names = {module: f"{name}.weight" for name, module in model.named_modules()}
    return {
        (names[dependency.target.module], int(channel))
        for dependency, channels in group
        if isinstance(dependency.target.module, nn.Conv2d | nn.Linear)
        and graph.is_out_channel_pruning_fn(dependency.handler)
        for channel in channels
    }


def places(group, at):
    return {(name, int(channels[at])) for name, channels in group.members.items()}


class TestGroups:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_same_channels_of_the_same_layers(self, name):
        """One channel of each group, the first in one and the last in the next, and so on."""
        model, images = build(NETWORKS[name])
        groups = channel_groups(model, images)
        for count, group in enumerate(groups):
            at = -1 if count % 2 else 0
            first, channels = next(iter(group.members.items()))
            graph, found = theirs(model, images, first, [int(channels[at])])
            assert outputs_in(graph, found, model) == places(group, at)
        layers = {name for group in groups for name in group.members}
        assert layers == set(list(prunable(model))[:-1])  # the last is the classifier

    def test_padded_shortcuts_have_the_same_layers(self):
        """ResNet-56 of the course (option A): inside a block all is the same; see the next test."""
        model, images = build(lambda: models.resnet56(width=4), px=16)
        groups = channel_groups(model, images)
        inside = [group for group in groups if len(group.members) == 1 and "conv1" in repr(group)]
        assert len(inside) == 27
        for group in inside:
            ((name, channels),) = group.members.items()
            graph, found = theirs(model, images, name, [int(channels[-1])])
            assert outputs_in(graph, found, model) == places(group, -1)
        (along,) = [group for group in groups if "stem.0.weight" in group.members]
        graph, found = theirs(model, images, "stem.0.weight", [1])
        assert {name for name, _ in outputs_in(graph, found, model)} == set(along.members)

    def test_padded_shortcuts_differ_in_the_place(self):
        """Torch-Pruning 1.6.1 passes over the zeros in front: it cuts channel 1 of every stage.

        Its network then answers differently from the masked one. If this test fails, it has
        learned the shift, and the test above can compare the places, too.
        """
        model, images = build(lambda: models.ResNet(8, width=4), px=16)
        (along,) = [g for g in channel_groups(model, images) if "stem.0.weight" in g.members]
        assert along.members["stage2.0.conv2.weight"][1] == 3
        small = copy.deepcopy(model)
        graph, found = theirs(small, images, "stem.0.weight", [1])
        cut = outputs_in(graph, found, small)
        assert ("stage2.0.conv2.weight", 1) in cut
        found.prune()
        masked = copy.deepcopy(model)
        with torch.no_grad():
            for name, channel in cut:
                masked.get_parameter(name)[channel] = 0
                norm = name.replace("conv", "bn").replace("stem.0", "stem.1")
                masked.get_parameter(norm)[channel] = 0
                masked.get_parameter(norm.replace("weight", "bias"))[channel] = 0
            assert (small(images) - masked(images)).abs().max() > 1e-3


class TestNarrowNetworks:
    @pytest.mark.parametrize("name", NETWORKS)
    def test_same_network(self, name):
        """Half of each group: the same outputs and the same number of parameters."""
        model, images = build(NETWORKS[name])
        groups = channel_groups(model, images)
        generator = torch.Generator().manual_seed(0)
        scores = {n: torch.rand(len(w), generator=generator) for n, w in prunable(model).items()}
        masks = uniform_group_masks(groups, scores, 0.5)
        small, other = shrink(model, masks, images), copy.deepcopy(model)
        for group in groups:
            first, channels = next(iter(group.members.items()))
            cut = channels[~masks[first][channels]].tolist()
            theirs(other, images, first, cut)[1].prune()
        assert metrics.count_params(small) == metrics.count_params(other)
        masked = copy.deepcopy(model)
        zero_channels_(masked, masks, images)
        with torch.no_grad():
            expected = other(images)
            torch.testing.assert_close(small(images), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(masked(images), expected, rtol=1e-5, atol=1e-5)
