"""Operations and bytes of an instruction, against counts by hand."""

import pytest

from treadle.ir.graph import Instr, walk
from treadle.ir.parser import parse_functions
from treadle.ir.work import Work, work_of
from treadle.passes.manager import run_pipeline
from treadle.passes.pipeline import pipeline


def only(text: str, op: str, fused: bool = False) -> Instr:
    """The instruction `op` of a program, after all passes where `fused`."""
    (fn,) = parse_functions(text)
    if fused:
        fn = run_pipeline(fn, pipeline(), [])
    (found,) = [i for i in walk(fn) if i.op.name == op]
    return found


def test_a_product_is_two_operations_for_each_of_m_n_k() -> None:
    text = """func @f(%0: f32[4, 8, 16] "a", %1: f32[4, 32, 16] "b") {
      %2: f32[4, 8, 32] = contract(%0, %1, spec="bmk,bnk->bmn")
      return %2 "out"
    }"""
    assert work_of(only(text, "contract")) == Work(
        flops=2 * 4 * 8 * 32 * 16,
        read=4 * (4 * 8 * 16 + 4 * 32 * 16),
        written=4 * 4 * 8 * 32,
        itemsize=4,
    )


def test_an_epilogue_adds_its_operations_and_operands() -> None:
    text = """func @f(%0: f64[8, 16] "a", %1: f64[16, 4] "b", %2: f64[4] "c") {
      %3: f64[8, 4] = matmul(%0, %1)
      %4: f64[8, 4] = add(%3, %2)
      %5: f64[8, 4] = relu(%4)
      return %5 "out"
    }"""
    found = work_of(only(text, "contract", fused=True))
    assert found == Work(2 * 8 * 4 * 16 + 2 * 32, 8 * (8 * 16 + 16 * 4 + 4), 8 * 32, 8)


def test_a_softmax_counts_each_of_its_operations_and_reads_its_operand_once() -> None:
    text = """func @f(%0: f32[8, 100] "x") {
      %1: f32[8, 1] = max(%0, axes=(1,), keepdims=True)
      %2: f32[8, 100] = sub(%0, %1)
      %3: f32[8, 100] = exp(%2)
      %4: f32[8, 1] = sum(%3, axes=(1,), keepdims=True)
      %5: f32[8, 100] = div(%3, %4)
      return %5 "out"
    }"""
    (fn,) = parse_functions(text)
    assert sum(work_of(i).flops for i in fn.instrs) == 5 * 800
    (kernel,) = run_pipeline(fn, pipeline(), []).instrs
    assert work_of(kernel).moved == 2 * 4 * 800
    assert 5 * 800 <= work_of(kernel).flops <= 6 * 800


def test_casts_selections_and_integers_are_no_operations() -> None:
    text = """func @f(%0: i32[10] "i", %1: bool[10] "b", %2: f32[10] "x") {
      %3: f32[10] = cast(%0, dtype=f32)
      %4: f32[10] = where(%1, %3, %2)
      %5: i32[10] = add(%0, %0)
      return %4 "out", %5 "sum"
    }"""
    (fn,) = parse_functions(text)
    assert sum(work_of(i).flops for i in fn.instrs) == 0


def test_a_gather_reads_the_rows_that_it_picks_not_the_whole_table() -> None:
    text = """func @f(%0: f32[1000, 64] "table", %1: i64[32] "rows") {
      %2: f32[32, 64] = gather(%0, %1, axes=(0,), checked=True)
      return %2 "out"
    }"""
    found = work_of(only(text, "fused", fused=True))
    assert found == Work(0, 4 * 32 * 64 + 8 * 32, 4 * 32 * 64, 4)


@pytest.mark.parametrize("in_place", [False, True])
def test_an_added_scatter_in_place_moves_only_what_it_touches(in_place: bool) -> None:
    text = """func @f(%0: f32[1000, 64] "table", %1: f32[32, 64] "add", %2: i64[32] "rows") {
      %3: f32[1000, 64] = scatter_add(%0, %1, %2, axes=(0,), checked=True)
      return %3 "out"
    }"""
    found = work_of(only(text, "scatter_add"), in_place)
    updates, rows = 4 * 32 * 64, 8 * 32
    assert found.flops == 32 * 64
    assert found.written == (updates if in_place else 4 * 1000 * 64)
    assert found.read == updates + rows + (updates if in_place else 4 * 1000 * 64)


def test_a_table_counts_each_instance_with_its_own_length() -> None:
    text = """func @f(%0: f32[100] "a", %1: f32[] "s", %2: f32[7] "b", %3: f32[] "t") {
      %4: f32[100], %5: f32[7] = fused_table(%0, %1, %2, %3, count=2) {
        func @scale(%6: f32[n] "p0", %7: f32[] "p1") {
          %8: f32[] = add(%7, %7)
          %9: f32[n] = mul(%6, %8)
          return %9 "r0"
        }
      }
      return %4 "x", %5 "y"
    }"""
    found = work_of(only(text, "fused_table"))
    assert found == Work(107 + 2, 4 * (107 + 2), 4 * 107, 4)


@pytest.mark.parametrize("causal", [False, True])
def test_attention_counts_its_products_over_the_weights_that_it_computes(causal: bool) -> None:
    text = f"""func @f(%0: f32[6, 8, 16] "q", %1: f32[6, 8, 16] "k", %2: f32[6, 8, 4] "v") {{
      %3: f32[6, 8, 4] = attention(%0, %1, %2, scale=0.5, causal={causal})
      return %3 "out"
    }}"""
    weights = 6 * (36 if causal else 64)
    found = work_of(only(text, "attention_forward", fused=True))
    assert found.flops == weights * (2 * 16 + 2 * 4 + 5)
    assert found.read == 4 * 6 * 8 * (16 + 16 + 4)


def test_a_composite_is_what_it_expands_into() -> None:
    text = """func @f(%0: f32[8, 16] "x") {
      %1: f32[8, 16] = silu(%0)
      return %1 "out"
    }"""
    assert work_of(only(text, "silu")).flops >= 128
