"""Fusion: how many loops are left, that they compute the same, and what a legal region is."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from random import Random as Dice
from time import perf_counter

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from kernel_programs import Random, arguments, f32, returning

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Level, Result, Value
from treadle.ir.interpreter import interpret
from treadle.ir.parser import parse_function
from treadle.ir.printer import print_function
from treadle.ir.regions import check_region
from treadle.ir.types import TensorType, int64
from treadle.ir.verifier import verify
from treadle.passes import fuse
from treadle.passes.fuse_graph import CYCLE, ClusterGraph
from treadle.passes.manager import PassContext, run_pass, run_pipeline
from treadle.passes.pipeline import pipeline

LOOPS = ("fused", "fused_table")


def compiled(fn: Function) -> Function:
    """`fn` at level KERNELS, through the whole pipeline."""
    kernels = run_pipeline(fn, pipeline())
    verify(kernels, Level.KERNELS)
    return kernels


def kinds(fn: Function) -> Counter[str]:
    return Counter("loop" if i.op.name in LOOPS else i.op.name for i in fn.instrs)


# --- golden figures --------------------------------------------------------------------------


def softmax() -> Function:
    b = Builder("softmax")
    return returning(b, b.call("softmax", b.param(f32(32, 64), "x"), axis=1))


def hand_written_softmax() -> Function:
    b = Builder("softmax")
    x = b.param(f32(32, 64), "x")
    return returning(b, b.div(b.exp(x), b.sum(b.exp(x), 1, keepdims=True)))


def layer_norm(backward: bool) -> Function:
    b = Builder("layer_norm")
    params = [b.param(f32(32, 64), "x"), b.param(f32(64), "g"), b.param(f32(64), "b")]
    ct = b.param(f32(32, 64), "ct")
    x, g, shift = (b.call("variable", p) for p in params)
    y = b.add(b.mul(b.call("layer_norm", x, axes=(1,), eps=1e-5), g), shift)
    if not backward:
        return returning(b, y)
    return returning(b, *b.call_multi("gradient", y, ct, x, g, shift, outputs=1))


def cross_entropy() -> Function:
    b = Builder("loss")
    x = b.call("variable", b.param(f32(32, 10), "x"))
    labels = b.param(TensorType(int64, (32,)), "labels")
    loss = b.call("mean", b.call("cross_entropy", x, labels), axes=(0,), keepdims=False)
    return returning(b, loss, *b.call_multi("gradient", loss, b.ones_like(loss), x, outputs=1))


def gelu_step(sizes: tuple[int, ...] = (64, 48, 10)) -> Function:
    """Forward, backward and plain descent of an MLP with GELU."""
    b = Builder("step")
    x, labels = b.param(f32(32, sizes[0]), "x"), b.param(TensorType(int64, (32,)), "labels")
    held: list[tuple[str, Value]] = []
    for n, (have, want) in enumerate(pairwise(sizes)):
        held.append((f"w{n}", b.param(f32(want, have), f"w{n}", "state")))
        held.append((f"b{n}", b.param(f32(want), f"b{n}", "state")))
    weights = [b.call("variable", value) for _, value in held]
    h = x
    for n in range(len(sizes) - 1):
        h = b.call("gelu", h, approximate=True) if n else h
        h = b.add(b.matmul(h, b.transpose(weights[2 * n])), weights[2 * n + 1])
    loss = b.call("mean", b.call("cross_entropy", h, labels), axes=(0,), keepdims=False)
    grads = b.call_multi("gradient", loss, b.ones_like(loss), *weights, outputs=1)
    new = [b.sub(w, b.mul(g, 0.1)) for w, g in zip(weights, grads, strict=True)]
    states = [Result(v, path, "state") for v, (path, _) in zip(new, held, strict=True)]
    return b.finish([Result(loss, "loss"), *states])


def adam(count: int = 6) -> Function:
    """Adam over `count` parameters of different shapes."""
    b = Builder("adam")
    lr, step = b.param(f32(), "lr"), b.param(f32(), "step", "state")
    step = b.add(step, 1.0)
    fix1 = b.sub(1.0, b.pow(0.9, step))
    fix2 = b.sub(1.0, b.pow(0.999, step))
    results = [Result(step, "step", "state")]
    for n in range(count):
        t = f32(n + 3, 5) if n % 2 else f32(n + 3)
        p, m, v = (b.param(t, f"{name}{n}", "state") for name in "pmv")
        g = b.param(t, f"g{n}")
        m = b.add(b.mul(m, 0.9), b.mul(g, 0.1))
        v = b.add(b.mul(v, 0.999), b.mul(b.mul(g, g), 0.001))
        scale = b.add(b.sqrt(b.div(v, fix2)), 1e-8)
        p = b.sub(p, b.mul(lr, b.div(b.div(m, fix1), scale)))
        results += [Result(x, f"{name}{n}", "state") for name, x in zip("pmv", (p, m, v))]  # noqa: B905
    return b.finish(results)


@pytest.mark.parametrize(
    ("program", "loops"),
    [
        (softmax(), 1),
        (hand_written_softmax(), 1),
        (layer_norm(backward=False), 1),
        # The row's gradient, with the statistics that the other reads; both column sums.
        (layer_norm(backward=True), 2),
        # Losses and logits' gradient of a row together; the mean over rows.
        (cross_entropy(), 2),
        # Adam's step and corrections, which are scalars; all parameters.
        (adam(), 2),
        # Loss and gradient rows; the mean; the two bias sums; all updates. The activation and its
        # derivative are in the epilogues of contractions.
        (gelu_step(), 5),
    ],
    ids=["softmax", "hand-written", "norm", "norm-backward", "loss", "adam", "gelu-step"],
)
def test_golden_number_of_loops(program: Function, loops: int) -> None:
    assert kinds(compiled(program))["loop"] == loops


def test_hand_written_softmax_is_the_same_loop() -> None:
    ours, theirs = (print_function(compiled(f())) for f in (softmax, hand_written_softmax))
    assert ours == theirs


def test_an_mlp_step_keeps_five_contractions() -> None:
    # Two forward, two weight gradients, one input gradient (the first layer needs none).
    assert kinds(compiled(gelu_step()))["contract"] == 5


def test_loops_of_an_optimiser_do_not_grow_with_its_parameters() -> None:
    assert kinds(compiled(adam(6)))["loop"] == kinds(compiled(adam(30)))["loop"]


def test_notes_say_why_neighbours_stayed_apart() -> None:
    ctx = PassContext("fuse")
    run_pass(fuse.PASS, _rows_and_columns(), ctx)
    assert any("different axes, (1,) and (0,)" in str(note) for note in ctx.reasons)


def _rows_and_columns() -> Function:
    b = Builder("both")
    y = b.exp(b.param(f32(8, 64), "x"))
    return returning(b, b.sum(y, 1, keepdims=True), b.sum(y, 0, keepdims=True))


# --- the same results ------------------------------------------------------------------------


@settings(max_examples=80)
@given(dice=st.randoms(use_true_random=True), size=st.integers(8, 50), states=st.integers(0, 3))
def test_fusion_changes_no_result(dice: Dice, size: int, states: int) -> None:
    before = Random(dice.randrange).program(size, states)
    after = run_pass(fuse.PASS, before)
    verify(after, Level.KERNELS)
    arrays = arguments(before)
    pairs = zip(interpret(before, arrays), interpret(after, arrays), strict=True)
    for wanted, found in pairs:
        # Contractions that take a sum in, and sums of reshaped rows, add in another order.
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("program", [layer_norm(True), cross_entropy(), gelu_step(), adam()])
def test_whole_pipeline_changes_no_result(program: Function) -> None:
    core = run_pipeline(program, [p for p in pipeline() if p.name != "fuse"])
    after = run_pass(fuse.PASS, core)
    arrays = [np.abs(a) for a in arguments(core)]
    for wanted, found in zip(interpret(core, arrays), interpret(after, arrays), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_fused_program_is_left_alone() -> None:
    once = compiled(softmax())
    assert run_pass(fuse.PASS, once) is once


def test_fused_text_reads_back() -> None:
    text = print_function(compiled(adam(3)))
    assert print_function(parse_function(text)) == text


def test_time_is_near_linear_in_the_program() -> None:
    def chain(length: int) -> float:
        b = Builder("chain")
        x = b.param(f32(8), "x")
        values = [x]
        for n in range(length):
            values.append(b.add(values[-1], x) if n % 3 else b.exp(values[-1]))
        ct = x
        for value in reversed(values):
            ct = b.mul(ct, value)
        fn = returning(b, ct)
        started = perf_counter()
        run_pass(fuse.PASS, fn)
        return perf_counter() - started

    chain(200)
    short = min(chain(1000) for _ in range(2))
    assert chain(8000) < 8 * short * 4


# --- legal regions ---------------------------------------------------------------------------

_LEGAL = """
func @f(%0: f32[8, 4] "x") {
  %1: f32[8, 4] = fused(%0, space=(8, 4), reduced=(1,)) {
    func @r(%2: f32[8, 4] "p") {
      %3: f32[8, 1] = max(%2, axes=(1,), keepdims=True)
      %4: f32[8, 4] = sub(%2, %3)
      return %4 "y"
    }
  }
  return %1 "out"
}
"""


def faults(text: str) -> str:
    instr = parse_function(text).instrs[-1]
    return "\n".join(check_region(instr))


def test_a_row_is_a_legal_region() -> None:
    assert faults(_LEGAL) == ""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("reduced=(1,)", "reduced=(0,)", "the region reduces (0,)"),
        ("reduced=(1,)", "reduced=()", "the region reduces ()"),
        ("reduced=(1,)", "reduced=(2,)", "not sorted axes of the space"),
        ("space=(8, 4)", "space=(8, 5)", "result 0 of the region has shape (8, 4)"),
        ("f32[8, 1] = max(%2, axes=(1,), keepdims=True)",
         "f32[8] = max(%2, axes=(1,), keepdims=False)", "must keep its reduced axes"),
        ("sub(%2, %3)", "cumsum(%2, axis=1, reverse=False)", "has no form for one element"),
        ("%4: f32[8, 4] = sub(%2, %3)",
         "%5: f32[8, 4] = broadcast_to(%3, shape=(8, 4))\n"
         "      %4: f32[8, 4] = flip(%5, axes=(0,))", "not its own row's"),
    ],
    ids=["other-axes", "no-axes", "no-such-axis", "space", "keepdims", "kernel", "pulled"],
)  # fmt: skip
def test_illegal_regions_are_told(old: str, new: str, fault: str) -> None:
    assert old in _LEGAL
    assert fault in faults(_LEGAL.replace(old, new))


_TABLE = """
func @f(%0: f32[8] "x", %1: f32[3] "y", %2: f32[] "s") {
  %3: f32[8], %4: f32[3] = fused_table(%0, %2, %1, %2, count=2) {
    func @r(%5: f32[n] "p", %6: f32[] "q") {
      %7: f32[n] = mul(%5, %6)
      return %7 "y"
    }
  }
  return %3 "a", %4 "b"
}
"""


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("count=2", "count=1", "1 instances of 2 operands"),
        ("%1, %2, count", "%0, %2, count", "one flat length"),
        ("f32[n] = mul(%5, %6)", "f32[n] = flip(%5, axes=(0,))", "only elementwise ops"),
    ],
    ids=["count", "length", "movement"],
)
def test_illegal_tables_are_told(old: str, new: str, fault: str) -> None:
    assert faults(_TABLE) == ""
    assert fault in faults(_TABLE.replace(old, new))


# --- the graph of clusters -------------------------------------------------------------------


def test_a_path_that_comes_back_is_refused() -> None:
    graph = ClusterGraph([[], [0], [0, 1]])
    assert graph.merge(0, 2, 100) == CYCLE
    assert graph.merge(0, 1, 100) is None
    assert graph.merge(0, 2, 100) is None


@settings(max_examples=100)
@given(dice=st.randoms(use_true_random=True), size=st.integers(2, 30))
def test_clusters_stay_in_topological_order(dice: Dice, size: int) -> None:
    preds = [sorted({dice.randrange(n) for _ in range(dice.randrange(3))}) if n else []
             for n in range(size)]  # fmt: skip
    graph = ClusterGraph(preds)
    for _ in range(size):
        a, b = dice.randrange(size), dice.randrange(size)
        refused = graph.merge(a, b, 1000)
        assert (refused is None) == (graph.find(a) == graph.find(b))
        for node, sources in enumerate(preds):
            for source in sources:
                inside = graph.find(source) == graph.find(node)
                assert inside or graph.order(source) < graph.order(node)
