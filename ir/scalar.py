"""The protocol in which ops say how ONE element is computed.

An op's `lower` is written against `ScalarOps`; the LLVM emitter implements it on vectors of W
lanes, `treadle.ir.scalar_numpy` on NumPy arrays (so that a lowering is tested without LLVM).
`S` is an element being computed, `I` an index along one dimension. Indices are kept apart from
elements because an emitter tracks how an index moves along its vector lanes: `index_add`,
`index_mul` keep an affine index affine, so that its load stays one contiguous vector load.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar

from treadle.ir.dataclass import dataclass
from treadle.ir.types import DType

S = TypeVar("S")
I = TypeVar("I")  # noqa: E741  the index type, as in the formulas

Comparison = Literal["lt", "le", "gt", "ge", "eq", "ne"]
MathName = Literal[
    "exp", "expm1", "exp2", "log", "log1p", "log2", "sin", "cos", "tanh",
    "sigmoid", "erf", "erfc", "erfinv", "softplus", "pow",
]  # fmt: skip


class ScalarOps(Protocol[S, I]):
    """Arithmetic on elements. Operands of one call have one dtype; nothing is promoted."""

    def const(self, value: float | int | bool, dtype: DType) -> S: ...
    def dtype_of(self, x: S) -> DType: ...
    def cast(self, x: S, dtype: DType) -> S:
        """Total: float to int saturates and NaN gives 0; int to int wraps; to bool is `x != 0`."""
        ...

    def add(self, x: S, y: S) -> S: ...
    def sub(self, x: S, y: S) -> S: ...
    def mul(self, x: S, y: S) -> S: ...
    def div(self, x: S, y: S) -> S:
        """Float division, IEEE."""
        ...

    def int_div(self, x: S, y: S) -> S:
        """Integer division rounding to minus infinity; total: x // 0 is 0, MIN // -1 is MIN."""
        ...

    def int_rem(self, x: S, y: S) -> S:
        """Remainder with the sign of `y`; x % 0 is 0."""
        ...

    def neg(self, x: S) -> S: ...
    def abs(self, x: S) -> S: ...
    def sqrt(self, x: S) -> S: ...
    def floor(self, x: S) -> S: ...
    def ceil(self, x: S) -> S: ...
    def trunc(self, x: S) -> S: ...
    def rint(self, x: S) -> S:
        """Nearest integer, ties to even."""
        ...

    def fmod(self, x: S, y: S) -> S:
        """Float remainder with the sign of `x`, exact (C's fmod)."""
        ...

    def copysign(self, x: S, y: S) -> S: ...
    def maximum(self, x: S, y: S) -> S:
        """The larger; NaN where either is NaN; +0 over -0."""
        ...

    def minimum(self, x: S, y: S) -> S: ...
    def compare(self, how: Comparison, x: S, y: S) -> S:
        """A bool. Ordered for floats, except `ne`, which is true for NaN."""
        ...

    def select(self, cond: S, x: S, y: S) -> S: ...
    def seldom(self, cond: S, then: Callable[[], S], y: S) -> S:
        """`select(cond, then(), y)` where `cond` holds in next to no element: compiled code goes
        around `then`, which may have no effects, as long as it holds in none."""
        ...

    def and_(self, x: S, y: S) -> S: ...
    def or_(self, x: S, y: S) -> S: ...
    def xor(self, x: S, y: S) -> S: ...
    def not_(self, x: S) -> S: ...
    def shift_left(self, x: S, y: S) -> S:
        """0 where y is negative or at least the width."""
        ...

    def shift_right(self, x: S, y: S) -> S:
        """Arithmetic for signed; a shift out of range gives 0 or -1 as an infinite shift would."""
        ...

    def math(self, name: MathName, *xs: S) -> S:
        """Vector maths in the operands' float dtype, accurate as `docs/accuracy.md` states."""
        ...

    # --- random numbers ----------------------------------------------------------------------

    def random_draw(self, seed: S, draw: S, domain: int) -> Any:
        """What all elements of a draw share; see `treadle.ir.philox`."""
        ...

    def random_word(self, draw: Any, e: I, dtype: DType) -> S:
        """Word `e` of the draw: uint32 or int64."""
        ...

    def random_normal(self, draw: Any, e: I, dtype: DType) -> S:
        """Normal number `e` of the draw, made as `treadle.ir.ops.random.normal_pair` says."""
        ...

    # --- indices -----------------------------------------------------------------------------

    def index_const(self, value: int) -> I: ...
    def index_add(self, i: I, by: int) -> I: ...
    def index_mul(self, i: I, by: int) -> I: ...
    def index_sum(self, i: I, j: I) -> I: ...
    def index_divmod(self, i: I, by: int) -> tuple[I, I]:
        """Quotient and remainder of a non-negative index by a positive constant."""
        ...

    def index_clamp(self, i: I, size: int) -> I:
        """`i` moved into [0, size)."""
        ...

    def index_in(self, i: I, low: int, high: int) -> S:
        """A bool: low <= i < high."""
        ...

    def index_of(self, x: S, size: int, wrap: bool, fault: str) -> I:
        """An integer element as an index of an axis of `size`.

        `wrap`: -size..-1 count from the end. Out of range it is clamped; where `fault` is not ""
        the run-time fault is recorded under that text, which the raised IndexFault begins with.
        """
        ...

    def from_index(self, i: I, dtype: DType) -> S: ...


@dataclass(frozen=True, slots=True)
class Scalar:
    """Elementwise: `fn(s, attrs, *elements) -> element`; operands broadcast, NumPy's way."""

    fn: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Index:
    """Each element of the result is pulled from the operands:

    `fn(s, attrs, types, index, load) -> element`, where `types` are the operand types, `index`
    the result's index (a tuple of I) and `load(k, index)` the element of operand k there.
    `affine` says that the result index maps to one operand index by adding and multiplying
    constants only (permute, slice, broadcast, flip), so that it can be read as a strided view.
    """

    fn: Callable[..., Any]
    affine: bool = False


@dataclass(frozen=True, slots=True)
class Numbered(Index):
    """Each element is computed from its number in the row-major order of the result:

    `fn(s, attrs, shared, number) -> element`, where `number` is an I and `shared` what
    `setup(s, attrs, load)` has computed once for all elements; `load(k)` is operand k there, of
    rank 0. A reshape of such a result is the same instruction with another shape, the attribute of
    that name.
    """

    setup: Callable[..., Any] = lambda s, attrs, load: None


@dataclass(frozen=True, slots=True)
class Reduce:
    """A reduction over `attrs.axes` with `attrs.keepdims`; the result dtype is the accumulator's.

    `identity(dtype)` starts it; `combine(s, acc, x)` is associative and commutative up to rounding.
    """

    identity: Callable[[DType], float | int | bool]
    combine: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class ArgReduce:
    """The index of the best element over `attrs.axes` (one axis), int64; the first of equals.

    `better(s, x, best)` is a bool element: x beats best. NaN beats everything.
    """

    better: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Kernel:
    """Claimed whole by the emitter that `codegen` registers under `name`."""

    name: str


Lowering = Scalar | Index | Reduce | ArgReduce | Kernel
LoadFn = Callable[[int, Sequence[Any]], Any]
