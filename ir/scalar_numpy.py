"""`NumpyScalarOps`: the protocol of scalar operations on NumPy arrays.

An element is an array, an index an int64 array; both broadcast, so that one call computes all
elements at once. With it `evaluate_lowering` runs an op's lowering without LLVM: the op-table test
holds lowerings to references, and a wrong lowering is told from a wrong emitter. Every load is
checked to be inside its operand, since compiled code could not be trusted with one that is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from treadle.ir import philox
from treadle.ir.errors import IndexFault
from treadle.ir.op import NO_ATTRS, Array, Attrs, OpDef, get_op
from treadle.ir.ops.cast import cast_array
from treadle.ir.scalar import (
    ArgReduce,
    Comparison,
    Index,
    Kernel,
    MathName,
    Numbered,
    Reduce,
    Scalar,
)
from treadle.ir.types import DType, TensorType, dtype_of, int64, type_of_array

_COMPARE: dict[Comparison, Callable[[Array, Array], Array]] = {
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}


class NumpyScalarOps:
    """See `treadle.ir.scalar.ScalarOps` for what each method promises."""

    def const(self, value: float | int | bool, dtype: DType) -> Array:
        return np.asarray(value).astype(dtype.dtype)

    def dtype_of(self, x: Array) -> DType:
        return dtype_of(x.dtype)

    def cast(self, x: Array, dtype: DType) -> Array:
        return cast_array(x, dtype)

    # --- arithmetic --------------------------------------------------------------------------

    def add(self, x: Array, y: Array) -> Array:
        return np.add(*_alike(x, y))

    def sub(self, x: Array, y: Array) -> Array:
        return np.subtract(*_alike(x, y))

    def mul(self, x: Array, y: Array) -> Array:
        return np.multiply(*_alike(x, y))

    def div(self, x: Array, y: Array) -> Array:
        return np.divide(*_alike(x, y))

    def int_div(self, x: Array, y: Array) -> Array:
        by_zero = y == 0
        quotient = np.floor_divide(*_alike(x, np.where(by_zero, 1, y).astype(y.dtype)))
        return np.where(by_zero, x.dtype.type(0), quotient)

    def int_rem(self, x: Array, y: Array) -> Array:
        by_zero = y == 0
        rest = np.remainder(*_alike(x, np.where(by_zero, 1, y).astype(y.dtype)))
        return np.where(by_zero, x.dtype.type(0), rest)

    def neg(self, x: Array) -> Array:
        return np.negative(x)

    def abs(self, x: Array) -> Array:
        return np.abs(x)

    def sqrt(self, x: Array) -> Array:
        return np.sqrt(x)

    def floor(self, x: Array) -> Array:
        return np.floor(x)

    def ceil(self, x: Array) -> Array:
        return np.ceil(x)

    def trunc(self, x: Array) -> Array:
        return np.trunc(x)

    def rint(self, x: Array) -> Array:
        return np.rint(x)

    def fmod(self, x: Array, y: Array) -> Array:
        return np.fmod(*_alike(x, y))

    def copysign(self, x: Array, y: Array) -> Array:
        return np.copysign(*_alike(x, y))

    def maximum(self, x: Array, y: Array) -> Array:
        larger = np.maximum(*_alike(x, y))
        if x.dtype.kind != "f":
            return larger
        # NumPy leaves it open which zero it returns; -0 + +0 is +0, -0 + -0 is -0.
        return np.where((x == 0) & (y == 0), x + y, larger)

    def minimum(self, x: Array, y: Array) -> Array:
        if x.dtype.kind != "f":
            return np.minimum(*_alike(x, y))
        return -self.maximum(-x, -y)

    # --- choice and bits ---------------------------------------------------------------------

    def compare(self, how: Comparison, x: Array, y: Array) -> Array:
        return _COMPARE[how](*_alike(x, y))

    def select(self, cond: Array, x: Array, y: Array) -> Array:
        assert cond.dtype == bool, f"select by {cond.dtype}"
        return np.where(cond, *_alike(x, y))

    def seldom(self, cond: Array, then: Callable[[], Array], y: Array) -> Array:
        return self.select(cond, then(), y)

    def and_(self, x: Array, y: Array) -> Array:
        return np.bitwise_and(*_alike(x, y))

    def or_(self, x: Array, y: Array) -> Array:
        return np.bitwise_or(*_alike(x, y))

    def xor(self, x: Array, y: Array) -> Array:
        return np.bitwise_xor(*_alike(x, y))

    def not_(self, x: Array) -> Array:
        return np.invert(x)

    def shift_left(self, x: Array, y: Array) -> Array:
        inside = _shift_inside(x, y)
        shifted = np.left_shift(*_alike(x, np.where(inside, y, 0).astype(y.dtype)))
        return np.where(inside, shifted, x.dtype.type(0))

    def shift_right(self, x: Array, y: Array) -> Array:
        inside = _shift_inside(x, y)
        shifted = np.right_shift(*_alike(x, np.where(inside, y, 0).astype(y.dtype)))
        return np.where(inside, shifted, np.where(x < 0, -1, 0)).astype(x.dtype)

    def math(self, name: MathName, *xs: Array) -> Array:
        """The reference: the accuracy of compiled maths is tested where it is compiled."""
        (out,) = get_op(name).run_ref(NO_ATTRS, xs)
        return out

    # --- random numbers ----------------------------------------------------------------------

    def random_draw(self, seed: Array, draw: Array, domain: int) -> tuple[int, int, int]:
        return int(seed), int(draw), domain

    def random_word(self, draw: tuple[int, int, int], e: Array, dtype: DType) -> Array:
        words = philox.words64 if dtype is int64 else philox.words32
        return words(*draw, e)

    def random_normal(self, draw: tuple[int, int, int], e: Array, dtype: DType) -> Array:
        from treadle.ir.ops.random import normal_pair  # the ops build on this module

        words = philox.words64 if dtype.bits == 64 else philox.words32
        even = e & ~np.int64(1)
        first, second = normal_pair(words(*draw, even), words(*draw, even + 1))
        return np.where(e & 1, second, first)

    # --- indices -----------------------------------------------------------------------------

    def index_const(self, value: int) -> Array:
        return np.asarray(value, np.int64)

    def index_add(self, i: Array, by: int) -> Array:
        return np.asarray(i + by)

    def index_mul(self, i: Array, by: int) -> Array:
        return np.asarray(i * by)

    def index_sum(self, i: Array, j: Array) -> Array:
        return np.asarray(i + j)

    def index_divmod(self, i: Array, by: int) -> tuple[Array, Array]:
        assert by > 0, f"an index divided by {by}"
        assert (i >= 0).all(), f"a negative index divided by {by}"
        quotient, rest = np.divmod(i, by)
        return np.asarray(quotient), np.asarray(rest)

    def index_clamp(self, i: Array, size: int) -> Array:
        assert size > 0, "an index clamped to an empty axis"
        return np.clip(i, 0, size - 1)

    def index_in(self, i: Array, low: int, high: int) -> Array:
        return np.asarray((low <= i) & (i < high))

    def index_of(self, x: Array, size: int, wrap: bool, fault: str) -> Array:
        assert x.dtype.kind in "iu", f"an index of dtype {x.dtype}"
        index = x.astype(np.int64)
        bad = (index < (-size if wrap else 0)) | (index >= size)
        if fault and bad.any():
            raise IndexFault(f"{fault}, found {int(index[bad][0])}")
        if wrap:
            index = np.where(index < 0, index + size, index)
        return np.clip(index, 0, size - 1)

    def from_index(self, i: Array, dtype: DType) -> Array:
        return cast_array(np.asarray(i), dtype)


def _alike(x: Array, y: Array) -> tuple[Array, Array]:
    """The operands; they must have one dtype, since nothing may be promoted."""
    assert x.dtype == y.dtype, f"one operation on {x.dtype} and {y.dtype}"
    return x, y


def _shift_inside(x: Array, y: Array) -> Array:
    return np.asarray((y >= 0) & (y < x.dtype.itemsize * 8))


# --- lowerings -------------------------------------------------------------------------------


def evaluate_lowering(op: OpDef, attrs: Attrs, arrays: Sequence[Array]) -> Array:
    """The result of `op` by its lowering. Raises ValueError for an op that code generation claims
    whole, or that has no lowering; IndexFault as the compiled op would."""
    types = tuple(type_of_array(a) for a in arrays)
    (result,) = op.infer_types(attrs, types)
    with np.errstate(all="ignore"):
        out = _evaluate(op, attrs, arrays, types, result)
    assert out.dtype == result.dtype.dtype, f"{op.name} computes {out.dtype}, not {result.dtype}"
    return np.broadcast_to(out, result.static_shape).copy()


def _evaluate(
    op: OpDef,
    attrs: Attrs,
    arrays: Sequence[Array],
    types: tuple[TensorType, ...],
    result: TensorType,
) -> Array:
    s = NumpyScalarOps()
    match op.lower:
        case Scalar(fn):
            return np.asarray(fn(s, attrs, *arrays))
        case Numbered(fn, setup=setup):
            number = np.arange(np.prod(result.static_shape, dtype=np.int64))
            shared = setup(s, attrs, lambda k: arrays[k])
            return np.asarray(fn(s, attrs, shared, number.reshape(result.static_shape)))
        case Index(fn):
            index = tuple(np.ogrid[tuple(slice(n) for n in result.static_shape)])
            return np.asarray(fn(s, attrs, types, index, _loader(arrays)))
        case Reduce(identity, combine):
            start = np.full((), identity(result.dtype), result.dtype.dtype)
            acc = start
            for x in _along(arrays[0], attrs):
                acc = combine(s, acc, x)
            return _placed(acc, result)
        case ArgReduce(better):
            return _placed(_best(s, better, _along(arrays[0], attrs)), result)
        case Kernel(name):
            raise ValueError(f"{op.name} is claimed whole by the kernel {name!r}")
    raise ValueError(f"{op.name} has no lowering; it expands")


def _loader(arrays: Sequence[Array]) -> Callable[[int, Sequence[Array]], Array]:
    def load(k: int, index: Sequence[Array]) -> Array:
        array = arrays[k]
        assert len(index) == array.ndim, f"operand {k} of rank {array.ndim}, index {len(index)}"
        for axis, (i, size) in enumerate(zip(index, array.shape, strict=True)):
            inside = (i >= 0) & (i < size)
            assert np.all(inside), f"a load outside of operand {k}: axis {axis} of size {size}"
        return np.asarray(array[tuple(index)])

    return load


def _along(x: Array, attrs: Any) -> list[Array]:
    """The elements that a reduction combines, in order, each with the shape of what is kept."""
    kept = [i for i in range(x.ndim) if i not in attrs.axes]
    rows = x.transpose(*attrs.axes, *kept)
    count = int(np.prod([x.shape[i] for i in attrs.axes], dtype=np.int64))
    return list(rows.reshape(count, *(x.shape[i] for i in kept)))


def _placed(reduced: Array, result: TensorType) -> Array:
    """A reduced value in the result's shape, which may have kept axes; no elements: the start."""
    shape = result.static_shape
    return reduced.reshape(shape) if reduced.size == np.prod(shape) else reduced


def _best(s: NumpyScalarOps, better: Callable[..., Array], elements: Sequence[Array]) -> Array:
    best, where = elements[0], np.zeros(np.shape(elements[0]), np.int64)
    for number, x in enumerate(elements[1:], start=1):
        wins = better(s, x, best)
        best, where = np.where(wins, x, best), np.where(wins, number, where)
    return where
