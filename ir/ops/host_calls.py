"""Python code that a program calls while it runs: `callback` and `watch`.

What they do is not in the program: a `HostFunction` stands for a function of the process that
traced it, and a program that is read from text knows its label only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import DTypeError, GradientError, ShapeError, TraceError
from treadle.ir.host_function import HostFunction
from treadle.ir.op import NOT_DIFFERENTIABLE, Array, Attrs, OpDef, Trait, register
from treadle.ir.ops.sampling import NO_SAMPLES
from treadle.ir.scalar import Kernel
from treadle.ir.types import DType, Shape, TensorType, shape_text, type_of_array
from treadle.ir.watchers import read_only_copy, watchers

INTERRUPTED: Final = "a call of Python code was interrupted"  # before the code began
HOST_OPS: Final = frozenset({"callback", "watch", "debug_print"})


@dataclass(frozen=True, slots=True)
class CallbackAttrs(Attrs):
    """`host`: what is called; its label where the program was read from text. `dtypes`, `shapes`:
    of the results. `pure`: nothing but its results matters, so that it may be left out."""

    host: HostFunction | str
    dtypes: tuple[DType, ...]
    shapes: tuple[Shape, ...]
    pure: bool = False


def result_types(a: CallbackAttrs) -> tuple[TensorType, ...]:
    """The types of the results of a callback."""
    return tuple(TensorType(d, s) for d, s in zip(a.dtypes, a.shapes, strict=True))


def host_of(a: CallbackAttrs) -> HostFunction:
    """The function; raises TraceError where the program does not have it."""
    if isinstance(a.host, HostFunction):
        return a.host
    raise TraceError(
        f"the program calls the Python function {a.host}, which a program that is read from text "
        "does not have; trace the function anew where it is defined"
    )


def checked_results(label: str, given: Sequence[Any], types: Sequence[TensorType]) -> list[Array]:
    """What a callback gave, as arrays of these types. Python numbers take the dtype that is asked
    for; raises ShapeError or DTypeError for anything else that is not of its type."""
    if len(given) != len(types):
        raise ShapeError(f"callback {label} gave {len(given)} results, expected {len(types)}")
    return [_checked(label, n, x, t) for n, (x, t) in enumerate(zip(given, types, strict=True))]


def _checked(label: str, number: int, x: Any, type: TensorType) -> Array:
    what = f"callback {label} gave result {number} as"
    loose = _holds(x, type.dtype)
    array = np.asarray(x, type.dtype.dtype if loose else None)
    if array.dtype != type.dtype.dtype:
        try:
            found = str(type_of_array(array))
        except DTypeError:
            found = f"{array.dtype} {shape_text(array.shape)}"
        raise DTypeError(
            f"{what} {found}, expected {type}; convert it, as x.astype(np.{type.dtype.name})"
        )
    if array.shape != type.static_shape:
        raise ShapeError(f"{what} {type_of_array(array)}, expected {type}")
    return np.ascontiguousarray(array).reshape(array.shape)


def _holds(x: Any, dtype: DType) -> bool:
    """May the Python number `x` become an element of `dtype`?"""
    if isinstance(x, np.generic):
        return False
    if isinstance(x, bool):
        return True
    if isinstance(x, int):
        return dtype.kind != "b"
    return isinstance(x, float) and dtype.is_float


def _infer_callback(a: CallbackAttrs, *types: TensorType) -> tuple[TensorType, ...]:
    if len(a.dtypes) != len(a.shapes):
        raise ShapeError(f"callback: {len(a.dtypes)} dtypes for {len(a.shapes)} shapes")
    return result_types(a)


def run_callback(a: CallbackAttrs, arrays: Sequence[Array]) -> tuple[Array, ...]:
    """The results, from arrays that the function may keep."""
    host = host_of(a)
    return tuple(checked_results(host.label, host.call(*arrays), result_types(a)))


def _ref_callback(a: CallbackAttrs, *arrays: Array) -> tuple[Array, ...]:
    return run_callback(a, [read_only_copy(x) for x in arrays])


def _no_derivative(o: Any, a: CallbackAttrs, args: Any, outs: Any, cts: Any) -> Any:
    raise GradientError(
        f"callback {getattr(a.host, 'label', a.host)} is Python code, whose derivative is not "
        "known; give it one (treadle.custom_vjp, treadle.Function), or take its operands' detach()"
    )


CALLBACK = register(
    OpDef(
        name="callback",
        maths="ys = host(*xs), by a Python function on NumPy arrays",
        attrs=CallbackAttrs,
        infer=_infer_callback,
        ref=_ref_callback,
        vjp=_no_derivative,
        lower=Kernel("callback"),
        traits=frozenset({Trait.EFFECT, Trait.CAN_FAULT, Trait.EXPENSIVE}),
        samples=NO_SAMPLES,
    )
)


@dataclass(frozen=True, slots=True)
class WatchAttrs(Attrs):
    """The name of the value."""

    name: str


def _ref_watch(a: WatchAttrs, x: Array) -> tuple[Array, ...]:
    watchers.tell(a.name, read_only_copy(x))
    return ()


WATCH = register(
    OpDef(
        name="watch",
        maths="tells the watchers of its operand; no results",
        attrs=WatchAttrs,
        infer=lambda a, x: (),
        ref=_ref_watch,
        vjp=NOT_DIFFERENTIABLE,
        lower=Kernel("watch"),
        traits=frozenset({Trait.EFFECT, Trait.CAN_FAULT}),
        samples=NO_SAMPLES,
    )
)
