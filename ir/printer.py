"""Function -> text. What is printed parses back to the same program (`treadle.ir.parser`).

    func @f(%0: f32[32, 784] "x", state %1: f32[784, 10] "model.weight") {
      %2: f32[32, 10] = matmul(%0, %1)  ; demo.py:12
      %3: f32[32, 1] = sum(%2, axes=(1,), keepdims=True)  ; demo.py:13
      return %3 "out"
    }

Values are numbered in order of appearance, regions included; a region that instructions share is
printed with each of them, under new numbers. After `;` stands the user's line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from treadle.ir.graph import Function, Instr, Value
from treadle.ir.host_function import HostFunction
from treadle.ir.op import ArrayData, attr_items
from treadle.ir.types import Dim, DType

# Arrays with more elements than this print as hexadecimal bytes.
_LISTED_ELEMENTS = 64

Comment = Callable[[Instr], str]


def print_function(
    fn: Function, *, locs: bool = True, paths: bool = True, comment: Comment | None = None
) -> str:
    """The text of `fn`.

    Without `locs` and `paths` the text depends on the program alone: two functions that differ
    only in source lines and variable names print the same. `comment` adds a remark behind an
    instruction's line.
    """
    printer = _Printer(locs, paths, comment)
    printer.function(fn, "")
    return "\n".join(printer.lines)


def printed_lines(
    fn: Function, *, comment: Comment | None = None
) -> tuple[tuple[str, Instr | None], ...]:
    """The lines of `print_function(fn)`, each with the instruction that it shows; None for heads
    and ends of functions."""
    printer = _Printer(True, True, comment)
    printer.function(fn, "")
    return tuple(zip(printer.lines, printer.shown, strict=True))


def value_names(fn: Function) -> Mapping[Value, str]:
    """The names (`%3`) that `print_function` gives to the values, those of regions included."""
    printer = _Printer(False, False, None)
    printer.function(fn, "")
    return {value: f"%{n}" for value, n in printer.numbers.items()}


def attr_text(value: Any) -> str:
    """An attribute's value as IR text writes it."""
    if value is None or isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, Dim)):
        return str(value)
    if isinstance(value, float):
        return _float_text(value)
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, DType):
        return value.short
    if isinstance(value, ArrayData):
        return _array_text(value)
    if isinstance(value, tuple):
        inside = ", ".join(attr_text(v) for v in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    if isinstance(value, HostFunction):
        return json.dumps(str(value))
    raise TypeError(f"an attribute cannot hold a {type(value).__name__}: {value!r}")


def _float_text(value: float) -> str:
    return repr(value) if math.isfinite(value) else str(value)


def _array_text(data: ArrayData) -> str:
    array = data.array().ravel()
    shape = f"[{', '.join(map(str, data.shape))}]"
    if array.size > _LISTED_ELEMENTS or _has_odd_nan(array):
        return f'{data.dtype.short}{shape}{{hex "{data.data.hex()}"}}'
    if data.dtype.is_float:
        # repr of the NumPy scalar is the shortest text that gives the same float of its width
        items = [
            str(x) if np.isfinite(x) else _float_text(float(x))
            for x in array  # str(np.float32) is the shortest form
        ]
    else:
        items = [str(x) for x in array.tolist()]
    return f"{data.dtype.short}{shape}{{{', '.join(items)}}}"


def _has_odd_nan(array: np.ndarray[Any, Any]) -> bool:
    """True where a NaN is not the one that the text `nan` means (its sign or payload differs)."""
    if array.dtype.kind != "f":
        return False
    nans = array[np.isnan(array)]
    usual = np.full(nans.shape, np.nan, array.dtype)
    return bool(nans.tobytes() != usual.tobytes())


class _Printer:
    def __init__(self, locs: bool, paths: bool, comment: Comment | None) -> None:
        self.locs = locs
        self.paths = paths
        self.comment = comment
        self.lines: list[str] = []
        self.shown: list[Instr | None] = []  # of each line
        self.numbers: dict[Value, int] = {}
        self.defined = 0

    def add(self, line: str, instr: Instr | None = None) -> None:
        self.lines.append(line)
        self.shown.append(instr)

    def define(self, value: Value) -> str:
        self.numbers[value] = self.defined
        self.defined += 1
        return f"{self.use(value)}: {value.type}"

    def use(self, value: Value) -> str:
        number = self.numbers.get(value)
        return f"%{number}" if number is not None else f"%undefined_{id(value):x}"

    def path(self, path: str) -> str:
        return f" {json.dumps(path)}" if self.paths else ""

    def function(self, fn: Function, indent: str) -> None:
        params = ", ".join(
            ("state " if p.kind == "state" else "") + self.define(p.value) + self.path(p.path)
            for p in fn.params
        )
        self.add(f"{indent}func @{fn.name}({params}) {{")
        for instr in fn.instrs:
            self.instr(instr, indent + "  ")
        results = ", ".join(
            ("" if r.kind == "out" else f"{r.kind} ") + self.use(r.value) + self.path(r.path)
            for r in fn.results
        )
        self.add(f"{indent}  return {results}".rstrip())
        self.add(f"{indent}}}")

    def instr(self, instr: Instr, indent: str) -> None:
        args = [self.use(a) for a in instr.args]
        args += [f"{name}={attr_text(value)}" for name, value in attr_items(instr.attrs)]
        results = ", ".join(self.define(r) for r in instr.results)
        head = f"{indent}{results} = " if results else indent
        line = f"{head}{instr.op.name}({', '.join(args)})"
        tail = f"  ; {instr.loc}" if self.locs and instr.loc is not None else ""
        if self.comment is not None and (remark := self.comment(instr)):
            tail += f"  ;; {remark}"
        if not instr.regions:
            self.add(line + tail, instr)
            return
        self.add(f"{line} {{{tail}", instr)
        for region in instr.regions:
            self.function(region, indent + "  ")
        self.add(f"{indent}}}")
