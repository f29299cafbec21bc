"""Surgery: tied channels, masks of whole groups, and narrow networks that answer as masked ones."""

import copy
import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import nn

from rac_helpers import metrics, models, train
from rac_helpers.prune import prunable
from rac_helpers.prune.budget import channel_masks_for_macs
from rac_helpers.prune.groups import (
    ChannelGroup,
    channel_groups,
    global_group_masks,
    uniform_group_masks,
)
from rac_helpers.prune.masks import MaskSet
from rac_helpers.prune.surgery import parameter_masks, shrink, zero_channels_
from rac_helpers.rng import scoped_seed


class Plain(nn.Module):
    """Convolutions with bias, no batch norm, and flatten into a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, padding=1)
        self.conv2 = nn.Conv2d(6, 8, 3, padding=1)
        self.hidden = nn.Linear(8 * 4 * 4, 12)
        self.classifier = nn.Linear(12, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.conv2(x))
        x = x.view(x.size(0), -1)
        return self.classifier(F.dropout(F.relu(self.hidden(x)), 0.5, self.training))


class Branches(nn.Module):
    """Two branches side by side, a gate, a layer used twice, and a depthwise convolution."""

    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1, bias=False)
        self.norm = nn.BatchNorm2d(10)
        self.deep = nn.Conv2d(10, 10, 3, padding=1, groups=10)
        self.again = nn.Conv2d(10, 10, 1)
        self.gate = nn.Conv2d(10, 1, 1)
        self.classifier = nn.Linear(10, 3)

    def forward(self, x):
        x = F.silu(self.norm(torch.cat([self.left(x), self.right(x)], dim=1)))
        x = self.again(self.again(self.deep(x)))
        x = x * torch.sigmoid(self.gate(x)) * 0.5
        return F.log_softmax(self.classifier(x.mean((2, 3))), dim=1)


NETWORKS = {
    "small_cnn": (lambda: models.SmallCNN(width=8), 16),
    "resnet20": (lambda: models.resnet20(), 16),
    "resnet56": (lambda: models.resnet56(width=8), 8),
    "resnet18": (lambda: torchvision.models.resnet18(num_classes=10), 32),
    "mobilenet_v2": (lambda: torchvision.models.mobilenet_v2(num_classes=10), 32),
    "plain": (Plain, 8),
    "branches": (Branches, 8),
}


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def lively(model, seed=0):
    """Give every bias, and every scale, shift, mean and variance of batch norm its own value.

    A new network has shifts of zero and scales of one, which would hide most mistakes.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 2, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.uniform_(-0.5, 0.5, generator=generator)
    return model.eval()


def settle_(model, masks, images):
    """Let batch norm divide by what the masked network shows, or the signal dies in deep ones.

    The means and variances of channels that are cut keep their values.
    """
    masked = masked_copy(model, masks, images).train()
    generator = torch.Generator().manual_seed(0)
    for module in masked.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        masked(images)
        for own, seen in zip(model.modules(), masked.modules(), strict=True):
            if isinstance(own, nn.BatchNorm2d):
                alive = seen.running_var > 1e-8
                factor = torch.empty(len(alive)).uniform_(0.5, 1.5, generator=generator)
                own.running_var[alive] = (seen.running_var * factor)[alive]
                own.running_mean[alive] = (seen.running_mean * factor)[alive]


def build(name):
    builder, px = NETWORKS[name]
    with scoped_seed(0):
        return lively(builder()), noise(4, 3, px, px) * noise(4, 3, 1, 1, seed=1)


def random_scores(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {n: torch.rand(len(w), generator=generator) for n, w in prunable(model).items()}


def some_masks(model, images, sparsity=0.5, seed=0):
    groups = channel_groups(model, images)
    return uniform_group_masks(groups, random_scores(model, seed), sparsity)


def masked_copy(model, masks, images):
    masked = copy.deepcopy(model)
    zero_channels_(masked, masks, images)
    return masked


def assert_same_outputs(one, other, images):
    """In float64: in float32 the order of the sums, which threads change, makes up to 5e-5."""
    one, other, images = copy.deepcopy(one).double(), copy.deepcopy(other).double(), images.double()
    with torch.no_grad():
        found, expected = one(images), other(images)
    assert expected.std(0).max() > 1e-3, "the outputs must depend on the pictures"
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def state(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_untouched(model, before):
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], before[name]) for name in before)


def kept_counts(masks):
    return {name: int(mask.sum()) for name, mask in masks.items()}


