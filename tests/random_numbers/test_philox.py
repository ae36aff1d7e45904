"""The generator against published vectors, and the layout of a draw against its description."""

from __future__ import annotations

import numpy as np
import pytest

from treadle.ir import philox
from treadle.ir.op import get_op
from treadle.ir.ops.random import RandomAttrs
from treadle.ir.types import float32, float64, int64, uint32

# Counter, key and block of "philox4x32 10" in the known-answer file of the Random123 library.
PUBLISHED = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def signed(low: int, high: int) -> np.ndarray:
    """Two words as the int64 that a seed or the number of a draw is."""
    return np.array(low | high << 32, np.uint64).view(np.int64)[()]


@pytest.mark.parametrize(("counter", "key", "block"), PUBLISHED)
def test_blocks_are_the_published_ones(
    counter: tuple[int, int, int, int], key: tuple[int, int], block: tuple[int, ...]
) -> None:
    c0, c1, c2, c3 = (np.array([c], np.uint64) for c in counter)
    found = philox.philox((c0, c1, c2, c3), key)
    assert tuple(int(w[0]) for w in found) == block


@pytest.mark.parametrize(("counter", "key", "block"), PUBLISHED)
def test_a_draw_reads_the_published_blocks(
    counter: tuple[int, int, int, int], key: tuple[int, int], block: tuple[int, ...]
) -> None:
    """The block's number, the domain and the number of the draw are the counter's words."""
    seed, draw = signed(*key), signed(*counter[2:])
    first = 4 * counter[0]
    words = philox.words32(int(seed), int(draw), counter[1], first + np.arange(4))
    assert tuple(int(w) for w in words) == block


def drawn(dtype: object, shape: tuple[int, ...], offset: int = 0) -> np.ndarray:
    attrs = RandomAttrs(shape, dtype, offset)  # type: ignore[arg-type]
    name = "random_bits" if dtype in (uint32, int64) else "random_uniform"
    (found,) = get_op(name).run_ref(attrs, (np.array(12345), np.array(7)))
    return found


def test_elements_are_words_in_row_major_order() -> None:
    words = drawn(uint32, (23,))
    blocks = philox.blocks(12345, 7, philox.DRAW, np.arange(6)).reshape(-1)
    np.testing.assert_array_equal(words, blocks[:23])
    np.testing.assert_array_equal(drawn(uint32, (4, 5)).reshape(-1), words[:20])
    wide = drawn(int64, (11,)).view(np.uint64)
    np.testing.assert_array_equal(wide & np.uint64(philox.MASK), blocks[:22:2])
    np.testing.assert_array_equal(wide >> np.uint64(32), blocks[1:22:2])


def test_uniform_numbers_are_the_upper_bits_of_the_words() -> None:
    narrow = (drawn(uint32, (50,)) >> 8) / 2.0**24
    np.testing.assert_array_equal(drawn(float32, (50,)), narrow.astype(np.float32))
    wide = (drawn(int64, (50,)).view(np.uint64) >> np.uint64(11)) / 2.0**53
    np.testing.assert_array_equal(drawn(float64, (50,)), wide)


def test_an_offset_is_added_to_the_number_of_the_draw_modulo_2_to_the_64() -> None:
    attrs = RandomAttrs((9,), uint32)
    (later,) = get_op("random_bits").run_ref(attrs, (np.array(12345), np.array(10)))
    np.testing.assert_array_equal(drawn(uint32, (9,), offset=3), later)
    last = np.array(2**63 - 1)
    (wrapped,) = get_op("random_bits").run_ref(
        RandomAttrs((9,), uint32, offset=1), (np.array(12345), last)
    )
    (least,) = get_op("random_bits").run_ref(attrs, (np.array(12345), np.array(-(2**63))))
    np.testing.assert_array_equal(wrapped, least)
