"""Identities that steer differentiation: variable, stop_gradient, and gradient itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import GradientError, ShapeError
from treadle.ir.op import Attrs, OpDef, Trait, register
from treadle.ir.ops.rules import elementwise_rule
from treadle.ir.ops.sampling import NO_SAMPLES, any_unary, float_unary, joined
from treadle.ir.scalar import Scalar
from treadle.ir.types import DTYPES, TensorType, bool_, int32

_IDENTITY_SAMPLES = joined(float_unary(-2, 2, ulps=0), any_unary((bool_, int32)))

VARIABLE = register(
    OpDef(
        name="variable",
        maths="y = x, kept apart: a value with respect to which a gradient is taken",
        infer=elementwise_rule("variable", 1, DTYPES),
        ref=lambda a, x: np.array(x),
        vjp=lambda o, a, args, outs, cts: (cts[0],),
        lower=Scalar(lambda s, a, x: x),
        expand=lambda o, a, x: x,
        traits=frozenset({Trait.ELEMENTWISE, Trait.BARRIER}),
        samples=_IDENTITY_SAMPLES,
    )
)

STOP_GRADIENT = register(
    OpDef(
        name="stop_gradient",
        maths="y = x, with derivative 0",
        infer=elementwise_rule("stop_gradient", 1, DTYPES),
        ref=lambda a, x: np.array(x),
        vjp=lambda o, a, args, outs, cts: (None,),
        lower=Scalar(lambda s, a, x: x),
        expand=lambda o, a, x: x,
        traits=frozenset({Trait.ELEMENTWISE}),
        samples=lambda rng: (
            type(s)(s.args, s.attrs, False, s.ulps, s.scale) for s in _IDENTITY_SAMPLES(rng)
        ),
    )
)


@dataclass(frozen=True, slots=True)
class GradientAttrs(Attrs):
    """How many values are differentiated: operands are `outputs` values ys, as many cotangents,
    then the variables xs."""

    outputs: int


def _infer_gradient(a: GradientAttrs, *types: TensorType) -> tuple[TensorType, ...]:
    if a.outputs < 1 or len(types) < 2 * a.outputs:
        raise ShapeError(
            f"gradient of {a.outputs} value(s) takes each of them and its cotangent, "
            f"found {len(types)} operand(s)"
        )
    ys, cts, xs = split_gradient(a, types)
    for y, ct in zip(ys, cts, strict=True):
        if y != ct:
            raise ShapeError(f"gradient: the cotangent of a {y} must have its type, found {ct}")
        if not y.dtype.is_float:
            raise GradientError(f"gradient of a {y}: only float values have a gradient")
    for x in xs:
        if not x.dtype.is_float:
            raise GradientError(f"gradient with respect to a {x}: only floats have a gradient")
    return tuple(xs)


def split_gradient(a: GradientAttrs, operands: Sequence[Any]) -> tuple[Any, Any, Any]:
    """The operands of a `gradient`: values, cotangents, variables."""
    n = a.outputs
    return operands[:n], operands[n : 2 * n], operands[2 * n :]


def _only_by_pass(*operands: Any) -> Any:
    raise GradientError("gradient has no meaning on values: the autodiff pass expands it")


GRADIENT = register(
    OpDef(
        name="gradient",
        maths="dx_j = sum over i of ct_i dy_i/dx_j, for the variables x_j",
        attrs=GradientAttrs,
        infer=_infer_gradient,
        ref=_only_by_pass,
        vjp=_only_by_pass,
        expand=_only_by_pass,
        traits=frozenset({Trait.BARRIER}),
        samples=NO_SAMPLES,
    )
)