class TestGroups:
    def test_padded_shortcuts_tie_stage_to_stage_with_the_shift(self):
        """Option A puts channel i of one stage beside channel i + pad of the next."""
        model = models.ResNet(8, width=4)
        by_size = {}
        for group in channel_groups(model, noise(1, 3, 16, 16)):
            if "stage3.0.conv2.weight" in group.members:
                by_size[group.members["stage3.0.conv2.weight"].tolist()[0]] = group.members
        assert {start: len(members) for start, members in by_size.items()} == {6: 4, 4: 2, 0: 1}
        assert by_size[6]["stem.0.weight"].tolist() == [0, 1, 2, 3]
        assert by_size[6]["stage1.0.conv2.weight"].tolist() == [0, 1, 2, 3]
        assert by_size[6]["stage2.0.conv2.weight"].tolist() == [2, 3, 4, 5]
        assert by_size[6]["stage3.0.conv2.weight"].tolist() == [6, 7, 8, 9]
        assert by_size[4]["stage2.0.conv2.weight"].tolist() == [0, 1, 6, 7]
        assert by_size[4]["stage3.0.conv2.weight"].tolist() == [4, 5, 10, 11]
        assert by_size[0]["stage3.0.conv2.weight"].tolist() == [0, 1, 2, 3, 12, 13, 14, 15]

    def test_a_convolution_on_the_shortcut_is_tied_to_the_block(self):
        model, images = build("resnet18")
        (group,) = [
            g for g in channel_groups(model, images) if "layer2.0.downsample.0.weight" in g.members
        ]
        tied = {"layer2.0.conv2.weight", "layer2.0.downsample.0.weight", "layer2.1.conv2.weight"}
        assert set(group.members) == tied
        assert all(torch.equal(at, torch.arange(128)) for at in group.members.values())

    def test_depthwise_is_tied_to_what_it_reads(self):
        model, images = build("mobilenet_v2")
        groups = channel_groups(model, images)
        pairs = [set(g.members) for g in groups]
        assert {"features.2.conv.0.0.weight", "features.2.conv.1.0.weight"} in pairs
        assert {"features.3.conv.2.weight", "features.2.conv.2.weight"} in pairs  # added

    def test_branches_side_by_side_keep_their_own_channels(self):
        """10 joined channels: 4 of the left, 6 of the right; a layer used twice ties in and out."""
        model, images = build("branches")
        first, second = channel_groups(model, images)
        assert (first.size, second.size) == (4, 6)
        assert second.members["right.weight"].tolist() == [0, 1, 2, 3, 4, 5]
        assert second.members["deep.weight"].tolist() == [4, 5, 6, 7, 8, 9]
        assert set(second.members) == {"right.weight", "deep.weight", "again.weight"}

    @pytest.mark.parametrize("name", NETWORKS)
    def test_every_channel_once_and_the_outputs_never(self, name):
        model, images = build(name)
        groups = channel_groups(model, images)
        places = [(n, c) for g in groups for n, at in g.members.items() for c in at.tolist()]
        assert len(places) == len(set(places))
        last = list(prunable(model))[-1]
        expected = {(n, c) for n, w in prunable(model).items() if n != last for c in range(len(w))}
        assert set(places) == expected - {("gate.weight", 0)}

    def test_what_is_added_to_the_input_stays(self):
        class Skip(nn.Module):
            def __init__(self):
                super().__init__()
                self.inner, self.outer = nn.Conv2d(3, 5, 1), nn.Conv2d(5, 3, 1)
                self.last = nn.Conv2d(3, 2, 1)

            def forward(self, x):
                return self.last(x + self.outer(self.inner(x)))

        (group,) = channel_groups(Skip(), noise(1, 3, 4, 4))
        assert set(group.members) == {"inner.weight"}

    @pytest.mark.parametrize(
        "operation",
        [lambda x: x + 1, lambda x: 1 - x, lambda x: torch.add(x, other=1), torch.sigmoid],
    )
    def test_channels_that_cannot_be_silent_stay(self, operation):
        """A cut channel of x + 1 would be 1, and the next layer would read it."""

        class Loud(nn.Module):
            def __init__(self):
                super().__init__()
                self.one, self.two, self.three = (nn.Conv2d(3, 3, 1) for _ in range(3))

            def forward(self, x):
                return self.three(F.relu(self.two(operation(self.one(x)))))

        (group,) = channel_groups(Loud(), noise(1, 3, 4, 4))
        assert set(group.members) == {"two.weight"}

    @pytest.mark.parametrize("shape", [(1, 8, 1, 1), (8, 1, 1)])
    @pytest.mark.parametrize("operation", [torch.mul, torch.add])
    def test_channels_with_a_parameter_of_their_own_stay(self, operation, shape):
        """It is no layer, so it cannot be narrowed."""
        model = Two(lambda self, x: self.b(operation(self.a(x), self.scale)))
        model.scale = nn.Parameter(torch.ones(shape))
        with pytest.raises(ValueError, match="must have channels between"):
            channel_groups(model, noise(2, 3, 4, 4))

    def test_model_is_not_touched(self):
        model, images = build("resnet20")
        model.train()
        before = state(model)
        channel_groups(model, images)
        assert_untouched(model, before)
        assert all(module.training for module in model.modules())

    def test_a_model_in_training_mode_draws_nothing(self):
        """F.dropout(..., self.training) would draw; other models give more outputs in training."""
        model, images = build("plain")
        model.train()
        before = torch.get_rng_state()
        shrink(model, some_masks(model, images), images)
        assert torch.equal(torch.get_rng_state(), before)

        class Auxiliary(Plain):
            def forward(self, x):
                return [super().forward(x).flip(1)] if self.training else super().forward(x)

        assert len(channel_groups(Auxiliary().train(), images)) == 3

    def test_behind_a_recurrent_layer(self):
        """Its own outputs stay; the linear layers behind it are cut."""
        model, inputs = Recurrent().eval(), noise(4, 7, 6)
        (group,) = channel_groups(model, inputs)
        assert set(group.members) == {"hidden.weight"}
        masks = some_masks(model, inputs)
        small = shrink(model, masks, inputs)
        assert small.hidden.weight.shape == (4, 5)
        assert_same_outputs(small, masked_copy(model, masks, inputs), inputs)


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(6, 5, batch_first=True)
        self.hidden, self.classifier = nn.Linear(5, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.classifier(F.relu(self.hidden(self.lstm(x)[0][:, -1])))


SHARES = st.floats(0, 1, exclude_max=True)
TIED = st.lists(  # few values, so many of them are equal
    hnp.arrays(np.float32, st.integers(1, 8), elements=st.integers(0, 4).map(float)),
    min_size=1,
    max_size=3,
)


def untied(arrays):
    """Groups of one layer each, and their scores."""
    scores = {str(k): torch.as_tensor(array) for k, array in enumerate(arrays)}
    return [ChannelGroup({name: torch.arange(len(s))}) for name, s in scores.items()], scores


class TestChoice:
    def model(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 10, 1), nn.Conv2d(10, 2, 1))
        return model, channel_groups(model, noise(1, 3, 2, 2))

    def scores(self):
        return {"0.weight": torch.arange(4.0), "1.weight": 10 + torch.arange(10.0)}

    @pytest.mark.parametrize(
        ("sparsity", "kept"), [(0, (4, 10)), (0.5, (2, 5)), (0.7, (1, 3)), (0.99, (1, 1))]
    )
    def test_uniform_cuts_the_same_share_and_leaves_one(self, sparsity, kept):
        _, groups = self.model()
        masks = uniform_group_masks(groups, self.scores(), sparsity)
        assert tuple(kept_counts(masks).values()) == kept
        assert masks["1.weight"][-1]  # the highest score

    @pytest.mark.parametrize(
        ("sparsity", "kept"), [(0, (4, 10)), (0.2, (1, 10)), (0.5, (1, 6)), (0.99, (1, 1))]
    )
    def test_global_cuts_the_lowest_anywhere_and_leaves_one(self, sparsity, kept):
        """round(0.5 · 14) = 7 cuts: 3 of the first layer, whose best one stays, 4 of the next."""
        _, groups = self.model()
        masks = global_group_masks(groups, self.scores(), sparsity)
        assert tuple(kept_counts(masks).values()) == kept

    def test_score_is_the_mean_over_tied_layers(self):
        """With the sum, a channel would stay because it occurs often."""
        scores = {name: torch.ones(len(weight)) for name, weight in prunable(RESNET8).items()}
        scores["stage3.0.conv1.weight"] *= 1.5  # in one layer alone; those of the stem are in four
        total = sum(group.size for group in GROUPS8)
        others = total - 16 - (len(GROUPS8) - 1)  # each of the other groups keeps its best
        masks = global_group_masks(GROUPS8, scores, others / total)
        assert masks["stage3.0.conv1.weight"].all()
        assert masks["stem.0.weight"].sum() == 1

    @settings(deadline=None)
    @given(st.integers(0, 5), st.floats(0, 0.99), st.floats(0, 0.99))
    @pytest.mark.parametrize("choose", [uniform_group_masks, global_group_masks])
    def test_masks_nest_and_agree(self, choose, seed, one, other):
        low, high = sorted((one, other))
        scores = random_scores(RESNET8, seed)
        few, many = (choose(GROUPS8, scores, sparsity) for sparsity in (low, high))
        for name, mask in many.items():
            assert not (mask & ~few[name]).any()
            assert mask.any()
        for group in GROUPS8:
            decisions = [tuple(many[name][at].tolist()) for name, at in group.members.items()]
            assert len(set(decisions)) == 1

    @settings(deadline=None)
    @given(TIED, st.tuples(SHARES, SHARES))
    def test_uniform_counts_exactly_under_ties_and_nests(self, arrays, sparsities):
        groups, scores = untied(arrays)
        low, high = sorted(sparsities)
        few, many = (uniform_group_masks(groups, scores, sparsity) for sparsity in (low, high))
        for name, score in scores.items():
            assert int((~many[name]).sum()) == min(round(high * len(score)), len(score) - 1)
            assert not (many[name] & ~few[name]).any()
            assert many[name].all() or score[many[name]].min() >= score[~many[name]].max()

    @settings(deadline=None)
    @given(TIED, st.tuples(SHARES, SHARES))
    def test_global_counts_exactly_under_ties_and_nests(self, arrays, sparsities):
        groups, scores = untied(arrays)
        low, high = sorted(sparsities)
        few, many = (global_group_masks(groups, scores, sparsity) for sparsity in (low, high))
        total = sum(len(score) for score in scores.values())
        wanted = min(round(high * total), total - len(scores))
        assert sum(int((~mask).sum()) for mask in many.values()) == wanted
        assert all(mask.any() for mask in many.values())
        assert not any((many[name] & ~few[name]).any() for name in scores)

    def test_a_group_without_scores_stays_whole(self):
        _, groups = self.model()
        masks = uniform_group_masks(groups, {"0.weight": torch.arange(4.0)}, 0.5)
        assert kept_counts(masks) == {"0.weight": 2}

    @pytest.mark.parametrize("choose", [uniform_group_masks, global_group_masks])
    def test_bad_scores(self, choose):
        _, groups = self.model()
        with pytest.raises(
            ValueError, match=r"scores must have entries .*'0.weight'.* got \['x'\]"
        ):
            choose(groups, {"x": torch.ones(4)}, 0.5)
        with pytest.raises(ValueError, match=r"scores\['0.weight'\] must have shape .* got \(3,\)"):
            choose(groups, {"0.weight": torch.ones(3)}, 0.5)
        with pytest.raises(ValueError, match=r"must have shape \(out_channels,\), got \(4, 4\)"):
            choose(groups, {"0.weight": torch.ones(4, 4)}, 0.5)
        with pytest.raises(
            ValueError, match="groups must hold at least one ChannelGroup, got none"
        ):
            choose([], self.scores(), 0.5)
        with pytest.raises(ValueError, match=r"scores\['0.weight'\] must not be NaN, got 4 NaN"):
            choose(groups, {"0.weight": torch.full((4,), torch.nan)}, 0.5)

    @pytest.mark.parametrize("sparsity", [-0.1, 1, 1.5, float("nan"), float("inf")])
    @pytest.mark.parametrize("choose", [uniform_group_masks, global_group_masks])
    def test_sparsity_out_of_range(self, choose, sparsity):
        _, groups = self.model()
        with pytest.raises(ValueError, match=f"sparsity must be .* got {sparsity}"):
            choose(groups, self.scores(), sparsity)


