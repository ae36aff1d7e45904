"""Derivatives that users have written: how the parts of an `attach_vjp` belong together.

1. Operands are outputs, inputs and residuals; results are the outputs, of the same types.
2. Its region, the derivative, takes the outputs, the residuals, and a cotangent an output; it gives
   a cotangent an input, of the input's type. It is at the level of the program around, and closed.
3. Without a region the values have no further derivative.
4. The region does not run where it stands: autodiff writes it out where it is asked for. Outputs
   and inputs are floats. A derivative follows the inputs alone; but what the region reads may
   depend on variables, which second derivatives follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr, Value

if TYPE_CHECKING:
    from treadle.ir.ops.custom import AttachVjpAttrs

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Attached:
    """The operands of an `attach_vjp` by their role."""

    outputs: tuple[Value, ...]
    inputs: tuple[Value, ...]
    residuals: tuple[Value, ...]


def is_attached(instr: Instr) -> bool:
    """Is `instr` an `attach_vjp`?"""
    return instr.op.name == "attach_vjp"


def attach_attrs(instr: Instr) -> AttachVjpAttrs:
    """Its attributes."""
    return instr.attrs  # type: ignore[return-value]


def attached(instr: Instr) -> Attached:
    """Its operands."""
    a, args = attach_attrs(instr), instr.args
    first = a.outputs + a.inputs
    return Attached(args[: a.outputs], args[a.outputs : first], args[first:])


def followed_args(instr: Instr) -> Sequence[Value]:
    """The operands that a derivative of `instr` by its operands reaches."""
    return attached(instr).inputs if instr.op.name == "attach_vjp" else instr.args


def check_attached(instr: Instr) -> Iterator[str]:
    """What is illegal about an `attach_vjp`."""
    a = attach_attrs(instr)
    if min(a.outputs, a.inputs) < 0 or len(instr.args) < a.outputs + a.inputs:
        yield f"{len(instr.args)} operands for {a.outputs} outputs and {a.inputs} inputs"
        return
    parts = attached(instr)
    if any(not v.type.dtype.is_float for v in (*parts.outputs, *parts.inputs)):
        yield "outputs and inputs must be floats"
    if [r.type for r in instr.results] != [v.type for v in parts.outputs]:
        yield "its results must have the types of its outputs"
    if len(instr.regions) > 1:
        yield f"needs one region or none, found {len(instr.regions)}"
    for region in instr.regions:
        takes = [v.type for v in (*parts.outputs, *parts.residuals, *parts.outputs)]
        if [v.type for v in region.inputs] != takes:
            yield "its region's parameters must be outputs, residuals and cotangents"
        if [v.type for v in region.outputs] != [v.type for v in parts.inputs]:
            yield "its region's results must have the types of its inputs"
