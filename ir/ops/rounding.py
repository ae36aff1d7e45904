"""Rounding to whole numbers. Floats only: an integer is whole already. The derivative is 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from treadle.ir.op import OpDef, Trait, register
from treadle.ir.ops.rules import elementwise_rule, numpy_ref
from treadle.ir.ops.sampling import float_unary
from treadle.ir.scalar import Scalar
from treadle.ir.types import FLOATS


def _rounding(name: str, maths: str, ref: Any, lower: Callable[..., Any]) -> OpDef:
    return OpDef(
        name=name,
        maths=maths,
        infer=elementwise_rule(name, 1, FLOATS),
        ref=numpy_ref(ref),
        vjp=lambda o, a, args, outs, cts: (None,),
        lower=Scalar(lower),
        traits=frozenset({Trait.ELEMENTWISE, Trait.MONOTONE}),
        samples=float_unary(-5, 5, ulps=0, kinks=True),
    )


FLOOR = register(
    _rounding("floor", "y = the largest whole number <= x", np.floor, lambda s, a, x: s.floor(x))
)
CEIL = register(
    _rounding("ceil", "y = the smallest whole number >= x", np.ceil, lambda s, a, x: s.ceil(x))
)
TRUNC = register(
    _rounding("trunc", "y = x without its fraction", np.trunc, lambda s, a, x: s.trunc(x))
)
ROUND = register(
    _rounding("round", "y = nearest whole number, ties to even", np.rint, lambda s, a, x: s.rint(x))
)
