"""Applying ops: the one door through which every operation on tensors goes.

`apply` records an instruction where a trace runs on this thread; else it executes at once and,
where an operand requires grad, adds a node to the history. It promotes nothing: operands have
the dtypes that the op's type rule asks for (see `treadle.tracer.promote`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import DTypeError, GradientError, ShapeError, TreadleError
from treadle.ir.op import Attrs, OpDef, get_op
from treadle.ir.types import check_addressable, float32, shape_text
from treadle.tracer import tape, views
from treadle.tracer.cell import Cell
from treadle.tracer.errors import located
from treadle.tracer.history import History
from treadle.tracer.location import user_location
from treadle.tracer.modes import modes
from treadle.tracer.tensor import Tensor, as_result_of
from treadle.tracer.views import BroadcastMap, ReshapeMap, ViewMap

Array = npt.NDArray[Any]


def execute(op: OpDef, arrays: Sequence[Array], attrs: Attrs) -> tuple[Array, ...]:
    """Run an op on arrays now: the seam where a slow op may one day use a compiled kernel."""
    return op.run_ref(attrs, arrays)


def apply(op: str | OpDef, *operands: Tensor, **attrs: Any) -> Tensor:
    """The only result of `op`; raises ShapeError or DTypeError naming the user's line."""
    (result,) = apply_multi(op, *operands, **attrs)
    return result


def apply_multi(op: str | OpDef, *operands: Tensor, **attrs: Any) -> tuple[Tensor, ...]:
    """All results of `op`."""
    definition = get_op(op) if isinstance(op, str) else op
    return apply_op(definition, operands, definition.attrs(**attrs))


def apply_op(op: OpDef, operands: Sequence[Tensor], attrs: Attrs) -> tuple[Tensor, ...]:
    """As `apply_multi`, with the attributes as an object."""
    try:
        if modes.trace is not None:
            results = modes.trace.apply(op, operands, attrs)
        else:
            results = _run(op, operands, attrs)
    except TreadleError as error:
        located(error)
        raise
    for x in operands:
        if x.result_class is not Tensor:
            for result in results:
                result.__class__ = x.result_class
            break
    return results


def _run(op: OpDef, operands: Sequence[Tensor], attrs: Attrs) -> tuple[Tensor, ...]:
    types = op.infer_types(attrs, [t.type for t in operands])
    check_addressable(types)
    arrays = [t.array() for t in operands]
    outs = execute(op, arrays, attrs)
    weak = is_weak(op, operands)
    results = tuple(
        Tensor(Cell.of(_owned(out, arrays), type), weak=weak and type.dtype.is_float)
        for out, type in zip(outs, types, strict=True)
    )
    if modes.grad and any(t.history.requires_grad for t in operands):
        tape.record(op, attrs, operands, results)
    return results


def is_weak(op: OpDef, operands: Sequence[Tensor]) -> bool:
    """Whether float results behave like a Python float: all operands do. A cast is explicit."""
    floats = [t for t in operands if t.type.dtype.is_float]
    return bool(floats) and all(t.weak for t in floats) and op.name != "cast"


def _owned(out: Array, arrays: Sequence[Array]) -> Array:
    """`out` as a buffer of its own: references may return views of their operands."""
    if out.flags.owndata and out.flags.c_contiguous and not any(out is a for a in arrays):
        return out
    return np.array(out, order="C")


# --- views -----------------------------------------------------------------------------------


def view(x: Tensor, *maps: ViewMap) -> Tensor:
    """`x` seen through index maps: no copy; writes are seen by `x` and all of its views."""
    if not maps:
        return x
    try:
        return _view(strong(x), maps)
    except TreadleError as error:
        located(error)
        raise


def _view(x: Tensor, maps: tuple[ViewMap, ...]) -> Tensor:
    type = x.type
    for step in maps:
        type = step.result_type(type)
    check_addressable((type,))
    history = x.history
    if x.requires_grad and not modes.grad:
        history = History(len(x.maps))
        history.frozen = True
    shown = as_result_of(Tensor(x.cell, x.maps + maps, history, type), x)
    if modes.trace is not None:
        modes.trace.show(shown)  # at the line that made the view
    return shown


