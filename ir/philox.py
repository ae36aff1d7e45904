"""Philox 4x32-10, a counter-based generator of random numbers, on NumPy arrays.

A block of four 32-bit words is a bijection of a counter of four words under a key of two, ten
rounds of

    p = M0 * c0    q = M1 * c2
    c = (high(q) ^ c1 ^ k0, low(q), high(p) ^ c3 ^ k1, low(p))    k = (k0 + W0, k1 + W1)

so that any part of a stream is had at once, in any order and by any thread. J. Salmon, M. Moraes,
R. Dror, D. Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011), whose published vectors
the tests check.

How a draw uses it: key (seed), counter (block, domain, draw), where seed and draw are 64 bits, the
lower word first. Element e of 32 bits is word e mod 4 of block e div 4, one of 64 bits the words
2 (e mod 2) and the next of block e div 2, the lower first. A domain keeps what is drawn from a
key apart from the keys that are made of it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

M0: Final = 0xD2511F53
M1: Final = 0xCD9E8D57
W0: Final = 0x9E3779B9
W1: Final = 0xBB67AE85
ROUNDS: Final = 10
MASK: Final = 0xFFFFFFFF

DRAW: Final = 0  # domains
SPLIT: Final = 1
FOLD: Final = 2

MAX_BLOCKS: Final = 1 << 32  # the block is one word of the counter

_CHUNK: Final = 1 << 13  # blocks at a time, so that the words of the rounds stay in a near cache

Words = npt.NDArray[np.uint64]


def philox(counter: tuple[Words, Words, Words, Words], key: tuple[int, int]) -> tuple[Words, ...]:
    """The four words of each block; words are uint64 arrays of values below 2^32."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    low, places = np.uint64(MASK), np.uint64(32)
    for _ in range(ROUNDS):
        p, q = c0 * np.uint64(M0), c2 * np.uint64(M1)
        c0, c1, c2, c3 = (
            (q >> places) ^ c1 ^ np.uint64(k0),
            q & low,
            (p >> places) ^ c3 ^ np.uint64(k1),
            p & low,
        )
        k0, k1 = (k0 + W0) & MASK, (k1 + W1) & MASK
    return c0, c1, c2, c3


def blocks(seed: int, draw: int, domain: int, numbers: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
    """The blocks of these numbers, [n, 4]; `seed` and `draw` count modulo 2^64."""
    found = np.empty((numbers.size, 4), np.uint32)
    flat = numbers.reshape(-1).astype(np.uint64)
    rest = [np.uint64(x) for x in (domain, draw & MASK, (draw >> 32) & MASK)]
    key = (seed & MASK, (seed >> 32) & MASK)
    for start in range(0, flat.size, _CHUNK):
        c0 = flat[start : start + _CHUNK]
        c1, c2, c3 = (np.full_like(c0, x) for x in rest)
        for n, word in enumerate(philox((c0, c1, c2, c3), key)):
            found[start : start + _CHUNK, n] = word
    return found


def words32(
    seed: int, draw: int, domain: int, elements: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint32]:
    """The 32-bit words of these elements, in their shape."""
    return _elements(seed, draw, domain, elements, 4, np.dtype(np.uint32)).astype(np.uint32)


def words64(
    seed: int, draw: int, domain: int, elements: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """The 64-bit words of these elements, in their shape."""
    return _elements(seed, draw, domain, elements, 2, np.dtype("<i8")).astype(np.int64)


def _elements(
    seed: int,
    draw: int,
    domain: int,
    elements: npt.NDArray[np.int64],
    count: int,
    dtype: np.dtype[Any],
) -> npt.NDArray[Any]:
    """Elements of which `count` make a block."""
    if elements.size == 0:
        return np.empty(elements.shape, dtype)
    first, last = int(elements.min()) // count, int(elements.max()) // count
    run = np.arange(first, last + 1)
    if run.size > elements.size:  # a few elements, far apart
        all_words = blocks(seed, draw, domain, elements // count).astype("<u4").view(dtype)
        return np.take_along_axis(all_words, (elements % count).reshape(-1, 1), axis=1).reshape(
            elements.shape
        )
    all_words = blocks(seed, draw, domain, run).astype("<u4").view(dtype).reshape(-1)
    found: npt.NDArray[Any] = all_words[elements - first * count]
    return found
