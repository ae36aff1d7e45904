"""What makes two programs one for the disk cache, and what keeps them apart."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from treadle.codegen.target import named
from treadle.ir.graph import Function, Level, Loc, Param, Result
from treadle.ir.op import OpDef, all_ops, get_op
from treadle.ir.parser import parse_function
from treadle.passes.manager import Pass
from treadle.passes.pipeline import register_pass, unregister_pass
from treadle.runtime.cache_key import _is_own, program_key, whole_text
from treadle.tracer.backend import CompileOptions

TEXT = """\
func @f(state %0: f32[4] "a", state %1: f32[4] "b", %2: i64[2] "i") {
  %3: f32[4] = add(%0, %1)  ; x.py:1
  %4: f32[4] = mul(%3, %3)  ; x.py:2
  return %3 "out", state %4 "a"
}
"""


def key(fn: Function, options: CompileOptions | None = None) -> str | None:
    return program_key(fn, named("avx2"), options or CompileOptions())


def parsed(change: Callable[[str], str] = lambda text: text) -> Function:
    return parse_function(change(TEXT))


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace("@f", "@other"),
        lambda s: s.replace('"a"', '"model.weight"').replace('"i"', '"index"'),
        lambda s: s.replace("x.py:1", "y.py:70").replace("x.py:2", "y.py:80"),
    ],
    ids=["name", "paths", "lines"],
)
def test_names_paths_and_lines_do_not_count(change: Callable[[str], str]) -> None:
    assert key(parsed(change)) == key(parsed())


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace("mul", "add"),
        lambda s: s.replace("mul(%3, %3)", "mul(%3, %0)"),
        lambda s: s.replace("f32[4]", "f32[5]"),
        lambda s: s.replace('state %4 "a"', 'state %4 "b"'),
        lambda s: s.replace('state %4 "a"', '%4 "a"'),
        lambda s: s.replace("state %1", "%1"),
        lambda s: s.replace("x.py:2", "x.py:1"),
    ],
    ids=["op", "operand", "type", "state written", "result", "parameter", "shared line"],
)
def test_everything_else_counts(change: Callable[[str], str]) -> None:
    assert key(parsed(change)) != key(parsed())


def test_attributes_count_with_their_types() -> None:
    def program(value: str) -> Function:
        return parse_function(
            f'func @f(%0: f32[4] "a") {{\n  %1: f32[4] = const(value=f32[4]{{{value}}})\n'
            f'  %2: f32[4] = add(%0, %1)\n  return %2 "out"\n}}\n'.replace("value=", "data=")
        )

    values = ["0.0, 0.0, 0.0, 0.0", "-0.0, 0.0, 0.0, 0.0", "nan, 0.0, 0.0, 0.0"]
    assert len({key(program(v)) for v in values}) == 3


def test_every_field_of_target_and_options_counts() -> None:
    target = named("avx2")
    base = program_key(parsed(), target, CompileOptions())
    changed = {"str": "other", "int": 77, "bool": None, "tuple": ("x",)}
    for field in dataclasses.fields(target):
        value = getattr(target, field.name)
        new = not value if isinstance(value, bool) else changed[type(value).__name__]
        other = dataclasses.replace(target, **{field.name: new})
        assert program_key(parsed(), other, CompileOptions()) != base, field.name
        assert whole_text(other) != whole_text(target)
    for field in dataclasses.fields(CompileOptions):
        options = dataclasses.replace(CompileOptions(), **{field.name: True})
        assert key(parsed(), options) != base, field.name


def test_treadles_own_ops_are_known_as_such() -> None:
    assert [op.name for op in all_ops() if not _is_own(op)] == []


def test_a_program_with_a_users_op_has_no_key() -> None:
    base = parsed()
    own = get_op("add")

    def reference(a: object, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return x + y

    for changed in (
        dataclasses.replace(own, ref=reference),
        dataclasses.replace(own, name="mine", infer=lambda a, x, y: x),
    ):
        assert not _is_own(changed)
        assert key(_with_op(base, changed)) is None


def _with_op(fn: Function, op: OpDef) -> Function:
    from treadle.ir.graph import Instr

    (first, _) = fn.instrs
    new = Instr(op, first.args, first.attrs, [first.result.type], Loc("x.py", 1))
    return Function(fn.name, fn.params, (new,), (Result(new.result, "out"),))


def test_with_a_users_pass_nothing_has_a_key() -> None:
    mine = Pass("mine", lambda fn, ctx: fn, requires=Level.TRACED, ensures=Level.TRACED)
    register_pass(mine, after="dce")
    try:
        assert key(parsed()) is None
    finally:
        unregister_pass("mine")
    assert key(parsed()) is not None


def test_programs_of_many_instructions_have_keys() -> None:
    fn = parsed()
    add = get_op("add")
    from treadle.ir.graph import Instr, Value

    x = Value(fn.inputs[0].type)
    instrs = []
    value = x
    for _ in range(20_000):
        instrs.append(Instr(add, (value, x), fn.instrs[0].attrs, [x.type]))
        value = instrs[-1].result
    long = Function("long", (Param(x, "x"),), tuple(instrs), (Result(value, "out"),))
    assert key(long) is not None


EMITTED = """\
import hashlib, numpy as np, treadle
from treadle import nn

model = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 5))
optimizer = treadle.optim.Adam(model.parameters(), lr=0.01)
x = treadle.tensor(np.ones((8, 12), np.float32))
y = treadle.tensor(np.arange(8) % 5)

@treadle.jit
def step(x, y):
    loss = treadle.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss

step(x, y)
print(hashlib.sha256(step.ir("llvm").encode()).hexdigest())
"""


def test_code_depends_on_the_program_alone() -> None:
    """Not on hashes or addresses: the number of a fault means the same in the next process."""
    found = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", EMITTED],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1
    assert len(found.pop().strip()) == len(hashlib.sha256().hexdigest())
