"""What a program does besides computing: checks of values, and lines that it prints.

Both work eagerly and inside jitted functions alike, where they are part of the compiled step.
"""

from __future__ import annotations

from string import Formatter
from typing import Any

import numpy as np

from treadle.ir.errors import ArgumentError, CheckError, DTypeError
from treadle.ir.types import bool_
from treadle.tracer.api.arguments import array_function
from treadle.tracer.execute import apply_multi
from treadle.tracer.promote import as_operand
from treadle.tracer.tensor import Tensor


@array_function
def check(condition: Tensor | np.ndarray[Any, Any] | bool, message: str = "check failed") -> None:
    """Raise CheckError unless every element of `condition`, a bool tensor, is true.

    `message` is what the error says; the index of the first false element and the line of the call
    are added. In a jitted function the check is part of the native step: where it fails, the call
    raises, and all state is as before the call. Raises DTypeError for a condition of numbers.
    """
    if isinstance(condition, (bool, np.bool_)):
        if not condition:
            raise CheckError(message)
        return
    found = as_operand(condition)
    if found.dtype != bool_:
        raise DTypeError(f"check needs a bool condition, found {found.type}; compare it, as x > 0")
    apply_multi("check", found.detach(), message=str(message))


@array_function
def debug_print(text: str, /, *values: Any, **named: Any) -> None:
    """Print `text.format(*values, **named)`, with the values of tensors at run time.

    In a jitted function the lines of a call appear, in the order of the program, when its native
    step is over; where the step fails, those before the failing line. A format spec applies to
    each element (`{:.3f}`). Values that are no tensors are put in when the function is traced.
    Raises ArgumentError where the text asks for a value that is not given.
    """
    pieces: list[str] = []
    shown: list[Tensor] = []
    automatic = 0
    for literal, name, spec, conversion in Formatter().parse(str(text)):
        pieces.append(_escaped(literal))
        if name is None:
            continue
        if name == "" or name[0] in ".[":
            name, automatic = f"{automatic}{name}", automatic + 1
        value = _field(name, values, named)
        if isinstance(value, Tensor):
            pieces.append(f"{{:{spec}}}" if spec else "{}")
            shown.append(value.detach())
            continue
        value = Formatter().convert_field(value, conversion)
        pieces.append(_escaped(format(value, spec or "")))
    apply_multi("debug_print", *shown, text="".join(pieces))


def _field(name: str, values: tuple[Any, ...], named: dict[str, Any]) -> Any:
    try:
        return Formatter().get_field(name, values, named)[0]
    except (IndexError, KeyError) as error:
        given = ", ".join([*map(str, range(len(values))), *named]) or "none"
        raise ArgumentError(f"debug_print: there is no value {name!r}; given: {given}") from error


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
