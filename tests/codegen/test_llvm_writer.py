"""The IR writer: what it writes is accepted by LLVM and computes what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from vector_kernels import call

from treadle.codegen.llvm import (
    F32,
    F64,
    I8,
    I32,
    I64,
    PTR,
    FunctionWriter,
    Module,
    Val,
    float_const,
    int_const,
    lane_const,
    vec,
)
from treadle.codegen.target import host
from treadle.ir.errors import CompileError
from treadle.runtime.native import load


def _function(*names: str) -> tuple[Module, FunctionWriter]:
    module = Module(host())
    return module, module.function("f", I64, [(I64, n) for n in names])


def _address(w: FunctionWriter, k: int = 0) -> Val:
    return w.cast("inttoptr", w.args[k], PTR)


@pytest.mark.parametrize(("start", "stop", "step"), [(0, 10, 3), (5, 5, 1), (7, 2, 1), (2, 3, 8)])
@pytest.mark.parametrize("constant", [False, True])
def test_a_loop_runs_as_a_python_range_does(
    start: int, stop: int, step: int, constant: bool
) -> None:
    module, w = _function("start", "stop")
    bounds = (start, stop) if constant else (w.args[0], w.args[1])
    with w.carry(bounds[0], bounds[1], step, [int_const(100)]) as loop:
        loop.next = [w.add(w.mul(loop.carried[0], 3), loop.index)]
    w.ret(loop.results[0])
    expected = 100
    for i in range(start, stop, step):
        expected = expected * 3 + i
    assert call(module, host(), "f", start, stop) == expected


def test_nested_loops_carry_their_own_values() -> None:
    module, w = _function("n")
    with w.carry(0, w.args[0], 1, [int_const(0)], "row") as rows:
        with w.carry(0, rows.index, 1, [rows.carried[0]], "column") as columns:
            columns.next = [w.add(columns.carried[0], columns.index)]
        rows.next = [columns.results[0]]
    w.ret(rows.results[0])
    assert call(module, host(), "f", 7) == sum(c for r in range(7) for c in range(r))


def test_a_loop_whose_body_forgets_its_next_values_is_refused() -> None:
    _, w = _function("n")
    with (
        pytest.raises(ValueError, match="1 values are carried, next has 0"),
        w.carry(0, w.args[0], 1, [int_const(0)]),
    ):
        pass


@pytest.mark.parametrize("x", [-3, 0, 4])
def test_only_the_chosen_branch_runs(x: int) -> None:
    module, w = _function("x", "seen")
    seen = _address(w, 1)

    def positive() -> list[Val]:
        w.store(int_const(1), seen)
        return [w.mul(w.args[0], 10)]

    def other() -> list[Val]:
        w.store(int_const(2), seen)
        return [w.sub(w.args[0], 1)]

    (result,) = w.branch(w.icmp("sgt", w.args[0], 0), positive, other)
    with w.if_(w.icmp("eq", w.args[0], 0), unlikely=True):
        w.store(int_const(3), seen)
    w.ret(result)
    mark = np.zeros(1, np.int64)
    assert call(module, host(), "f", x, mark.ctypes.data) == (x * 10 if x > 0 else x - 1)
    assert mark[0] == (1 if x > 0 else 3 if x == 0 else 2)


def test_while_repeats_until_its_condition_fails() -> None:
    module, w = _function("x", "y")
    (a, _) = w.while_(w.args, lambda c: w.icmp("ne", c[1], 0), lambda c: [c[1], w.urem(c[0], c[1])])
    w.ret(a)
    assert call(module, host(), "f", 84, 36) == math.gcd(84, 36)


@pytest.mark.parametrize(
    "value", [0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 1e-310, 0.1, 1e300]
)
@pytest.mark.parametrize("type", [F32, F64], ids=["f32", "f64"])
def test_a_float_constant_is_the_nearest_number_of_its_type(value: float, type: object) -> None:
    single = type is F32
    dtype = np.float32 if single else np.float64
    module, w = _function("out")
    w.store(float_const(value, F32 if single else F64), _address(w))
    w.ret(0)
    out = np.zeros(1, dtype)
    call(module, host(), "f", out.ctypes.data)
    with np.errstate(over="ignore"):
        expected = np.array([value]).astype(dtype)
    assert out.tobytes() == expected.tobytes()


def test_integer_constants_wrap_to_their_width() -> None:
    assert int_const(255, I8).ref == "-1"
    assert int_const(2**31, I32).ref == str(-(2**31))
    assert str(lane_const([1, 256], I8)) == "<2 x i8> <i8 1, i8 0>"


@pytest.mark.parametrize("count", range(9))
def test_masked_memory_touches_the_first_lanes_only(count: int) -> None:
    module, w = _function("source", "target", "count")
    type = vec(F32, 8)
    mask = w.lane_mask(w.args[2], 8)
    x = w.masked_load(type, _address(w, 0), mask, -1.0)
    w.masked_store(w.fadd(x, x), _address(w, 1), mask)
    w.store(x, w.gep(_address(w, 1), 8, F32))
    w.ret(0)
    source = np.arange(1, 9, dtype=np.float32)
    target = np.zeros(16, np.float32)
    call(module, host(), "f", source.ctypes.data, target.ctypes.data, count)
    first = np.arange(8) < count
    np.testing.assert_array_equal(target[:8], np.where(first, 2 * source, 0))
    np.testing.assert_array_equal(target[8:], np.where(first, source, -1))


def test_gather_reads_each_lane_from_its_own_address() -> None:
    module, w = _function("table", "out")
    where = w.gep(_address(w, 0), lane_const([3, 0, 2, 2], I32), F64)
    w.store(w.gather(vec(F64, 4), where), _address(w, 1))
    w.ret(0)
    table, out = np.array([10.0, 11.0, 12.0, 13.0]), np.zeros(4)
    call(module, host(), "f", table.ctypes.data, out.ctypes.data)
    np.testing.assert_array_equal(out, table[[3, 0, 2, 2]])


def test_lanes_fold_by_halves() -> None:
    module, w = _function("x", "out")
    x = w.load(vec(F32, 8), _address(w, 0))
    w.store(w.fold_lanes(x, lambda a, b: w.fsub(a, b)), _address(w, 1))
    w.ret(0)
    values, out = np.array([1, 2, 4, 8, 16, 32, 64, 128], np.float32), np.zeros(1, np.float32)
    call(module, host(), "f", values.ctypes.data, out.ctypes.data)
    while values.size > 1:
        half = values.size // 2
        values = values[:half] - values[half:]
    assert out[0] == values[0]


def test_vectors_are_splat_shuffled_and_taken_apart() -> None:
    module, w = _function("x", "out")
    x = w.splat(w.args[0], 4)
    x = w.insert(x, w.add(w.args[0], 1), 2)
    y = w.shuffle(x, lane_const([5, 6, 7, 8], I64), [2, 7, 0, 4])
    w.store(y, _address(w, 1))
    w.ret(w.extract(y, 0))
    out = np.zeros(4, np.int64)
    assert call(module, host(), "f", 40, out.ctypes.data) == 41
    np.testing.assert_array_equal(out, [41, 8, 40, 5])


def test_tables_and_internal_functions_are_made_once() -> None:
    module, w = _function("k")
    inner = module.function("double", I64, [(I64, "x")], internal=True)
    inner.ret(inner.add(inner.args[0], inner.args[0]))
    for _ in range(2):
        table = module.table("primes", I64, [2, 3, 5, 7])
    prime = w.load(I64, w.gep(table, w.args[0], I64))
    w.ret(w.call("double", I64, [prime]))
    assert str(module).count("@primes =") == 1
    assert call(module, host(), "f", 3) == 14


def test_stack_memory_is_taken_once_even_in_a_loop() -> None:
    module, w = _function("n")
    with w.carry(0, w.args[0], 1, [int_const(0)]) as loop:
        slot = w.alloca(I64)
        w.store(loop.index, slot)
        loop.next = [w.add(loop.carried[0], w.load(I64, slot))]
    w.ret(loop.results[0])
    assert call(module, host(), "f", 1_000_000) == 499_999_500_000


def test_what_llvm_refuses_is_in_the_error() -> None:
    module, w = _function("x")
    w.ret(w.fadd(w.args[0], w.args[0]))
    with pytest.raises(CompileError, match="fadd i64 %x, %x") as caught:
        load(str(module), host())
    assert "define i64 @f" in str(caught.value)


def test_released_code_gives_no_address() -> None:
    module, w = _function("x")
    w.ret(w.args[0])
    code = load(str(module), host())
    assert code.address("f")
    with pytest.raises(CompileError, match="no function g"):
        code.address("g")
    assert set(code.times) == {"llvm parse", "llvm codegen", "llvm link"}
    code.close()
    code.close()
    with pytest.raises(CompileError, match="was released"):
        code.address("f")
