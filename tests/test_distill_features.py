"""Features of layers inside: kept by hooks, compared in three ways, trained through fit's doors."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rac_helpers import distill, models, train
from rac_helpers.data import Split
from rac_helpers.distill import (
    FeatureLoss,
    Teacher,
    WithFeatures,
    attention_loss,
    attention_map,
    hint_loss,
    make_regressor,
    relational_loss,
)
from rac_helpers.rng import make_generator

BLOCKS = ("block1", "block2", "block3")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=make_generator(seed), dtype=torch.float64)


def digits(n=12):
    generator = make_generator(0)
    images = torch.randint(256, (n, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return Split(images, torch.randint(10, (n,), generator=generator))


def student(layers=BLOCKS, **options):
    return WithFeatures(models.SmallCNN(width=2), layers, **options)


def teacher(layers=BLOCKS, seed=7):
    return Teacher(WithFeatures(models.SmallCNN(width=4, seed=seed), layers))


# -- three comparisons ----------------------------------------------------------------------------


def test_hint_as_torch():
    ours, theirs = normal(3, 4, 2, 2), normal(3, 4, 2, 2, seed=1)
    torch.testing.assert_close(hint_loss(ours, theirs), F.mse_loss(ours, theirs))


def test_attention_by_hand():
    ours, theirs = normal(3, 4, 5, 6), normal(3, 9, 5, 6, seed=1)

    def reference(features):
        flat = features.pow(2).sum(dim=1).reshape(len(features), -1)  # any factor drops out
        return flat / flat.pow(2).sum(dim=1, keepdim=True).sqrt()

    difference = reference(ours) - reference(theirs)
    torch.testing.assert_close(attention_loss(ours, theirs), difference.pow(2).sum(dim=1).mean())
    assert attention_map(ours).shape == (3, 5, 6)
    torch.testing.assert_close(attention_map(ours).flatten(1), reference(ours))


@pytest.mark.parametrize("pooled", [False, True])
def test_relational_by_hand(pooled):
    ours, theirs = normal(6, 3, 2, 2), normal(6, 5, 2, 2, seed=1)
    given = [x.mean(dim=(2, 3)) for x in (ours, theirs)] if pooled else [ours, theirs]
    vectors = [x.mean(dim=(2, 3)) for x in (ours, theirs)]
    upper = torch.triu_indices(6, 6, offset=1).unbind()
    distances = [torch.cdist(x, x)[upper] for x in vectors]
    ours, theirs = (d / d.mean() for d in distances)
    expected = F.huber_loss(ours, theirs, delta=1.0)
    torch.testing.assert_close(relational_loss(*given), expected)


@given(st.integers(0, 1000), st.floats(0.1, 100))
def test_what_each_comparison_does_not_see(seed, factor):
    features = normal(5, 4, 3, 3, seed=seed)
    turned = features.flip(1)  # other channels, the same places and distances
    zero = torch.tensor(0.0, dtype=torch.float64)
    for compare in (hint_loss, attention_loss, relational_loss):
        torch.testing.assert_close(compare(features, features.clone()), zero)
    assert hint_loss(turned, features) > 0
    for compare in (attention_loss, relational_loss):
        torch.testing.assert_close(compare(factor * turned, features), zero, atol=1e-9, rtol=0)
    moved = features.flip(2)  # other places
    assert attention_loss(moved, features) > 0
    torch.testing.assert_close(relational_loss(moved, features), zero, atol=1e-9, rtol=0)


@given(st.integers(0, 1000))
def test_distances_are_at_least_zero_and_attention_at_most_two(seed):
    ours, theirs = normal(4, 3, 2, 2, seed=seed), normal(4, 3, 2, 2, seed=seed + 5000)
    for compare in (hint_loss, attention_loss, relational_loss):
        assert compare(ours, theirs) > 0
    assert attention_loss(ours, theirs) <= 2


def test_dead_features_have_finite_gradients():
    """All zeros after a ReLU; all pictures at the same place."""
    for compare in (hint_loss, attention_loss, relational_loss):
        ours = torch.zeros(4, 3, 2, 2, requires_grad=True)
        compare(ours, torch.rand(4, 3, 2, 2, generator=make_generator(0))).backward()
        assert torch.isfinite(ours.grad).all()
        ours = torch.rand(4, 3, 2, 2, generator=make_generator(0)).requires_grad_()
        loss = compare(ours, torch.zeros(4, 3, 2, 2))
        loss.backward()
        assert torch.isfinite(loss)
        assert torch.isfinite(ours.grad).all()


def test_half_precision_is_compared_in_full():
    ours, theirs = normal(4, 3, 2, 2).bfloat16(), normal(4, 3, 2, 2, seed=1).bfloat16()
    for compare in (hint_loss, attention_loss, relational_loss):
        torch.testing.assert_close(compare(ours, theirs), compare(ours.float(), theirs.float()))


def test_the_teachers_features_get_no_gradient():
    for compare in (hint_loss, attention_loss, relational_loss):
        ours = normal(4, 3, 2, 2).requires_grad_()
        theirs = normal(4, 3, 2, 2, seed=1).requires_grad_()
        compare(ours, theirs).backward()
        assert ours.grad is not None
        assert theirs.grad is None


def test_the_regressor_depends_on_its_seed_alone():
    before = torch.get_rng_state()
    one, two, other = (make_regressor(3, 5, seed=s) for s in (0, 0, 1))
    assert torch.equal(one.weight, two.weight)
    assert not torch.equal(one.weight, other.weight)
    assert one.weight.shape == (5, 3, 1, 1)
    assert torch.equal(torch.get_rng_state(), before)


FLOATS = torch.zeros(4, 3, 2, 2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: hint_loss(FLOATS, FLOATS[:, :2]), ValueError, r"\(4, 2, 2, 2\) of teacher"),
        (lambda: hint_loss(FLOATS.int(), FLOATS), TypeError, "student must be a tensor of floats"),
        (lambda: hint_loss(FLOATS, None), TypeError, "teacher must be .*, got NoneType"),
        (lambda: hint_loss(FLOATS[:0], FLOATS[:0]), ValueError, "student must hold numbers"),
        (lambda: attention_map(FLOATS[0]), ValueError, r"features must have shape .*\(3, 2, 2\)"),
        (lambda: attention_loss(FLOATS, FLOATS[..., :1]), ValueError, r"\(4, 2, 1\) as teacher"),
        (lambda: relational_loss(FLOATS[:2], FLOATS[:2]), ValueError, "n >= 3 .* got 2 and 2"),
        (lambda: relational_loss(FLOATS, FLOATS[:3]), ValueError, "got 4 and 3"),
        (lambda: relational_loss(FLOATS[..., 0], FLOATS), ValueError, r"\(n, d\) or"),
        (lambda: make_regressor(0, 1, seed=0), ValueError, "in_channels must be .* >= 1, got 0"),
        (lambda: make_regressor(1, 0, seed=0), ValueError, "out_channels must be .* >= 1, got 0"),
    ],
)
def test_wrong_features(call, error, message):
    with pytest.raises(error, match=message):
        call()


# -- WithFeatures ---------------------------------------------------------------------------------


def test_logits_are_those_of_the_network_and_features_those_of_its_layers():
    model = models.SmallCNN(width=2).eval()
    images = digits().images
    expected = model(images)
    watched = WithFeatures(model, ["block2", "classifier"])
    assert torch.equal(watched(images), expected)
    features = watched.shelf.take()
    assert features.keys() == {"block2", "classifier"}
    assert torch.equal(features["classifier"], expected)
    assert features["block2"].shape == (12, 4, 4, 4)
    assert features["block2"].requires_grad


def test_layers_inside_layers_can_be_named():
    watched = student(["block1.0"], regressors={"block1.0": make_regressor(2, 7, seed=0)})
    watched(digits().images)
    assert watched.shelf.take()["block1.0"].shape == (12, 7, 8, 8)


def test_features_can_be_taken_once():
    watched = student()
    with pytest.raises(RuntimeError, match="call the network with the batch first"):
        watched.shelf.take()
    watched(digits().images)
    watched.shelf.take()
    with pytest.raises(RuntimeError, match="there are no features"):
        watched.shelf.take()


def test_released_networks_keep_nothing():
    watched = student()
    model = watched.release_()
    model(digits().images)
    with pytest.raises(RuntimeError, match="there are no features"):
        watched.shelf.take()
    assert not any(module._forward_hooks for module in model.modules())


def test_a_copy_leaves_its_features_on_the_same_shelf():
    """The copy's own regressor and network are at work."""
    watched = student(["block1"], regressors={"block1": make_regressor(2, 4, seed=0)})
    other = copy.deepcopy(watched)
    with torch.no_grad():
        other.regressors["block1"].weight.zero_()
        other.regressors["block1"].bias.fill_(3)
    other(digits().images)
    assert (watched.shelf.take()["block1"] == 3).all()
    other.release_()(digits().images)
    with pytest.raises(RuntimeError, match="there are no features"):
        watched.shelf.take()
    watched(digits().images)  # the first one still has its hooks
    assert not (watched.shelf.take()["block1"] == 3).all()


