"""Functions of which every program with a matrix product has the same: compiled ahead, apart.

They are half of what LLVM compiles for the step of a small network, and depend on the target and
the dtype alone. So they are a module of their own, that is written before the program's passes run
and compiled on another thread meanwhile; a program's module only declares what it calls of it, and
both objects are linked. Their text is what the same emitters write into a program's own module.
"""

from __future__ import annotations

from math import prod

from treadle.codegen.emission import Emission
from treadle.codegen.llvm import Module
from treadle.codegen.product import product_function
from treadle.codegen.target import Target
from treadle.ir.graph import Function, walk
from treadle.ir.types import DType, TensorType

_ENOUGH = 1 << 14  # multiplications of a product that is surely gathered in panels


def library(target: Target, dtype: DType) -> Module:
    """The blocked product of `dtype`, with what gathers its operands and stores its edges."""
    state = Emission(Module(target), target)
    product_function(state, dtype)
    return state.module


def wanted(fn: Function) -> DType | None:
    """The dtype whose product a TRACED program is about to use; None where that is not sure."""
    for instr in walk(fn):
        if instr.op.name == "matmul" and instr.result.type.dtype.is_float:
            types = instr.result.type, instr.args[0].type
            if all(t.is_static for t in types) and _multiplications(*types) >= _ENOUGH:
                return types[0].dtype
    return None


def _multiplications(result: TensorType, left: TensorType) -> int:
    return prod(result.static_shape) * left.static_shape[-1]
