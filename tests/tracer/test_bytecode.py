"""What the walk reads of bytecode is what `dis` says."""

from __future__ import annotations

import argparse
import dis
import inspect
import json.decoder
import textwrap
from collections.abc import Iterator
from types import CodeType

import pytest

from treadle.tracer import names, trace, walk_code
from treadle.tracer.bytecode import instructions, is_remainder

MANY = "def f(x):\n" + "".join(f"    a{n} = g{n}.b{n} + h{n}(x.c{n}, {n}.5)\n" for n in range(300))


def codes(module: object) -> Iterator[CodeType]:
    stack = [compile(inspect.getsource(module), "module", "exec")]  # type: ignore[arg-type]
    while stack:
        code = stack.pop()
        yield code
        stack += [c for c in code.co_consts if isinstance(c, CodeType)]


def by_dis(code: CodeType) -> list[tuple[str, object]]:
    found = []
    for i in dis.get_instructions(code):
        if i.opname not in ("EXTENDED_ARG", "CACHE"):
            known = i.opcode in dis.hasname or i.opname == "LOAD_CONST"
            found.append((i.opname, i.argval if known else None))
    return found


@pytest.mark.parametrize("module", [argparse, textwrap, json.decoder, names, trace, walk_code])
def test_operations_names_and_constants_are_those_of_dis(module: object) -> None:
    for code in codes(module):
        assert [(op, value) for op, _, value in instructions(code)] == by_dis(code)


def test_arguments_of_more_than_a_byte() -> None:
    (code,) = (c for c in compile(MANY, "many", "exec").co_consts if isinstance(c, CodeType))
    assert [(op, value) for op, _, value in instructions(code)] == by_dis(code)


def test_remainders() -> None:
    code = compile("a % b; a %= b; a + b; a // b; a & b", "remainders", "exec")
    found = [is_remainder(arg) for op, arg, _ in instructions(code) if op == "BINARY_OP"]
    assert found == [True, True, False, False, False]
