"""`update`: the elementwise instructions that give a parameter and its moments their new values.

    %4: f32[64, 10], %5: f32[64, 10] = update(%lr, %g, %p, %m) {
      func @update(%6: f32[] "p0", %7: f32[64, 10] "p1", ..) { ...; return %9 "r0", %10 "r1" }
    }

The pass `outline` makes one of what an optimiser does to each of many parameters; fusion makes
regions of them, or writes them out again. In between the region is a program of its own at the
level of the program around it, and updates of one type share one region. Its types come from the
region (`Builder.emit_typed`), its meaning is that the interpreter runs it.
"""

from __future__ import annotations

from typing import NoReturn

from treadle.ir.errors import ShapeError
from treadle.ir.op import NOT_DIFFERENTIABLE, Array, Attrs, OpDef, Trait, register
from treadle.ir.ops.sampling import NO_SAMPLES
from treadle.ir.scalar import Kernel
from treadle.ir.types import TensorType


def _types_from_region(a: Attrs, *types: TensorType) -> NoReturn:
    raise ShapeError("the types of update come from its region, not from a rule")


def _run_by_interpreter(a: Attrs, *arrays: Array) -> NoReturn:
    raise RuntimeError("a region runs in treadle.ir.interpreter; it has no reference of its own")


UPDATE = register(
    OpDef(
        name="update",
        maths="the region's results: new values of state, element by element",
        infer=_types_from_region,
        ref=_run_by_interpreter,
        vjp=NOT_DIFFERENTIABLE,
        lower=Kernel("update"),
        traits=frozenset({Trait.REGION}),
        samples=NO_SAMPLES,
    )
)
