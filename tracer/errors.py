"""Errors with the user's line: added once to what an op raises; and those that a trace raises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from treadle.ir.errors import TraceError, TreadleError
from treadle.ir.graph import Loc, Value
from treadle.tracer.location import user_location

if TYPE_CHECKING:
    from treadle.tracer.tensor import Tensor


def located(error: TreadleError) -> TreadleError:
    """`error` with " (at file:line)" of the user's line at its end, added once."""
    if error.located:
        return error
    error.located = True
    loc = user_location()
    if loc is not None:
        message = error.args[0] if error.args else ""
        error.args = (f"{message} (at {loc})", *error.args[1:])
    return error


@contextmanager
def located_errors() -> Iterator[None]:
    """Errors raised inside carry the user's line."""
    try:
        yield
    except TreadleError as error:
        located(error)
        raise


def where_made(value: Value) -> str:
    """Where a value came from: `made by `sum` at demo.py:12`."""
    made = value.producer
    if made is None:
        return "a parameter of the traced function"
    at = f" at {made.loc}" if made.loc is not None else ""
    return f"made by `{made.op.name}`{at}"


_INSTEAD = {
    "bool": "use treadle.where(condition, a, b) to choose, treadle.cond or treadle.while_loop to "
    "branch, or read a Python value (an int, bool or str argument is part of the signature)",
    "int": "pass it as a Python int, which becomes part of the signature",
    "index": "index with the tensor itself (x[i] gathers), or pass a Python int",
    "float": "keep it as a tensor, and convert what the jitted function returns",
    "array": "use treadle's own functions inside the trace, and convert what the jitted function "
    "returns",
}


def concrete_error(what: str, kind: str, tensor: Tensor, value: Value) -> TreadleError:
    """`what` (such as "bool(t)") asks a traced tensor for its value."""
    return located(
        TraceError(
            f"{what} needs the value of a traced tensor, {tensor.type}, which is known only when "
            f"the compiled code runs; it was {where_made(value)}; {_INSTEAD[kind]}"
        )
    )


def leak_error(tensor: Tensor, made_at: Loc | None, where: str) -> TreadleError:
    """A tensor that was made in one trace is used `where`."""
    from treadle.tracer.holders import held_by  # searches all objects: for errors only

    at = f", made at {made_at}," if made_at is not None else ""
    holders = held_by(tensor)
    kept = f"; what holds it is {holders}" if holders else ""
    return located(
        TraceError(
            f"a traced tensor, {tensor.type}{at} is used {where}: it has no value there"
            f"{kept}; return it from the jitted function, or assign it to an attribute of an "
            "object that the function reaches through its arguments, its closure or globals"
        )
    )


def unreachable_error(tensor: Tensor) -> TreadleError:
    """A captured tensor that no path leads to."""
    return located(
        TraceError(
            f"the jitted function reads a tensor, {tensor.type}, that no path from its arguments, "
            "closure or globals leads to, so that later calls could not find it; pass it as an "
            "argument, or keep it as an attribute of an object that the function reaches"
        )
    )
