"""Loops and branches: how their operands, regions and results belong together, and what is legal.

1. A `scan` has one region. Its parameters are the consts, the carries, and one row of each array;
   its results are whether to go on (bool, with `until`), the carries, and rows. Operands and
   results stand in the same order, with the number of steps (an int64 of rank 0) before the
   consts, and the number of steps done before the carries.
2. A carry has one type: outside, as a parameter, as a result of the region. An array has one
   axis more than its row, in front, of `length`.
3. A scan without a length has `until` and no arrays. One with `until` is not reversed.
4. A `switch` has one region for each branch, at least one, all with the same parameter and result
   types. Its first operand is the index (an integer of rank 0), the others are the parameters.
5. A `remat` has one region, whose parameters are the operands and whose results are its own.
6. A region is at the level of the program around it, and is closed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Generic, TypeVar

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value, walk
from treadle.ir.op import Trait, can_fail, is_droppable, must_run
from treadle.ir.ops.control import ScanAttrs
from treadle.ir.types import TensorType, bool_, int64

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts(Generic[T]):
    """The operands of a scan by their role; `steps` is None where there is no such operand."""

    steps: T | None
    consts: tuple[T, ...]
    carries: tuple[T, ...]
    arrays: tuple[T, ...]


@dataclass(frozen=True, slots=True)
class Outs(Generic[T]):
    """The results of a scan, or of its region: `first` is the number of steps done, or whether to
    go on; None without `until`."""

    first: T | None
    carries: tuple[T, ...]
    arrays: tuple[T, ...]


def scan_attrs(instr: Instr) -> ScanAttrs:
    """The attributes of a scan."""
    assert isinstance(instr.attrs, ScanAttrs)
    return instr.attrs


def operands(a: ScanAttrs, values: Sequence[T]) -> Parts[T]:
    """The operands of a scan, or (with `a.steps` taken away) the parameters of its region."""
    first = int(a.steps)
    carries, arrays = first + a.consts, first + a.consts + a.carries
    return Parts(
        values[0] if a.steps else None,
        tuple(values[first:carries]),
        tuple(values[carries:arrays]),
        tuple(values[arrays:]),
    )


def params(a: ScanAttrs, values: Sequence[T]) -> Parts[T]:
    """The parameters of a scan's region."""
    return Parts(
        None,
        tuple(values[: a.consts]),
        tuple(values[a.consts : a.consts + a.carries]),
        tuple(values[a.consts + a.carries :]),
    )


def results(a: ScanAttrs, values: Sequence[T]) -> Outs[T]:
    """The results of a scan, or of its region."""
    first = int(a.until)
    return Outs(
        values[0] if a.until else None,
        tuple(values[first : first + a.carries]),
        tuple(values[first + a.carries :]),
    )


def is_control(instr: Instr) -> bool:
    """Is `instr` a loop, a branch or a remat?"""
    return instr.op.has(Trait.CONTROL)


def has_control(fn: Function) -> bool:
    """Does `fn` hold any?"""
    return any(i.op.has(Trait.CONTROL) for i in fn.instrs)


def _runs_regions(instr: Instr) -> bool:
    """Do the regions of `instr` run where it stands? Those of a derivative do not."""
    return bool(instr.regions) and instr.op.name != "attach_vjp"


def instr_can_fail(instr: Instr) -> bool:
    """Can a run of `instr` record a fault, in itself or in what its regions hold?"""
    if can_fail(instr.op, instr.attrs):
        return True
    if not _runs_regions(instr):
        return False
    return any(can_fail(i.op, i.attrs) for region in instr.regions for i in walk(region))


def has_effect(instr: Instr) -> bool:
    """Is `instr` kept for an effect, of itself or of what its regions hold?"""
    if Trait.EFFECT in instr.op.traits and not is_droppable(instr.attrs):
        return True
    if not _runs_regions(instr):
        return False
    inside = (i for region in instr.regions for i in walk(region))
    return any(i.op.has(Trait.EFFECT) and not is_droppable(i.attrs) for i in inside)


def instr_must_run(instr: Instr) -> bool:
    """As `must_run`, for an instruction with what its regions hold."""
    if must_run(instr.op, instr.attrs):
        return True
    if not _runs_regions(instr):
        return False
    return any(must_run(i.op, i.attrs) for region in instr.regions for i in walk(region))


def row_type(type: TensorType) -> TensorType:
    """The type of one row of an array."""
    return TensorType(type.dtype, type.shape[1:])