def compiled(layers):
    watched = student(layers).eval()
    watched.compile(backend="eager", dynamic=False)
    with torch.no_grad():
        watched(digits().images)
    return watched


@pytest.fixture
def fresh_compiler():
    torch.compiler.reset()
    yield torch._dynamo.config.patch
    torch.compiler.reset()


def test_compiled_networks_that_differ_in_hooks_only(fresh_compiler):
    with fresh_compiler(skip_nnmodule_hook_guards=False):
        for layers in (["block2"], BLOCKS, ["block2"]):
            assert compiled(layers).shelf.take().keys() == set(layers)


def test_compiled_code_of_another_network_is_noticed(fresh_compiler):
    with fresh_compiler(skip_nnmodule_hook_guards=True):
        compiled(["block2"])
        with pytest.raises(RuntimeError, match=r"of \['block1', 'block3'\].*hook_guards"):
            compiled(BLOCKS).shelf.take()


def test_the_regressor_is_trained_and_is_no_part_of_the_network():
    watched = student(regressors={"block2": make_regressor(4, 8, seed=0)})
    names = {name for name, _ in watched.named_parameters()}
    assert "regressors.block2.weight" in names
    plain = models.SmallCNN(width=2).state_dict().keys()
    assert watched.release_().state_dict().keys() == plain


