"""The memory plan: simulated in real bytes it gives the interpreter's results; state is safe."""

from __future__ import annotations

from random import Random as Dice

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from kernel_programs import Random, arguments, f32, returning
from plan_simulator import simulate

from treadle.ir.builder import Builder
from treadle.ir.errors import ShapeError
from treadle.ir.graph import Function
from treadle.ir.interpreter import interpret
from treadle.ir.memory import MemoryPlan
from treadle.ir.parser import parse_function
from treadle.ir.types import Dim, TensorType, float32
from treadle.passes import fuse
from treadle.passes.manager import run_pass
from treadle.passes.memory import fault_barrier, plan_memory, print_memory


def planned(text: str) -> tuple[Function, MemoryPlan]:
    """A CORE program in text, fused, and its plan, which is simulated."""
    fn = run_pass(fuse.PASS, parse_function(text))
    plan = plan_memory(fn)
    check(fn, plan, seed=1)
    return fn, plan


def check(fn: Function, plan: MemoryPlan, seed: int) -> None:
    arrays = arguments(fn, seed)
    pairs = zip(interpret(fn, arrays), simulate(fn, plan, arrays), strict=True)
    for wanted, found in pairs:
        np.testing.assert_array_equal(found, wanted)


@settings(max_examples=100)
@given(dice=st.randoms(use_true_random=True), size=st.integers(8, 60), states=st.integers(0, 4))
def test_simulated_plan_gives_the_interpreters_results(dice: Dice, size: int, states: int) -> None:
    fn = run_pass(fuse.PASS, Random(dice.randrange).program(size, states))
    check(fn, plan_memory(fn), seed=size)


# --- workspace -------------------------------------------------------------------------------


def _alternating(depth: int) -> Function:
    """exp and product in turn: each value dies at the next instruction."""
    b = Builder("deep")
    x = b.param(f32(16, 16), "x")
    h = x
    for _ in range(depth):
        h = b.exp(b.matmul(h, x))
    return run_pass(fuse.PASS, returning(b, h))


def test_workspace_does_not_grow_with_depth() -> None:
    # A map writes over its operand, a product cannot: two buffers are enough.
    assert plan_memory(_alternating(4)).workspace == plan_memory(_alternating(40)).workspace
    assert plan_memory(_alternating(40)).workspace == 2 * 16 * 16 * 4


def test_offsets_are_aligned_to_a_cache_line() -> None:
    _, plan = planned("""
func @f(%x: f32[3, 5] "x") {
  %a: f32[5, 3] = permute(%x, perm=(1, 0))
  %b: f32[5, 5] = matmul(%a, %x)
  %c: f32[5, 5] = cumsum(%b, axis=0, reverse=False)
  %d: f32[5, 5] = cumsum(%c, axis=1, reverse=False)
  return %d "out"
}""")
    offsets = [p.offset for p in plan.places.values() if p.kind == "workspace"]
    assert offsets
    assert all(offset % 64 == 0 for offset in offsets)


def test_operand_read_elsewhere_is_not_written_over() -> None:
    fn, plan = planned("""
func @f(%x: f32[4, 4] "x") {
  %a: f32[4, 4] = cumsum(%x, axis=0, reverse=False)
  %t: f32[4, 4] = permute(%a, perm=(1, 0))
  %s: f32[4, 4] = add(%a, %t)
  %y: f32[4, 4] = cumsum(%s, axis=0, reverse=False)
  return %y "out"
}""")
    first, fused, _ = fn.instrs
    assert plan.places[first.result] != plan.places[fused.result]


def test_symbolic_shapes_are_refused() -> None:
    b = Builder("f")
    x = b.param(TensorType(float32, (Dim.of("n"),)), "x")
    fn = run_pass(fuse.PASS, returning(b, b.exp(x)))
    with pytest.raises(ShapeError, match="symbolic"):
        plan_memory(fn)


# --- results ---------------------------------------------------------------------------------


def test_results_are_written_where_the_caller_wants_them() -> None:
    fn, plan = planned("""
func @f(%x: f32[4, 6] "x") {
  %a: f32[4, 6] = exp(%x)
  %b: f32[24] = reshape(%a, shape=(24,))
  return %b "out"
}""")
    assert plan.workspace == 0
    assert str(plan.places[fn.results[0].value]) == "result 0"
    assert plan.places[fn.instrs[0].result] == plan.places[fn.results[0].value]


def test_results_that_share_memory_are_copied() -> None:
    fn, plan = planned("""
func @f(%x: f32[4] "x") {
  %c: f32[2] = const(data=f32[2]{1.0, 2.0})
  %a: f32[4] = exp(%x)
  %v: f32[2, 2] = reshape(%a, shape=(2, 2))
  return %a "a", %v "view", %x "param", %c "const"
}""")
    assert [c.result for c in plan.copies] == [1, 2, 3]
    assert [c.value for c in plan.copies] == [fn.results[j].value for j in (1, 2, 3)]


# --- state -----------------------------------------------------------------------------------


def in_place(text: str) -> tuple[tuple[int, int], ...]:
    return planned(text)[1].in_place