def stacked_type(type: TensorType, length: int) -> TensorType:
    """The type of `length` rows."""
    return TensorType(type.dtype, (length, *type.shape))


def check_control(instr: Instr) -> list[str]:
    """What is illegal about a loop, branch or remat, its attributes being of the right class."""
    if instr.op.name == "scan":
        return list(_check_scan(instr))
    if instr.op.name == "switch":
        return list(_check_switch(instr))
    return list(_check_remat(instr))


def _check_scan(instr: Instr) -> Iterator[str]:
    a = scan_attrs(instr)
    if len(instr.regions) != 1:
        yield f"needs one region, found {len(instr.regions)}"
        return
    if min(a.consts, a.carries, 0 if a.length is None else a.length) < 0:
        yield f"counts must be at least 0, found {a}"
        return
    if a.length is None and not a.until:
        yield "a scan without a length needs `until`"
        return
    if a.until and a.reverse:
        yield "a scan with `until` is not reversed"
    (region,) = instr.regions
    yield from _counts(instr, region, a)


def _counts(instr: Instr, region: Function, a: ScanAttrs) -> Iterator[str]:
    first, last = int(a.steps), int(a.until)
    if len(instr.args) - first != len(region.params) or len(instr.args) < first + a.consts + (
        a.carries
    ):
        yield (
            f"{len(instr.args)} operands for {a.consts} consts, {a.carries} carries and a region "
            f"of {len(region.params)} parameters"
        )
        return
    if len(instr.results) != len(region.results) or len(instr.results) < last + a.carries:
        yield f"{len(instr.results)} results, its region has {len(region.results)}"
        return
    yield from _scan_types(instr, region, a)


def _scan_types(instr: Instr, region: Function, a: ScanAttrs) -> Iterator[str]:
    given, inside = operands(a, instr.args), params(a, region.inputs)
    out, made = results(a, instr.results), results(a, region.outputs)
    scalar = TensorType(int64)
    if given.steps is not None and given.steps.type != scalar:
        yield f"the number of steps is {given.steps.type}, expected {scalar}"
    if out.first is not None and out.first.type != scalar:
        yield f"the number of steps done is {out.first.type}, expected {scalar}"
    if made.first is not None and made.first.type != TensorType(bool_):
        yield f"whether to go on is {made.first.type}, expected {TensorType(bool_)}"
    if a.length is None and (given.arrays or out.arrays):
        yield "a scan without a length takes and gives no arrays"
        return
    for n, types in enumerate(
        zip(given.carries, inside.carries, made.carries, out.carries, strict=True)
    ):
        if len({v.type for v in types}) > 1:
            yield f"carry {n} has types {', '.join(str(v.type) for v in types)}: one was expected"
    for n, (value, param) in enumerate(zip(given.consts, inside.consts, strict=True)):
        if value.type != param.type:
            yield f"const {n} is {value.type}, the region's parameter {param.type}"
    pairs = [*zip(given.arrays, inside.arrays, strict=True)]
    pairs += [*zip(out.arrays, made.arrays, strict=True)]
    for value, row in pairs:
        expected = (a.length, *row.type.shape)
        if value.type != TensorType(row.type.dtype, expected):  # type: ignore[arg-type]
            yield f"an array is {value.type}, its row {row.type}, the length {a.length}"


def _check_switch(instr: Instr) -> Iterator[str]:
    count = getattr(instr.attrs, "branches", 0)
    if count < 1 or len(instr.regions) != count:
        yield f"needs a region for each of {count} branches, found {len(instr.regions)}"
        return
    if not instr.args or instr.args[0].type.shape or not instr.args[0].type.dtype.is_integer:
        yield "the first operand is the index, an integer of rank 0"
        return
    for number, region in enumerate(instr.regions):
        yield from _same_types(f"branch {number}", instr.args[1:], region, instr.results)


def _check_remat(instr: Instr) -> Iterator[str]:
    if len(instr.regions) != 1:
        yield f"needs one region, found {len(instr.regions)}"
        return
    yield from _same_types("the region", instr.args, instr.regions[0], instr.results)


def _same_types(
    what: str, args: Sequence[Value], region: Function, outs: Sequence[Value]
) -> Iterator[str]:
    for name, found, expected in (
        ("parameters", region.inputs, args),
        ("results", region.outputs, outs),
    ):
        types, wanted = [v.type for v in found], [v.type for v in expected]
        if types != wanted:
            yield f"{what} has {name} {_listed(types)}, expected {_listed(wanted)}"


def _listed(types: Sequence[TensorType]) -> str:
    return ", ".join(map(str, types)) or "nothing"
