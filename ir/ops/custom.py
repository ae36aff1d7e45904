"""`attach_vjp`: values with a derivative that the user has written."""

from __future__ import annotations

from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import GradientError, ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Trait, register
from treadle.ir.ops.sampling import NO_SAMPLES
from treadle.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class AttachVjpAttrs(Attrs):
    """Operands are `outputs` values, `inputs` values by which they are differentiated, and what
    the derivative needs besides. `label` names the user's function; `order`: how often it has been
    differentiated inside of its own derivative, where that goes no further."""

    outputs: int
    inputs: int
    label: str
    order: int = 0


def _infer(a: AttachVjpAttrs, *types: TensorType) -> tuple[TensorType, ...]:
    if min(a.outputs, a.inputs) < 0 or len(types) < a.outputs + a.inputs:
        raise ShapeError(
            f"attach_vjp of {a.outputs} outputs by {a.inputs} inputs found {len(types)} operands"
        )
    return tuple(types[: a.outputs])


def _ref(a: AttachVjpAttrs, *arrays: Array) -> tuple[Array, ...]:
    return tuple(np.array(x) for x in arrays[: a.outputs])


def _only_by_pass(*operands: Any) -> Any:
    raise GradientError("the derivative of attach_vjp is its region, which autodiff writes out")


ATTACH_VJP = register(
    OpDef(
        name="attach_vjp",
        maths="ys = xs[:outputs], whose derivative by the inputs is what the region computes",
        attrs=AttachVjpAttrs,
        infer=_infer,
        ref=_ref,
        vjp=_only_by_pass,
        expand=lambda o, a, *xs: xs[: a.outputs],
        traits=frozenset({Trait.BARRIER}),
        samples=NO_SAMPLES,
    )
)
