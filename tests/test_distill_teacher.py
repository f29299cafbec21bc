"""The teacher answers and never learns; several answer together; a memory saves passes."""

import pytest
import torch
from torch import nn

from rac_helpers import distill, models, train
from rac_helpers.augment import BatchRandAugment
from rac_helpers.data import Split
from rac_helpers.distill import CachedTeacher, DistillationLoss, Ensemble, Teacher
from rac_helpers.rng import make_generator


def pictures(n=12, seed=0):
    return torch.randint(256, (n, 3, 8, 8), generator=make_generator(seed), dtype=torch.uint8)


def digits(n=12, seed=0):
    generator = make_generator(seed + 100)
    return Split(pictures(n, seed), torch.randint(10, (n,), generator=generator))


def network(seed=0, width=2):
    """A network whose running statistics are not those it starts with."""
    model = models.SmallCNN(width=width, seed=seed)
    model.train()(pictures(seed=seed))
    return model


def state(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


class Says(nn.Module):
    """Always the same answer."""

    def __init__(self, *probabilities):
        super().__init__()
        self.register_buffer("logits", torch.tensor([probabilities]).log())

    def forward(self, images):
        return self.logits.expand(len(images), -1)


# -- Teacher --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "disturb",
    [
        lambda teacher: teacher,
        lambda teacher: teacher.train(),
        lambda teacher: teacher.train(True),
        lambda teacher: nn.ModuleList([teacher]).train()[0],
        lambda teacher: teacher.model.train() and teacher,
        lambda teacher: teacher.model.block1.train() and teacher,
    ],
    ids=["nothing", "train", "train(True)", "train of a parent", "train of the model", "of a part"],
)
def test_always_in_eval_mode_and_without_gradients(disturb):
    teacher = Teacher(network().train())
    before, answer = state(teacher), teacher(pictures())
    with torch.enable_grad():
        after = disturb(teacher)(pictures())
    assert torch.equal(after, answer)
    assert same(state(teacher), before), "running statistics moved"
    assert not after.requires_grad
    assert not any(module.training for module in teacher.modules())


def test_the_test_can_fail():
    """In training mode the statistics move and the answers differ."""
    model = network().train()
    before, answer = state(model), model.eval()(pictures())
    model.train()
    assert not torch.equal(model(pictures()), answer)
    assert not same(state(model), before)


def test_the_original_is_neither_changed_nor_watched():
    model = network().train()
    model.block2.eval()
    modes = [module.training for module in model.modules()]
    teacher = Teacher(model)
    teacher(pictures())
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.requires_grad for parameter in model.parameters())
    answer = teacher(pictures())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert torch.equal(teacher(pictures()), answer)


def test_no_parameter_can_be_trained():
    teacher = Teacher(network())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_answers_can_be_used_in_a_loss():
    """As those of inference_mode could not."""
    logits = torch.zeros(12, 10, requires_grad=True)
    (logits * Teacher(network())(pictures())).sum().backward()
    assert logits.grad is not None


def test_only_a_module_can_teach():
    with pytest.raises(TypeError, match=r"model must be a torch\.nn\.Module, got function"):
        Teacher(lambda images: images)


# -- Ensemble -------------------------------------------------------------------------------------


def test_the_average_of_probabilities():
    networks = [network(seed).eval() for seed in range(3)]
    together = Ensemble(networks).eval()
    answers = torch.stack([model(pictures()).softmax(dim=1) for model in networks]).mean(dim=0)
    torch.testing.assert_close(together(pictures()).exp(), answers)
    torch.testing.assert_close(Ensemble(networks[:1])(pictures()).exp(), answers * 0 + (
        networks[0](pictures()).softmax(dim=1)))  # fmt: skip


def test_average_first_then_soften():
    """Neither the average of softened answers, nor that of the logits."""
    parts = [Says(0.90, 0.09, 0.01), Says(0.10, 0.80, 0.10)]
    logits = Ensemble(parts)(pictures(1))
    soft = distill.soft_targets(logits, 4)
    power = torch.tensor([[0.50, 0.445, 0.055]]) ** 0.25
    torch.testing.assert_close(soft, power / power.sum())
    softened = torch.stack([distill.soft_targets(part(pictures(1)), 4) for part in parts])
    geometric = torch.stack([part(pictures(1)) for part in parts]).mean(dim=0).softmax(dim=1)
    assert not torch.allclose(soft, softened.mean(dim=0), atol=1e-3)
    assert not torch.allclose(logits.exp(), geometric, atol=1e-3)


