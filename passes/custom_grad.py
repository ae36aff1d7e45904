"""The derivative of an `attach_vjp`: its region, written out.

    %y = attach_vjp(%v, %x, %r, outputs=1, inputs=1) { dx = back(y, r, ct) }
      ->
    .. the instructions of `back`, of %y, %r and the cotangent of %y ..

What the region reads of the outputs is the instruction's own results, so that a second derivative
comes through the rule that the user has written, and not through how the value was computed.
"""

from __future__ import annotations

from collections.abc import Collection

from treadle.ir.builder import Builder
from treadle.ir.custom import attach_attrs, attached
from treadle.ir.errors import GradientError
from treadle.ir.graph import Instr, Value
from treadle.passes.inline import inline


def custom_cotangents(
    b: Builder, instr: Instr, total: dict[Value, Value], moving: Collection[Value]
) -> list[tuple[Value, Value]]:
    """(input, cotangent) for each input in `moving`, from those of the results in `total`.

    Raises GradientError where the derivative goes no further.
    """
    if not instr.regions:
        raise _refused(instr)
    parts = attached(instr)
    cts = [total[r] if r in total else b.zeros_like(r) for r in instr.results]
    found = inline(b, instr.regions[0], [*instr.results, *parts.residuals, *cts])
    return [(x, ct) for x, ct in zip(parts.inputs, found, strict=True) if x in moving]


def _refused(instr: Instr) -> GradientError:
    a = attach_attrs(instr)
    at = f" (at {instr.loc})" if instr.loc is not None else ""
    error = GradientError(
        f"the derivative of {a.label} calls {a.label} itself, and a jitted function can "
        f"differentiate that {a.order} times at most; write its derivative without it{at}"
    )
    error.located = bool(at)
    return error
