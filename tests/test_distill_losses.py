"""kd_loss against torch, against the article's worked example, and against Hinton's section 2."""

import functools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from rac_helpers.distill import kd_loss, kd_terms, printed_kd_loss, soft_targets
from rac_helpers.rng import make_generator

# E27: the article's numbers
STUDENT = torch.tensor([[0.10, 0.20, 0.70]], dtype=torch.float64).log()
TEACHER = torch.tensor([[0.05, 0.15, 0.80]], dtype=torch.float64).log()
LABEL = torch.tensor([2])


def batch(seed, n=6, classes=5, scale=3.0, dtype=torch.float64):
    generator = make_generator(seed)
    draw = functools.partial(torch.randn, n, classes, generator=generator, dtype=dtype)
    labels = torch.randint(classes, (n,), generator=generator)
    return scale * draw(), scale * draw(), labels


def gradient(loss_fn, student, *others, **settings):
    student = student.clone().requires_grad_()
    loss_fn(student, *others, **settings).backward()
    return student.grad


@pytest.mark.parametrize("temperature", [0.5, 1, 4.0, 20])
@pytest.mark.parametrize("alpha", [0, 0.3, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_as_torch(temperature, alpha, dtype):
    student, teacher, labels = batch(0, dtype=dtype)
    soft = F.kl_div(
        F.log_softmax(student / temperature, dim=1),
        F.log_softmax(teacher / temperature, dim=1),
        log_target=True,
        reduction="batchmean",
    )
    expected = alpha * F.cross_entropy(student, labels) + (1 - alpha) * temperature**2 * soft
    loss = kd_loss(student, teacher, labels, temperature=temperature, alpha=alpha)
    torch.testing.assert_close(loss, expected)
    assert loss.shape == ()
    assert loss.dtype == dtype


def test_printed_as_torch_with_swapped_arguments():
    student, teacher, labels = batch(1)
    swapped = F.kl_div(
        teacher.log_softmax(1), student.log_softmax(1), log_target=True, reduction="batchmean"
    )
    expected = 0.3 * F.cross_entropy(student, labels) + 0.7 * swapped
    torch.testing.assert_close(printed_kd_loss(student, teacher, labels, alpha=0.3), expected)


def test_soft_targets_as_torch():
    logits, *_ = batch(2)
    torch.testing.assert_close(soft_targets(logits, 3), F.softmax(logits / 3, dim=1))


def test_the_worked_example():
    """E27: as printed; in the right direction; at T = 4 with T²."""
    numbers = [
        printed_kd_loss(STUDENT, TEACHER, LABEL, alpha=0.5),
        kd_loss(STUDENT, TEACHER, LABEL, temperature=1, alpha=0.5),
        kd_loss(STUDENT, TEACHER, LABEL, temperature=4, alpha=0.5),
    ]
    assert [round(x.item(), 5) for x in numbers] == [0.19503, 0.19285, 0.20615]
    terms = kd_terms(STUDENT, TEACHER, LABEL, temperature=1, alpha=0.5)
    assert [round(x.item(), 5) for x in terms] == [0.35667, 0.02902, 0.19285]
    printed = 2 * numbers[0] - terms.hard
    assert round(printed.item(), 5) == 0.03338


def test_the_gradients_of_the_worked_example():
    """E27: p - t in the right direction, something else as printed."""
    right = gradient(kd_loss, STUDENT, TEACHER, LABEL, temperature=1, alpha=0)
    printed = gradient(printed_kd_loss, STUDENT, TEACHER, LABEL, alpha=0)
    expected = torch.tensor([[0.05, 0.05, -0.10]], dtype=torch.float64)
    torch.testing.assert_close(right, expected)
    assert [round(x, 3) for x in printed.flatten().tolist()] == [0.066, 0.051, -0.117]


def test_probabilities_for_log_probabilities_give_nonsense():
    """E27: the number that F.kl_div gives without a warning."""
    wrong = F.kl_div(STUDENT.exp(), TEACHER.exp(), reduction="batchmean")
    assert round(wrong.item(), 3) == -1.208
    assert kd_terms(STUDENT, TEACHER, LABEL, temperature=1, alpha=0).soft > 0


# -- Hinton, section 2 ----------------------------------------------------------------------------


def centred(seed, scale):
    student, teacher, labels = batch(seed, n=1, scale=scale)
    return student - student.mean(), teacher - teacher.mean(), labels


def test_high_temperature_matches_logits_and_does_not_depend_on_it():
    """With T² the gradient tends to (z - v) / N, for centred logits that are small against T."""
    student, teacher, labels = centred(3, scale=1.0)
    limit = (student - teacher) / student.shape[1]
    grads = {
        t: gradient(kd_loss, student, teacher, labels, temperature=t, alpha=0)
        for t in (1.0, 100.0, 200.0)
    }
    torch.testing.assert_close(grads[100.0], limit, rtol=0.05, atol=1e-3)
    torch.testing.assert_close(grads[200.0], grads[100.0], rtol=0.05, atol=1e-3)
    far = (grads[1.0] - limit).norm() / limit.norm()
    assert far > 0.2, "at T = 1 it is another gradient"


def test_the_limit_needs_centred_logits():
    """An offset changes no probability, and no gradient, but z - v."""
    student, teacher, labels = centred(3, scale=1.0)
    moved = gradient(kd_loss, student + 5, teacher, labels, temperature=200.0, alpha=0)
    still = gradient(kd_loss, student, teacher, labels, temperature=200.0, alpha=0)
    torch.testing.assert_close(moved, still)
    wrong = (student + 5 - teacher) / student.shape[1]
    assert (moved - wrong).norm() > (moved).norm()


def test_without_the_factor_the_gradient_vanishes():
    student, teacher, labels = centred(4, scale=1.0)
    sizes = [
        gradient(kd_loss, student, teacher, labels, temperature=t, alpha=0).norm() / t**2
        for t in (50.0, 100.0)
    ]
    assert sizes[0] / sizes[1] == pytest.approx(4, rel=0.05)


# -- properties -----------------------------------------------------------------------------------

SEEDS = st.integers(0, 10_000)
TEMPERATURES = st.floats(0.5, 50)
ALPHAS = st.floats(0, 1)


@given(SEEDS, TEMPERATURES)
def test_equal_logits_are_no_distance(seed, temperature):
    logits, _, labels = batch(seed)
    terms = kd_terms(logits, logits.clone(), labels, temperature=temperature, alpha=0.5)
    assert terms.soft.item() == 0
    shifted = kd_terms(logits, logits + 3, labels, temperature=temperature, alpha=0.5)
    assert abs(shifted.soft.item()) < 1e-9


@given(SEEDS, TEMPERATURES, ALPHAS)
def test_terms_are_distances_and_add_up(seed, temperature, alpha):
    student, teacher, labels = batch(seed)
    terms = kd_terms(student, teacher, labels, temperature=temperature, alpha=alpha)
    assert terms.hard > 0
    assert terms.soft > 0
    total = alpha * terms.hard + (1 - alpha) * terms.soft
    torch.testing.assert_close(terms.total, total)
    swapped = kd_terms(teacher, student, labels, temperature=temperature, alpha=alpha)
    assert not torch.isclose(swapped.soft, terms.soft, rtol=1e-6)


@given(SEEDS, TEMPERATURES)
def test_temperature_keeps_the_order_and_flattens(seed, temperature):
    logits, *_ = batch(seed)
    soft, softer = soft_targets(logits, temperature), soft_targets(logits, 2 * temperature)
    torch.testing.assert_close(soft.sum(dim=1), torch.ones(6, dtype=torch.float64))
    assert torch.equal(soft.argsort(dim=1), logits.argsort(dim=1))
    assert (softer.amax(dim=1) < soft.amax(dim=1)).all()
    entropy = [-(p * p.log()).sum(dim=1) for p in (soft, softer)]
    assert (entropy[1] > entropy[0]).all()


@given(SEEDS, TEMPERATURES, ALPHAS)
def test_a_batch_is_the_mean_of_its_pictures(seed, temperature, alpha):
    student, teacher, labels = batch(seed)
    loss = functools.partial(kd_loss, temperature=temperature, alpha=alpha)
    single = [loss(s[None], t[None], y[None]) for s, t, y in zip(student, teacher, labels)]  # noqa: B905
    torch.testing.assert_close(loss(student, teacher, labels), torch.stack(single).mean())


def test_soft_loss_is_cross_entropy_with_soft_targets_up_to_a_constant():
    student, teacher, labels = batch(5)
    soft = gradient(kd_loss, student, teacher, labels, temperature=3, alpha=0)
    student = student.clone().requires_grad_()
    (9 * F.cross_entropy(student / 3, soft_targets(teacher, 3))).backward()
    torch.testing.assert_close(soft, student.grad)


# -- what comes in --------------------------------------------------------------------------------


def test_nothing_is_written_and_the_teacher_gets_no_gradient():
    student, teacher, labels = batch(6)
    before = [x.clone() for x in (student, teacher, labels)]
    student.requires_grad_()
    teacher.requires_grad_()
    kd_loss(student, teacher, labels, temperature=2, alpha=0.5).backward()
    printed_kd_loss(student, teacher, labels, alpha=0.5).backward()
    assert student.grad is not None
    assert teacher.grad is None
    assert all(
        torch.equal(x.detach(), y) for x, y in zip((student, teacher, labels), before, strict=True)
    )


def test_half_precision_is_computed_in_full():
    """T² times what bfloat16 rounds away would be noise."""
    student, teacher, labels = batch(7, dtype=torch.float32)
    student, teacher = student.bfloat16(), teacher.bfloat16()
    got = kd_loss(student, teacher, labels, temperature=8, alpha=0)
    exact = kd_loss(student.double(), teacher.double(), labels, temperature=8, alpha=0)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(exact.item(), rel=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        again = kd_loss(student, teacher, labels, temperature=8, alpha=0)
    assert again.item() == pytest.approx(exact.item(), rel=1e-4)


def test_extreme_logits_stay_finite():
    student = torch.tensor([[1000.0, -1000.0, 0.0]], requires_grad=True)
    teacher = torch.tensor([[-1000.0, 1000.0, 0.0]])
    loss = kd_loss(student, teacher, torch.tensor([1]), temperature=1, alpha=0.5)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(student.grad).all()


GOOD = {"student_logits": torch.zeros(2, 3), "teacher_logits": torch.zeros(2, 3)}
GOOD |= {"labels": torch.tensor([0, 2]), "temperature": 4.0, "alpha": 0.1}


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("temperature", 0, ValueError, "temperature must be a finite number > 0, got 0"),
        ("temperature", -1.0, ValueError, "temperature must be .* > 0, got -1.0"),
        ("temperature", float("inf"), ValueError, "temperature must be a finite number, got inf"),
        ("temperature", "4", TypeError, "temperature must be a finite number, got '4'"),
        ("alpha", 1.1, ValueError, r"alpha must be a finite number in \[0, 1\], got 1.1"),
        ("alpha", -0.1, ValueError, r"alpha must be a finite number in \[0, 1\], got -0.1"),
        ("alpha", None, TypeError, "alpha must be .*, got None"),
        ("student_logits", [[0.0]], TypeError, "student_logits must be floats .*, got list"),
        (
            "student_logits",
            torch.zeros(2, 3, dtype=torch.int64),
            TypeError,
            "student_logits must be floats .*, got torch.int64",
        ),
        ("teacher_logits", torch.zeros(3), ValueError, r"teacher_logits must have .*, got \(3,\)"),
        (
            "teacher_logits",
            torch.zeros(2, 4),
            ValueError,
            r"teacher_logits must have the shape \(2, 3\) of student_logits, got \(2, 4\)",
        ),
        ("labels", torch.tensor([0, 3]), ValueError, r"labels must be in \[0, 2\], got 3"),
        ("labels", torch.tensor([0.0, 1.0]), TypeError, "labels must be an int64 tensor"),
        ("labels", torch.tensor([0]), ValueError, r"labels must have shape \(2,\), got \(1,\)"),
    ],
)
def test_wrong_arguments(name, value, error, message):
    with pytest.raises(error, match=message):
        kd_loss(**GOOD | {name: value})
    with pytest.raises(error, match=message):
        kd_terms(**GOOD | {name: value})
    if name != "temperature":
        printed = {key: given for key, given in GOOD.items() if key != "temperature"}
        with pytest.raises(error, match=message):
            printed_kd_loss(**printed | {name: value})


def test_an_empty_batch_is_refused():
    empty = torch.zeros(0, 3)
    with pytest.raises(ValueError, match=r"n >= 1, got \(0, 3\)"):
        kd_loss(empty, empty, torch.zeros(0, dtype=torch.int64), temperature=1, alpha=0)
    with pytest.raises(ValueError, match="temperature must be"):
        soft_targets(torch.zeros(1, 2), 0)
    with pytest.raises(TypeError, match="logits must be floats"):
        soft_targets(torch.zeros(1, 2, dtype=torch.int32), 1)
