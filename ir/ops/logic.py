"""Comparisons, logic on bools, bits and shifts, tests for NaN and infinity, and `where`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from treadle.ir.errors import ShapeError
from treadle.ir.op import (
    NO_ATTRS,
    NOT_DIFFERENTIABLE,
    Attrs,
    OpDef,
    Sample,
    Trait,
    register,
)
from treadle.ir.ops.rules import (
    BITS,
    BOOLS,
    NUMBERS,
    check_dtype,
    check_same_dtype,
    elementwise_rule,
    numpy_ref,
)
from treadle.ir.ops.sampling import (
    INTEGER_SAMPLES,
    any_binary,
    any_unary,
    float_binary,
    float_unary,
    joined,
    special_floats,
    uniform,
)
from treadle.ir.scalar import Comparison, Scalar
from treadle.ir.types import (
    DTYPES,
    FLOATS,
    INTEGERS,
    DType,
    TensorType,
    bool_,
    broadcast_shapes,
    float32,
    float64,
    int32,
    uint8,
)

ELEMENTWISE = frozenset({Trait.ELEMENTWISE})
COMMUTATIVE = ELEMENTWISE | {Trait.COMMUTATIVE}

# --- comparisons -----------------------------------------------------------------------------


def _comparison(name: Comparison, sign: str, allowed: tuple[DType, ...]) -> OpDef:
    symmetric = name in ("eq", "ne")
    numpy_name = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal"}
    numpy_name |= {"gt": "greater", "ge": "greater_equal"}
    return OpDef(
        name=name,
        maths=f"z = x {sign} y; with a NaN {'true' if name == 'ne' else 'false'}",
        infer=elementwise_rule(name, 2, allowed, bool_),
        ref=numpy_ref(getattr(np, numpy_name[name])),
        vjp=NOT_DIFFERENTIABLE,
        lower=Scalar(lambda s, a, x, y: s.compare(name, x, y)),
        traits=COMMUTATIVE if symmetric else ELEMENTWISE,
        samples=joined(
            float_binary(-2, 2, ulps=0, kinks=True),
            any_binary((bool_, *INTEGER_SAMPLES) if symmetric else INTEGER_SAMPLES),
        ),
    )


EQ = register(_comparison("eq", "==", DTYPES))
NE = register(_comparison("ne", "!=", DTYPES))
LT = register(_comparison("lt", "<", NUMBERS))
LE = register(_comparison("le", "<=", NUMBERS))
GT = register(_comparison("gt", ">", NUMBERS))
GE = register(_comparison("ge", ">=", NUMBERS))

# --- logic and bits --------------------------------------------------------------------------


def _bitwise(
    name: str, maths: str, ref: Any, lower: Callable[..., Any], allowed: tuple[DType, ...]
) -> OpDef:
    return OpDef(
        name=name,
        maths=maths,
        infer=elementwise_rule(name, 2, allowed),
        ref=numpy_ref(ref),
        vjp=NOT_DIFFERENTIABLE,
        lower=Scalar(lower),
        traits=ELEMENTWISE if name.startswith("shift") else COMMUTATIVE,
        samples=any_binary(tuple(d for d in allowed if d in (bool_, *INTEGER_SAMPLES))),
    )


LOGICAL_AND = register(
    _bitwise("logical_and", "z = x and y", np.logical_and, lambda s, a, x, y: s.and_(x, y), BOOLS)
)
LOGICAL_OR = register(
    _bitwise("logical_or", "z = x or y", np.logical_or, lambda s, a, x, y: s.or_(x, y), BOOLS)
)
LOGICAL_XOR = register(
    _bitwise("logical_xor", "z = x != y", np.logical_xor, lambda s, a, x, y: s.xor(x, y), BOOLS)
)
BITWISE_AND = register(
    _bitwise("bitwise_and", "z = x & y", np.bitwise_and, lambda s, a, x, y: s.and_(x, y), BITS)
)
BITWISE_OR = register(
    _bitwise("bitwise_or", "z = x | y", np.bitwise_or, lambda s, a, x, y: s.or_(x, y), BITS)
)
BITWISE_XOR = register(
    _bitwise("bitwise_xor", "z = x ^ y", np.bitwise_xor, lambda s, a, x, y: s.xor(x, y), BITS)
)
SHIFT_LEFT = register(
    _bitwise(
        "shift_left",
        "z = x << y; 0 where y is negative or at least the width",
        np.left_shift,
        lambda s, a, x, y: s.shift_left(x, y),
        INTEGERS,
    )
)
SHIFT_RIGHT = register(
    _bitwise(
        "shift_right",
        "z = x >> y, arithmetic; all sign bits where y is negative or at least the width",
        np.right_shift,
        lambda s, a, x, y: s.shift_right(x, y),
        INTEGERS,
    )
)

LOGICAL_NOT = register(
    OpDef(
        name="logical_not",
        maths="y = not x",
        infer=elementwise_rule("logical_not", 1, BOOLS),
        ref=numpy_ref(np.logical_not),
        vjp=NOT_DIFFERENTIABLE,
        lower=Scalar(lambda s, a, x: s.not_(x)),
        traits=ELEMENTWISE,
        samples=any_unary(BOOLS),
    )
)

BITWISE_NOT = register(
    OpDef(
        name="bitwise_not",
        maths="y = ~x",
        infer=elementwise_rule("bitwise_not", 1, BITS),
        ref=numpy_ref(np.bitwise_not),
        vjp=NOT_DIFFERENTIABLE,
        lower=Scalar(lambda s, a, x: s.not_(x)),
        traits=ELEMENTWISE,
        samples=any_unary((bool_, *INTEGER_SAMPLES)),
    )
)

# --- NaN and infinity ------------------------------------------------------------------------


def _float_test(name: str, maths: str, ref: Any, lower: Callable[..., Any]) -> OpDef:
    return OpDef(
        name=name,
        maths=maths,
        infer=elementwise_rule(name, 1, FLOATS, bool_),
        ref=numpy_ref(ref),
        vjp=NOT_DIFFERENTIABLE,
        lower=Scalar(lower),
        traits=ELEMENTWISE,
        samples=float_unary(-2, 2, ulps=0, kinks=True),
    )


def _against_inf(how: Comparison) -> Callable[..., Any]:
    def lower(s: Any, a: Attrs, x: Any) -> Any:
        return s.compare(how, s.abs(x), s.const(float("inf"), s.dtype_of(x)))

    return lower


ISNAN = register(
    _float_test("isnan", "y = x != x", np.isnan, lambda s, a, x: s.compare("ne", x, x))
)
ISINF = register(_float_test("isinf", "y = |x| == inf", np.isinf, _against_inf("eq")))
ISFINITE = register(_float_test("isfinite", "y = |x| < inf", np.isfinite, _against_inf("lt")))

# --- where -----------------------------------------------------------------------------------


def _infer_where(a: Attrs, *types: TensorType) -> TensorType:
    if len(types) != 3:
        raise ShapeError(f"where takes a condition and two operands, found {len(types)} operands")
    cond, x, y = types
    check_dtype("the condition of where", cond, BOOLS)
    check_same_dtype("where", (x, y))
    return TensorType(x.dtype, broadcast_shapes(cond.shape, x.shape, y.shape))


def _samples_where(rng: np.random.Generator) -> Iterable[Sample]:
    cond = rng.integers(0, 2, (3, 1)).astype(bool)
    yield Sample((cond, uniform(rng, (3, 5), float64, -1, 1), uniform(rng, (5,), float64, -1, 1)))
    special = special_floats(float32)
    pick = rng.integers(0, 2, special.shape).astype(bool)
    yield Sample((pick, special, special[::-1].copy()), NO_ATTRS, False)
    yield Sample((np.array(True), *(np.arange(7, dtype=int32.dtype),) * 2), NO_ATTRS, False)
    yield Sample(
        (pick[:2], np.array([1, 2], uint8.dtype), np.array(3, uint8.dtype)), NO_ATTRS, False
    )
    yield Sample((np.zeros(0, bool), np.ones(1, bool), np.zeros((), bool)), NO_ATTRS, False)


WHERE = register(
    OpDef(
        name="where",
        maths="z = x where cond, else y; the branch not taken has derivative exactly 0",
        infer=_infer_where,
        ref=lambda a, cond, x, y: np.where(cond, x, y),
        vjp=lambda o, a, args, outs, cts: (
            None,
            o.where(args[0], cts[0], 0),
            o.where(args[0], 0, cts[0]),
        ),
        lower=Scalar(lambda s, a, cond, x, y: s.select(cond, x, y)),
        traits=ELEMENTWISE,
        samples=_samples_where,
    )
)