def test_an_ensemble_never_says_impossible():
    """Finite, so that it can be softened."""
    parts = [Says(1.0, 0.0), Says(1.0, 0.0)]
    for part in parts:
        part.logits = torch.tensor([[0.0, -300.0]])
    assert torch.isfinite(Ensemble(parts)(pictures(1))).all()


def test_half_precision_is_averaged_in_full():
    parts = [Says(0.6, 0.4).bfloat16(), Says(0.2, 0.8).bfloat16()]
    assert Ensemble(parts)(pictures(1)).dtype == torch.float32
    assert Ensemble([Says(0.6, 0.4).double()])(pictures(1)).dtype == torch.float64


def test_a_teacher_of_several():
    teacher = Teacher(Ensemble([network(0), network(1)])).train()
    assert not any(module.training for module in teacher.modules())
    assert torch.equal(teacher(pictures()), teacher(pictures()))


def test_wrong_ensembles():
    with pytest.raises(ValueError, match="models must hold at least one network, got none"):
        Ensemble([])
    with pytest.raises(TypeError, match=r"models\[1\] must be a torch.nn.Module, got int"):
        Ensemble([network(), 3])
    with pytest.raises(ValueError, match=r"of one shape, got \[\(1, 2\), \(1, 3\)\]"):
        Ensemble([Says(0.5, 0.5), Says(0.2, 0.3, 0.5)])(pictures(1))


# -- CachedTeacher --------------------------------------------------------------------------------


class Counts(nn.Module):
    """Counts the pictures it has seen."""

    def __init__(self, model):
        super().__init__()
        self.model, self.seen = model, []

    def forward(self, images):
        self.seen.append(len(images))
        return self.model(images)


def cached():
    teacher = CachedTeacher(Teacher(Counts(network())))
    return teacher, teacher.teacher.model.seen


def test_a_known_picture_is_not_shown_again():
    teacher, seen = cached()
    plain = Teacher(network())
    order = torch.randperm(12, generator=make_generator(1))
    torch.testing.assert_close(teacher(pictures()), plain(pictures()))
    again = teacher(pictures()[order])
    torch.testing.assert_close(again, plain(pictures())[order])
    assert seen == [12]
    assert (teacher.hits, teacher.misses) == (12, 12)


def test_mixed_batches_come_back_in_order():
    teacher, seen = cached()
    teacher(pictures()[[3, 5]])
    mixed = pictures()[[7, 3, 7, 5, 1]]
    torch.testing.assert_close(teacher(mixed), Teacher(network())(mixed))
    assert seen == [2, 2]  # 7 once, and 1
    assert (teacher.hits, teacher.misses) == (3, 4)


def test_answers_belong_to_the_content():
    """One other pixel is another picture; the same bytes in another shape or type are, too."""
    teacher, _ = cached()
    images = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    other = images.clone()
    other[0, 0, 0, 0] = 1
    for one in (images, other, images.reshape(1, 3, 4, 16), images.float().div(255)):
        teacher(one)
    assert teacher.misses == 4
    teacher(images.to(memory_format=torch.channels_last))
    assert (teacher.hits, teacher.misses) == (1, 4)


def epochs(transform, number=3):
    teacher = CachedTeacher(Teacher(network()))
    split = digits(40)
    loss_fn = DistillationLoss(teacher, temperature=2, alpha=0.5)
    model = models.SmallCNN(width=2)
    train.fit(model, split, split, epochs=number, batch_size=10, transform=transform,
              loss_fn=loss_fn)  # fmt: skip
    return teacher


def flips(images, *, generator):
    flipped = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(3), images)


def test_pays_with_plain_pictures_and_flips_but_not_with_randaugment():
    plain, flipped = epochs(None), epochs(flips, number=6)
    augmented = epochs(BatchRandAugment(2, 10))
    assert (plain.hits, plain.misses) == (80, 40)
    assert flipped.misses <= 80
    assert flipped.hits >= 160
    assert augmented.hits < 0.1 * augmented.misses


def test_answers_are_carried_to_another_run():
    teacher, _ = cached()
    first = teacher(pictures())
    keys, logits = teacher.answers()
    assert keys.dtype == torch.uint8
    assert tuple(keys.shape) == (12, 16)
    other, seen = cached()
    other(pictures()[:2])
    other.remember_(keys, logits)
    other.remember_(keys, logits)
    assert torch.equal(other(pictures())[2:], first[2:])
    assert seen == [2]
    assert len(other.answers()[0]) == 12


def test_empty_answers():
    teacher, _ = cached()
    keys, logits = teacher.answers()
    assert (len(keys), len(logits)) == (0, 0)
    teacher.remember_(keys, logits)
    assert teacher(pictures()).shape == (12, 10)


