"""The best matrix of low rank, by the singular value decomposition.

A matrix ``W`` of shape ``(m, n)`` is a sum of ``min(m, n)`` matrices of rank one, each with its
weight, the singular value. Keep the ``r`` largest and nothing of rank ``r`` comes closer to ``W``;
the distance is the norm of the values that were left out (Eckart and Young).
"""

from __future__ import annotations

import torch

from rac_helpers._check import check_floats, check_int


def truncated_svd(
    matrix: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Return the ``rank`` largest singular values with their directions.

    .. math:: W \approx U_r \, \mathrm{diag}(s_r) \, V_r^\top

    Parameters
    ----------
    matrix : torch.Tensor
        Floats of shape ``(m, n)``, all finite.
    rank : int
        In ``[1, min(m, n)]``.

    Returns
    -------
    tuple of torch.Tensor
        ``left`` of shape ``(m, rank)``, ``values`` of shape ``(rank,)``, falling, and ``right`` of
        shape ``(rank, n)``, all float64. Pairs of directions may have either sign.

    Raises
    ------
    TypeError, ValueError
        If the matrix or the rank is not as described.

    References
    ----------
    Eckart and Young, 1936. The approximation of one matrix by another of lower rank.

    Examples
    --------
    >>> matrix = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]])
    >>> left, values, right = truncated_svd(matrix, rank=1)
    >>> values, left.shape, right.shape
    (tensor([4.], dtype=torch.float64), torch.Size([3, 1]), torch.Size([1, 2]))
    """
    check_matrix("matrix", matrix)
    check_int("rank", rank, low=1, high=min(matrix.shape))
    left, values, right = torch.linalg.svd(_wide(matrix), full_matrices=False)
    return left[:, :rank], values[:rank], right[:rank]


def singular_values(matrix: torch.Tensor) -> torch.Tensor:
    """Return all singular values of a matrix, the largest first.

    Parameters
    ----------
    matrix : torch.Tensor
        Floats of shape ``(m, n)``, all finite.

    Returns
    -------
    torch.Tensor
        float64 of shape ``(min(m, n),)``, at least 0.

    Raises
    ------
    TypeError, ValueError
        If the matrix is not as described.

    Examples
    --------
    >>> singular_values(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
    tensor([4., 3.], dtype=torch.float64)
    """
    return torch.linalg.svdvals(_wide(check_matrix("matrix", matrix)))


def split_matrix(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return two factors whose product is the best matrix of that rank.

    Each singular value is shared: its square root goes into either factor, so that both have the
    same size. A fine-tuning with weight decay then pulls at both alike.

    Parameters
    ----------
    matrix : torch.Tensor
        Floats of shape ``(m, n)``, all finite.
    rank : int
        In ``[1, min(m, n)]``.

    Returns
    -------
    tuple of torch.Tensor
        ``first`` of shape ``(rank, n)``, which meets the input first, and ``last`` of shape
        ``(m, rank)``, both float64; ``last @ first`` is close to ``matrix``.

    Raises
    ------
    TypeError, ValueError
        If the matrix or the rank is not as described.

    Examples
    --------
    >>> matrix = torch.tensor([[1.0, 2.0], [2.0, 4.0], [3.0, 6.0]])  # each row: once, twice, ...
    >>> first, last = split_matrix(matrix, rank=1)
    >>> torch.allclose(last @ first, matrix.double())
    True
    """
    left, values, right = truncated_svd(matrix, rank)
    root = values.sqrt()
    return root[:, None] * right, left * root  # (rank, n), (m, rank)


def energy(values: torch.Tensor) -> torch.Tensor:
    """Return for each rank the share of the squared norm that it keeps.

    Parameters
    ----------
    values : torch.Tensor
        All singular values of a matrix, the largest first: shape ``(k,)``, at least one.

    Returns
    -------
    torch.Tensor
        float64 of shape ``(k,)``, rising to 1. The entry at ``r - 1`` belongs to rank ``r``. Of a
        matrix of zeros nothing can be lost: 1 everywhere.

    Raises
    ------
    TypeError, ValueError
        If the values are not as described.

    Examples
    --------
    >>> energy(torch.tensor([4.0, 3.0, 0.0]))  # 16 / 25, 25 / 25
    tensor([0.6400, 1.0000, 1.0000], dtype=torch.float64)
    """
    squares = _check_values(values).square().cumsum(0)
    return squares / squares[-1] if squares[-1] > 0 else torch.ones_like(squares)


def truncation_error(values: torch.Tensor, rank: int) -> float:
    """Return the norm of the difference that a rank leaves: the root of the squares left out.

    Parameters
    ----------
    values : torch.Tensor
        All singular values of a matrix, the largest first: shape ``(k,)``, at least one.
    rank : int
        In ``[0, k]``.

    Returns
    -------
    float
        The Frobenius norm of the matrix minus the best one of that rank; 0 at full rank.

    Raises
    ------
    TypeError, ValueError
        If the values or the rank are not as described.

    Examples
    --------
    >>> truncation_error(torch.tensor([12.0, 4.0, 3.0]), rank=1)  # of 16 + 9
    5.0
    """
    values = _check_values(values)
    check_int("rank", rank, low=0, high=len(values))
    return float(values[rank:].norm())


def check_matrix(name: str, matrix: torch.Tensor) -> torch.Tensor:
    """Return ``matrix`` if it holds finite floats in two dimensions, else raise.

    Examples
    --------
    >>> check_matrix("matrix", torch.zeros(3))
    Traceback (most recent call last):
    ValueError: matrix must have shape (m, n) with m, n >= 1, got (3,)
    """
    check_floats(name, matrix)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"{name} must have shape (m, n) with m, n >= 1, got {tuple(matrix.shape)}")
    if not matrix.isfinite().all():
        raise ValueError(f"{name} must hold finite numbers only, got inf or nan")
    return matrix


def _wide(matrix: torch.Tensor) -> torch.Tensor:
    """Double precision, on the processor: some accelerators know neither this nor the SVD."""
    return matrix.detach().to("cpu", torch.float64)


def _check_values(values: torch.Tensor) -> torch.Tensor:
    check_floats("values", values)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values must have shape (k,) with k >= 1, got {tuple(values.shape)}")
    values = _wide(values)
    if not values.isfinite().all() or bool((values < 0).any()):
        raise ValueError("values must be finite numbers >= 0, got others among them")
    if bool((values.diff() > 0).any()):
        raise ValueError("values must be falling, the largest first, got a larger one later")
    return values
