"""The verifier finds each broken invariant and lists all of them."""

import pytest

from treadle.ir.builder import Builder
from treadle.ir.errors import VerifyError
from treadle.ir.graph import Function, Instr, Level, Param, Result, Value
from treadle.ir.op import NO_ATTRS, get_op
from treadle.ir.types import TensorType, float32, int64
from treadle.ir.verifier import find_faults, verify

MATRIX = TensorType(float32, (2, 3))


def one_op(name: str, type_: TensorType = MATRIX, result: TensorType = MATRIX, **attrs) -> Function:
    op = get_op(name)
    x = Value(type_)
    instr = Instr(op, (x,), op.attrs(**attrs), (result,))
    return Function("f", (Param(x, "x"),), (instr,), (Result(instr.result, "out"),))


def messages(fn: Function, level: Level) -> str:
    return "\n".join(str(f) for f in find_faults(fn, level))


def test_a_legal_function_passes() -> None:
    verify(one_op("exp"), Level.TRACED)
    verify(one_op("exp"), Level.CORE)


def test_a_value_used_before_its_definition_is_a_fault() -> None:
    builder = Builder("f")
    x = builder.param(MATRIX, "x")
    y = builder.exp(x)
    z = builder.exp(y)
    fn = builder.finish([Result(z, "out")])
    swapped = Function("f", fn.params, (fn.instrs[1], fn.instrs[0]), fn.results)
    assert "not defined before it is used" in messages(swapped, Level.TRACED)


def test_a_value_defined_twice_is_a_fault() -> None:
    fn = one_op("exp")
    twice = Function("f", fn.params, fn.instrs * 2, fn.results)
    assert "defined twice" in messages(twice, Level.TRACED)


def test_an_unknown_result_is_a_fault() -> None:
    fn = one_op("exp")
    strange = Function("f", fn.params, fn.instrs, (Result(Value(MATRIX), "out"),))
    assert "result 'out' is not defined" in messages(strange, Level.TRACED)


def test_types_that_the_rule_does_not_give_are_a_fault() -> None:
    fn = one_op("exp", result=TensorType(float32, (3, 2)))
    assert "the type rule gives f32[2, 3], the instruction has f32[3, 2]" in messages(
        fn, Level.TRACED
    )


def test_operands_that_the_rule_refuses_are_a_fault() -> None:
    integers = TensorType(int64, (2,))
    assert "the type rule refuses" in messages(one_op("exp", integers, integers), Level.TRACED)


def test_wrong_attributes_are_a_fault() -> None:
    x = Value(MATRIX)
    instr = Instr(get_op("sum"), (x,), NO_ATTRS, (MATRIX,))
    fn = Function("f", (Param(x, "x"),), (instr,), (Result(instr.result, "out"),))
    assert "attributes must be" in messages(fn, Level.TRACED)


def test_paths_are_unique() -> None:
    x, y = Value(MATRIX), Value(MATRIX)
    fn = Function(
        "f",
        (Param(x, "w", "state"), Param(y, "w", "state")),
        (),
        (Result(x, "w", "state"), Result(y, "w", "state")),
    )
    found = messages(fn, Level.TRACED)
    assert "two parameters have the path 'w'" in found
    assert "two state results have the path 'w'" in found


def test_composites_and_variables_are_gone_at_core() -> None:
    verify(one_op("softmax", axis=1), Level.TRACED)
    assert "must be gone" in messages(one_op("softmax", axis=1), Level.CORE)
    assert "must be gone" in messages(one_op("variable"), Level.CORE)


def test_a_loose_elementwise_op_is_a_fault_at_kernels() -> None:
    assert "inside a fused region" in messages(one_op("exp"), Level.KERNELS)


def test_gradients_are_by_variables_only() -> None:
    builder = Builder("f")
    x = builder.param(TensorType(float32), "x")
    y = builder.exp(x)
    one = builder.const(1.0, float32)
    (g,) = builder.call_multi("gradient", y, one, x, outputs=1)
    fn = builder.finish([Result(g, "out")])
    assert "differentiates by a parameter" in messages(fn, Level.TRACED)


def test_all_faults_are_listed_with_the_program() -> None:
    fn = one_op("exp", result=TensorType(float32, (9,)))
    bad = Function("f", fn.params * 2, fn.instrs, (Result(Value(MATRIX), "out"),))
    with pytest.raises(VerifyError) as caught:
        verify(bad, Level.CORE)
    text = str(caught.value)
    assert "level CORE" in text
    assert "repeats a value" in text
    assert "the type rule gives" in text
    assert "func @f" in text