@pytest.mark.parametrize(
    ("layers", "options", "error", "message"),
    [
        (["block9"], {}, ValueError, "layers must be names of modules in the model, got 'block9'"),
        ([""], {}, ValueError, "layers must be names of modules in the model, got ''"),
        ([], {}, ValueError, "layers must be one or more names"),
        ("block1", {}, ValueError, "layers must be one or more names, got 'block1'"),
        (["block1"], {"regressors": {"block2": nn.Identity()}}, ValueError, "got 'block2'"),
        (["block1"], {"regressors": {"block1": 3}}, TypeError, r"regressors\['block1'\] must be"),
    ],
)
def test_wrong_layers(layers, options, error, message):
    with pytest.raises(error, match=message):
        student(layers, **options)
    model = models.SmallCNN(width=2)
    with pytest.raises(error):
        WithFeatures(model, layers, **options)
    assert not any(module._forward_hooks for module in model.modules())


# -- FeatureLoss ----------------------------------------------------------------------------------

PAIRS = {name: name for name in BLOCKS}
SETTINGS = {"layers": PAIRS, "compare": attention_loss, "weight": 2.0}


def test_it_adds_up():
    ours, theirs, split = student().eval(), teacher(), digits()
    loss_fn = FeatureLoss(theirs, ours, **SETTINGS, temperature=3, alpha=0.2)
    logits = ours(split.images)
    loss = loss_fn(logits, split.labels, split.images)
    ours(split.images)
    theirs(split.images)
    mine, other = ours.shelf.take(), theirs.model.shelf.take()
    expected = distill.kd_loss(
        logits, theirs(split.images), split.labels, temperature=3, alpha=0.2
    ) + 2 * sum(attention_loss(mine[name], other[name]) for name in BLOCKS)
    torch.testing.assert_close(loss, expected)


def test_by_default_there_are_no_soft_targets():
    ours, split = student().eval(), digits()
    loss_fn = FeatureLoss(teacher(), ours, **SETTINGS | {"weight": 0})
    logits = ours(split.images)
    loss = loss_fn(logits, split.labels, split.images)
    torch.testing.assert_close(loss, F.cross_entropy(logits, split.labels))