def test_wrong_answers_and_teachers_are_refused():
    teacher, _ = cached()
    with pytest.raises(ValueError, match=r"keys must be uint8 of shape \(2, 16\).*\(1, 16\)"):
        teacher.remember_(torch.zeros(1, 16, dtype=torch.uint8), torch.zeros(2, 10))
    with pytest.raises(ValueError, match=r"keys must be uint8.*got torch\.int64"):
        teacher.remember_(torch.zeros(2, 16, dtype=torch.int64), torch.zeros(2, 10))
    with pytest.raises(TypeError, match="teacher must be a Teacher, got SmallCNN"):
        CachedTeacher(network())


# -- DistillationLoss -----------------------------------------------------------------------------


def test_it_is_kd_loss_of_the_teachers_answers():
    teacher, split = Teacher(network()), digits()
    logits = torch.randn(12, 10, generator=make_generator(0))
    loss = DistillationLoss(teacher, temperature=3, alpha=0.2)(logits, split.labels, split.images)
    expected = distill.kd_loss(
        logits, teacher(split.images), split.labels, temperature=3, alpha=0.2
    )
    assert torch.equal(loss, expected)


def fit(folder, teacher=None, *, student=0, more=1, temperature=4.0, alpha=0.1, name="run.pt"):
    teacher = Teacher(network(5)) if teacher is None else teacher
    loss_fn = DistillationLoss(teacher, temperature=temperature, alpha=alpha)
    model, split = models.SmallCNN(width=2, seed=student), digits(20)
    path = None if folder is None else folder / name
    train.fit(model, split, split, epochs=more, batch_size=10, loss_fn=loss_fn, checkpoint=path)
    return model, teacher


def test_training_leaves_the_teacher_as_it_was():
    teacher = Teacher(network(5))
    before = state(teacher)
    student, _ = fit(None, teacher, more=2)
    assert same(state(teacher), before)
    assert not same(state(student), state(models.SmallCNN(width=2, seed=0)))


def test_without_labels_the_student_goes_to_its_teacher():
    """alpha = 0, many steps on few pictures."""
    teacher, split = Teacher(network(5)), digits(20)
    student = models.SmallCNN(width=4, seed=1)

    def distance():
        with torch.no_grad():
            logits = student.eval()(split.images)
        answers = teacher(split.images)
        return distill.kd_terms(logits, answers, split.labels, temperature=1, alpha=0).soft.item()

    before = distance()
    loss_fn = DistillationLoss(teacher, temperature=4, alpha=0)
    train.fit(student, split, split, epochs=30, batch_size=20, lr=0.05, loss_fn=loss_fn)
    assert distance() < 0.2 * before


@pytest.mark.parametrize("remember", [False, True])
def test_a_checkpoint_is_taken_up_again(tmp_path, remember):
    """Also by a teacher that has seen pictures meanwhile."""
    make = (lambda: CachedTeacher(Teacher(network(5)))) if remember else lambda: None
    first, teacher = fit(tmp_path, make())
    teacher(pictures(3, seed=9))
    again, _ = fit(tmp_path, teacher)  # all done: nothing but the stored weights
    assert same(state(first), state(again))


@pytest.mark.parametrize(
    "changed",
    [
        {"teacher": lambda: Teacher(network(6))},
        {"teacher": lambda: CachedTeacher(Teacher(network(5)))},
        {"temperature": 2.0},
        {"alpha": 0.5},
    ],
    ids=["weights", "cached", "temperature", "alpha"],
)
def test_a_checkpoint_knows_its_teacher_and_settings(tmp_path, changed):
    fit(tmp_path)
    if "teacher" in changed:
        changed = {"teacher": changed["teacher"]()}
    with pytest.raises(ValueError, match=r"belongs to other settings: loss_fn was"):
        fit(tmp_path, **changed)


def test_it_is_no_part_of_the_student():
    student, _ = fit(None)
    assert state(student).keys() == state(models.SmallCNN(width=2)).keys()


def test_wrong_losses():
    with pytest.raises(TypeError, match=r"got SmallCNN; wrap it: Teacher\(model\)"):
        DistillationLoss(network(), temperature=1, alpha=0)
    with pytest.raises(TypeError, match="teacher must be a Teacher or a CachedTeacher, got NoneT"):
        DistillationLoss(None, temperature=1, alpha=0)
    with pytest.raises(ValueError, match="temperature must be"):
        DistillationLoss(Teacher(network()), temperature=0, alpha=0)
    with pytest.raises(ValueError, match="alpha must be"):
        DistillationLoss(Teacher(network()), temperature=1, alpha=2)


def test_no_global_state():
    before = torch.get_rng_state()
    fit(None, CachedTeacher(Teacher(Ensemble([network(0), network(1)]))))
    distill.make_regressor(2, 3, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