def reshape_view(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """`x` under another shape (complete, no -1): a view where the layout allows it, else a copy."""
    if x.shape == shape:
        return view(x, ReshapeMap(shape))
    if views.can_reshape(x.cell.type, x.maps, shape):
        return view(x, ReshapeMap(shape))
    return apply("reshape", x, shape=shape)


def strong(x: Tensor) -> Tensor:
    """`x` with a dtype of its own: one that stands for a Python float becomes float32."""
    return apply("cast", x, dtype=float32) if x.weak else x


# --- writes ----------------------------------------------------------------------------------


def write(x: Tensor, new: Tensor) -> None:
    """Replace what `x` shows by `new`, of the same type, in the storage that `x` is a view of.

    Raises GradientError where `x` is a leaf that requires grad (outside of `no_grad`), ShapeError
    where it is a broadcast view; nothing is changed then.
    """
    try:
        _write(x, new)
    except TreadleError as error:
        located(error)
        raise


def _write(x: Tensor, new: Tensor) -> None:
    if new.type != x.type:
        raise ShapeError(f"cannot write {new.type} in place of {x.type}")
    if new.cell is x.cell and new.history is x.history and new.maps == x.maps:
        return  # `x[0] += 1` ends with x[0] = x[0]
    check_writable(x)
    tracked = modes.grad and (x.requires_grad or new.requires_grad)
    if tracked and x.history.frozen:
        raise GradientError(
            f"a view, {x.type}, made under no_grad of a tensor that requires grad is changed in "
            "place outside of no_grad; make the view outside too, or work on x.clone()"
        )
    loc = user_location()
    if modes.trace is not None:
        modes.trace.write(x, new, tracked)
        return
    source = new.array()
    x.array()  # raises where x leaked out of a trace
    edge = tape.write_edge(x, new) if tracked else None
    whole = all(step.dense() for step in x.maps)
    target = views.numpy_view(x.cell.writable(keep=not whole), x.maps)
    np.copyto(target, source)
    x.cell.wrote(loc)
    if edge is not None:
        x.history.made_by(edge, x.cell.version)


def check_writable(x: Tensor) -> None:
    """Raises, before anything is computed, where `x` cannot be written: ShapeError for a broadcast
    view, GradientError for a leaf that requires grad outside of `no_grad`."""
    broadcast = views.broadcast_map(x.maps)
    if broadcast is not None:
        raise located(
            ShapeError(
                f"cannot write through a view that was broadcast to "
                f"{shape_text(broadcast.shape)}: several of its elements are one; write to a "
                "copy, x.clone()"
            )
        )
    if modes.grad and x.requires_grad and not computed(x.history):
        raise located(
            GradientError(
                f"a leaf that requires grad, {x.type}, is changed in place, so that its gradient "
                "would be lost; change it inside `with treadle.no_grad():`, or work on x.clone()"
            )
        )


def computed(history: History) -> bool:
    """Whether an op made the values (a leaf's were given)."""
    if modes.trace is not None and modes.trace.computed(history):
        return True
    return not history.leaf


def copy_into(x: Tensor, value: Tensor) -> None:
    """Write `value`, cast and broadcast to `x`, into `x`: assignment."""
    if value.dtype != x.dtype:
        value = apply("cast", value, dtype=x.dtype)
    if value.shape != x.shape:
        value = view(_without_leading_ones(value, x), BroadcastMap(x.shape))
    write(x, value)


def _without_leading_ones(value: Tensor, x: Tensor) -> Tensor:
    """NumPy's assignment ignores leading axes of size 1 that the target lacks."""
    extra = value.ndim - x.ndim
    if extra <= 0 or any(s != 1 for s in value.shape[:extra]):
        return value
    return reshape_view(value, value.shape[extra:])


def update(x: Tensor, result: Tensor, what: str) -> Tensor:
    """The end of an in-place operator: `result` is written over `x`; returns `x`.

    A tensor that stands for a Python float has no storage to share: its new value is returned.
    """
    if x.weak:
        return result
    if result.shape != x.shape:
        raise located(
            ShapeError(
                f"{what} in place: the result has shape {shape_text(result.shape)}, which does "
                f"not fit {shape_text(x.shape)}; write x = x ... instead"
            )
        )
    if result.dtype != x.dtype:
        raise located(
            DTypeError(
                f"{what} in place: the result is {result.dtype.name}, which a tensor of "
                f"{x.dtype.name} cannot hold; write x = x ... instead"
            )
        )
    if modes.trace is None:
        tape.keep_operand(result, x)
    write(x, result)
    return x
