"""Huffman words are the shortest, decodable, and damaged ones are noticed."""

from __future__ import annotations

import heapq
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rac_helpers.quantize import quantize, symmetric_params
from rac_helpers.quantize.huffman import (
    decode_huffman,
    encode_huffman,
    entropy_bits,
    huffman_lengths,
)
from rac_helpers.rng import make_generator

CODES = st.one_of(
    st.lists(st.integers(0, 3), max_size=60),
    st.lists(st.integers(0, 65535), max_size=20),
    st.lists(st.sampled_from([5] * 20 + [6, 7, 200]), max_size=60),
)


@settings(deadline=None)
@given(CODES)
def test_codes_come_back(codes):
    stored = encode_huffman(torch.tensor(codes, dtype=torch.int64))
    assert type(stored) is bytes
    assert decode_huffman(stored).tolist() == codes


def smallest_sum(counts: list[int]) -> int:
    """The bits of an optimal code are the sum of all joins."""
    heap, total = sorted(n for n in counts if n), 0
    while len(heap) > 1:
        joined = heapq.heappop(heap) + heapq.heappop(heap)
        total += joined
        heapq.heappush(heap, joined)
    return total


@settings(deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=40))
def test_words_are_optimal_and_fill_the_code(counts):
    lengths = huffman_lengths(torch.tensor(counts)).tolist()
    used = [length for length, n in zip(lengths, counts, strict=True) if n]
    assert sum(n * length for n, length in zip(counts, lengths, strict=True)) == smallest_sum(
        counts
    )
    assert all(length == 0 for length, n in zip(lengths, counts, strict=True) if not n)
    if len(used) > 1:
        assert sum(2.0**-length for length in used) == 1


@pytest.mark.parametrize("counts", [[5, 3, 2], [1, 1, 1, 1], [8, 4, 2, 1, 1], [3, 3, 2, 1]])
def test_no_other_prefix_code_is_shorter(counts):
    """Against all lengths that Kraft's inequality allows."""
    own = int((torch.tensor(counts) * huffman_lengths(torch.tensor(counts))).sum())
    choices = itertools.product(range(1, 6), repeat=len(counts))
    possible = (c for c in choices if sum(2.0**-length for length in c) <= 1)
    best = min(sum(n * b for n, b in zip(counts, c, strict=True)) for c in possible)
    assert own == best


@settings(deadline=None)
@given(st.lists(st.integers(0, 9), min_size=2, max_size=200))
def test_words_are_less_than_a_bit_above_the_entropy(codes):
    codes = torch.tensor(codes)
    counts = torch.bincount(codes)
    mean = float((counts * huffman_lengths(counts)).sum()) / len(codes)
    assert entropy_bits(codes) - 1e-9 <= mean < entropy_bits(codes) + 1


def test_long_words_come_back():
    """Fibonacci counts make the longest words: 25 bits here."""
    counts = [1, 1]
    while len(counts) < 26:
        counts.append(counts[-1] + counts[-2])
    lengths = huffman_lengths(torch.tensor(counts))
    assert int(lengths.max()) == 25
    codes = torch.arange(26).repeat_interleave(torch.tensor(counts))
    assert torch.equal(decode_huffman(encode_huffman(codes)).long(), codes)


def test_weights_of_a_bell_curve_get_smaller():
    weights = torch.randn(20_000, generator=make_generator(0))
    codes = quantize(weights, symmetric_params(weights.abs().max(), 8)).int() + 127
    stored = encode_huffman(codes)
    assert torch.equal(decode_huffman(stored), codes)
    assert len(stored) < 0.9 * len(codes)
    assert 8 * len(stored) < len(codes) * (entropy_bits(codes) + 0.2)


def test_bytes_are_those_counted_by_hand():
    codes = torch.tensor([[7, 7, 7, 7], [8, 8, 9, 10]])
    # count 8, low 7, high 10, lengths 1 2 3 3 in 2 bits; 0000 10 10 | 110 111 00
    expected = bytes([8, 0, 0, 0, 7, 0, 10, 0, 2, 0b11111001, 0b00001010, 0b11011100])
    assert encode_huffman(codes) == expected


