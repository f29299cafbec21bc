"""Where gradients explode and vanish: a network that must remember its first input.

The same matrix acts in every step. If it makes vectors longer by the factor s, a gradient that
goes back through T steps is s**T times as long: for T = 30, 237 times with s = 1.2, and a
billionth with s = 0.5.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rac_helpers._check import check_generator, check_int, check_number
from rac_helpers.rng import make_generator
from rac_helpers.tune.clipping import ClipNorm


class RecallNet(nn.Module):
    """A linear recurrent network: ``h = W h + u x`` in each step, and one logit at the end.

    Parameters
    ----------
    hidden : int
        Length of ``h``, at least 1.
    scale : float
        ``W`` starts as ``scale`` times an orthogonal matrix, above 0: it makes each vector
        longer, or shorter, by just this factor.
    seed : int
        Of the first weights.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Examples
    --------
    >>> RecallNet(8, scale=1.0, seed=0)(torch.zeros(2, 5)).shape
    torch.Size([2])
    """

    def __init__(self, hidden: int = 16, *, scale: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        check_int("hidden", hidden, low=1)
        if check_number("scale", scale) <= 0:
            raise ValueError(f"scale must be a finite number > 0, got {scale}")
        generator = make_generator(seed)
        square = torch.linalg.qr(torch.randn(hidden, hidden, generator=generator)).Q
        self.recurrent = nn.Parameter(scale * square)
        self.input = nn.Parameter(torch.randn(hidden, generator=generator))
        self.output = nn.Parameter(torch.randn(hidden, generator=generator) / hidden**0.5)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits ``(B,)`` for sequences ``(B, T)``."""
        return self.states(inputs)[-1] @ self.output

    def states(self, inputs: Tensor) -> list[Tensor]:
        """Return ``h`` after each step, T tensors ``(B, hidden)``."""
        found, state = [], inputs.new_zeros(len(inputs), len(self.input))
        for step in range(inputs.shape[1]):
            state = state @ self.recurrent.T + inputs[:, step, None] * self.input
            found.append(state)
        return found


def recall_task(
    num: int, num_steps: int, *, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sequences and what to recall: whether they began with 1 or -1. The rest is noise.

    Parameters
    ----------
    num, num_steps : int
        At least 1.
    generator : torch.Generator
        Source of the draws.

    Returns
    -------
    inputs, labels : torch.Tensor
        float32 ``(num, num_steps)``, and 0 or 1 as float32 ``(num,)``.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    Examples
    --------
    >>> inputs, labels = recall_task(3, 5, generator=torch.Generator().manual_seed(0))
    >>> torch.equal(inputs[:, 0], 2 * labels - 1)
    True
    """
    check_int("num", num, low=1)
    check_int("num_steps", num_steps, low=1)
    inputs = 0.1 * torch.randn(num, num_steps, generator=check_generator(generator))
    labels = torch.randint(2, (num,), generator=generator).float()
    inputs[:, 0] = 2 * labels - 1
    return inputs, labels


def norms_back(net: RecallNet, num_steps: int) -> list[float]:
    """Return how long the gradient of the logit is at ``h`` of each step, the first step first.

    Parameters
    ----------
    net : RecallNet
        Not changed.
    num_steps : int
        Length of the sequence, at least 1.

    Returns
    -------
    list of float
        ``num_steps`` norms; as the network is linear, they do not depend on its inputs.

    Examples
    --------
    >>> first, *_, last = norms_back(RecallNet(scale=0.5), 11)
    >>> round(last / first)  # 2**10
    1024
    """
    inputs = torch.ones(1, check_int("num_steps", num_steps, low=1))
    states = net.states(inputs)
    gradients = torch.autograd.grad((states[-1] @ net.output).sum(), states)
    return [gradient.norm().item() for gradient in gradients]


def train_recall(
    net: RecallNet,
    *,
    generator: torch.Generator,
    lr: float = 0.5,
    num_updates: int = 300,
    num_steps: int = 30,
    max_norm: float = math.inf,
) -> dict[str, float]:
    """Train ``net`` in place with plain SGD, batches of 32, and say how it went.

    Parameters
    ----------
    net : RecallNet
        Changed in place.
    generator : torch.Generator
        Draws the sequences.
    lr : float
        Above 0; it stays the same.
    num_updates : int
        At least 1. The training ends before if the loss or a weight is not finite.
    num_steps : int
        Length of the sequences.
    max_norm : float
        Bound for the norm of the gradient; infinity does not clip.

    Returns
    -------
    dict
        ``accuracy`` on 1,000 new sequences (that of guessing, 0.5, if the training diverged),
        ``diverged`` (0 or 1), ``median_norm`` of the gradients before clipping, ``clipped_share``
        of the steps.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range, or ``generator`` is none.

    Examples
    --------
    >>> one = {"lr": 0.5, "num_updates": 30}
    >>> free = train_recall(RecallNet(scale=1.5), generator=make_generator(0), **one)
    >>> bound = train_recall(RecallNet(scale=1.5), generator=make_generator(0), max_norm=1, **one)
    >>> free["diverged"], bound["diverged"], bound["clipped_share"] > 0
    (1, 0, True)
    """
    clip = ClipNorm(torch.finfo(torch.float64).max if max_norm == math.inf else max_norm)
    if check_number("lr", lr) <= 0:
        raise ValueError(f"lr must be a finite number > 0, got {lr}")
    optimizer = torch.optim.SGD(net.parameters(), lr)
    diverged = 0
    for step in range(1, check_int("num_updates", num_updates, low=1) + 1):
        inputs, labels = recall_task(32, num_steps, generator=generator)
        loss = F.binary_cross_entropy_with_logits(net(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        clip(net, step)
        optimizer.step()
        finite = all(number.isfinite().all() for number in (loss, *net.parameters()))
        if not (finite and math.isfinite(clip.norms[-1])):
            diverged = 1
            break
    norms = torch.tensor(clip.norms, dtype=torch.float64)
    return {
        "accuracy": 0.5 if diverged else _accuracy(net, num_steps, generator),
        "diverged": diverged,
        "median_norm": norms[norms.isfinite()].median().item(),
        "clipped_share": (norms > max_norm).double().mean().item(),
    }


@torch.no_grad()
def _accuracy(net: RecallNet, num_steps: int, generator: torch.Generator) -> float:
    inputs, labels = recall_task(1000, num_steps, generator=generator)
    return ((net(inputs) > 0) == labels.bool()).double().mean().item()
