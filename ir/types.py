"""Element types, dimensions and tensor types.

A dimension is an `int` or a `Dim`, a polynomial over named sizes, so that type rules written
once serve both. `TensorType` is complete when built: dtype and shape. Text form: `f32[32, n]`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import total_ordering
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.lazily import lazily

Kind = Literal["b", "u", "i", "f"]


@dataclass(frozen=True, slots=True, eq=False)
class DType:
    """An element type: `name` as in NumPy, `short` as in IR text, `kind` bool/uint/int/float.

    There is one object of each, so that comparing and hashing them is cheap.
    """

    name: str
    short: str
    kind: Kind
    bits: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """The NumPy dtype; under this name `np.dtype(treadle.float32)` works."""
        return _NUMPY[self.name]

    @property
    def itemsize(self) -> int:
        """Bytes of one element in memory (a bool takes one)."""
        return max(self.bits, 8) // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        """True for signed and unsigned integers, False for bool."""
        return self.kind in "ui"

    def __reduce__(self) -> tuple[Any, ...]:
        return dtype_of, (self.name,)  # copies and pickles are the one object again

    def __repr__(self) -> str:
        return f"treadle.{self.name}"

    def __str__(self) -> str:
        return self.short


bool_ = DType("bool", "bool", "b", 1)
uint8 = DType("uint8", "u8", "u", 8)
uint32 = DType("uint32", "u32", "u", 32)
int32 = DType("int32", "i32", "i", 32)
int64 = DType("int64", "i64", "i", 64)
float32 = DType("float32", "f32", "f", 32)
float64 = DType("float64", "f64", "f", 64)

DTYPES: tuple[DType, ...] = (bool_, uint8, uint32, int32, int64, float32, float64)
FLOATS: tuple[DType, ...] = (float32, float64)
INTEGERS: tuple[DType, ...] = (uint8, uint32, int32, int64)

_ADDRESSES = 1 << 62  # bytes; NumPy refuses from 2**63 on

_NUMPY: dict[str, np.dtype[Any]] = {d.name: np.dtype(d.name) for d in DTYPES}
_BY_SHORT = {d.short: d for d in DTYPES}
_BY_NUMPY: dict[np.dtype[Any], DType] = {_NUMPY[d.name]: d for d in DTYPES}


def dtype_of(what: object) -> DType:
    """The DType that `what` names: a DType, a NumPy dtype or scalar type, a name, bool/int/float.

    Raises DTypeError for a dtype that Treadle does not have.
    """
    if isinstance(what, DType):
        return what
    if what is bool:
        return bool_
    if what is int:
        return int64
    if what is float:
        return float32
    if isinstance(what, str) and what in _BY_SHORT:
        return _BY_SHORT[what]
    try:
        found = _BY_NUMPY.get(np.dtype(what))  # type: ignore[call-overload]
    except (TypeError, ValueError):  # ValueError: something that has a `dtype` of its own
        found = None
    if found is None:
        names = ", ".join(d.name for d in DTYPES)
        shown = what.name if isinstance(what, np.dtype) else repr(what)
        raise DTypeError(f"dtype {shown:.60} is not supported; Treadle has {names}")
    return found


@total_ordering
class Dim:
    """A symbolic dimension: a polynomial with integer coefficients over named sizes.

    `terms` maps a sorted tuple of names (a monomial) to its coefficient. `Dim.of("n") * 2 + 1`
    prints as `2*n+1`. Sizes are taken to be at least 1 where a rule must choose.
    """

    __slots__ = ("_hash", "terms")
    terms: tuple[tuple[tuple[str, ...], int], ...]

    def __init__(self, terms: Iterable[tuple[tuple[str, ...], int]]) -> None:
        self.terms = tuple(sorted((m, c) for m, c in terms if c != 0))
        self._hash = hash(self.terms)

    @staticmethod
    def of(name: str) -> Dim:
        """The dimension called `name`."""
        return Dim([((name,), 1)])

    def __add__(self, other: Dim | int) -> Dim | int:
        total = dict(self.terms)
        for mono, coef in _terms(other):
            total[mono] = total.get(mono, 0) + coef
        return _reduced(total)

    __radd__ = __add__

    def __mul__(self, other: Dim | int) -> Dim | int:
        total: dict[tuple[str, ...], int] = {}
        for m1, c1 in self.terms:
            for m2, c2 in _terms(other):
                mono = tuple(sorted(m1 + m2))
                total[mono] = total.get(mono, 0) + c1 * c2
        return _reduced(total)

    __rmul__ = __mul__

    def __sub__(self, other: Dim | int) -> Dim | int:
        return self + other * -1

    def __rsub__(self, other: Dim | int) -> Dim | int:
        return self * -1 + other

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self.terms == other.terms

    def __lt__(self, other: Dim) -> bool:
        return self.terms < other.terms

    def __hash__(self) -> int:
        return self._hash

    def __str__(self) -> str:
        text = ""
        for mono, coef in sorted(self.terms, key=lambda t: (-len(t[0]), t[0])):
            factors = "*".join(mono)
            if not mono:
                piece = str(abs(coef))
            else:
                piece = factors if abs(coef) == 1 else f"{abs(coef)}*{factors}"
            text += ("-" if coef < 0 else "+" if text else "") + piece
        return text

    __repr__ = __str__

    @property
    def names(self) -> frozenset[str]:
        return frozenset(n for mono, _ in self.terms for n in mono)

    def evaluate(self, sizes: dict[str, int]) -> int:
        """The number of elements when each name has the given size."""
        total = 0
        for mono, coef in self.terms:
            for name in mono:
                coef *= sizes[name]
            total += coef
        return total


Size: TypeAlias = "int | Dim"
Shape: TypeAlias = "tuple[Size, ...]"


def _terms(size: Size) -> tuple[tuple[tuple[str, ...], int], ...]:
    return size.terms if isinstance(size, Dim) else (((), size),)


def _reduced(total: dict[tuple[str, ...], int]) -> Size:
    kept = {m: c for m, c in total.items() if c != 0}
    if not kept:
        return 0
    if set(kept) == {()}:
        return kept[()]
    return Dim(kept.items())


def exact_div(total: Size, by: Size) -> Size | None:
    """`total / by` where that is a whole monomial quotient, else None. `by` must not be 0."""
    if isinstance(total, int) and isinstance(by, int):
        return total // by if total % by == 0 else None
    divisor = _terms(by)
    if len(divisor) != 1:
        return 1 if total == by else None
    (mono_by, coef_by), quotient = divisor[0], {}
    for mono, coef in _terms(total):
        left = list(mono)
        for name in mono_by:
            if name not in left:
                return None
            left.remove(name)
        if coef % coef_by:
            return None
        quotient[tuple(left)] = coef // coef_by
    return _reduced(quotient)


def size_product(sizes: Iterable[Size]) -> Size:
    """The product of dimensions; 1 for none."""
    product: Size = 1
    for size in sizes:
        product = product * size
    return product


@dataclass(frozen=True)
class TensorType:
    """The type of every Value: an element type and a shape. A rank-0 shape is a scalar."""

    dtype: DType
    shape: Shape = ()

    # Passes compare and hash types all the time: mostly the same object, or one hashed before.
    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(other) is not TensorType:
            return NotImplemented
        return self.dtype is other.dtype and self.shape == other.shape

    def __hash__(self) -> int:
        return self._hash

    @lazily
    def _hash(self) -> int:
        return hash((self.dtype, tuple(self.shape)))

    def __reduce__(self) -> tuple[Any, ...]:
        return TensorType, (self.dtype, self.shape)  # a hash is of this process

    @property
    def rank(self) -> int:
        return len(self.shape)

    @lazily
    def size(self) -> Size:
        """Number of elements."""
        return size_product(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(s, int) for s in self.shape)

    @property
    def static_shape(self) -> tuple[int, ...]:
        """The shape as ints; raises ShapeError where a dimension is symbolic."""
        dims = tuple(s for s in self.shape if isinstance(s, int))
        if len(dims) != len(self.shape):
            raise ShapeError(f"{self} has a symbolic dimension where a fixed shape is needed")
        return dims

    @property
    def nbytes(self) -> int:
        """Bytes of a contiguous buffer of this type."""
        count = 1
        for s in self.static_shape:
            count *= s
        return count * self.dtype.itemsize

    def with_shape(self, shape: Sequence[Size]) -> TensorType:
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.short}[{', '.join(map(str, self.shape))}]"

    __repr__ = __str__


def check_addressable(types: Iterable[TensorType]) -> None:
    """Raises ShapeError for a type that no machine has addresses for, before anything is made."""
    for type in types:
        if type.is_static and (
            type.nbytes >= _ADDRESSES or max(type.static_shape, default=0) >= _ADDRESSES
        ):
            raise ShapeError(f"{type} has more elements than memory has addresses")


def type_of_array(array: npt.NDArray[Any]) -> TensorType:
    """The TensorType of a NumPy array; raises DTypeError for a dtype that Treadle lacks."""
    return TensorType(dtype_of(array.dtype), array.shape)


# --- the rules that type rules share ---------------------------------------------------------


def shape_text(shape: Sequence[Size]) -> str:
    """A shape as messages show it: `(32, n)`."""
    inside = ", ".join(map(str, shape))
    return f"({inside},)" if len(shape) == 1 else f"({inside})"


def broadcast_shapes(*shapes: Sequence[Size]) -> Shape:
    """NumPy's broadcasting of shapes; raises ShapeError naming the shapes and the axis."""
    rank = max((len(s) for s in shapes), default=0)
    result: list[Size] = []
    for axis in range(-rank, 0):
        size: Size = 1
        for shape in shapes:
            here = shape[axis] if len(shape) >= -axis else 1
            if here == 1 or here == size:
                continue
            if size != 1:
                listed = " and ".join(shape_text(s) for s in shapes)
                raise ShapeError(
                    f"shapes {listed} do not broadcast: sizes {size} and {here} at axis {axis}"
                )
            size = here
        result.append(size)
    return tuple(result)


