"""The key of a compiled program: what it computes and everything that its machine code depends on.

A program's text here leaves out names and places: the function's name, the paths of its parameters,
files and lines are numbered by first appearance. So a comment that is added to the user's file, or
a variable that is renamed, changes nothing; two ops that shared a line and do so no longer are
another program, because run-time errors are numbered by line.

    f32[4] arg 0 | exp %0 ; f32[4] @0 | return out %1 1        (one line each)
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from treadle.codegen.target import Target
from treadle.ir.forking import no_fork
from treadle.ir.graph import Function, Instr, Value
from treadle.ir.op import ArrayData, OpDef, attr_items
from treadle.ir.printer import attr_text
from treadle.ir.version import VERSION

# Folders whose code decides what machine code comes out; siblings of this one.
_DECIDING: Final = ("ir", "ir/ops", "passes", "codegen", "runtime")


def program_key(fn: Function, target: Target, options: Any) -> str | None:
    """64 hexadecimal digits for `fn` at level TRACED; None where user code that has no text takes
    part in the compilation (ops and passes that the user has defined)."""
    if _has_user_passes() or not all(_is_own(i.op) for i in _instructions(fn)):
        return None
    return _digest("program", whole_text(target), whole_text(options), "\n".join(_lines(fn)))


def text_key(ir: str, target: Target) -> str:
    """The key of a module of LLVM IR."""
    return _digest("module", whole_text(target), ir)


def whole_text(data: Any) -> str:
    """A dataclass with all of its fields, those that its repr hides included."""
    inside = ", ".join(f"{f.name}={getattr(data, f.name)!r}" for f in fields(data))
    return f"{type(data).__name__}({inside})"


def _digest(*pieces: str) -> str:
    hashed = hashlib.sha256()
    for piece in (_versions(), *pieces):
        data = piece.encode("utf-8", "surrogatepass")
        hashed.update(len(data).to_bytes(8, "little"))
        hashed.update(data)
    return hashed.hexdigest()


@cache
def _versions() -> str:
    """Treadle by its sources, as a clone changes while its version stays; and what it calls. NumPy
    is there because the references fold constants with it."""
    with no_fork:
        import llvmlite
        import llvmlite.binding as llvm

    said = [
        f"treadle {VERSION}",
        f"llvmlite {llvmlite.__version__}",
        f"LLVM {llvm.llvm_version_info}",
    ]
    said += [f"numpy {np.__version__}", sys.byteorder]
    root = Path(__file__).resolve().parent.parent
    for folder in _DECIDING:
        for path in sorted((root / folder).glob("*.py")):
            status = path.stat()
            said.append(f"{folder}/{path.name} {status.st_size} {status.st_mtime_ns}")
    return "\n".join(said)


# --- what has no text ------------------------------------------------------------------------


def _has_user_passes() -> bool:
    pipeline = sys.modules.get("treadle.passes.pipeline")  # not loaded: nobody has added to it
    return pipeline is not None and pipeline.pipeline() != pipeline.PIPELINE


_own: dict[OpDef, tuple[OpDef, bool]] = {}


def _is_own(op: OpDef) -> bool:
    """Whether all rules of `op` are Treadle's: a user's op has at least one of its own."""
    known = _own.get(op)
    if known is None or known[0] is not op:  # ops are equal by name; a notebook defines one again
        rules: tuple[object, ...] = (op.infer, op.ref, op.vjp, op.samples, op.expand, op.lower)
        known = _own[op] = (op, all(_is_treadles(r) for r in rules))
    return known[1]


def _is_treadles(rule: object) -> bool:
    if rule is None or isinstance(rule, np.ufunc):
        return True
    module = str(getattr(rule, "__module__", None))  # a function's, or that of an object's class
    return module.split(".")[0] in ("treadle", "numpy")


# --- the program -----------------------------------------------------------------------------


def _instructions(fn: Function) -> Iterator[Instr]:
    for instr in fn.instrs:
        yield instr
        for region in instr.regions:
            yield from _instructions(region)


class _Numbers(dict[Any, int]):
    """Numbers by first appearance."""

    def __missing__(self, key: Any) -> int:
        number = self[key] = len(self)
        return number


def _lines(fn: Function) -> list[str]:
    values: dict[Value, int] = {}
    writer = _Writer(values, _Numbers(), _Numbers(), [])
    writer.function(fn)
    return writer.lines


class _Writer:
    def __init__(
        self, values: dict[Value, int], paths: _Numbers, locs: _Numbers, lines: list[str]
    ) -> None:
        self.values, self.paths, self.locs, self.lines = values, paths, locs, lines

    def function(self, fn: Function) -> None:
        for p in fn.params:
            self.values[p.value] = len(self.values)
            self.lines.append(f"{p.value.type} {p.kind} {self.paths[p.path]}")
        for instr in fn.instrs:
            self.instr(instr)
        for r in fn.results:
            # what is printed is a path, too
            path = attr_text(r.path) if r.kind == "print" else self.paths[r.path]
            self.lines.append(f"return {r.kind} %{self.values.get(r.value)} {path}")

    def instr(self, instr: Instr) -> None:
        values = self.values
        args = " ".join([f"%{values.get(a)}" for a in instr.args])
        attrs = " ".join([f"{name}={_attr(value)}" for name, value in attr_items(instr.attrs)])
        types = " ".join([str(r.type) for r in instr.results])
        for result in instr.results:
            values[result] = len(values)
        self.lines.append(f"{instr.op.name} {args} {attrs} ; {types} @{self.locs[instr.loc]}")
        for region in instr.regions:
            self.lines.append("{")
            self.function(region)
            self.lines.append("}")


def _attr(value: Any) -> str:
    if isinstance(value, ArrayData):
        return f"{value.dtype}{value.shape}#{hashlib.sha256(value.data).hexdigest()}"
    return attr_text(value)
