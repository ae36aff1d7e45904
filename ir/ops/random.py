"""Random numbers: `random_bits`, `random_uniform`, `random_normal`.

All of them are functions: of a seed, of the number of a draw and of an element's place in the
row-major order of the result. Nothing is stored and nothing is in any order, so that code
generation may compute an element where it is used, as often as it is used, on any thread and in
vectors of any width. `treadle.ir.philox` says which words belong to an element.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

import numpy as np

from treadle.ir import philox
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.op import NOT_DIFFERENTIABLE, Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.rules import widened
from treadle.ir.scalar import Numbered
from treadle.ir.types import (
    FLOATS,
    DType,
    Shape,
    TensorType,
    float32,
    float64,
    int32,
    int64,
    shape_text,
    uint32,
)

_PER_BLOCK: Final = {uint32: 4, float32: 4, int64: 2, float64: 2}


@dataclass(frozen=True, slots=True)
class RandomAttrs(Attrs):
    """`shape` and `dtype` of the result; `offset` is added to the number of the draw; `domain`
    keeps draws apart that have the same number."""

    shape: Shape
    dtype: DType
    offset: int = 0
    domain: int = philox.DRAW


def _infer(name: str, dtypes: tuple[DType, ...]) -> Callable[..., TensorType]:
    def infer(a: RandomAttrs, seed: TensorType, draw: TensorType) -> TensorType:
        for what, found in (("seed", seed), ("draw", draw)):
            if found != TensorType(int64):
                raise DTypeError(f"{name} takes its {what} as an i64[], found {found}")
        if a.dtype not in dtypes:
            listed = " and ".join(d.name for d in dtypes)
            raise DTypeError(f"{name} makes {listed}, found {a.dtype.name}")
        if any(isinstance(s, int) and s < 0 for s in a.shape):
            raise ShapeError(f"{name} needs sizes of at least 0, found {shape_text(a.shape)}")
        size = TensorType(a.dtype, a.shape).size
        most = philox.MAX_BLOCKS * _PER_BLOCK[a.dtype]
        if isinstance(size, int) and size > most:
            raise ShapeError(f"a draw has at most {most:,} elements, found {shape_text(a.shape)}")
        return TensorType(a.dtype, a.shape)

    return infer


def _words(a: RandomAttrs, seed: Array, draw: Array, wide: bool) -> Array:
    """The words of all elements, flat: uint32, or `wide` int64."""
    size = TensorType(a.dtype, a.shape).size
    assert isinstance(size, int), "only sizes that are known can be computed"
    words = philox.words64 if wide else philox.words32
    return words(int(seed), int(draw) + a.offset, a.domain, np.arange(size))


def _shaped(a: RandomAttrs, flat: Array) -> Array:
    return flat.reshape(TensorType(a.dtype, a.shape).static_shape)


def _setup(s: Any, a: RandomAttrs, load: Any) -> Any:
    """What all elements of a draw share."""
    draw = s.add(load(1), s.const(a.offset, int64))
    return s.random_draw(load(0), draw, a.domain)


def _samples(dtypes: tuple[DType, ...], ulps: float) -> Callable[..., Iterable[Sample]]:
    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        for dtype in dtypes:
            for shape in ((0,), (), (1,), (3, 5), (7, 64), (2, 3, 16), (301,)):
                seed, draw = rng.integers(-(2**63), 2**63 - 1, (2,), np.int64)
                attrs = RandomAttrs(shape, dtype, int(rng.integers(0, 9)), int(rng.integers(0, 3)))
                args = (np.asarray(seed), np.asarray(draw))
                yield Sample(args, attrs, differentiable=False, ulps=ulps)

    return samples


# --- random_bits -----------------------------------------------------------------------------

_BITS: Final = (uint32, int64)


def _bits_ref(a: RandomAttrs, seed: Array, draw: Array) -> Array:
    return _shaped(a, _words(a, seed, draw, a.dtype is int64))


RANDOM_BITS = register(
    OpDef(
        name="random_bits",
        maths="y[e] = word e of the draw, 32 or 64 bits (Philox 4x32-10)",
        attrs=RandomAttrs,
        infer=_infer("random_bits", _BITS),
        ref=_bits_ref,
        vjp=NOT_DIFFERENTIABLE,
        lower=Numbered(lambda s, a, draw, e: s.random_word(draw, e, a.dtype), setup=_setup),
        samples=_samples(_BITS, 0.0),
    )
)


# --- random_uniform --------------------------------------------------------------------------


def _uniform_ref(a: RandomAttrs, seed: Array, draw: Array) -> Array:
    if a.dtype is float32:
        bits = _words(a, seed, draw, False) >> np.uint32(8)
        return _shaped(a, bits.astype(np.float32) * np.float32(2.0**-24))
    bits = _words(a, seed, draw, True).view(np.uint64)
    return _shaped(a, (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _uniform_lower(s: Any, a: RandomAttrs, draw: Any, e: Any) -> Any:
    """Integers of 31 bits and less are converted: neither AVX2 nor SSE2 converts others."""
    if a.dtype is float32:
        word = s.random_word(draw, e, uint32)
        bits = s.cast(s.shift_right(word, s.const(8, uint32)), int32)
        return s.mul(s.cast(bits, float32), s.const(2.0**-24, float32))
    word = s.random_word(draw, e, int64)
    upper = s.cast(s.shift_right(word, s.const(32, int64)), uint32)
    high = s.cast(s.shift_right(upper, s.const(1, uint32)), int32)  # 31 bits
    rest = s.and_(s.shift_right(word, s.const(11, int64)), s.const((1 << 22) - 1, int64))
    low = s.cast(s.cast(rest, int32), float64)  # 22 bits
    scaled = s.mul(s.cast(high, float64), s.const(2.0**22, float64))
    return s.mul(s.add(scaled, low), s.const(2.0**-53, float64))


RANDOM_UNIFORM = register(
    OpDef(
        name="random_uniform",
        maths="y[e] = the upper 24 bits (float64: 53) of word e over 2^24 (2^53), in [0, 1)",
        attrs=RandomAttrs,
        infer=_infer("random_uniform", FLOATS),
        ref=_uniform_ref,
        vjp=NOT_DIFFERENTIABLE,
        lower=Numbered(_uniform_lower, setup=_setup),
        samples=_samples(FLOATS, 0.0),
    )
)


# --- random_normal ---------------------------------------------------------------------------


def normal_parts(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """Of the two words of a pair, uint32 or int64: u in (0, 1], f in [-1, 1), and the two upper
    bits of the second word: 1 turns the circle by a quarter, 2 by a half."""
    if x.dtype == np.uint32:
        u = (x >> np.uint32(1)).astype(np.float32) * np.float32(2.0**-31) + np.float32(2.0**-32)
        f = (y << np.uint32(2)).view(np.int32).astype(np.float32) * np.float32(2.0**-31)
        return u, f, y >> np.uint32(30)
    x, y = x.view(np.uint64), y.view(np.uint64)
    high, low = x >> np.uint64(37), (x >> np.uint64(11)) & np.uint64((1 << 26) - 1)
    u = high.astype(np.float64) * 2.0**-27 + (low.astype(np.float64) + 0.5) * 2.0**-53
    upper = (y >> np.uint64(32)).astype(np.uint32)
    coarse = (upper << np.uint32(2)).view(np.int32).astype(np.float64) * 2.0**-31
    fine = ((y & np.uint64(philox.MASK)) >> np.uint64(1)).astype(np.float64) * 2.0**-60
    return u, coarse + fine, upper >> np.uint32(30)


def normal_pair(x: Array, y: Array) -> tuple[Array, Array]:
    """Two independent normal numbers from two words (Box and Muller, 1958).

    r = sqrt(-2 log u), and an angle of f quarter turns about one of the four axes:
    r cos(pi/4 f), r sin(pi/4 f), exchanged and negated as the two upper bits say.
    """
    u, f, quarter = normal_parts(x, y)
    dtype, wide = u.dtype, widened(u)
    r = np.sqrt(-2 * np.log(wide))
    angle = widened(f) * (_PI / 4 if wide.dtype == np.float64 else _LONG_PI / 4)
    c, s = np.cos(angle), np.sin(angle)
    c = np.where(quarter & 2, -c, c)
    swapped = (quarter & 1).astype(bool)
    first, second = np.where(swapped, s, c), np.where(swapped, c, s)
    return (r * first).astype(dtype), (r * second).astype(dtype)


_PI: Final = np.pi
_LONG_PI: Final = np.longdouble(np.pi) + np.longdouble(1.2246467991473532e-16)
_CHUNK: Final = 1 << 14


def _normal_ref(a: RandomAttrs, seed: Array, draw: Array) -> Array:
    words = _words(a, seed, draw, a.dtype is float64)
    padded = words if words.size % 2 == 0 else _with_next(a, seed, draw, words)
    found = np.empty(padded.size, a.dtype.dtype)
    for start in range(0, padded.size, _CHUNK):
        part = padded[start : start + _CHUNK]
        first, second = normal_pair(part[::2], part[1::2])
        found[start : start + _CHUNK : 2], found[start + 1 : start + _CHUNK : 2] = first, second
    return _shaped(a, found[: words.size])


def _with_next(a: RandomAttrs, seed: Array, draw: Array, words: Array) -> Array:
    """The words and the one behind them, which makes a pair with the last."""
    after = philox.words64 if a.dtype is float64 else philox.words32
    last = after(int(seed), int(draw) + a.offset, a.domain, np.asarray([words.size]))
    return np.concatenate([words, last])


RANDOM_NORMAL = register(
    OpDef(
        name="random_normal",
        maths="y[2j], y[2j + 1] = sqrt(-2 log u) (cos t, sin t) of words 2j and 2j + 1",
        attrs=RandomAttrs,
        infer=_infer("random_normal", FLOATS),
        ref=_normal_ref,
        vjp=NOT_DIFFERENTIABLE,
        lower=Numbered(lambda s, a, draw, e: s.random_normal(draw, e, a.dtype), setup=_setup),
        traits=frozenset({Trait.EXPENSIVE}),
        samples=_samples(FLOATS, 4.0),
    )
)