def normalize_axis(axis: int, rank: int, what: str = "axis") -> int:
    """`axis` counted from the front; raises ShapeError where it is out of range."""
    if not isinstance(axis, (int, np.integer)) or isinstance(axis, bool):
        raise DTypeError(f"{what} must be an int, found {type(axis).__name__} {axis!r}")
    if not -rank <= axis < rank:
        raise ShapeError(f"{what} {axis} is out of range for a tensor of rank {rank}")
    return int(axis) % rank if rank else 0


def normalize_axes(axes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Sorted axes counted from the front, None meaning all; raises ShapeError for repeats,
    DTypeError for what is no int or sequence of ints."""
    if axes is None:
        return tuple(range(rank))
    listed = tuple(axes) if isinstance(axes, (list, tuple)) else (axes,)
    normal = tuple(sorted(normalize_axis(a, rank) for a in listed))
    if len(set(normal)) != len(normal):
        raise ShapeError(f"axes {tuple(listed)} name an axis twice")
    return normal


def reduced_shape(shape: Sequence[Size], axes: Sequence[int], keepdims: bool) -> Shape:
    """The shape after reducing `axes` (counted from the front)."""
    if keepdims:
        return tuple(1 if i in axes else s for i, s in enumerate(shape))
    return tuple(s for i, s in enumerate(shape) if i not in axes)


def resolve_reshape(old: Sequence[Size], new: Sequence[Size]) -> Shape:
    """`new` with a single -1 filled in; raises ShapeError where the element counts differ."""
    total = size_product(old)
    unknown = [i for i, s in enumerate(new) if s == -1]
    if len(unknown) > 1:
        raise ShapeError(f"only one dimension of a new shape may be -1, found {shape_text(new)}")
    if any(isinstance(s, int) and s < -1 for s in new):
        raise ShapeError(f"a new shape has a negative dimension: {shape_text(new)}")
    shape = list(new)
    if unknown:
        rest = size_product(s for s in new if s != -1)
        filled = exact_div(total, rest) if rest != 0 else None
        if filled is None:
            raise ShapeError(
                f"cannot reshape {shape_text(old)} ({total} elements) to {shape_text(new)}"
            )
        shape[unknown[0]] = filled
    if size_product(shape) != total:
        raise ShapeError(
            f"cannot reshape {shape_text(old)} ({total} elements) to {shape_text(new)} "
            f"({size_product(shape)} elements)"
        )
    return tuple(shape)