RESNET8 = models.ResNet(8, width=4)
GROUPS8 = channel_groups(RESNET8, noise(1, 3, 16, 16))


class TestSameOutputs:
    @pytest.mark.parametrize("sparsity", [0.3, 0.8])
    @pytest.mark.parametrize("name", NETWORKS)
    def test_narrow_network_answers_as_the_masked_one(self, name, sparsity):
        model, images = build(name)
        masks = some_masks(model, images, sparsity)
        settle_(model, masks, images)
        before = state(model)
        small = shrink(model, masks, images)
        assert_untouched(model, before)
        assert_same_outputs(small, masked_copy(model, masks, images), images)
        assert metrics.count_params(small) < metrics.count_params(model)
        assert type(small) is type(model)
        assert not small.training

    @pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
    def test_also_for_global_masks(self, name):
        model, images = build(name)
        groups = channel_groups(model, images)
        masks = global_group_masks(groups, random_scores(model), 0.6)
        settle_(model, masks, images)
        small = shrink(model, masks, images)
        assert_same_outputs(small, masked_copy(model, masks, images), images)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(0, 1000))
    def test_also_for_any_choice_within_the_groups(self, seed):
        """Each place of each group stays or goes by itself: uneven pads, any widths."""
        generator = torch.Generator().manual_seed(seed)
        masks = {n: torch.ones(len(w), dtype=torch.bool) for n, w in prunable(RESNET8).items()}
        for group in GROUPS8:
            decision = torch.rand(group.size, generator=generator) < 0.5
            decision[0] = True
            for name, at in group.members.items():
                masks[name][at] = decision
        model, images = lively(copy.deepcopy(RESNET8)), noise(2, 3, 12, 12)
        small = shrink(model, masks, images)
        assert_same_outputs(small, masked_copy(model, masks, images), images)

    @pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
    def test_also_in_training_mode(self, name):
        """Batch norm then uses the mean of the batch, also for silent channels."""
        model, images = build(name)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model.train()
        masks = some_masks(model, images)
        small, masked = shrink(model, masks, images), masked_copy(model, masks, images)
        assert small.training
        torch.testing.assert_close(small(images), masked(images), rtol=1e-4, atol=1e-4)

    def test_padded_shortcuts_need_the_shift(self):
        """Planted: the same place in each stage, as if zeros were added at the end only."""
        model, images = build("resnet20")
        masks = {name: torch.ones(len(w), dtype=torch.bool) for name, w in prunable(model).items()}
        for name in masks:
            if "conv2" in name or "stem" in name:
                masks[name][3] = False
        with pytest.raises(ValueError, match="tied channels together"):
            shrink(model, masks, images)

    def test_a_width_that_exists_is_that_network(self):
        """Every second channel of ResNet-20 of width 16 leaves a ResNet-20 of width 8."""
        model, images = build("resnet20")
        scores = {n: torch.arange(len(w)) % 2.0 for n, w in prunable(model).items()}
        masks = uniform_group_masks(channel_groups(model, images), scores, 0.5)
        small = shrink(model, masks, images)
        twin = models.resnet20(width=8).eval()
        twin.load_state_dict(small.state_dict())
        assert_same_outputs(twin, small, images)
        assert metrics.count_macs(small, images[:1]) == metrics.count_macs(twin, images[:1])
        assert repr(small) == repr(twin)

    def test_channels_last_and_compiled_in_place(self):
        model, images = build("resnet20")
        masks = some_masks(model, images)
        expected = masked_copy(model, masks, images)
        model.to(memory_format=torch.channels_last)
        model.compile(backend="aot_eager")
        assert_same_outputs(shrink(model, masks, images), expected, images)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision(self, dtype):
        model, images = build("resnet20")
        masks = some_masks(model, images)
        settle_(model, masks, images)
        model, images = model.to(dtype), images.to(dtype)
        small = shrink(model, masks, images)
        assert {value.dtype for value in small.parameters()} == {dtype}
        assert_same_outputs(small, masked_copy(model, masks, images), images)

    def test_batch_norm_without_running_means(self):
        """It divides by what the batch shows, also in eval mode."""
        norm = nn.BatchNorm2d(6, track_running_stats=False)
        nn.init.uniform_(norm.bias, 0.5, 1)
        model = nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.Conv2d(6, 2, 3)).eval()
        images = noise(4, 3, 8, 8)
        masks = some_masks(model, images)
        small = shrink(model, masks, images)
        assert small[1].running_mean is None
        assert_same_outputs(small, masked_copy(model, masks, images), images)

    def test_a_block_with_a_padded_shortcut_used_twice(self):
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.block = nn.Conv2d(3, 4, 1), models.BasicBlock(4, 8, 2)
                self.last = nn.Conv2d(8, 5, 1)

            def forward(self, x):
                x = self.first(x)
                return self.last(self.block(x) + self.block(F.relu(x)))

        model, images = lively(Twice()), noise(4, 3, 8, 8)
        masks = some_masks(model, images)
        small = shrink(model, masks, images)
        assert_same_outputs(small, masked_copy(model, masks, images), images)

    def test_outputs_that_are_no_tensors(self):
        model = Two(lambda self, x: {"all": [self.b(self.a(x)), None], "size": x.shape[0]})
        images = noise(4, 3, 8, 8)
        masks = some_masks(model, images)
        small = shrink(model, masks, images)
        found, expected = small(images), masked_copy(model, masks, images)(images)
        torch.testing.assert_close(found["all"][0], expected["all"][0])
        assert small.a.out_channels == 4

    def test_nothing_to_cut_changes_nothing(self):
        model, images = build("resnet20")
        small = shrink(model, some_masks(model, images, 0), images)
        assert_untouched(small, model.state_dict())
        assert small is not model


