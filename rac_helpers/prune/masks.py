"""W' = m ⊙ W: the mask m as an object.

A mask holds True where a weight is kept and False where it is cut. A :class:`MaskSet` holds one
mask for each layer that it cuts. How masks are chosen stands in ``builders`` (single weights) and
``groups`` (whole channels).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping

import numpy as np
import safetensors.torch
import torch
from torch import nn

from rac_helpers._check import check_not_shared
from rac_helpers.prune.weights import check_module, prunable
from rac_helpers.records import write_atomically


class MaskSet(Mapping[str, torch.Tensor]):
    """Masks by the names of the weights they belong to; it never changes.

    The pruned model is the same model with zeros in its weights, W' = m ⊙ W. Training fills the
    zeros again, by the gradient, by the optimizer's momentum, by the steps of Adam. So a mask set
    can be called like ``after_step`` of ``train.fit``, which puts the zeros back
    after each step. To go on without masks, stop calling it: nothing is hidden in the model, so
    there is nothing to remove (``torch.nn.utils.prune`` hides the weights in ``weight_orig`` and a
    hook, which its ``remove`` takes away). To undo the cut, load the weights from before.

    Parameters
    ----------
    masks : mapping of str to torch.Tensor
        Bool tensors of the weights' shapes, True = kept. They are copied. Not every layer needs a
        mask: what has none is not touched.

    Raises
    ------
    TypeError, ValueError
        If there is no mask, or one is no bool tensor, or is empty.

    Examples
    --------
    >>> layer = nn.Linear(3, 1)
    >>> masks = MaskSet({"weight": torch.tensor([[True, False, False]])})
    >>> masks.apply_(layer)
    >>> layer.weight.ne(0).tolist(), round(masks.sparsity, 3)
    ([[True, False, False]], 0.667)
    """

    def __init__(self, masks: Mapping[str, torch.Tensor]) -> None:
        if not isinstance(masks, Mapping):
            raise TypeError(f"masks must be a mapping of names, got {type(masks).__name__}")
        if not masks:
            raise ValueError("masks must hold at least one mask, got none")
        for name, mask in masks.items():
            if not isinstance(mask, torch.Tensor) or mask.dtype != torch.bool:
                got = mask.dtype if isinstance(mask, torch.Tensor) else type(mask).__name__
                raise TypeError(f"masks[{name!r}] must be a tensor of bools, got {got}")
            if mask.numel() == 0:
                raise ValueError(f"masks[{name!r}] must not be empty, got {tuple(mask.shape)}")
        self._masks = {str(name): mask.detach().clone() for name, mask in masks.items()}

    def __getitem__(self, name: str) -> torch.Tensor:
        """Return a copy of the mask of one weight."""
        return self._masks[name].clone()

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, MaskSet):
            return NotImplemented
        same_names = self._masks.keys() == other._masks.keys()
        return same_names and all(torch.equal(m, other._masks[n]) for n, m in self._masks.items())

    __hash__ = None

    def __and__(self, other: MaskSet) -> MaskSet:
        """Keep what both keep. A weight without a mask in one of them counts as kept there."""
        if not isinstance(other, MaskSet):
            return NotImplemented
        both = {n: _both(n, m, other._masks[n]) for n, m in self._masks.items() if n in other}
        return MaskSet(self._masks | other._masks | both)

    def __repr__(self) -> str:
        total = sum(mask.numel() for mask in self._masks.values())
        return f"MaskSet: {len(self)} layers, {self.sparsity:.1%} of {total:,} weights cut"

    @property
    def sparsity(self) -> float:
        """Share of the weights that are cut, in [0, 1], among those that have a mask."""
        kept = sum(int(mask.sum()) for mask in self._masks.values())
        return 1 - kept / sum(mask.numel() for mask in self._masks.values())

    def sparsity_by_layer(self) -> dict[str, float]:
        """Return the share of the weights that are cut, layer by layer.

        Returns
        -------
        dict of str to float
            In [0, 1]; 1 means that nothing gets through the layer any more but its bias.

        Examples
        --------
        >>> masks = MaskSet({"a": torch.tensor([True, False]), "b": torch.ones(3).bool()})
        >>> masks.sparsity_by_layer()
        {'a': 0.5, 'b': 0.0}
        """
        return {name: 1 - int(m.sum()) / m.numel() for name, m in self._masks.items()}

    def to(self, device: torch.device | str) -> MaskSet:
        """Return the same masks on another device, so that each step need not copy them."""
        return MaskSet({name: mask.to(device) for name, mask in self._masks.items()})

    def check(self, model: nn.Module) -> dict[str, nn.Parameter]:
        """Return the parameters of ``model`` that have a mask, or raise if the masks do not fit.

        Parameters
        ----------
        model : nn.Module
            It may have more parameters than there are masks.

        Returns
        -------
        dict of str to nn.Parameter
            The model's own tensors, not copies.

        Raises
        ------
        TypeError, ValueError
            If the masks are of another model, or a weight of theirs is shared or not plain.
        """
        parameters = {n: v for n, v in check_module(model).named_parameters() if n in self._masks}
        for name, mask in self._masks.items():
            if name not in parameters:
                pruned = f"{name}_orig" in dict(model.named_parameters())
                hint = "; call torch.nn.utils.prune.remove first" if pruned else ""
                raise ValueError(f"masks are of another model: it has no parameter {name!r}{hint}")
            if mask.shape != parameters[name].shape:
                raise ValueError(
                    f"masks are of another model: {name!r} has shape "
                    f"{tuple(parameters[name].shape)} there, got a mask of {tuple(mask.shape)}"
                )
        check_not_shared(model, parameters)
        return parameters

    @torch.no_grad()
    def apply_(self, model: nn.Module) -> None:
        """Set the weights that are cut to zero.

        Parameters
        ----------
        model : nn.Module
            Changed in place, its gradients and optimizer are not.

        Raises
        ------
        TypeError, ValueError
            As ``check``. The model is not touched then.
        """
        for name, weight in self.check(model).items():
            cut = ~self._masks[name].to(weight.device)
            weight.masked_fill_(cut, 0)  # m ⊙ W, but without -0.0, and NaN becomes 0, too

    def __call__(self, model: nn.Module, step: int = 0) -> None:
        """Put the zeros back after an optimizer's step, as ``after_step`` of ``train.fit``.

        Parameters
        ----------
        model : nn.Module
            Changed in place.
        step : int
            Not used: these masks are the same at each step.
        """
        self.apply_(model)

    def save(self, path: str | os.PathLike) -> None:
        """Write the masks to a safetensors file, one bit a weight; the file is whole or not there.

        Parameters
        ----------
        path : path
            The folder must exist.

        Raises
        ------
        OSError
            If the file cannot be written.
        """
        bits = {name: torch.from_numpy(np.packbits(m.cpu())) for name, m in self._masks.items()}
        shapes = json.dumps({name: list(mask.shape) for name, mask in self._masks.items()})
        notes = {"shapes": shapes, "sha256": _digest(shapes, bits)}
        write_atomically(path, safetensors.torch.save(bits, notes))

    @classmethod
    def load(cls, path: str | os.PathLike) -> MaskSet:
        """Read the masks that ``save`` wrote.

        Parameters
        ----------
        path : path
            The file.

        Raises
        ------
        OSError
            If the file cannot be read.
        ValueError
            If it is damaged or holds no masks.

        Examples
        --------
        >>> import tempfile
        >>> masks = MaskSet({"weight": torch.tensor([[True, False, False]])})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     masks.save(f"{folder}/masks.safetensors")
        ...     print(MaskSet.load(f"{folder}/masks.safetensors") == masks)
        True
        """
        message = f"{str(path)!r} is damaged or was not written by MaskSet.save"
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                notes = file.metadata() or {}
                bits = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise ValueError(message) from error
        if notes.get("sha256") != _digest(notes.get("shapes", ""), bits):
            raise ValueError(message)
        shapes = json.loads(notes["shapes"])
        return cls({name: _unpack(bits[name], shape) for name, shape in shapes.items()})


def _both(name: str, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    if (a := tuple(one.shape)) != (b := tuple(other.shape)):  # & would broadcast them
        raise ValueError(f"masks of {name!r} must have one shape, got {a} and {b}")
    return one & other


def _digest(shapes: str, bits: Mapping[str, torch.Tensor]) -> str:
    digest = hashlib.sha256(shapes.encode())
    for name in sorted(bits):
        digest.update(f"{name} {bits[name].dtype} ".encode())
        digest.update(bits[name].numpy())
    return digest.hexdigest()


def _unpack(bits: torch.Tensor, shape: list[int]) -> torch.Tensor:
    flat = np.unpackbits(bits.numpy(), count=math.prod(shape)).astype(bool)
    return torch.from_numpy(flat).reshape(shape)


def check_masks(masks: MaskSet) -> MaskSet:
    """Return ``masks`` if they are a :class:`MaskSet`, else raise.

    Examples
    --------
    >>> check_masks({"weight": torch.tensor([True])})
    Traceback (most recent call last):
    TypeError: masks must be a MaskSet, got dict
    """
    if not isinstance(masks, MaskSet):
        raise TypeError(f"masks must be a MaskSet, got {type(masks).__name__}")
    return masks


def nonzero_masks(model: nn.Module) -> MaskSet:
    """Return the masks that a model's own zeros show: a weight that is not zero was kept.

    Parameters
    ----------
    model : nn.Module
        For example one whose pruned weights were loaded from a file.

    Returns
    -------
    MaskSet
        One mask for each weight of :func:`prunable`.

    Raises
    ------
    TypeError, ValueError
        As :func:`prunable`.

    Examples
    --------
    >>> layer = nn.Linear(4, 4)
    >>> MaskSet({"weight": torch.eye(4).bool()}).apply_(layer)
    >>> nonzero_masks(layer)
    MaskSet: 1 layers, 75.0% of 16 weights cut
    """
    return MaskSet({name: weight != 0 for name, weight in prunable(model).items()})