def test_state_is_updated_in_place() -> None:
    assert in_place("""
func @f(state %p: f32[4] "p", %g: f32[4] "g") {
  %n: f32[4] = sub(%p, %g)
  return state %n "p"
}""") == ((0, 0),)


def test_unchanged_state_costs_nothing() -> None:
    _, plan = planned('func @f(state %p: f32[4] "p") {\n  return state %p "p"\n}')
    assert plan.in_place == ((0, 0),)
    assert plan.copies == ()


def test_state_that_is_read_later_is_not_overwritten() -> None:
    assert (
        in_place("""
func @f(state %p: f32[4, 4] "p", %g: f32[4, 4] "g") {
  %n: f32[4, 4] = sub(%p, %g)
  %m: f32[4, 4] = matmul(%n, %p)
  return %m "out", state %n "p"
}""")
        == ()
    )


def test_old_state_that_is_a_result_is_not_overwritten() -> None:
    assert (
        in_place("""
func @f(state %p: f32[4] "p", %g: f32[4] "g") {
  %n: f32[4] = sub(%p, %g)
  return %p "old", state %n "p"
}""")
        == ()
    )


def test_state_read_at_another_index_is_not_overwritten() -> None:
    assert (
        in_place("""
func @f(state %p: f32[4, 4] "p") {
  %t: f32[4, 4] = permute(%p, perm=(1, 0))
  %n: f32[4, 4] = add(%t, %p)
  return state %n "p"
}""")
        == ()
    )


def test_swapped_states_are_copied_not_lost() -> None:
    _, plan = planned("""
func @f(state %p: f32[4] "p", state %q: f32[4] "q") {
  return state %q "p", state %p "q"
}""")
    assert plan.in_place == ()
    assert len(plan.copies) == 2


_FAULTING = """
func @f(state %p: f32[4] "p", %g: f32[4] "g", %i: i64[4] "i") {
  %n: f32[4] = sub(%p, %g)
  %s: f32[4, 1] = reshape(%n, shape=(4, 1))
  %m: f32[4, 4] = mul(%s, %g)
  %k: f32[4, 4] = cumsum(%m, axis=1, reverse=False)
  %o: f32[4, 4] = gather(%k, %i, axes=(0,), checked=CHECKED)
  return %o "out", state %n "p"
}"""


def test_state_is_not_overwritten_before_the_fault_barrier() -> None:
    assert in_place(_FAULTING.replace("CHECKED", "True")) == ()
    assert in_place(_FAULTING.replace("CHECKED", "False")) == ((0, 1),)


def test_fault_barrier_is_the_last_instruction_that_can_fault() -> None:
    fn, plan = planned(_FAULTING.replace("CHECKED", "True"))
    assert plan.fault_barrier == len(fn.instrs) - 1
    fn, plan = planned(_FAULTING.replace("CHECKED", "False"))
    assert plan.fault_barrier == fault_barrier(fn) == -1


def test_equal_states_of_a_table_are_updated_in_place() -> None:
    fn, plan = planned("""
func @f(state %p: f32[4] "p", %g: f32[4] "g", state %q: f32[2, 3] "q", %h: f32[2, 3] "h") {
  %n: f32[4] = sub(%p, %g)
  %m: f32[2, 3] = sub(%q, %h)
  return state %n "p", state %m "q"
}""")
    assert "fused_table" in [i.op.name for i in fn.instrs]
    assert plan.in_place == ((0, 0), (2, 1))


def test_state_that_another_row_of_the_table_reads_is_not_overwritten() -> None:
    fn, plan = planned("""
func @f(state %p: f32[4] "p", %g: f32[4] "g", state %q: f32[4] "q") {
  %n: f32[4] = sub(%p, %g)
  %m: f32[4] = sub(%q, %p)
  return state %n "p", state %m "q"
}""")
    if "fused_table" in [i.op.name for i in fn.instrs]:
        assert plan.in_place == ((2, 1),)


def test_new_state_that_is_a_result_too_is_copied() -> None:
    _, plan = planned("""
func @f(state %p: f32[4] "p", %g: f32[4] "g") {
  %n: f32[4] = sub(%p, %g)
  return %n "out", state %n "p"
}""")
    assert plan.in_place == ()
    assert [c.result for c in plan.copies] == [1]


# --- the table -------------------------------------------------------------------------------

_PRINTED = """\
value  type       bytes  place        live
%0     f32[8]     32     param 0      -     p
%1     f32[2, 4]  32     param 1      -     g
%2     f32[2, 4]  32     workspace+0  0..2  cumsum
%3     f32[8]     32     workspace+0  0..2  view
%4     f32[8]     32     result 0     2..   fused sub
param 0 is result 0: 'p' is updated in place
workspace 64 bytes, peak 96 bytes, nothing can fault"""


def test_printed_plan_is_a_table_with_the_peak() -> None:
    fn, plan = planned("""
func @f(state %p: f32[8] "p", %g: f32[2, 4] "g") {
  %c: f32[2, 4] = cumsum(%g, axis=1, reverse=False)
  %v: f32[8] = reshape(%c, shape=(8,))
  %n: f32[8] = sub(%p, %v)
  return state %n "p"
}""")
    assert print_memory(fn, plan) == _PRINTED