class TestSilence:
    def test_a_filter_of_zeros_alone_is_not_silent(self):
        """A mask that forgets scale and shift of batch norm gives other outputs."""
        model, images = build("resnet20")
        masks = some_masks(model, images)
        whole = parameter_masks(model, masks, images)
        forgetful = copy.deepcopy(model)
        MaskSet({n: mask for n, mask in whole.items() if mask.ndim == 4}).apply_(forgetful)
        small = shrink(model, masks, images)
        with torch.no_grad():
            difference = (forgetful(images) - small(images)).abs().max()
        assert difference > 0.01

    def test_what_is_cut_is_zero_and_nothing_else_changes(self):
        model = lively(models.SmallCNN(width=4))
        before, mask = state(model), torch.arange(8) % 2 == 0
        zero_channels_(model, {"block2.0.weight": mask}, noise(1, 3, 16, 16))
        touched = {"block2.0.weight", "block2.1.weight", "block2.1.bias"}
        for name, value in model.state_dict().items():
            if name in touched:
                assert torch.equal(value[mask], before[name][mask])
                assert not value[~mask].any()
            else:
                assert torch.equal(value, before[name])

    @pytest.mark.parametrize("part", ["0.bias", "1.weight", "1.bias"])
    def test_weight_bias_scale_and_shift_are_masked(self, part):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))
        mask = torch.tensor([True, False, True, False])
        masks = parameter_masks(model, {"0.weight": mask}, noise(1, 3, 4, 4))
        assert set(masks) == {"0.weight", "0.bias", "1.weight", "1.bias"}
        assert torch.equal(masks[part], mask)
        assert torch.equal(masks["0.weight"], mask[:, None, None, None].expand(4, 3, 1, 1))

    @pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "branches"])
    def test_every_tensor_on_the_way_is_silent(self, name):
        """All outputs of layers and batch norms that were cut are exactly zero."""
        model, images = build(name)
        masks = some_masks(model, images)
        masked = masked_copy(model, masks, images)
        seen = []

        def check(name):
            def hook(layer, inputs, output):
                seen.append(name)
                assert output[:, ~masks[f"{name}.weight"]].count_nonzero() == 0

            return hook

        for layer in {name.removesuffix(".weight") for name in masks}:
            masked.get_submodule(layer).register_forward_hook(check(layer))
        masked(images)
        assert set(seen) == {name.removesuffix(".weight") for name in masks}

    def test_silent_through_training(self):
        """As after_step of fit, the masks survive momentum and weight decay; then surgery."""
        model = models.SmallCNN(width=4)
        images = (noise(64, 3, 16, 16) * 255).to(torch.uint8)
        split = (images, torch.arange(64) % 4)
        masks = some_masks(model, images[:1])
        keep = parameter_masks(model, masks, images[:1])
        keep.apply_(model)
        train.fit(model, split, split, epochs=2, batch_size=16, seed=0, after_step=keep)
        small = shrink(model.eval(), masks, images[:1])
        assert_same_outputs(small, model, images)


