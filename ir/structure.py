"""What two instructions must share to be computed by the same code: `structure`.

Equal layers of a network become equal kernels. The structure of an instruction is its op, its
attributes, its types and those of its regions with their wiring: everything that decides how it is
planned and emitted. Names, lines of the user's program and the identity of values are not in it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

from treadle.ir.graph import Function, Instr, Value
from treadle.ir.op import NO_ATTRS, Attrs, attr_items


def structure(instr: Instr) -> Hashable:
    """A key that instructions share which differ in names, lines and values only."""
    return (
        instr.op.name,
        attrs_key(instr.attrs),
        tuple([a.type for a in instr.args]),
        tuple([r.type for r in instr.results]),
        tuple([function_structure(region) for region in instr.regions]),
    )


def function_structure(fn: Function) -> Hashable:
    """The same of a whole Function: values are numbered in the order of their definition."""
    numbers: dict[Value, int] = {}
    for param in fn.params:
        numbers[param.value] = len(numbers)
    parts: list[Hashable] = [tuple([p.value.type for p in fn.params])]
    for instr in fn.instrs:
        parts.append(tuple([numbers[a] for a in instr.args]))
        parts.append(structure(instr))
        for result in instr.results:
            numbers[result] = len(numbers)
    return (*parts, tuple([numbers[r.value] for r in fn.results]))


def attrs_key(attrs: Attrs) -> Hashable:
    """`attrs` as a key that tells 0.0 from -0.0 and finds NaN equal to itself."""
    if attrs is NO_ATTRS:
        return None
    return tuple([_exact(value) for _, value in attr_items(attrs)])


def _exact(value: Any) -> Hashable:
    if isinstance(value, float):
        return "float", value.hex()
    if isinstance(value, tuple):
        return tuple([_exact(v) for v in value])
    hashable: Hashable = value
    return hashable
