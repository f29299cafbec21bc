"""Four ways to store a tensor that is mostly zeros, as real bytes.

Zeros take as much room as other numbers, until they are left out. Then the places of the others
must be stored, and these bytes count, too. All four keep the weights as they are, 4 bytes each:

- dense: every weight, zeros included;
- bitmap: a bit for each weight, then those that are not zero;
- CSR: for each row how many weights came before, for each weight its column, then the weights;
- gaps: for each weight its distance from the one before, in a few bits, then the weights.

The shape of a tensor follows from the network and is not stored, in none of them.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from rac_helpers._check import check_int


def encode_dense(weights: torch.Tensor) -> bytes:
    """Store every weight in 4 bytes.

    Parameters
    ----------
    weights : torch.Tensor
        float32, any shape.

    Raises
    ------
    TypeError, ValueError
        If ``weights`` is no float32 tensor, or empty.

    Examples
    --------
    >>> len(encode_dense(torch.tensor([0.0, 1.5, 0.0])))
    12
    """
    return _numbers(weights).tobytes()


def decode_dense(stored: bytes, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the tensor that :func:`encode_dense` stored.

    Raises
    ------
    ValueError
        If the bytes do not fit the shape.

    Examples
    --------
    >>> decode_dense(encode_dense(torch.tensor([0.0, 1.5, 0.0])), (3,))
    tensor([0.0000, 1.5000, 0.0000])
    """
    return _tensor(_read(stored, "<f4", math.prod(shape), last=True)[0], shape)


def encode_bitmap(weights: torch.Tensor) -> bytes:
    """Store a bit for each weight, 1 where it is not zero, then those that are not.

    Parameters
    ----------
    weights : torch.Tensor
        float32, any shape.

    Raises
    ------
    TypeError, ValueError
        If ``weights`` is no float32 tensor, or empty.

    Examples
    --------
    >>> len(encode_bitmap(torch.tensor([0.0, 1.5, 0.0])))  # 1 + 4
    5
    """
    flat = _numbers(weights)
    return np.packbits(flat != 0).tobytes() + flat[flat != 0].tobytes()