class TestCost:
    @pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "plain"])
    def test_zeroed_is_not_removed(self, name):
        """Channels that are only zeroed cost as much as before: nobody may count them as faster."""
        model, images = build(name)
        masks, image = some_masks(model, images), images[:1]
        masked, small = masked_copy(model, masks, images), shrink(model, masks, images)
        for count in (metrics.count_params, metrics.size_bytes):
            assert count(masked) == count(model) > count(small)
        assert metrics.macs_by_layer(masked, image) == metrics.macs_by_layer(model, image)
        assert metrics.count_macs(small, image) < 0.5 * metrics.count_macs(model, image)
        assert metrics.count_nonzeros(masked) < metrics.count_nonzeros(model)

    @pytest.mark.parametrize("choose", [uniform_group_masks, global_group_masks])
    @pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2", "plain"])
    def test_a_share_of_the_macs(self, name, choose):
        model, images = build(name)
        groups, image, scores = channel_groups(model, images), images[:1], random_scores(model)
        tried = {}

        def masks_at(sparsity):
            tried[sparsity] = choose(groups, scores, sparsity)
            return tried[sparsity]

        masks = channel_masks_for_macs(model, image, masks_at, macs_share=0.5)
        dense = metrics.count_macs(model, image)
        assert metrics.count_macs(shrink(model, masks, images), image) <= 0.5 * dense
        best = sum(kept_counts(masks).values())
        more = [m for m in tried.values() if sum(kept_counts(m).values()) > best]
        least = min(more, key=lambda m: sum(kept_counts(m).values()))
        assert metrics.count_macs(shrink(model, least, images), image) > 0.5 * dense

    def test_the_whole_share_cuts_nothing(self):
        model, images = build("plain")
        masks = channel_masks_for_macs(
            model, images[:1], lambda s: some_masks(model, images, s), macs_share=1
        )
        assert all(mask.all() for mask in masks.values())

    @pytest.mark.parametrize(
        ("share", "message"),
        [
            (0, r"in \(0, 1\], got 0"),
            (1.5, r"in \[0, 1\], got 1.5"),
            (0.001, r"must be >= 0\.\d+ here, got 0.001"),
        ],
    )
    def test_share_out_of_range(self, share, message):
        model, images = build("plain")
        with pytest.raises(ValueError, match=f"macs_share must be .*{message}|{message}"):
            channel_masks_for_macs(
                model, images[:1], lambda s: some_masks(model, images, s), macs_share=share
            )


