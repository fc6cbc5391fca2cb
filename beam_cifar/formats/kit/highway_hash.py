"""HighwayHash of 64 bits with the key of Riegeli, for many texts at once.

Facts: https://arxiv.org/abs/1612.06257, and `highwayhash/hh_portable.h` of https://github.com/google/highwayhash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

_WORDS: Final = np.dtype("<u8")
_HALVES: Final = np.dtype("<u4")
_PACKET: Final = 32
_KEY: Final = np.frombuffer(b"Riegeli/records\n" * 2, _WORDS)
# Swaps the halves of each of four words; and of each pair of words that are two apart.
_SWAPPED: Final = np.array([1, 0, 3, 2, 5, 4, 7, 6])
_CROSSED: Final = np.array([5, 4, 7, 6, 1, 0, 3, 2])
# How the 16 bytes of two words are mixed.
_MIXED: Final = np.array([3, 12, 2, 5, 14, 1, 15, 0, 11, 4, 10, 13, 9, 6, 8, 7])
# Fractions of pi.
_FIRST: Final = np.array([0xDBE6D5D5FE4CCE2F, 0xA4093822299F31D0, 0x13198A2E03707344, 0x243F6A8885A308D3], _WORDS)
_SECOND: Final = np.array([0x3BD39E10CB0EF593, 0xC0ACF169B5F18A8C, 0xBE5466CF34E90C6C, 0x452821E638D01377], _WORDS)
_LOW: Final = np.uint64(0xFFFFFFFF)
_HALF: Final = np.uint64(32)

Words = npt.NDArray[np.uint64]


def highway_hashes(texts: Sequence[bytes]) -> list[int]:
    """Returns the hash of each text; a step of all texts costs little more than one of a single text.

    >>> from beam_cifar.formats.kit.highway_hash import highway_hashes
    >>> hex(highway_hashes([b""])[0])
    '0x72c3b1e9c0139fe1'
    """
    # The longest first, so that those that still have bytes are always the first ones.
    order = sorted(range(len(texts)), key=lambda at: -len(texts[at]))
    sizes = np.array([len(texts[at]) for at in order], np.int64)
    whole, rest = np.divmod(sizes, _PACKET)
    starts = np.cumsum(whole) - whole
    cut = (memoryview(texts[at])[: len(texts[at]) // _PACKET * _PACKET] for at in order)
    packets = np.frombuffer(b"".join(cut), _WORDS).reshape(-1, 4)
    state = np.empty((4, len(texts), 4), _WORDS)
    state[:] = np.stack([_FIRST ^ _KEY, _SECOND ^ _picked(_KEY[None], _SWAPPED)[0], _FIRST, _SECOND])[:, None]
    for step, count in enumerate(_counts(whole)):
        _update(state[:, :count], packets[starts[:count] + step])
    left = np.flatnonzero(rest)
    if len(left):
        ends = b"".join(_last_packet(texts[order[at]]) for at in left.tolist())
        state[:, left] = _with_rest(state[:, left], rest[left], np.frombuffer(ends, _WORDS).reshape(-1, 4))
    for _ in range(4):
        _update(state, _picked(state[0], _CROSSED))
    found = np.empty(len(texts), _WORDS)
    found[order] = state[:, :, 0].sum(axis=0, dtype=_WORDS)
    return [int(each) for each in found.tolist()]


def _counts(whole: npt.NDArray[np.int64]) -> list[int]:
    """Returns how many texts have a packet at each step; `whole` are the packets of each, in descending order."""
    steps = np.arange(int(whole.max(initial=0)))
    counts: list[int] = (len(whole) - np.searchsorted(whole[::-1], steps, "right")).tolist()
    return counts


def _update(state: Words, packets: Words) -> None:
    first, second, left, right = state
    second += left + packets
    left ^= (second & _LOW) * (first >> _HALF)
    first += right
    right ^= (first & _LOW) * (second >> _HALF)
    first += _mixed(second)
    second += _mixed(first)


def _mixed(words: Words) -> Words:
    pairs = words.view(np.uint8).reshape(-1, 16)
    return pairs.take(_MIXED, axis=1).view(_WORDS).reshape(words.shape)


def _picked(words: Words, halves: npt.NDArray[np.int64]) -> Words:
    return words.view(_HALVES).take(halves, axis=1).view(_WORDS)


def _with_rest(state: Words, rest: npt.NDArray[np.int64], packets: Words) -> Words:
    """Returns the state after the last packets, of `rest` bytes."""
    count = rest.astype(_WORDS)[:, None]
    state[0] += (count << _HALF) + count
    halves, turn = state[1].view(_HALVES), rest.astype(_HALVES)[:, None]
    state[1] = ((halves << turn) | (halves >> (np.uint32(32) - turn))).view(_WORDS)
    _update(state, packets)
    return state


def _last_packet(text: bytes) -> bytes:
    """Returns the bytes after the last whole packet, with the last few of them where the hash expects them."""
    rest = text[len(text) // _PACKET * _PACKET :]
    fours = len(rest) // 4 * 4
    if len(rest) >= 16:
        return rest[:fours].ljust(28, b"\0") + rest[-4:]
    odd = rest[fours:]
    ends = bytes((odd[0], odd[len(odd) // 2], odd[-1])) if odd else b""
    return (rest[:fours].ljust(16, b"\0") + ends).ljust(_PACKET, b"\0")
