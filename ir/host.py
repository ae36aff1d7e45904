"""Where a program calls back into Python, and in which order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from treadle.ir.graph import Function, Instr, walk
from treadle.ir.host_function import HostFunction
from treadle.ir.ops.host_calls import HOST_OPS, CallbackAttrs


def is_host_call(instr: Instr) -> bool:
    """Does `instr` itself call Python code?"""
    return instr.op.name in HOST_OPS


def calls_host(instr: Instr) -> bool:
    """Does `instr`, or what its regions hold, call Python code?"""
    if instr.op.name in HOST_OPS:
        return True
    if instr.op.name == "attach_vjp":  # its region does not run where it stands
        return False
    return bool(instr.regions) and any(map(has_host_calls, instr.regions))


def has_host_calls(fn: Function) -> bool:
    """Does any instruction of `fn` call Python code?"""
    return any(i.op.name in HOST_OPS for i in walk(fn))


def runs_in_place(fn: Function) -> bool:
    """Is Python code called while `fn` runs? Where a program does nothing of that kind but print,
    outside of loops and branches, its lines are shown when it is over."""
    return any(i.op.name != "debug_print" and calls_host(i) for i in fn.instrs)


def in_order(fn: Function) -> Iterator[tuple[int, int]]:
    """Pairs of numbers of instructions that must stay in this order: calls of Python code."""
    calls = [n for n, instr in enumerate(fn.instrs) if calls_host(instr)]
    yield from pairwise(calls)


def host_functions(fn: Function) -> dict[int, HostFunction | str]:
    """The functions that callbacks of `fn` call, by number; labels, by -1 and below, of those that
    this process does not have."""
    found: dict[int, HostFunction | str] = {}
    for instr in walk(fn):
        if isinstance(instr.attrs, CallbackAttrs):
            host = instr.attrs.host
            known = isinstance(host, HostFunction)
            found[host.number if known else -1 - len(found)] = host  # type: ignore[union-attr]
    return found
