"""Vector maths: which code computes which function. The families have a file each.

LLVM turns `llvm.exp` and its like into one libm call a lane, so these are polynomials and bit
tricks over whole vectors. `docs/accuracy.md` holds the measured errors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from treadle.codegen.llvm import FunctionWriter, Val
from treadle.codegen.vecmath_core import Maths
from treadle.codegen.vecmath_erf import erf, erfc, erfinv
from treadle.codegen.vecmath_exp import exp, exp2, expm1, sigmoid, softplus, tanh
from treadle.codegen.vecmath_log import log, log1p, log2
from treadle.codegen.vecmath_pow import pow_
from treadle.codegen.vecmath_trig import cos, sin
from treadle.ir.scalar import MathName

_EMITTERS: Final[dict[MathName, Callable[..., Val]]] = {
    "exp": exp,
    "expm1": expm1,
    "exp2": exp2,
    "log": log,
    "log1p": log1p,
    "log2": log2,
    "sin": sin,
    "cos": cos,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "erf": erf,
    "erfc": erfc,
    "erfinv": erfinv,
    "softplus": softplus,
    "pow": pow_,
}


def emit(w: FunctionWriter, name: MathName, *xs: Val) -> Val:
    """`name` of float32 or float64 operands (all of one type), in each lane.

    sin and cos branch, so the writer may be in another block afterwards.
    """
    return _EMITTERS[name](Maths(w, xs[0].type), *xs)