class TestNarrowNetwork:
    """What comes out is an ordinary network."""

    @pytest.fixture(scope="class")
    @staticmethod
    def small():
        model, images = build("resnet20")
        return shrink(model, some_masks(model, images), images), images

    def test_saved_whole_and_as_state(self, small):
        model, images = small
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        again = torch.load(buffer, weights_only=False)
        assert_same_outputs(again, model, images)
        with torch.no_grad():
            next(again.parameters()).zero_()
        again.load_state_dict(model.state_dict())
        assert_same_outputs(again, model, images)

    def test_exported(self, small):
        model, images = small
        exported = torch.export.export(model, (images,)).module()
        assert_same_outputs(exported, model, images)

    def test_compiled(self, small):
        model, images = small
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        assert_same_outputs(compiled, model, images)

    def test_pruned_again(self, small):
        model, images = small
        masks = some_masks(model, images, 0.5, seed=1)
        smaller = shrink(model, masks, images)
        assert_same_outputs(smaller, masked_copy(model, masks, images), images)
        assert metrics.count_params(smaller) < metrics.count_params(model)

    def test_trains(self, small):
        model, images = copy.deepcopy(small[0]), small[1]
        model(images).sum().backward()
        assert all(value.grad is not None for value in model.parameters())

    def test_frozen_weights_stay_frozen(self):
        model, images = build("plain")
        model.conv1.weight.requires_grad_(False)
        small = shrink(model, some_masks(model, images), images)
        assert [name for name, value in small.named_parameters() if not value.requires_grad] == [
            "conv1.weight"
        ]


