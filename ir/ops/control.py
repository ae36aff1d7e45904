"""Ops with regions that are programs themselves: `scan` (every loop), `switch` (branches), `remat`.

Their types come from their regions (`Builder.emit_typed`), their meaning is that the interpreter
runs the regions; what a legal one looks like stands in `treadle.ir.control`. A region is closed:
what it uses of the program around it comes as an operand.

    %4: f32[2], %5: f32[9, 2] = scan(%0, %1, %2, consts=1, carries=1, length=9, ..) {
      func @body(%6: f32[2] "w", %7: f32[2] "h", %8: f32[2] "x") { ...; return %9 "h", %9 "y" }
    }

The derivative of such an op is another one, which the autodiff pass makes: it needs the regions,
so `vjp` is refused here.
"""

from __future__ import annotations

from typing import Any, NoReturn

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import GradientError, ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Trait, register
from treadle.ir.ops.sampling import NO_SAMPLES
from treadle.ir.scalar import Kernel
from treadle.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class ScanAttrs(Attrs):
    """A loop. Operands are the number of steps (if `steps`), `consts` values that every step sees,
    `carries` values that a step hands to the next, and arrays of which step i gets row i.

    The region takes consts, carries and rows, and gives whether to go on (if `until`), the next
    carries, and rows of the results. The results are the number of steps done (if `until`), the
    last carries, and the rows stacked; a row whose step was not run is zero.

    Steps 0, 1, .. `length` - 1 run in this order, from the last to the first if `reverse`; only the
    first `steps` of them where that operand is given (taken as 0 or `length` beyond these). With
    `until` the loop ends behind the first step that says so. `length` None: no end but those; there
    are no rows then.
    """

    consts: int
    carries: int
    length: int | None
    reverse: bool = False
    steps: bool = False
    until: bool = False


@dataclass(frozen=True, slots=True)
class SwitchAttrs(Attrs):
    """`branches`: how many regions there are."""

    branches: int


def _types_from_region(a: Attrs, *types: TensorType) -> NoReturn:
    raise ShapeError("the types of scan, switch and remat come from their regions, not from a rule")


def _run_by_interpreter(a: Attrs, *arrays: Array) -> NoReturn:
    raise RuntimeError("a region runs in treadle.ir.interpreter; it has no reference of its own")


def _only_by_pass(*operands: Any) -> NoReturn:
    raise GradientError("the derivative of a loop or branch needs its regions: autodiff makes it")


def _control(name: str, maths: str, attrs: type[Attrs]) -> OpDef:
    return register(
        OpDef(
            name=name,
            maths=maths,
            attrs=attrs,
            infer=_types_from_region,
            ref=_run_by_interpreter,
            vjp=_only_by_pass,
            lower=Kernel(name),
            traits=frozenset({Trait.REGION, Trait.CONTROL}),
            samples=NO_SAMPLES,
        )
    )


SCAN = _control("scan", "carry, y[i] = region(consts, carry, x[i]) for each i", ScanAttrs)
SWITCH = _control("switch", "the results of region number min(max(index, 0), last)", SwitchAttrs)
REMAT = _control("remat", "the region's results; a derivative computes them again", Attrs)
