"""How to compare the features of a student with those of a teacher: three ideas.

- the numbers themselves, through a small layer that is trained along (:func:`hint_loss`);
- where in the picture something happens, over all channels (:func:`attention_loss`);
- how far apart the pictures of a batch are from each other (:func:`relational_loss`).

The last two need no layer in between: they compare networks of any width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rac_helpers._check import check_floats, check_int
from rac_helpers.distill.losses import at_least_float32
from rac_helpers.rng import scoped_seed


def make_regressor(in_channels: int, out_channels: int, *, seed: int) -> nn.Conv2d:
    """Return the layer between a hint and what the student puts out there: a 1x1 convolution.

    Parameters
    ----------
    in_channels, out_channels : int
        Channels of the student's layer and of the teacher's, at least 1.
    seed : int
        The same seed gives the same starting weights.

    Returns
    -------
    torch.nn.Conv2d
        For :class:`WithFeatures`; trained along with the student.

    Raises
    ------
    TypeError, ValueError
        If a number is out of range.

    References
    ----------
    Romero et al., 2015. FitNets: hints for thin deep nets, section 2.2. (There the regressor is as
    large as the two layers differ in size; with equal sizes that is 1x1.)

    Examples
    --------
    >>> make_regressor(8, 32, seed=0)(torch.zeros(2, 8, 16, 16)).shape
    torch.Size([2, 32, 16, 16])
    """
    check_int("in_channels", in_channels, low=1)
    check_int("out_channels", out_channels, low=1)
    with scoped_seed(seed):
        return nn.Conv2d(in_channels, out_channels, 1)


def hint_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the mean squared difference of two features of the same shape.

    Parameters
    ----------
    student, teacher : torch.Tensor
        Floats of one shape ``(n, ...)``, the student's after its regressor.

    Returns
    -------
    torch.Tensor
        Shape ``()``, at least 0.

    Raises
    ------
    TypeError, ValueError
        If they are no floats, or differ in shape.

    References
    ----------
    Romero et al., 2015. FitNets: hints for thin deep nets, equation 3. (There the sum, here the
    mean, so that the weight of this loss does not depend on the size of the layer.)

    Examples
    --------
    >>> hint_loss(torch.zeros(2, 3, 4, 4), torch.full((2, 3, 4, 4), 2.0))
    tensor(4.)
    """
    student, teacher = _check_features(student, teacher)
    if student.shape != teacher.shape:
        raise ValueError(
            f"student must have the shape {tuple(teacher.shape)} of teacher, "
            f"got {tuple(student.shape)}; a regressor in WithFeatures changes the channels"
        )
    return F.mse_loss(student, teacher.detach())


def attention_map(features: torch.Tensor) -> torch.Tensor:
    """Return where in each picture the channels are active: their mean square, of length 1.

    Parameters
    ----------
    features : torch.Tensor
        Floats of shape ``(n, channels, H, W)``.

    Returns
    -------
    torch.Tensor
        Shape ``(n, H, W)``; the squares of each picture sum to 1 (or to 0, if all is 0).

    Raises
    ------
    TypeError, ValueError
        If ``features`` are not as described.

    References
    ----------
    Zagoruyko and Komodakis, 2017. Paying more attention to attention, section 3.1 (sum of squares).

    Examples
    --------
    >>> features = torch.zeros(1, 2, 2, 2)
    >>> features[0, :, 0, 1] = torch.tensor([3.0, -4.0])
    >>> attention_map(features)
    tensor([[[0., 1.],
             [0., 0.]]])
    """
    features = _check_pictures("features", features)
    maps = features.square().mean(dim=1)  # (n, H, W)
    return F.normalize(maps.flatten(1), dim=1).unflatten(1, maps.shape[1:])


def attention_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return the squared distance of the two attention maps: the mean over the pictures.

    Parameters
    ----------
    student, teacher : torch.Tensor
        Floats of shape ``(n, channels, H, W)``. Only the channels may differ.

    Returns
    -------
    torch.Tensor
        Shape ``()``, in ``[0, 2]``.

    Raises
    ------
    TypeError, ValueError
        If they are no floats of such shapes.

    References
    ----------
    Zagoruyko and Komodakis, 2017. Paying more attention to attention, equation 2. (There the
    distance, in the authors' program its square.)

    Examples
    --------
    >>> features = torch.rand(2, 4, 8, 8)
    >>> attention_loss(3 * features, torch.cat([features, features], dim=1)).item() < 1e-6
    True
    """
    ours, theirs = attention_map(student), attention_map(teacher).detach()
    if ours.shape != theirs.shape:
        raise ValueError(
            f"student must have n, H, W = {tuple(theirs.shape)} as teacher, got {tuple(ours.shape)}"
        )
    return (ours - theirs).square().sum(dim=(1, 2)).mean()


def relational_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return how differently the pictures of a batch lie: RKD-D, the distances of all pairs.

    Distances are divided by their mean, so two networks may differ in scale and in width.

    Parameters
    ----------
    student, teacher : torch.Tensor
        Floats of shape ``(n, d)``, or ``(n, channels, H, W)``: then the mean over the picture.
        ``n >= 3``: of two pictures there is one distance, which is 1 when divided by its mean.

    Returns
    -------
    torch.Tensor
        Shape ``()``, at least 0: the mean Huber loss over the pairs.

    Raises
    ------
    TypeError, ValueError
        If they are no floats of such shapes.

    References
    ----------
    Park, Kim, Lu and Cho, 2019. Relational knowledge distillation, section 3.2.1.

    Examples
    --------
    >>> teacher = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])
    >>> relational_loss(torch.tensor([[0.0], [1.0], [2.0]]), teacher)
    tensor(0.0833)
    >>> relational_loss(10 * teacher, teacher)
    tensor(0.)
    """
    student, teacher = _check_features(student, teacher)
    if len(student) != len(teacher) or len(student) < 3:
        raise ValueError(
            "student and teacher must have the same n >= 3 pictures, "
            f"got {len(student)} and {len(teacher)}"
        )
    return F.smooth_l1_loss(_distances(student), _distances(teacher).detach())


def _distances(features: torch.Tensor) -> torch.Tensor:
    """Return the distances of all pairs, divided by their mean: shape (n (n - 1) / 2,)."""
    if features.ndim == 4:
        features = features.mean(dim=(2, 3))
    elif features.ndim != 2:
        raise ValueError(
            f"features must have shape (n, d) or (n, channels, H, W), got {tuple(features.shape)}"
        )
    distances = F.pdist(features)
    return distances / distances.mean().clamp(min=torch.finfo(distances.dtype).tiny)


def _check_features(
    student: torch.Tensor, teacher: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    return _check_floats("student", student), _check_floats("teacher", teacher)


def _check_pictures(name: str, features: torch.Tensor) -> torch.Tensor:
    features = _check_floats(name, features)
    if features.ndim != 4:
        raise ValueError(f"{name} must have shape (n, channels, H, W), got {tuple(features.shape)}")
    return features


def _check_floats(name: str, features: torch.Tensor) -> torch.Tensor:
    """Return features as float32, or float64 if they are."""
    check_floats(name, features)
    if not features.numel():
        raise ValueError(f"{name} must hold numbers, got shape {tuple(features.shape)}")
    return at_least_float32(features)