def fit(watched, theirs, folder=None, **changed):
    split = digits(24)
    loss_fn = FeatureLoss(theirs, watched, **SETTINGS | changed)
    path = None if folder is None else folder / "run.pt"
    return train.fit(
        watched, split, split, epochs=2, batch_size=12, loss_fn=loss_fn, checkpoint=path
    )


@pytest.mark.parametrize("copied", [False, True])
def test_hints_train_the_student_and_the_regressor_but_not_the_teacher(copied):
    watched = student(["block2"], regressors={"block2": make_regressor(4, 8, seed=0)})
    theirs = teacher(["block2"])
    before, first = copy.deepcopy(theirs.state_dict()), copy.deepcopy(watched.state_dict())
    running = copy.deepcopy(watched) if copied else watched
    loss_fn = FeatureLoss(
        theirs, watched, layers={"block2": "block2"}, compare=hint_loss, weight=1.0
    )
    split = digits(24)
    train.fit(running, split, split, epochs=2, batch_size=12, loss_fn=loss_fn)
    after = running.state_dict()
    for name in ("regressors.block2.weight", "model.block1.0.weight"):
        assert not torch.equal(after[name], first[name])
    assert all(torch.equal(before[name], value) for name, value in theirs.state_dict().items())
    if copied:
        kept = watched.state_dict()
        assert all(torch.equal(first[name], kept[name]) for name in first)


def test_features_come_nearer():
    split = digits(24)
    theirs = teacher()

    def distance(watched):
        with torch.no_grad():
            watched.eval()(split.images)
        theirs(split.images)
        ours, other = watched.shelf.take(), theirs.model.shelf.take()
        return sum(attention_loss(ours[name], other[name]).item() for name in BLOCKS)

    near, far = student(), student()
    for watched, weight in ((near, 100.0), (far, 0.0)):
        loss_fn = FeatureLoss(theirs, watched, **SETTINGS | {"weight": weight})
        train.fit(watched, split, split, epochs=20, batch_size=24, lr=0.02, loss_fn=loss_fn)
    assert distance(near) < 0.7 * distance(far)


def test_a_checkpoint_knows_how_features_are_compared(tmp_path):
    fit(student(), teacher(), tmp_path)
    assert len(fit(student(), teacher(), tmp_path)) == 2
    others = [
        {"compare": relational_loss},
        {"weight": 3.0},
        {"layers": {"block3": "block3"}},
        {"alpha": 0.5},
        {"temperature": 2.0},
    ]
    for changed in others:
        with pytest.raises(ValueError, match="belongs to other settings: loss_fn was"):
            fit(student(), teacher(), tmp_path, **changed)
    with pytest.raises(ValueError, match="belongs to other settings: loss_fn was"):
        fit(student(), teacher(seed=8), tmp_path)


def test_stale_features_are_refused():
    ours, split = student(), digits()
    loss_fn = FeatureLoss(teacher(), ours, **SETTINGS)
    logits = ours(split.images)
    ours(split.images[:5])
    with pytest.raises(RuntimeError, match="features are of 5 pictures, the logits of 12"):
        loss_fn(logits, split.labels, split.images)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"teacher": Teacher(models.SmallCNN())}, TypeError, "a Teacher of WithFeatures"),
        ({"teacher": models.SmallCNN()}, TypeError, r"wrap it: Teacher\(model\)"),
        ({"student": models.SmallCNN()}, TypeError, "student must be WithFeatures, got SmallCNN"),
        ({"compare": "mse"}, TypeError, "compare must be callable, got 'mse'"),
        ({"weight": -1}, ValueError, "weight must be a finite number >= 0, got -1"),
        ({"layers": {}}, ValueError, "layers must map"),
        ({"layers": ["block1"]}, ValueError, "layers must map"),
        ({"layers": {"stem": "block1"}}, ValueError, "the student keeps .*, got 'stem'"),
        ({"layers": {"block1": "stem"}}, ValueError, "the teacher keeps .*, got 'stem'"),
        ({"alpha": 2}, ValueError, "alpha must be"),
        ({"temperature": 0}, ValueError, "temperature must be"),
    ],
)
def test_wrong_losses(changed, error, message):
    settings = SETTINGS | {"teacher": teacher(), "student": student()} | changed
    with pytest.raises(error, match=message):
        FeatureLoss(**settings)
