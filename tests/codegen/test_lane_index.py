"""Lane indices: whatever happens to them, each lane's index is what integers would give."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from vector_kernels import call, store_element

from treadle.codegen.lane_index import LaneIndex
from treadle.codegen.llvm import I64, PTR, Module
from treadle.codegen.scalar_llvm import LlvmScalarOps
from treadle.codegen.target import host, named
from treadle.ir.types import bool_, float32, int32, int64


class _Program:
    """Random index arithmetic, done on lane indices and on integers beside."""

    def __init__(self, base: int, step: int, bounded: bool, lanes: int, multiple: int = 1) -> None:
        self.module = Module(host())
        self.w = self.module.function("f", I64, [(I64, "base"), (PTR, "out")])
        self.s = LlvmScalarOps(self.w, lanes)
        self.lanes = lanes
        lane_steps = [lane * (step if lanes > 1 else 0) for lane in range(lanes)]
        self.values = [base + k for k in lane_steps]
        low, high = (min(self.values), max(self.values)) if bounded else (None, None)
        self.index = self.s.index(self.w.args[0], step, low, high, multiple)
        self.first, self.starts, self.base = self.index, self.values, base

    def apply(self, op: str, by: int) -> None:
        s, i = self.s, self.index
        if op == "add":
            self.index, self.values = s.index_add(i, by), [v + by for v in self.values]
        elif op == "mul":
            self.index, self.values = s.index_mul(i, by), [v * by for v in self.values]
        elif op == "double":
            self.index, self.values = s.index_sum(i, i), [2 * v for v in self.values]
        elif op == "with_first":
            self.index = s.index_sum(i, s.index_mul(self.first, by))
            self.values = [v + by * f for v, f in zip(self.values, self.starts, strict=True)]
        elif op == "clamp":
            size = abs(by) + 1
            self.index = s.index_clamp(i, size)
            self.values = [min(max(v, 0), size - 1) for v in self.values]
        elif min(self.values) >= 0 and by != 0:
            q, r = s.index_divmod(i, abs(by))
            self.index = q if op == "div" else r
            pairs = [divmod(v, abs(by)) for v in self.values]
            self.values = [p[0 if op == "div" else 1] for p in pairs]

    def run(self) -> list[int]:
        out = np.zeros(self.lanes, np.int64)
        element = self.s.from_index(self.index, int64)
        store_element(self.w, self.s, element, self.w.args[1], int64)
        self.w.ret(0)
        call(self.module, host(), "f", self.base, out.ctypes.data)
        return [int(v) for v in out]


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["add", "mul", "div", "rem", "double", "with_first", "clamp"]),
        st.integers(-9, 40),
    ),
    max_size=6,
)


@settings(max_examples=60)
@given(
    base=st.integers(0, 300),
    step=st.sampled_from([-1, 0, 1, 2, 7]),
    bounded=st.booleans(),
    lanes=st.sampled_from([1, 4, 8]),
    aligned=st.booleans(),
    steps=_STEPS,
)
def test_index_arithmetic_is_integer_arithmetic(
    base: int, step: int, bounded: bool, lanes: int, aligned: bool, steps: list[tuple[str, int]]
) -> None:
    if aligned:
        base, step = base // lanes * lanes, 1
    program = _Program(base, step, bounded, lanes, lanes if aligned else 1)
    for op, by in steps:
        program.apply(op, by)
    assert program.run() == program.values


def _ops(lanes: int = 8) -> LlvmScalarOps:
    module = Module(named("avx2"))
    return LlvmScalarOps(module.function("f", I64, [(I64, "base")]), lanes)


def test_sums_and_products_with_constants_stay_affine() -> None:
    s = _ops()
    i = s.index_add(s.index_mul(s.index(s.w.args[0], 1), 12), 5)
    assert not i.is_vector
    assert (i.step, i.offset) == (12, 5)


def test_a_division_that_parts_no_lanes_stays_affine() -> None:
    s = _ops()
    q, r = s.index_divmod(s.index(s.w.args[0], 1, 0, 1023, multiple=8), 64)
    assert q.is_uniform
    assert (r.is_vector, r.step, r.high) == (False, 1, 63)
    assert s.index_divmod(r, 8)[0].is_uniform


def test_a_division_that_parts_lanes_gives_each_its_own() -> None:
    s = _ops()
    q, r = s.index_divmod(s.index(s.w.args[0], 1, 0, 1023, multiple=8), 60)
    assert q.is_vector
    assert r.is_vector
    assert s.vector_of(q).type.bits == 32


def test_a_division_into_whole_groups_of_lanes_has_a_quotient_a_group() -> None:
    s = _ops()
    i = s.index(s.w.args[0], 1, 0, 1023, multiple=8)
    q, r = s.index_divmod(i, 2)
    assert (q.is_vector, q.step, q.every, q.high) == (False, 1, 2, 511)
    assert (r.is_vector, r.high) == (True, 1)
    rest = s.index_sum(s.index_mul(q, 6), s.index_const(5))
    assert (rest.is_vector, rest.step, rest.every, rest.offset) == (False, 6, 2, 5)
    assert s.index_sum(q, i).is_vector


def test_checks_that_cannot_fail_cost_nothing() -> None:
    s = _ops()
    i = s.index(s.w.args[0], 1, 0, 63)
    assert s.index_clamp(i, 64) is i
    assert s.index_in(i, 0, 64).literal is True
    assert s.index_in(i, 64, 128).literal is False
    assert s.index_divmod(i, 64) == (s.index_const(0), i)


@pytest.mark.parametrize("step", [0, 1, 3])
def test_membership_is_told_for_each_lane(step: int) -> None:
    lanes = 8
    module = Module(host())
    w = module.function("f", I64, [(I64, "base"), (PTR, "out")])
    s = LlvmScalarOps(w, lanes)
    inside = s.index_in(s.index(w.args[0], step), 10, 20)
    store_element(w, s, inside, w.args[1], bool_)
    w.ret(0)
    out = np.zeros(lanes, np.bool_)
    for base in (0, 6, 10, 15, 20, 25):
        call(module, host(), "f", base, out.ctypes.data)
        np.testing.assert_array_equal(out, [10 <= base + k * step < 20 for k in range(lanes)])


@pytest.mark.parametrize("base", [0, 5, 2**24 - 3, 2**40 + 1])
def test_an_index_becomes_the_nearest_float(base: int) -> None:
    module = Module(host())
    w = module.function("f", I64, [(I64, "base"), (PTR, "out")])
    s = LlvmScalarOps(w, 8)
    store_element(w, s, s.from_index(s.index(w.args[0], 1), float32), w.args[1], float32)
    w.ret(0)
    out = np.zeros(8, np.float32)
    call(module, host(), "f", base, out.ctypes.data)
    np.testing.assert_array_equal(out, np.arange(base, base + 8).astype(np.float32))


def test_a_constant_index_needs_no_code() -> None:
    s = _ops()
    i = s.index_sum(s.index_mul(s.index_const(7), 3), s.index_const(-1))
    assert i == LaneIndex(None, 20, 0, 20, 20, i.multiple)
    assert s.from_index(i, int32).literal == 20
    assert "=" not in str(s.w).split("entry:")[1]


def test_a_division_behind_an_offset_begins_within_a_group() -> None:
    s = _ops()
    i = s.index_add(s.index(s.w.args[0], 1, 0, 1023, multiple=8), 1)
    q, r = s.index_divmod(i, 2)
    assert (q.is_vector, q.step, q.every, q.phase, q.high) == (False, 1, 2, 1, 512)
    assert (r.is_vector, r.high) == (True, 1)


def test_a_clamped_index_stays_affine_until_a_lane_is_asked_for() -> None:
    s = _ops()
    i = s.index_clamp(s.index_add(s.index(s.w.args[0], 1, 0, 63), -3), 60)
    moved = s.index_sum(s.index_mul(i, 1), s.index_const(120))
    assert (moved.is_vector, moved.step, moved.offset) == (False, 1, 117)
    settled = s.index_settled(moved)
    assert (settled.is_vector, settled.guard) == (True, None)
    assert (settled.low, settled.high) == (120, 179)
