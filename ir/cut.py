"""A part of a program: from some of its values to others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treadle.ir.builder import Builder
from treadle.ir.errors import ArgumentError
from treadle.ir.graph import Function, Instr, Result, Value
from treadle.ir.op import can_fail


def cut(
    fn: Function,
    fetch: Sequence[tuple[str, Value]],
    fed: Mapping[Value, str] | None = None,
    given: Mapping[Value, Value] | None = None,
) -> Function:
    """The program that computes the values of `fetch`, as results of these names.

    The values of `fed` become parameters of these names, those of `given` are replaced by other
    values of `fn`; nothing that only they needed is computed. Parameters of `fn` that are needed
    keep their Value and come first. Checks stay where what they check is computed anyway. Raises
    ArgumentError where a value is given by what needs it.
    """
    fed, given = dict(fed or {}), dict(given or {})
    builder = Builder(fn.name)
    order = _needed(fn, [_final(v, given) for _, v in fetch], fed, given)
    used = {_final(a, given) for i in order for a in i.args}
    used |= {_final(v, given) for _, v in fetch}
    new: dict[Value, Value] = {}
    for param in fn.params:
        if param.value in used and param.value not in fed:
            builder.keep_param(param)
    for value, name in fed.items():
        if value in used:
            new[value] = builder.param(value.type, name)
    for instr in order:
        found = (_final(a, given) for a in instr.args)
        copies = builder.rebuild(instr, [new.get(a, a) for a in found])
        for old, copy in zip(instr.results, copies, strict=True):
            new.setdefault(old, copy)
    results = [(name, _final(value, given)) for name, value in fetch]
    return builder.finish([Result(new.get(v, v), name) for name, v in results])


def _final(value: Value, given: Mapping[Value, Value]) -> Value:
    """What stands for `value`, which may be replaced by what is replaced itself."""
    seen: set[Value] = set()
    while value in given and value not in seen:
        seen.add(value)
        value = given[value]
    return value


def _needed(
    fn: Function, wanted: Sequence[Value], fed: Mapping[Value, str], given: Mapping[Value, Value]
) -> list[Instr]:
    """The instructions that `wanted` needs, each behind what it needs itself."""
    order: list[Instr] = []
    done: set[Instr] = set()
    begun: set[Instr] = set()

    def collect(values: Sequence[Value]) -> None:
        stack: list[tuple[Instr, bool]] = [
            (v.producer, False) for v in reversed(values) if v not in fed and v.producer
        ]
        while stack:
            instr, ready = stack.pop()
            if instr in done:
                continue
            if ready:
                done.add(instr)
                order.append(instr)
                continue
            if instr in begun:
                raise ArgumentError("a value cannot be given by what is computed from it")
            begun.add(instr)
            stack.append((instr, True))
            for arg in reversed(instr.args):
                source = _final(arg, given)
                if source not in fed and source.producer and source.producer not in done:
                    stack.append((source.producer, False))

    collect(wanted)
    known = {_final(a, given) for i in order for a in i.args} | set(wanted)
    for instr in fn.instrs:
        if instr in done or not instr.results or not can_fail(instr.op, instr.attrs):
            continue
        sources = [_final(a, given) for a in instr.args]
        if all(s in known or s.producer in done for s in sources):
            collect([instr.results[0]])
    return order