class TestModelsThatCannotBeFollowed:
    @pytest.mark.parametrize(
        ("forward", "message"),
        [
            (lambda self, x: self.b(self.a(x) if x.sum() > 0 else x), r"torch\.fx can list.*flow"),
            (lambda self, x: self.b(self.a(x).roll(1, 1)), "got roll"),
            (lambda self, x: self.b(self.a(x)[:, :4].repeat(1, 2, 1, 1)), "some of the channels"),
            (lambda self, x: self.b(self.a(x)) + self.a(x).mean(1), "mean over the channels"),
            (lambda self, x: self.b(self.grouped(self.a(x))), r"grouped \(Conv2d\): groups=2"),
            (lambda self, x: self.b(self.plainnorm(self.a(x))), r"plainnorm .*affine=False"),
            (lambda self, x: self.b(F.pad(self.a(x), (1, 1), value=1.0)), "other than zeros"),
            (lambda self, x: self.b(self.a(x).flip(1)), "got flip"),
            (
                lambda self, x: self.b(self.a(x).view(-1, 8, 4, 2).transpose(1, 1)),
                "view from shape",
            ),
            (lambda self, x: self.flat(self.a(x)), r"flat \(Linear\) with an input of shape"),
            (lambda self, x: self.a(x), "must have channels between"),
            (lambda self, x: self.b(self.transposed(self.a(x))), r"transposed \(ConvTranspose2d\)"),
            (lambda self, x: self.b(self.multiplied(self.a(x))[:, :8]), "multiplied .*groups=8"),
            (lambda self, x: self.b(F.conv2d(self.a(x), self.again)), "got conv2d"),
        ],
    )
    def test_the_message_names_the_operation(self, forward, message):
        model = Two(forward)
        before = state(model)
        with pytest.raises(ValueError, match=message):
            channel_groups(model, noise(2, 3, 4, 4))
        assert_untouched(model, before)

    def test_the_message_names_the_module(self):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), Two(lambda self, x: x if x.mean() > 0 else -x))
        with pytest.raises(ValueError, match=r"stops it in 1 \(Two\).*control flow"):
            channel_groups(model, noise(2, 3, 4, 4))

    def test_numbers_of_channels_written_into_forward(self):
        model = Two(lambda self, x: self.long(self.a(x).reshape(-1, 8 * 16)))
        images = noise(2, 3, 4, 4)
        with pytest.raises(ValueError, match="must not hold numbers of channels"):
            shrink(model, some_masks(model, images), images)

    def test_amounts_of_a_pad_written_into_forward(self):
        model = Two(lambda self, x: self.b(F.pad(self.thin(x), (0, 0, 0, 0, 2, 2)) + self.a(x)))
        images = noise(2, 3, 4, 4)
        masks = some_masks(model, images)
        with pytest.raises(ValueError, match=r"\(0, 0, 0, 0, 2, 2\) of its F.pad in one attribute"):
            shrink(model, masks, images)

    @pytest.mark.parametrize("function", [zero_channels_, shrink, parameter_masks, channel_groups])
    def test_nothing_between_inputs_and_outputs(self, function):
        arguments = () if function is channel_groups else ({},)
        with pytest.raises(ValueError, match="must have channels between its input and its output"):
            function(nn.Linear(3, 2), *arguments, noise(2, 3))

    def test_shared_and_hidden_weights(self):
        model, images = build("plain")
        model.conv1.weight = nn.Parameter(noise(6, 3, 3, 3))
        nn.utils.prune.identity(model.conv1, "weight")
        with pytest.raises(ValueError, match="'conv1'"):
            channel_groups(model, images)
        with pytest.raises(ValueError, match=r"module itself.*_orig_mod"):
            channel_groups(torch.compile(build("plain")[0], backend="eager"), images)
        model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1))
        model[1].weight = model[0].weight
        with pytest.raises(ValueError, match="must not share weights"):
            channel_groups(model, images)

    def test_a_layer_whose_channels_are_added_to_each_other(self):
        model = Two(lambda self, x: self.b(torch.cat([self.thin(x), self.thin(x)], 1) + self.a(x)))
        with pytest.raises(ValueError, match="add channels of one layer to each other"):
            channel_groups(model, noise(2, 3, 4, 4))


