"""Vector maths: which piece of code computes which function. (Families: the files beside.)"""

from __future__ import annotations

from treadle.codegen.llvm import FunctionWriter, Val
from treadle.ir.scalar import MathName


def emit(w: FunctionWriter, name: MathName, *xs: Val) -> Val:
    """`name` of float32 or float64 operands, in each lane."""
    base = {"pow": "llvm.pow"}.get(name, f"llvm.{name}")
    return w.intrinsic(base, xs[0].type, xs)
