"""The checks of chapter 06 accept right answers in several styles and reject typical mistakes."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rac_helpers import distill, exercises
from rac_helpers.exercises import Hint

# -- soften ---------------------------------------------------------------------------------------


def right_soften(logits, temperature):
    return (logits / temperature).softmax(1)


def soften_by_hand(logits, temperature):
    powers = torch.exp((logits - logits.amax(1, keepdim=True)) / temperature)
    return powers / powers.sum(1, keepdim=True)


def soften_in_float64(logits, temperature):
    return F.softmax(logits.double() / temperature, dim=-1)


def soften_by_logsumexp(logits, temperature):
    wide = logits / temperature
    return (wide - wide.logsumexp(1, keepdim=True)).exp()


def _overflows(logits, temperature):
    powers = torch.exp(logits / temperature)
    return powers / powers.sum(1, keepdim=True)


def _soften_in_place(logits, temperature):
    return logits.div_(temperature).softmax(1)


def _powers(logits, temperature):
    return logits.softmax(1) ** (1 / temperature)


# -- the loss -------------------------------------------------------------------------------------


def right_loss(s, t, y, T, a, *, reduction="batchmean", power=2):
    soft = F.kl_div((s / T).log_softmax(1), (t / T).softmax(1), reduction=reduction)
    return a * F.cross_entropy(s, y) + (1 - a) * T**power * soft


def loss_by_log_target(s, t, y, T, a):
    log_s, log_t = F.log_softmax(s / T, dim=1), F.log_softmax(t / T, dim=1)
    soft = F.kl_div(log_s, log_t, reduction="sum", log_target=True) / len(s)
    return a * F.cross_entropy(s, y) + (1 - a) * soft * T * T


def loss_by_hand(s, t, y, T, a):
    hard = -s.log_softmax(1)[torch.arange(len(y)), y].mean()
    log_p, log_q = (t / T).log_softmax(1), (s / T).log_softmax(1)
    soft = (log_p.exp() * (log_p - log_q)).sum(1).mean()
    return a * hard + (1 - a) * T**2 * soft


def loss_in_float64(s, t, y, T, a):
    return distill.kd_loss(s.double(), t.double(), y, temperature=T, alpha=a)


def _loss(soft, *, hard=F.cross_entropy):
    """Answer with another soft part (or hard part): ``soft(s / T, t / T)``, times T²."""

    def kd_loss(s, t, y, T, a):
        return a * hard(s, y) + (1 - a) * T**2 * soft(s / T, t / T)

    return kd_loss


def _kl(ours, theirs, **options):
    """Call F.kl_div on ready arguments."""
    return F.kl_div(ours, theirs, reduction="batchmean", **options)


def _weights(function):
    """Answer with other weights of the two right parts."""

    def kd_loss(s, t, y, T, a):
        terms = distill.kd_terms(s, t, y, temperature=T, alpha=a)
        return function(terms.hard, terms.soft, a)

    return kd_loss


def _heat(ours, theirs):
    """Answer with the logits divided by other temperatures."""

    def kd_loss(s, t, y, T, a):
        soft = _kl((s / ours(T)).log_softmax(1), (t / theirs(T)).softmax(1))
        return a * F.cross_entropy(s, y) + (1 - a) * T**2 * soft

    return kd_loss


def _hard_at_temperature(s, t, y, T, a):
    return right_loss(s, t, y, T, a) + a * (F.cross_entropy(s / T, y) - F.cross_entropy(s, y))


def _hard_of_the_teacher(s, t, y, T, a):
    return right_loss(s, t, y, T, a) + a * (F.cross_entropy(t, y) - F.cross_entropy(s, y))


def _no_square_and_no_heat(s, t, y, T, a):
    return a * F.cross_entropy(s, y) + (1 - a) * _kl((s / T).log_softmax(1), t.softmax(1))


def _cut_off(s, t, y, T, a):
    hard = F.cross_entropy(s, y)
    return right_loss(s, t, y, T, a) - a * (hard - hard.detach())


def _in_place(s, t, y, T, a):
    loss = right_loss(s, t, y, T, a)
    t.div_(T)
    return loss + 0 * t.sum()


def _swapped(s, t):
    return _kl(t.log_softmax(1), s.softmax(1))


# -- the gradient ---------------------------------------------------------------------------------


def right_gradient(s, t, T):
    return T * ((s / T).softmax(0) - (t / T).softmax(0))


def gradient_by_autograd(s, t, T):
    s = s.clone().requires_grad_()
    soft = F.kl_div((s / T).log_softmax(0), (t / T).softmax(0), reduction="sum")
    return torch.autograd.grad(T**2 * soft, s)[0]


def _gradient(function):
    return lambda s, t, T: function((s / T).softmax(0), (t / T).softmax(0), T)


# -- the teacher ----------------------------------------------------------------------------------


def right_answers(teacher, images):
    teacher.eval()
    with torch.no_grad():
        return teacher(images)


def answers_detached(teacher, images):
    return teacher.eval()(images).detach()


def answers_by_package(teacher, images):
    return distill.Teacher(teacher)(images)


def answers_and_mode_restored(teacher, images):
    training = teacher.training
    teacher.eval()
    with torch.inference_mode():
        logits = teacher(images)
    teacher.train(training)
    return logits


def _in_train_mode(teacher, images):
    return teacher.train()(images).detach()


def _statistics_put_back(teacher, images):
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    logits = teacher.train()(images).detach()
    teacher.load_state_dict(before)
    return logits


def _weights_changed(teacher, images):
    with torch.no_grad():
        next(teacher.parameters()).mul_(2) if next(iter(teacher.parameters())).numel() else None
    return right_answers(teacher, images)


def _after(function):
    return lambda teacher, images: function(right_answers(teacher, images))


# -- attention maps -------------------------------------------------------------------------------


def right_map(features):
    return distill.attention_map(features)


def map_from_the_sum(features):
    maps = (features**2).sum(dim=1)
    return maps / maps.flatten(1).norm(dim=1).view(-1, 1, 1)


def map_by_normalize(features):
    maps = features.pow(2).mean(1)
    return F.normalize(maps.flatten(1)).view_as(maps)


def _unit(maps):
    return maps / maps.flatten(1).norm(dim=1)[:, None, None]


RIGHT = {
    "soften": [
        right_soften,
        soften_by_hand,
        soften_in_float64,
        soften_by_logsumexp,
        distill.soft_targets,
    ],
    "kd_loss": [right_loss, loss_by_log_target, loss_by_hand, loss_in_float64],
    "soft_gradient": [right_gradient, gradient_by_autograd],
    "teacher_answers": [
        right_answers,
        answers_detached,
        answers_by_package,
        answers_and_mode_restored,
    ],
    "attention_map": [right_map, map_from_the_sum, map_by_normalize],
}

WRONG = {
    "soften": [
        (lambda z, T: z.softmax(1), "whatever the temperature"),
        (lambda z, T: (z * T).softmax(1), "do not multiply"),
        (lambda z, T: z.softmax(1) / T, "not the probabilities"),
        (lambda z, T: (z.softmax(1) / T).softmax(1), "softmax of probabilities"),
        (lambda z, T: z.softmax(1).softmax(1), "softmax of probabilities"),  # that of T = 1
        (_powers, "divided by their sum"),
        (lambda z, T: (z / T**2).softmax(1), "not by T²"),
        (lambda z, T: (z / T).log_softmax(1), "logarithms"),
        (lambda z, T: (z / T).exp(), "exp alone"),
        (lambda z, T: (z / T).softmax(0), "not over the pictures"),
        (lambda z, T: (z / T).flatten().softmax(0).reshape(z.shape), "not over all"),
        (lambda z, T: z / T, "softmax is missing"),
        (lambda z, T: (z / T).sigmoid(), "rows must sum to 1"),
        (lambda z, T: right_soften(z, T) * torch.nan, "rows must sum to 1"),
        (lambda z, T: right_soften(z, T + 1), "off by up to"),
        (_overflows, "overflow"),
        (_soften_in_place, "were changed"),
        (lambda z, T: right_soften(z, T)[:, :2], "must have the shape"),
        (lambda z, T: right_soften(z, T).argmax(1), "must be|must have"),
        (lambda z, T: right_soften(z, T).numpy(), "floats, got ndarray"),
        (lambda z: z, "raised TypeError"),
    ],
    "kd_loss": [
        # the mutations of the issue
        (_loss(_swapped), "teacher and student are swapped"),
        (lambda s, t, *rest: right_loss(t, s, *rest), "swapped.*the student's, not the teacher's"),
        (lambda *args: right_loss(*args, power=0), "T² is missing"),
        (_loss(lambda s, t: _kl(s.softmax(1), t.softmax(1))), "probabilities for log-prob.*first"),
        (
            _loss(lambda s, t: _kl(s.softmax(1), t.softmax(1), log_target=True)),
            "probabilities for log-probabilities: with log_target=True",
        ),
        (lambda *args: right_loss(*args, reduction="mean"), "`mean` divides.*`batchmean`"),
        # others
        (lambda *args: right_loss(*args, power=1), "not T$"),
        (lambda *args: right_loss(*args, reduction="sum"), "number of pictures: `batchmean`"),
        (_loss(lambda s, t: _kl(s, t.softmax(1))), "log_softmax is missing"),
        (_loss(lambda s, t: _kl(s.log_softmax(1), t.log_softmax(1))), "is NaN: .*log_target=True"),
        (
            _loss(lambda s, t: F.cross_entropy(s, t.softmax(1))),
            "cross-entropy with the teacher: not 0",
        ),
        (_loss(lambda s, t: -_kl(s.log_softmax(1), t.softmax(1))), "wrong sign"),
        (
            _loss(lambda s, t: (s.softmax(1) - t.softmax(1)).square().sum(1).mean()),
            "squared difference",
        ),
        (_weights(lambda hard, soft, a: (1 - a) * hard + a * soft), "alpha is the weight of the"),
        (_weights(lambda hard, soft, a: a * hard + soft), "soft part has the weight 1 - alpha"),
        (_weights(lambda hard, soft, a: a * hard), "soft part is missing"),
        (_heat(lambda T: 1, lambda T: 1), "here they are at 1"),
        (_heat(lambda T: T, lambda T: 1), "teacher's logits must be divided"),
        (_heat(lambda T: 1, lambda T: T), "student's logits must be divided"),
        (_hard_at_temperature, "logits as they are"),
        (
            _loss(
                lambda s, t: _kl(s.log_softmax(1), t.softmax(1)),
                hard=lambda s, y: F.cross_entropy(s.softmax(1), y),
            ),
            "own softmax",
        ),
        (
            _loss(
                lambda s, t: _kl(s.log_softmax(1), t.softmax(1)),
                hard=lambda s, y: F.cross_entropy(s, y, reduction="sum"),
            ),
            "mean over the pictures, not the sum",
        ),
        (_hard_of_the_teacher, "the student's, not the teacher's"),
        # two at once
        (_no_square_and_no_heat, "T² is missing.*; the teacher's logits must be divided"),
        (lambda s, t, y, T, a: a * F.cross_entropy(s, y) + (1 - a) * _swapped(s, t), "swapped"),
        # value and gradient
        (lambda *args: right_loss(*args).item(), "must be a tensor that backward"),
        (lambda *args: right_loss(*args).detach(), "no gradient reaches the student"),
        (lambda *args: right_loss(*args).detach().requires_grad_(), "no gradient reaches"),
        (_cut_off, "wrong gradient"),
        (_in_place, "logits were changed"),
        (lambda *args: right_loss(*args)[None], r"scalar.*got shape \(1,\)"),
        (lambda *args: right_loss(*args, reduction="none"), "must be a scalar"),
        (lambda *args: right_loss(*args) + 1, "too large"),
        (lambda *args: right_loss(*args) * 0, "too small"),
        (lambda s, t: s, "raised TypeError"),
    ],
    "soft_gradient": [
        (_gradient(lambda p, q, T: T * (q - p)), "wrong sign"),
        (lambda s, t, T: s.softmax(0) - t.softmax(0), "here they are at 1"),
        (lambda s, t, T: T * (s.softmax(0) - t.softmax(0)), "only the factor"),
        (_gradient(lambda p, q, T: p - q), "chain rule and T² leave a factor"),
        (_gradient(lambda p, q, T: (p - q) / T), "T² is missing"),
        (_gradient(lambda p, q, T: T**2 * (p - q)), "chain rule is missing"),
        (_gradient(lambda p, q, T: T * (p - q) / len(p)), "no mean over the classes"),
        (lambda s, t, T: (s - t) / len(s), "limit for high T"),
        (lambda s, t, T: s - t, "softmax is missing"),
        (_gradient(lambda p, q, T: q * (q.log() - p.log())), "not its derivative"),
        (lambda *args: 2 * right_gradient(*args), "off by up to"),
        (lambda s, t, T: right_gradient(s.sub_(1), t, T), "were changed"),
        (lambda *args: right_gradient(*args)[None], "must have the shape"),
        (lambda *args: right_gradient(*args).tolist(), "floats, got list"),
        (lambda s: s, "raised TypeError"),
    ],
    "teacher_answers": [
        (lambda teacher, images: teacher(images).detach(), "running statistics have moved"),
        (_in_train_mode, "running statistics have moved"),
        (lambda teacher, images: teacher.eval()(images), "no_grad.. or detach"),
        (_statistics_put_back, "train mode: call eval"),
        (_weights_changed, "of the teacher was changed"),
        (_after(lambda z: z.softmax(1)), "these are probabilities"),
        (_after(lambda z: z.log_softmax(1)), "log-probabilities"),
        (_after(lambda z: F.one_hot(z.argmax(1), 5).float()), "decisions"),
        (_after(lambda z: z.argmax(1)), "must be|must have"),
        (_after(lambda z: 2 * z), "off by up to"),
        (_after(lambda z: z[:3]), "must have the shape"),
        (_after(lambda z: z.numpy()), "floats, got ndarray"),
        (lambda teacher: teacher, "raised TypeError"),
    ],
    "attention_map": [
        (lambda f: f.square().sum(1), "must sum to 1: divide by the root of their sum$"),
        (lambda f: f.square().mean(1), "mean over the channels"),
        (lambda f: f.square().sum(1) / f.square().sum(1).amax((1, 2), True), "not by the largest"),
        (
            lambda f: f.square().sum(1) / f.square().sum((1, 2, 3))[:, None, None],
            "not by their sum",
        ),
        (
            lambda f: f.square().sum(1) / f.square().sum(1).square().sum((1, 2))[:, None, None],
            "root is missing",
        ),
        (lambda f: _unit(f.sum(1)), "cancel"),
        (lambda f: _unit(f.abs().sum(1)), "not of the sizes"),
        (lambda f: _unit(f.norm(dim=1)), "without a root"),
        (lambda f: _unit(f.square().amax(1)), "not the largest alone"),
        (lambda f: f.square().sum(1) / f.square().sum(1).norm(), "not one for the batch"),
        (lambda f: _unit(f.square().sum(0)), "not over the pictures"),
        (lambda f: F.normalize(f.square().sum(1), dim=2), "not for each row"),
        (lambda f: F.normalize(f.square().sum(1)), "not for each column"),
        (lambda f: 2 * right_map(f), "off by up to"),
        (lambda f: right_map(f).flatten(1), "must have the shape"),
        (lambda f: right_map(f.square_()), "were changed"),
        (lambda f: right_map(f).tolist(), "floats, got list"),
    ],
}


def test_a_right_loss_is_accepted_without_gradients_around_it():
    with torch.no_grad():
        assert exercises.check_kd_loss(right_loss) == exercises.CORRECT


def test_a_teacher_with_dropout_alone_must_be_in_eval_mode():
    """Statistics that move show batch norm only."""

    def teacher_answers(teacher, images):
        if not any(isinstance(module, nn.Dropout) for module in teacher.modules()):
            teacher.eval()
        return teacher(images).detach()

    with pytest.raises(Hint, match="dropout is at work"):
        exercises.check_teacher_answers(teacher_answers)


OTHER = [None, [1.0], [[1], [2]], "ab", {"a": 1}, {1, 2}, True, 1j, float("nan"), 10**400, float]
OTHER += [torch.ones(3), np.ones((2, 2)), torch.tensor(True), (None, None), (1, torch.ones(2))]
OTHER += [torch.ones(4, 3), torch.tensor(1j), torch.tensor(float("nan"))]
