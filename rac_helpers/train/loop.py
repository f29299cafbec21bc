"""Train an image classifier: one plain loop that knows no method.

Methods enter through four doors: ``transform`` changes the images (augmentation), ``loss_fn``
the goal (distillation), ``before_step`` the gradients (clipping), ``after_step`` the weights
(pruning masks). The recipe is the usual one for small networks: SGD with Nesterov momentum, and a
learning rate that falls along a cosine.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import nn

from rac_helpers._check import check_int
from rac_helpers._progress import progress_bar
from rac_helpers.metrics.score import batches_of_logits, check_split, count_hits, device_of
from rac_helpers.rng import derive_seed, scoped_seed
from rac_helpers.train.checkpoint import Checkpoint
from rac_helpers.train.recipe import Recipe

if TYPE_CHECKING:
    from tqdm import tqdm

    from rac_helpers.data import Split


def fit(
    model: nn.Module,
    train: Split,
    validation: Split,
    *,
    epochs: int,
    batch_size: int = 128,
    lr: float = 0.1,
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    transform: Callable[..., torch.Tensor] | None = None,
    loss_fn: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    before_step: Callable[[nn.Module, int], object] | None = None,
    after_step: Callable[[nn.Module, int], object] | None = None,
    patience: int | None = None,
    checkpoint: str | os.PathLike | None = None,
    seed: int = 0,
    progress: bool | None = None,
) -> list[dict[str, float]]:
    """Train ``model`` in place and return what happened in each epoch.

    All randomness of an epoch comes from ``seed`` and the number of the epoch, so a run that was
    killed and resumed ends with the same weights as an unbroken one. No global random state is
    touched. The model is left in eval mode, ready to be measured.

    Parameters
    ----------
    model : nn.Module
        Takes uint8 images ``(B, 3, H, W)``, returns logits ``(B, num_classes)``. Trained on the
        device of its parameters; each batch is moved there. Parameters with
        ``requires_grad=False`` stay as they are.
    train, validation : Split
        uint8 images ``(n, 3, H, W)`` and int64 labels ``(n,)`` in ``[0, num_classes)``.
    epochs, batch_size : int
        At least 1. Batches are nearly equal in size and hold at most ``batch_size`` images.
    lr : float
        Learning rate of the first step, above 0. It falls to 0 along half a cosine [1]_.
    momentum : float
        Nesterov momentum, in ``[0, 1]``; 0 is plain SGD.
    weight_decay : float
        Factor of the L2 penalty, at least 0.
    transform : callable, optional
        ``transform(images, *, generator)``: uint8 ``(B, 3, H, W)`` in, the same shape out.
    loss_fn : callable, optional
        ``loss_fn(logits, labels, images)`` returns a scalar; default cross-entropy. The
        validation loss is cross-entropy always.
    before_step : callable, optional
        ``before_step(model, step)`` between the backward pass and the step, to look at the
        gradients or change them in place. Else as ``after_step``, with the number of the step to
        come.
    after_step : callable, optional
        ``after_step(model, step)`` after each step, without gradients. ``step`` counts the steps
        done (1, 2, ...) and counts on after a resume. What it must remember belongs into the
        model's buffers, which the checkpoint holds.
    patience : int, optional
        Stop after this many epochs without a better validation accuracy (a lower loss decides
        between equals) and restore the best weights. ``None`` trains to the end and keeps the
        last weights.
    checkpoint : path, optional
        File written after each epoch. If it exists, training goes on from there, if settings,
        data and the weights of ``model`` at the call are those it began with: build the model
        anew, with the same seed. Callables count by code, defaults and the variables they close
        over; what they read from global variables is not seen. Nothing is hashed without a file.
    seed : int
        At least 0.
    progress : bool, optional
        A bar on stderr. ``None`` shows it in a terminal or a notebook, unless the environment
        variable ``RAC_STATIC_BUILD`` or ``CI`` is set.

    Returns
    -------
    list of dict
        For each epoch: ``epoch`` (1, 2, ...), ``lr`` (of its first step), ``train_loss``,
        ``train_accuracy``, ``val_loss``, ``val_accuracy``, ``seconds``.

    Raises
    ------
    TypeError, ValueError
        If a setting, the data, or what a callable returns does not fit, or if the checkpoint is
        damaged or belongs to other settings.
    OSError
        If the checkpoint cannot be written. Found out before the training begins.
    RuntimeError
        If a loss is not finite. The checkpoint keeps the epochs finished before.

    References
    ----------
    .. [1] Loshchilov, Hutter: SGDR: Stochastic Gradient Descent with Warm Restarts, ICLR 2017.

    Examples
    --------
    >>> class Tiny(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.linear = nn.Linear(3 * 4 * 4, 2)
    ...     def forward(self, images):
    ...         return self.linear(images.flatten(1) / 255 - 0.5)
    >>> images = torch.zeros(64, 3, 4, 4, dtype=torch.uint8)
    >>> images[32:] = 255  # 32 black images, then 32 white ones
    >>> split = (images, torch.arange(64) // 32)
    >>> history = fit(Tiny(), split, split, epochs=3, batch_size=16)
    >>> [row["epoch"] for row in history], history[-1]["val_accuracy"]
    ([1, 2, 3], 1.0)
    """
    doors = (transform, loss_fn, before_step, after_step)
    recipe = Recipe(epochs, batch_size, lr, momentum, weight_decay, *doors, seed)
    patience = None if patience is None else check_int("patience", patience, low=1)
    check_split("train", train, model=model)
    check_split("validation", validation, model=model)
    optimizer = recipe.optimizer(model)
    settings = recipe.settings() | {"patience": patience}
    store = Checkpoint.of(checkpoint, model, settings, train=train, validation=validation)
    history, best = store.resume(model, optimizer)
    todo = (recipe.epochs - len(history)) * math.ceil(len(train[1]) / recipe.batch_size)
    with progress_bar(total=todo, desc="training", progress=progress) as bar:
        while len(history) < recipe.epochs and not _is_stale(history, patience):
            start, epoch = time.perf_counter(), len(history) + 1
            row = {"epoch": epoch, "lr": recipe.lr_at(epoch - 1)}
            row |= _train_epoch(model, optimizer, recipe, train, epoch=epoch, bar=bar)
            row |= _validate(model, validation, epoch)
            history.append(row | {"seconds": time.perf_counter() - start})
            if patience is not None and _best_epoch(history) == epoch:
                best = {name: value.clone() for name, value in model.state_dict().items()}
            store.save(model, optimizer, history, best)
    if patience is not None:
        model.load_state_dict(best)
    model.eval()
    return history


def _train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    train: Split,
    *,
    epoch: int,
    bar: tqdm,
) -> dict[str, float]:
    """Go once through the training images, in a new order."""
    order = torch.randperm(len(train[1]), generator=recipe.generator("order", epoch))
    batches = order.tensor_split(math.ceil(len(order) / recipe.batch_size))
    draws = recipe.generator("transform", epoch)
    loss_sum, hits, seen = 0.0, 0, 0
    model.train()
    with scoped_seed(derive_seed(recipe.seed, "dropout", epoch)):
        for number, index in enumerate(batches):
            for group in optimizer.param_groups:
                group["lr"] = recipe.lr_at(epoch - 1 + number / len(batches))
            step = (epoch - 1) * len(batches) + number + 1
            images, labels = _batch(model, train, index)
            images = recipe.transformed(images, generator=draws)
            loss, right = _step(model, optimizer, recipe, images, labels, epoch=epoch, step=step)
            loss_sum, hits, seen = loss_sum + loss * len(index), hits + right, seen + len(index)
            bar.set_postfix(epoch=epoch, loss=loss_sum / seen, accuracy=hits / seen, refresh=False)
            bar.update()
    return {"train_loss": loss_sum / seen, "train_accuracy": hits / seen}


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    epoch: int,
    step: int,
) -> tuple[float, int]:
    """Take one step downhill; return the loss and the number of right answers before it."""
    logits = model(images)
    loss = recipe.loss(logits, labels, images)
    _check_finite(loss.item(), f"in epoch {epoch}, step {step}")
    optimizer.zero_grad()
    loss.backward()
    _call(recipe.before_step, model, step)
    optimizer.step()
    _call(recipe.after_step, model, step)
    return loss.item(), count_hits(logits, labels)


def _call(hook: Callable | None, model: nn.Module, step: int) -> None:
    if hook is not None:
        with torch.no_grad():
            hook(model, step)


def evaluate(model: nn.Module, split: Split, *, batch_size: int = 500) -> dict[str, float]:
    """Return the mean cross-entropy and the accuracy of ``model`` on ``split``.

    Parameters
    ----------
    model : nn.Module
        Takes uint8 images ``(B, 3, H, W)``, returns logits ``(B, num_classes)``. Used in eval
        mode; its own mode is restored.
    split : Split
        uint8 images ``(n, 3, H, W)`` and int64 labels ``(n,)``, ``n >= 1``.
    batch_size : int
        At least 1. The result does not depend on it beyond rounding.

    Returns
    -------
    dict
        ``loss`` and ``accuracy``, a fraction in ``[0, 1]``.

    Raises
    ------
    TypeError, ValueError
        If the data do not fit the model.

    Examples
    --------
    >>> class Constant(nn.Module):
    ...     def forward(self, images):
    ...         return torch.tensor([[0.0, 0.0]]).expand(len(images), 2)
    >>> images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    >>> result = evaluate(Constant(), (images, torch.tensor([0, 0, 0, 1])))
    >>> round(result["loss"], 4), result["accuracy"]  # loss: log(2)
    (0.6931, 0.75)
    """
    check_int("batch_size", batch_size, low=1)
    check_split("split", split, model=model)
    return _evaluate(model, split, batch_size)


def _evaluate(model: nn.Module, split: Split, batch_size: int) -> dict[str, float]:
    loss_sum, hits = 0.0, 0
    for logits, labels in batches_of_logits(model, split, batch_size=batch_size):
        loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
        hits += count_hits(logits, labels)
    return {"loss": loss_sum / len(split[1]), "accuracy": hits / len(split[1])}


def _batch(
    model: nn.Module, split: Split, index: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pick some images with their labels and bring them to the model's device."""
    images, labels = split
    return images[index].to(device_of(model)), labels[index].to(device_of(model))


def _check_finite(loss: float, where: str) -> None:
    if not math.isfinite(loss):
        raise RuntimeError(
            f"the loss is {loss} {where}; a lower lr often helps. "
            "A checkpoint keeps the epochs finished before"
        )


def _validate(model: nn.Module, validation: Split, epoch: int) -> dict[str, float]:
    scores = _evaluate(model, validation, batch_size=500)
    _check_finite(scores["loss"], f"in the validation after epoch {epoch}")
    return {f"val_{name}": value for name, value in scores.items()}


def _best_epoch(history: list[dict[str, float]]) -> int:
    """Number of the epoch with the highest accuracy, then the lowest loss, then the first."""
    return max(history, key=lambda row: (row["val_accuracy"], -row["val_loss"]))["epoch"]


def _is_stale(history: list[dict[str, float]], patience: int | None) -> bool:
    """Whether the last ``patience`` epochs brought nothing better."""
    if patience is None or not history:
        return False
    return len(history) - _best_epoch(history) >= patience
