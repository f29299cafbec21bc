"""Huffman coding: frequent codes take few bits, rare ones many; nothing is lost.

Weights are not spread evenly over their codes: most are near zero. A Huffman code gives each code
a word of a whole number of bits so that the sum is the smallest possible. It is stored as the
lengths of the words alone; the words follow from them ("canonical" code).

The bytes: number of codes (4), smallest and largest code (2 each), bits of a length (1), the
lengths of all codes from the smallest to the largest, then the words, highest bit first.
"""

from __future__ import annotations

import heapq
import struct

import numpy as np
import torch

from rac_helpers.quantize.bits import check_codes, check_integers, pack_bits, unpack_bits

_HEADER = struct.Struct("<IHHB")
_LONGEST = 56  # bits of a word that 8 bytes hold wherever in a byte it begins


def entropy_bits(codes: torch.Tensor) -> float:
    """Return the entropy of the codes in bits: what one of them takes at least, on average.

    Parameters
    ----------
    codes : torch.Tensor
        Integers, at least one.

    Raises
    ------
    TypeError, ValueError
        If ``codes`` are no integers, or none.

    References
    ----------
    Shannon, 1948. A mathematical theory of communication, section 7.

    Examples
    --------
    >>> entropy_bits(torch.tensor([0, 0, 0, 0, 1, 1, 2, 3]))
    1.75
    """
    if check_integers(codes).numel() == 0:
        raise ValueError("codes must not be empty, got none")
    shares = codes.unique(return_counts=True)[1].double() / codes.numel()
    return float((shares * -shares.log2()).sum())


def huffman_lengths(counts: torch.Tensor) -> torch.Tensor:
    """Return how many bits the word of each symbol has, so that the text is shortest.

    The two rarest symbols are joined into one, again and again; with each join the words of all
    symbols in it get one bit longer.

    Parameters
    ----------
    counts : torch.Tensor
        Integers >= 0, shape ``(n,)``: how often each symbol occurs.

    Returns
    -------
    torch.Tensor
        int32, shape ``(n,)``. 0 for symbols that do not occur, and for one that occurs alone.

    Raises
    ------
    TypeError, ValueError
        If ``counts`` are not as described.

    References
    ----------
    Huffman, 1952. A method for the construction of minimum-redundancy codes.

    Examples
    --------
    >>> huffman_lengths(torch.tensor([4, 2, 1, 1, 0]))
    tensor([1, 2, 3, 3, 0], dtype=torch.int32)
    """
    if check_codes(counts, high=torch.iinfo(torch.int64).max).ndim != 1:
        raise ValueError(f"counts must have shape (n,), got {tuple(counts.shape)}")
    heap = [(n, symbol, [symbol]) for symbol, n in enumerate(counts.tolist()) if n]
    heapq.heapify(heap)
    lengths, number = [0] * len(counts), len(counts)
    while len(heap) > 1:
        (n_first, _, first), (n_second, _, second) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in (joined := first + second):
            lengths[symbol] += 1
        # the running number decides between equal counts: the same on every machine
        heapq.heappush(heap, (n_first + n_second, number, joined))
        number += 1
    return torch.tensor(lengths, dtype=torch.int32)


def encode_huffman(codes: torch.Tensor) -> bytes:
    """Return the codes as Huffman words, with all that is needed to read them.

    Parameters
    ----------
    codes : torch.Tensor
        Integers in [0, 65535], any shape, taken row by row.

    Raises
    ------
    TypeError, ValueError
        If ``codes`` are no integers or out of range.

    References
    ----------
    Han, Mao and Dally, 2016. Deep compression, section 4.

    Examples
    --------
    >>> codes = torch.tensor([7, 7, 7, 7, 8, 8, 9, 10])
    >>> stored = encode_huffman(codes)
    >>> len(stored)  # 9, four lengths of 2 bits, 8 * 1.75 bits
    12
    """
    flat = check_codes(codes, high=2**16 - 1).detach().cpu().flatten().long()
    if not len(flat):
        return _HEADER.pack(0, 0, 0, 1)
    low, high = int(flat.min()), int(flat.max())
    lengths = huffman_lengths(torch.bincount(flat - low))
    width = max(1, int(lengths.max()).bit_length())
    words = _words(lengths.numpy())
    single = "".join([words[code] for code in (flat - low).tolist()])
    payload = np.packbits(np.frombuffer(single.encode(), dtype=np.uint8) - ord("0"))
    table = pack_bits(lengths, width) if high > low else torch.empty(0, dtype=torch.uint8)
    return _HEADER.pack(len(flat), low, high, width) + table.numpy().tobytes() + payload.tobytes()