def test_words_of_one_length_are_in_the_order_of_the_codes():
    """So that the lengths alone say what each word means, on every machine."""
    codes = torch.randperm(256, generator=make_generator(0)).repeat(2)
    assert encode_huffman(codes)[-512:] == bytes(codes.tolist())


def test_one_symbol_and_none_take_the_header_only():
    assert len(encode_huffman(torch.full((1000,), 9))) == 9
    assert len(encode_huffman(torch.empty(0, dtype=torch.uint8))) == 9


def test_damaged_bytes_raise_or_give_something_but_never_crash():
    codes = torch.randint(16, (200,), generator=make_generator(0)) ** 2 // 16
    stored = encode_huffman(codes)
    noticed = 0
    for place, bit in itertools.product(range(len(stored)), range(8)):
        wrong = bytearray(stored)
        wrong[place] ^= 1 << bit
        try:
            found = decode_huffman(bytes(wrong))
        except ValueError:  # its messages are tested below
            noticed += 1
        else:
            assert found.tolist() != codes.tolist(), (place, bit)
    assert noticed > 100
    for length in range(len(stored)):
        with pytest.raises(ValueError, match="damaged"):
            decode_huffman(stored[:length])
    with pytest.raises(ValueError, match="damaged"):
        decode_huffman(stored + b"\0")


def header(count: int, low: int, high: int, width: int) -> bytes:
    parts = (count.to_bytes(4, "little"), low.to_bytes(2, "little"), high.to_bytes(2, "little"))
    return b"".join(parts) + bytes([width])


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (b"", "it begins with 9 bytes, got 0"),
        (header(1, 2, 1, 1), "codes from 2 to 1"),
        (header(1, 1, 2, 7), "lengths of 7 bits"),
        (header(1, 1, 2, 0), "lengths of 0 bits"),
        (header(1, 1, 1, 1) + b"\1", "1 bytes too many"),
        (header(1, 1, 2, 2), "table of lengths is not complete"),
        (header(1, 1, 4, 1) + b"\3\0", "a longer table"),
        (header(1, 1, 4, 1) + b"\x0c\0", "a longer table"),
        (header(1, 1, 2, 6) + b"\xff\x0f\0", "no such lengths"),
        (header(1, 1, 2, 2) + b"\x09\0", "make no code"),
        (header(1, 1, 2, 1) + b"\x83\0", "a longer table"),
        (header(9, 1, 2, 1) + b"\3\0", "9 words in 8 bits"),
        (header(8, 1, 4, 2) + b"\x8a\xff", "no code"),
        (header(1, 1, 2, 1) + b"\3\1", "does not end with the last word"),
        (header(1, 1, 2, 1) + b"\3\0\0", "does not end with the last word"),
    ],
)
def test_each_damage_has_its_message(stored, message):
    with pytest.raises(ValueError, match=message):
        decode_huffman(stored)


def test_words_that_reach_past_the_end():
    stored = header(5, 1, 4, 2) + b"\xaa\xff"  # four words of 2 bits in a byte, a fifth is missing
    with pytest.raises(ValueError, match="it ends too early"):
        decode_huffman(stored)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: encode_huffman(torch.tensor([-1])), ValueError, r"codes must be in \[0, 65535\]"),
        (lambda: encode_huffman(torch.tensor([0.5])), TypeError, "codes must be a tensor of int"),
        (lambda: entropy_bits(torch.empty(0, dtype=torch.int8)), ValueError, "must not be empty"),
        (lambda: huffman_lengths(torch.tensor([[1]])), ValueError, r"shape \(n,\), got \(1, 1\)"),
        (lambda: huffman_lengths(torch.tensor([-1])), ValueError, "codes must be in"),
        (lambda: decode_huffman(bytearray(9)), TypeError, "stored must be bytes, got bytearray"),
    ],
)
def test_wrong_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