class Two(nn.Module):
    """Layers for a forward that is given."""

    def __init__(self, forward):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1)
        self.thin = nn.Conv2d(3, 4, 1)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.multiplied = nn.Conv2d(8, 16, 1, groups=8)
        self.transposed = nn.ConvTranspose2d(8, 8, 1)
        self.again = nn.Parameter(torch.ones(8, 8, 1, 1))
        self.plainnorm = nn.BatchNorm2d(8, affine=False)
        self.flat, self.long = nn.Linear(4, 2), nn.Linear(128, 2)
        self.given = forward

    def forward(self, x):
        return self.given(self, x)


class TestBadMasks:
    @pytest.mark.parametrize("function", [zero_channels_, shrink, parameter_masks])
    @pytest.mark.parametrize(
        ("change", "error", "message"),
        [
            ({"conv1.weight": torch.ones(6)}, TypeError, "tensor of bools, got torch.float32"),
            ({"conv1.weight": [True] * 6}, TypeError, "tensor of bools, got list"),
            ({"conv1.weight": torch.ones(5).bool()}, ValueError, r"shape \(6,\), got \(5,\)"),
            ({"conv1.weight": torch.ones(6, 3).bool()}, ValueError, r"\(6,\), got \(6, 3\)"),
            ({"conv1.bias": torch.ones(6).bool()}, ValueError, "no layer 'conv1.bias'"),
            ({"conv1.weight": torch.zeros(6).bool()}, ValueError, "at least one channel, got none"),
            ({"conv9.weight": torch.ones(6).bool()}, ValueError, "no layer 'conv9.weight'"),
            ({"classifier.weight": torch.eye(5)[0].bool()}, ValueError, "the network's outputs"),
        ],
    )
    def test_the_message_names_the_mask_and_nothing_changes(self, function, change, error, message):
        model, images = build("plain")
        before = state(model)
        masks = some_masks(model, images) | change
        with pytest.raises(error, match=message):
            function(model, masks, images)
        assert_untouched(model, before)

    @pytest.mark.parametrize("function", [zero_channels_, shrink, parameter_masks])
    def test_masks_without_names(self, function):
        model, images = build("plain")
        with pytest.raises(TypeError, match="channel_masks must be a mapping of names, got list"):
            function(model, [torch.ones(6).bool()], images)

    @pytest.mark.parametrize("forget", ["stage2.1.conv2.weight", "stem.0.weight"])
    def test_a_tied_layer_forgotten(self, forget):
        model, images = build("resnet20")
        masks = some_masks(model, images)
        del masks[forget]
        with pytest.raises(ValueError, match=f"'{forget}' keeps channel"):
            shrink(model, masks, images)

    def test_masks_of_the_network_before_surgery(self):
        model, images = build("resnet20")
        masks = some_masks(model, images)
        small = shrink(model, masks, images)
        with pytest.raises(ValueError, match=r"must have shape \(8,\), got \(16,\)"):
            shrink(small, masks, images)
