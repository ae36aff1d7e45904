"""Values shown while a program runs: `debug_print`.

The text is a format string whose places are all of the form `{}` or `{:spec}`, one an operand. In
compiled code the operands become results of kind "print" (see `treadle.passes.prints`), which the
call renders when the run is over, or the program calls Python; op by op the reference prints at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Formatter

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import NOT_DIFFERENTIABLE, Array, Attrs, OpDef, Trait, register
from treadle.ir.ops.sampling import NO_SAMPLES
from treadle.ir.scalar import Kernel
from treadle.ir.types import TensorType

_ELEMENTS = 200  # above this NumPy abbreviates
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class DebugPrintAttrs(Attrs):
    """The format string."""

    text: str


def places(text: str) -> int:
    """How many values the format string takes."""
    return sum(name is not None for _, name, _, _ in Formatter().parse(text))


def render(text: str, arrays: Sequence[Array]) -> str:
    """The text with the arrays in its places; a place's spec formats each element."""
    left = iter(arrays)
    pieces = []
    for literal, name, spec, _ in Formatter().parse(text):
        pieces.append(literal)
        if name is not None:
            pieces.append(_array_text(next(left), spec or ""))
    return "".join(pieces)


def _array_text(array: Array, spec: str) -> str:
    if array.ndim == 0:
        return format(array[()], spec)
    return np.array2string(
        array,
        separator=", ",
        threshold=_ELEMENTS,
        precision=_DIGITS,
        formatter={"all": lambda element: format(element, spec)} if spec else None,
    )


def _infer(a: DebugPrintAttrs, *types: TensorType) -> tuple[TensorType, ...]:
    if places(a.text) != len(types):
        raise ShapeError(
            f"debug_print: the text {a.text!r} has {places(a.text)} places, found {len(types)} "
            "values"
        )
    return ()


def _ref(a: DebugPrintAttrs, *arrays: Array) -> tuple[Array, ...]:
    print(render(a.text, arrays), flush=True)
    return ()


DEBUG_PRINT = register(
    OpDef(
        name="debug_print",
        maths="prints its operands; no results",
        attrs=DebugPrintAttrs,
        infer=_infer,
        ref=_ref,
        vjp=NOT_DIFFERENTIABLE,
        lower=Kernel("debug_print"),
        traits=frozenset({Trait.EFFECT}),
        samples=NO_SAMPLES,
    )
)