def decode_bitmap(stored: bytes, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the tensor that :func:`encode_bitmap` stored.

    Raises
    ------
    ValueError
        If the bytes do not fit the shape.

    Examples
    --------
    >>> decode_bitmap(encode_bitmap(torch.tensor([0.0, 1.5, 0.0])), (3,))
    tensor([0.0000, 1.5000, 0.0000])
    """
    bits, rest = _read(stored, "u1", math.ceil(math.prod(shape) / 8))
    there = np.unpackbits(bits, count=math.prod(shape)).astype(bool)
    flat = np.zeros(math.prod(shape), dtype="<f4")
    flat[there] = _read(rest, "<f4", int(there.sum()), last=True)[0]
    return _tensor(flat, shape)


def encode_csr(weights: torch.Tensor) -> bytes:
    """Store row by row the columns of the weights that are not zero, and the weights.

    "Compressed sparse rows". A row is an output channel. For each row one number says how many
    weights the rows up to it have. Columns and these numbers take 1, 2 or 4 bytes, as few as
    the shape needs.

    Parameters
    ----------
    weights : torch.Tensor
        float32, of shape ``(out, ...)``.

    Raises
    ------
    TypeError, ValueError
        If ``weights`` is no float32 tensor, or empty.

    Examples
    --------
    >>> len(encode_csr(torch.tensor([[0.0, 1.5, 0.0], [2.0, 0.0, 0.0]])))  # 2 + 2 * (1 + 4)
    12
    """
    matrix = _numbers(weights).reshape(len(weights) if weights.ndim else 1, -1)
    rows, columns = matrix.nonzero()
    ends = np.bincount(rows, minlength=len(matrix)).cumsum()
    ends_type, column_type = _csr_types(matrix.shape)
    parts = ends.astype(ends_type), columns.astype(column_type), matrix[rows, columns]
    return b"".join(part.tobytes() for part in parts)


def decode_csr(stored: bytes, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the tensor that :func:`encode_csr` stored.

    Raises
    ------
    ValueError
        If the bytes do not fit the shape.

    Examples
    --------
    >>> decode_csr(encode_csr(torch.tensor([[0.0, 1.5], [2.0, 0.0]])), (2, 2))
    tensor([[0.0000, 1.5000],
            [2.0000, 0.0000]])
    """
    num_rows = shape[0] if shape else 1
    matrix = np.zeros((num_rows, math.prod(shape) // num_rows), dtype="<f4")
    ends_type, column_type = _csr_types(matrix.shape)
    ends, rest = _read(stored, ends_type, num_rows)
    counts = np.diff(ends.astype(np.int64), prepend=0)
    if (counts < 0).any():
        raise ValueError(f"stored bytes are damaged or not of shape {shape}: rows end too early")
    columns, rest = _read(rest, column_type, int(ends[-1]))
    values, _ = _read(rest, "<f4", int(ends[-1]), last=True)
    if (columns >= matrix.shape[1]).any():
        raise ValueError(f"stored bytes are damaged or not of shape {shape}: a column too far")
    matrix[np.arange(num_rows).repeat(counts), columns] = values
    return _tensor(matrix, shape)


def encode_gaps(weights: torch.Tensor, *, bits: int = 5) -> bytes:
    """Store the distances between weights that are not zero in a few bits each, and the weights.

    A distance above ``2 ** bits`` does not fit; a zero is stored as if it were a weight, as often
    as it takes. Few bits mean many such fillers, many bits are wasted on small distances.

    Parameters
    ----------
    weights : torch.Tensor
        float32, any shape, read row by row.
    bits : int
        In [1, 16]. Deep Compression has 8 for conv layers and 5 for linear ones.

    Raises
    ------
    TypeError, ValueError
        If ``weights`` is no float32 tensor, or empty; if ``bits`` is out of range.

    References
    ----------
    Han, Mao and Dally, 2016. Deep compression, section 2 and figure 2.

    Examples
    --------
    >>> weights = torch.zeros(16)
    >>> weights[[0, 3, 14]] = torch.tensor([3.4, 0.9, 1.7])  # 14 - 3 is above 2 ** 3: one filler
    >>> len(encode_gaps(weights, bits=3))  # their number in 4 bytes, 4 * 3 bits, 4 * 4 bytes
    22
    """
    check_int("bits", bits, low=1, high=16)
    flat = _numbers(weights)
    places = flat.nonzero()[0]
    gaps = np.diff(places, prepend=-1)
    fillers = (gaps - 1) >> bits  # how often the longest gap, 2 ** bits, goes in before the rest
    ends = (fillers + 1).cumsum() - 1
    codes = np.full(ends[-1] + 1 if len(ends) else 0, 2**bits - 1)  # a gap is stored minus 1
    codes[ends] = (gaps - 1) & (2**bits - 1)
    values = np.zeros(len(codes), dtype="<f4")
    values[ends] = flat[places]
    count = np.array([len(codes)], dtype="<u4")
    packed = np.packbits(codes[:, None] >> np.arange(bits) & 1)
    return count.tobytes() + packed.tobytes() + values.tobytes()


def decode_gaps(stored: bytes, shape: tuple[int, ...], *, bits: int = 5) -> torch.Tensor:
    """Return the tensor that :func:`encode_gaps` stored with the same number of ``bits``.

    Raises
    ------
    ValueError
        If the bytes do not fit the shape.

    Examples
    --------
    >>> decode_gaps(encode_gaps(torch.tensor([0.0, 1.5, 0.0])), (3,))
    tensor([0.0000, 1.5000, 0.0000])
    """
    check_int("bits", bits, low=1, high=16)
    count, rest = _read(stored, "<u4", 1)
    packed, rest = _read(rest, "u1", math.ceil(int(count[0]) * bits / 8))
    values, _ = _read(rest, "<f4", int(count[0]), last=True)
    codes = np.unpackbits(packed, count=len(values) * bits).reshape(-1, bits) @ 2 ** np.arange(bits)
    places = (codes + 1).cumsum() - 1
    if len(places) and places[-1] >= math.prod(shape):
        raise ValueError(f"stored bytes are damaged or not of shape {shape}: a place too far")
    flat = np.zeros(math.prod(shape), dtype="<f4")
    flat[places] = values
    return _tensor(flat, shape)


def _numbers(weights: torch.Tensor) -> np.ndarray:
    """The weights row by row, with the lowest byte first on every machine."""
    if not isinstance(weights, torch.Tensor) or weights.dtype != torch.float32:
        got = weights.dtype if isinstance(weights, torch.Tensor) else type(weights).__name__
        raise TypeError(f"weights must be a float32 tensor, got {got}")
    if weights.numel() == 0:
        raise ValueError(f"weights must not be empty, got shape {tuple(weights.shape)}")
    return weights.detach().cpu().flatten().numpy().astype("<f4")


def _tensor(numbers: np.ndarray, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(numbers.astype(np.float32)).reshape(shape)


def _csr_types(shape: tuple[int, int]) -> tuple[str, str]:
    """The smallest types for a number of weights, up to all, and for a column."""
    return _smallest(shape[0] * shape[1]), _smallest(shape[1] - 1)


def _smallest(highest: int) -> str:
    return "u1" if highest < 2**8 else "<u2" if highest < 2**16 else "<u4"


def _read(stored: bytes, dtype: str, count: int, *, last: bool = False) -> tuple[np.ndarray, bytes]:
    """Take ``count`` numbers from the front; return them and what is left."""
    size = count * np.dtype(dtype).itemsize
    if len(stored) < size or (last and len(stored) > size):
        raise ValueError(
            f"stored bytes are damaged or of another shape: {size} bytes must follow, "
            f"got {len(stored)}"
        )
    return np.frombuffer(stored, dtype, count), stored[size:]