def decode_huffman(stored: bytes) -> torch.Tensor:
    """Return the codes that :func:`encode_huffman` has stored.

    Returns
    -------
    torch.Tensor
        int32, flat.

    Raises
    ------
    TypeError, ValueError
        If ``stored`` is not bytes, or damaged in a way that can be seen.

    Examples
    --------
    >>> decode_huffman(encode_huffman(torch.tensor([7, 7, 8, 9])))
    tensor([7, 7, 8, 9], dtype=torch.int32)
    """
    if not isinstance(stored, bytes):
        raise TypeError(f"stored must be bytes, got {type(stored).__name__}")
    if len(stored) < _HEADER.size:
        raise _damaged(f"it begins with {_HEADER.size} bytes, got {len(stored)}")
    count, low, high, width = _HEADER.unpack_from(stored)
    rest = np.frombuffer(stored, dtype=np.uint8)[_HEADER.size :]
    if low > high or not 1 <= width <= 6:
        raise _damaged(f"codes from {low} to {high}, lengths of {width} bits")
    if low == high or not count:
        if len(rest):
            raise _damaged(f"{len(rest)} bytes too many")
        return torch.full((count,), low, dtype=torch.int32)
    table_bytes = -(-(high - low + 1) * width // 8)
    if len(rest) < table_bytes:
        raise _damaged("the table of lengths is not complete")
    table = torch.from_numpy(rest[:table_bytes].copy())
    lengths = unpack_bits(table, width, high - low + 1)
    if not torch.equal(pack_bits(lengths, width), table) or not (lengths[0] and lengths[-1]):
        raise _damaged("a longer table of lengths than it takes")
    lengths = lengths.numpy()
    return torch.from_numpy(_read(rest[table_bytes:], lengths, count) + low).to(torch.int32)


def _words(lengths: np.ndarray) -> dict[int, str]:
    """The words of a canonical code as texts of 0 and 1: shorter ones first, then in order."""
    order = _order(lengths)
    if len(order) == 0:
        return {0: ""}  # one symbol only: its number says all
    words, value, before = {}, 0, int(lengths[order[0]])
    for symbol in order.tolist():
        length = int(lengths[symbol])
        value <<= length - before
        words[symbol] = format(value, f"0{length}b")
        value, before = value + 1, length
    return words


def _order(lengths: np.ndarray) -> np.ndarray:
    used = lengths.nonzero()[0]
    return used[np.argsort(lengths[used], kind="stable")]


def _read(payload: np.ndarray, lengths: np.ndarray, count: int) -> np.ndarray:
    """Look up which word begins at each bit, then jump from word to word."""
    order = _order(lengths)
    if (longest := int(lengths.max())) > _LONGEST:
        raise _damaged("no such lengths of words")
    shares = 1 << (longest - lengths[order].astype(np.int64))  # of all words of that length
    if sum(shares.tolist()) != 1 << longest:
        raise _damaged("the lengths of words make no code")
    first = np.cumsum(shares) - shares  # where the words begin, filled up with 0
    number_of_bits = 8 * len(payload)
    if count > number_of_bits:
        raise _damaged(f"{count} words in {number_of_bits} bits")
    at = np.searchsorted(first, _windows(payload, longest), side="right") - 1
    following = (np.arange(number_of_bits) + lengths[order][at]).tolist()
    starts, place = [], 0
    for _ in range(count):
        if place >= number_of_bits:
            raise _damaged("it ends too early")
        starts.append(place)
        place = following[place]
    unused = number_of_bits - place
    if not 0 <= unused < 8 or (unused and payload[-1] & ((1 << unused) - 1)):
        raise _damaged("it does not end with the last word")
    return order[at[starts]]


def _windows(payload: np.ndarray, size: int) -> np.ndarray:
    """For each bit the number that it and the next ``size - 1`` bits make; 0 after the end."""
    padded = np.concatenate([payload, np.zeros(7, dtype=np.uint8)]).astype(np.uint64)
    eight = np.zeros(len(payload), dtype=np.uint64)
    for offset in range(8):
        eight = eight << np.uint64(8) | padded[offset : offset + len(payload)]
    shifted = eight[:, None] << np.arange(8, dtype=np.uint64)  # (bytes, bit in the byte)
    return (shifted >> np.uint64(64 - size)).flatten().astype(np.int64)


def _damaged(what: str) -> ValueError:
    return ValueError(f"stored must be whole Huffman coded bytes, got damaged ones: {what}")
