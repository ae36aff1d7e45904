"""Padding as a function: with a constant, mirrored, with the edge again, or around the corner."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from treadle.ir.errors import ArgumentError, DTypeError, ShapeError
from treadle.ir.types import shape_text
from treadle.tracer.api.arguments import array_function, option, real
from treadle.tracer.api.creation import as_int
from treadle.tracer.execute import apply
from treadle.tracer.promote import Operand, as_tensor, number_of
from treadle.tracer.tensor import Tensor

_MODES: Final = ("constant", "reflect", "replicate", "circular")


@array_function
def pad(
    input: Operand, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """`input` with elements before and after its last axes.

    `pad`: pairs (before, after), the first for the last axis; negative numbers take elements away.
    `mode`: "constant" pads with `value` (0 unless given), "reflect" with the elements mirrored at
    the outermost one, "replicate" with the outermost one, "circular" with the other end's.

    Raises ShapeError for pads that do not fit the axes, ArgumentError for another mode and a value
    beside another mode than "constant".
    """
    x = as_tensor(input)
    kind = option("mode", mode, _MODES)
    pairs = _pairs(pad, x)
    if kind == "constant":
        found = _with_constant(x, pairs, _constant(x, value))
    elif value is not None and number_of(value) != 0:
        raise ArgumentError(f"value is for mode='constant', found {value!r:.40} with {mode!r}")
    else:
        found = x
        for axis, (low, high) in enumerate(pairs):
            found = _extended(found, axis, low, high, kind)
    return found.clone() if found is x else found  # never the storage of the input


def _pairs(pad: Any, x: Tensor) -> list[tuple[int, int]]:
    """(before, after) for each axis of `x`, from the first. Raises DTypeError or ShapeError."""
    if not isinstance(pad, (list, tuple)):
        raise DTypeError(f"pad must be a sequence of ints, found {type(pad).__name__}")
    numbers = [as_int(n, "an entry of pad") for n in pad]
    if len(numbers) % 2 or len(numbers) > 2 * x.ndim:
        raise ShapeError(
            f"pad must have pairs (before, after) for at most {x.ndim} axes, found {pad!r:.60} for "
            f"shape {shape_text(x.shape)}"
        )
    given = [(numbers[i], numbers[i + 1]) for i in range(0, len(numbers), 2)]
    pairs = [(0, 0)] * (x.ndim - len(given)) + given[::-1]
    for axis, (size, (low, high)) in enumerate(zip(x.shape, pairs, strict=True)):
        if size + low + high < 0 or min(low, high) < -size:
            raise ShapeError(
                f"pad {(low, high)} takes more than the {size} elements of axis {axis} of shape "
                f"{shape_text(x.shape)}"
            )
    return pairs


def _constant(x: Tensor, value: Any) -> bool | int | float:
    number = 0.0 if value is None else real("value", value)
    if x.dtype.is_float:
        return number
    return int(number) if x.dtype.is_integer else bool(number)


def _with_constant(
    x: Tensor, pairs: Sequence[tuple[int, int]], value: bool | int | float
) -> Tensor:
    kept = x
    for axis, (low, high) in enumerate(pairs):
        kept = _part(kept, axis, max(0, -low), x.shape[axis] + min(0, high))
    before, behind = (tuple(max(0, pair[side]) for pair in pairs) for side in (0, 1))
    if not any(before + behind):
        return kept
    return apply("pad", kept, low=before, high=behind, value=value)


def _part(x: Tensor, axis: int, start: int, stop: int) -> Tensor:
    """Elements from `start` to before `stop` along an axis."""
    size = max(0, stop - start)
    if size == x.shape[axis]:
        return x
    return apply(
        "slice",
        x,
        starts=_with(axis, (0,) * x.ndim, start if size else 0),
        steps=(1,) * x.ndim,
        shape=_with(axis, x.shape, size),
    )


def _with(axis: int, numbers: Sequence[int], number: int) -> tuple[int, ...]:
    return (*numbers[:axis], number, *numbers[axis + 1 :])


def _extended(x: Tensor, axis: int, low: int, high: int, kind: str) -> Tensor:
    """`x` with `low` elements before and `high` behind along an axis. Negative ones are cut away,
    where the axis goes around before it does, elsewhere afterwards, as PyTorch has it."""
    if kind == "circular":
        x = _part(x, axis, max(0, -low), x.shape[axis] + min(0, high))
        low, high = max(0, low), max(0, high)
    if low == high == 0:
        return x
    size = x.shape[axis]
    _check_reach(kind, axis, size, max(low, high))
    before = _beyond(x, axis, low, kind, front=True) if low > 0 else None
    behind = _beyond(x, axis, high, kind, front=False) if high > 0 else None
    inside = _part(x, axis, max(0, -low), size + min(0, high))
    parts = [p for p in (before, inside, behind) if p is not None]
    return apply("concat", *parts, axis=axis) if len(parts) > 1 else parts[0]


def _check_reach(kind: str, axis: int, size: int, most: int) -> None:
    limit = {"reflect": size - 1, "replicate": most if size else 0, "circular": size}[kind]
    if most > limit:
        raise ShapeError(
            f"pad: mode={kind!r} takes at most {limit} elements for axis {axis} of size {size}, "
            f"found {most}"
        )


def _beyond(x: Tensor, axis: int, count: int, kind: str, front: bool) -> Tensor:
    """The `count` elements that lie before the first along an axis, or behind the last."""
    size = x.shape[axis]
    if kind == "circular":
        return _part(x, axis, size - count, size) if front else _part(x, axis, 0, count)
    if kind == "replicate":
        edge = _part(x, axis, 0, 1) if front else _part(x, axis, size - 1, size)
        return apply("broadcast_to", edge, shape=_with(axis, x.shape, count))
    part = _part(x, axis, 1, count + 1) if front else _part(x, axis, size - 1 - count, size - 1)
    return apply("flip", part, axes=(axis,))
