"""What is stored for the backward pass and what is computed again there: decisions and bits."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random as Dice

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from kernel_programs import Random, arguments, f32, returning

from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Instr, Level, Result, Value
from treadle.ir.interpreter import interpret
from treadle.ir.verifier import verify
from treadle.passes import fuse, fuse_build, recompute
from treadle.passes.manager import Note, Record, run_pass, run_pipeline
from treadle.passes.memory import plan_memory
from treadle.passes.pipeline import pipeline
from treadle.passes.recompute import OPERATION, Recompute, size_text

ROWS, INPUTS, HIDDEN, LATENT = 64, 32, 48, 24


def encoder_step() -> Function:
    """Forward, backward and plain descent of an encoder: GELU, a penalty on the latent values'
    squares, ReLU, squared error."""
    b = Builder("step")
    x, y = b.param(f32(ROWS, INPUTS), "x"), b.param(f32(ROWS, INPUTS), "y")
    shapes = {"up": (INPUTS, HIDDEN), "in": (HIDDEN, LATENT), "out": (LATENT, INPUTS)}
    held = {name: b.param(f32(*shape), name, "state") for name, shape in shapes.items()}
    weights = {name: b.call("variable", value) for name, value in held.items()}
    latent = b.matmul(b.call("gelu", b.matmul(x, weights["up"]), approximate=True), weights["in"])
    gap = b.sub(b.matmul(b.call("relu", latent), weights["out"]), y)
    penalty = b.call("sum", b.mul(latent, latent), axes=(0, 1), keepdims=False)
    error = b.call("sum", b.mul(gap, gap), axes=(0, 1), keepdims=False)
    loss = b.add(error, b.mul(penalty, 0.5))
    grads = b.call_multi("gradient", loss, b.ones_like(loss), *weights.values(), outputs=1)
    new = [b.sub(w, b.mul(g, 0.01)) for w, g in zip(weights.values(), grads, strict=True)]
    states = [Result(v, name, "state") for v, name in zip(new, held, strict=True)]
    return b.finish([Result(loss, "loss"), *states])


def fused(fn: Function) -> tuple[Function, list[Note]]:
    """`fn` at level KERNELS, and what was decided about its values."""
    record = Record()
    kernels = run_pipeline(fn, pipeline(), [record], verify="all")
    notes = [n for step in record.steps for n in step.notes]
    return kernels, [n for n in notes if n.name == "recompute" or n.kind == "stored"]


def decided(notes: Sequence[Note]) -> list[str]:
    return [f"{n.name if n.kind == 'rule' else n.kind}: {n.text}" for n in notes]


def test_a_step_says_what_it_stores_and_what_it_computes_again() -> None:
    _, notes = fused(encoder_step())
    assert decided(notes) == [
        "recompute: mul, add of 1,536 elements: 6.1 kB less traffic for 2 operations each",
        "stored: gt of 1,536 elements: 6.1 kB would stay in memory in place of 1.5 kB",
        "stored: add of 3,072 elements: sigmoid is expensive",
    ]


def test_a_step_that_computes_again_gives_the_same_bits_as_the_plain_program() -> None:
    fn = encoder_step()
    core = run_pipeline(fn, [p for p in pipeline() if p.name != "fuse"])
    kernels, _ = fused(fn)
    arrays = arguments(fn)
    for have, want in zip(interpret(kernels, arrays), interpret(core, arrays), strict=True):
        np.testing.assert_array_equal(have, want)


@settings(max_examples=60)
@given(dice=st.randoms(use_true_random=True), size=st.integers(8, 50), states=st.integers(0, 3))
def test_weighing_small_values_too_changes_no_result(dice: Dice, size: int, states: int) -> None:
    before = Random(dice.randrange).program(size, states)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fuse_build, "MIN_ELEMENTS", 1)
        after = run_pass(fuse.PASS, before)
    verify(after, Level.KERNELS)
    arrays = arguments(before)
    for wanted, found in zip(interpret(before, arrays), interpret(after, arrays), strict=True):
        # Contractions that take a sum in, and sums of reshaped rows, add in another order.
        np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-5)


def never_again(patch: pytest.MonkeyPatch) -> None:
    """From now on an operation costs more than any traffic."""
    patch.setattr(recompute, "OPERATION", float("inf"))


@pytest.mark.parametrize("program", ["encoder", "norms"])
def test_computing_again_takes_less_memory(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fn = {"encoder": encoder_step, "norms": layer_norms}[program]()
    less = plan_memory(fused(fn)[0])
    never_again(monkeypatch)
    more = plan_memory(fused(fn)[0])
    assert less.workspace < more.workspace
    assert less.peak <= more.peak


def two_products(between: str) -> Function:
    """A product's value and what `between` makes of it, both in the epilogue of another."""
    b = Builder("pair")
    x, w, v = b.param(f32(64, 32), "x"), b.param(f32(32, 48), "w"), b.param(f32(48, 48), "v")
    h = b.matmul(x, w)
    made = {"square": lambda: b.mul(h, h), "exp": lambda: b.exp(h)}[between]()
    y = b.add(b.mul(b.matmul(h, v), h), made)
    return returning(b, y)


def operands(fn: Function) -> list[int]:
    return [len(i.args) for i in fn.instrs if i.op.name == "contract"]


def test_a_cheap_value_moves_into_the_epilogue_that_reads_it() -> None:
    kernels, notes = fused(two_products("square"))
    assert operands(kernels) == [2, 3]  # the second reads its operands and h
    first, second = (i for i in kernels.instrs if i.op.name == "contract")
    assert not first.regions
    assert [i.op.name for i in second.regions[0].instrs] == ["mul", "mul", "add"]
    assert decided(notes) == [
        "recompute: mul of 3,072 elements: 24.6 kB less traffic for 1 operation each"
    ]


def test_an_expensive_value_is_stored_and_the_reason_told() -> None:
    kernels, notes = fused(two_products("exp"))
    assert operands(kernels) == [2, 4]
    assert decided(notes) == ["stored: exp of 3,072 elements: exp is expensive"]


def test_a_parameter_that_the_reader_does_not_read_is_no_source() -> None:
    """It may be state, written before the reader runs."""
    b = Builder("late")
    x, w, v = b.param(f32(64, 32), "x"), b.param(f32(32, 48), "w"), b.param(f32(48, 48), "v")
    s = b.param(f32(64, 48), "s", "state")
    h = b.matmul(x, w)
    gap, new = b.sub(h, s), b.mul(s, 0.5)
    y = b.add(b.mul(b.matmul(h, v), h), gap)
    kernels, notes = fused(b.finish([Result(y, "y"), Result(new, "s", "state")]))
    assert plan_memory(kernels).in_place == ((3, 1),)
    assert decided(notes) == [
        "stored: sub of 3,072 elements: "
        "it is computed from a parameter that its readers do not read"
    ]


def test_a_value_that_is_a_result_is_stored_all_the_same() -> None:
    b = Builder("kept")
    x, w, v = b.param(f32(64, 32), "x"), b.param(f32(32, 48), "w"), b.param(f32(48, 48), "v")
    h = b.matmul(x, w)
    square = b.mul(h, h)
    kernels, _ = fused(returning(b, b.add(b.mul(b.matmul(h, v), h), square), square))
    assert operands(kernels) == [2, 4]


def test_masks_belong_to_the_gradients_product_where_gradients_are_kept() -> None:
    """A gradient that is kept is state, but neither it nor what it is a product of is an update."""
    b = Builder("dropout")
    x, keep = b.param(f32(64, 32), "x"), b.param(f32(64, 48), "keep")
    w, v = b.param(f32(32, 48), "w", "state"), b.param(f32(48, 16), "v")
    wv = b.call("variable", w)
    h = b.mul(b.call("relu", b.matmul(x, wv)), keep)
    loss = b.call("sum", b.matmul(h, v), axes=(0, 1), keepdims=False)
    (grad,) = b.call_multi("gradient", loss, b.ones_like(loss), wv, outputs=1)
    states = [Result(b.sub(w, b.mul(grad, 0.1)), "w", "state"), Result(grad, "w.grad", "state")]
    kernels, notes = fused(b.finish([Result(loss, "loss"), *states]))
    contracts = [k for k in kernels.instrs if k.op.name == "contract" and k.regions]
    inside = [[i.op.name for i in k.regions[0].instrs] for k in contracts]
    assert inside == [["relu", "mul", "const", "gt"], ["chain", "const", "where"]]
    assert decided(notes) == [
        "stored: gt of 3,072 elements: it is computed from a product that is not stored"
    ]


def layer_norms() -> Function:
    """A residual chain with a norm: its normalised rows are wanted forward and backward."""
    b = Builder("norms")
    x, r, g = b.param(f32(64, 128), "x"), b.param(f32(64, 128), "r"), b.param(f32(128), "g")
    w = b.param(f32(128, 128), "w")
    h = b.exp(b.add(x, r))
    wv, gv, hv = b.call("variable", w), b.call("variable", g), b.call("variable", h)
    y = b.mul(b.call("layer_norm", hv, axes=(1,), eps=1e-5), gv)
    loss = b.call("sum", b.mul(b.matmul(y, wv), hv), axes=(0, 1), keepdims=False)
    return returning(
        b, loss, *b.call_multi("gradient", loss, b.ones_like(loss), wv, gv, hv, outputs=1)
    )


def test_normalised_rows_are_had_again_from_the_rows() -> None:
    _, notes = fused(layer_norms())
    texts = [t for t in decided(notes) if t.startswith("recompute: sub, mul of 8,192 elements")]
    assert texts, decided(notes)


# --- the model -------------------------------------------------------------------------------


def squared() -> tuple[Value, tuple[Instr, ...]]:
    b = Builder("v")
    value = b.mul(x := b.param(f32(64, 64), "x"), x)
    assert value.producer is not None
    return value, (value.producer,)


SIZE = 64 * 64 * 4


@pytest.mark.parametrize(
    ("saved", "paid", "kept", "why"),
    [
        (2 * SIZE, 0, 0, None),
        (2 * SIZE, SIZE, SIZE, None),
        (3 * SIZE, 2 * SIZE, 2 * SIZE, "32.8 kB would stay in memory in place of 16.4 kB"),
        (SIZE, SIZE, 0, "16.4 kB of traffic cost less than reading 16.4 kB and 1 operation each"),
    ],
)
def test_the_model_weighs_traffic_operations_and_memory(
    saved: int, paid: int, kept: int, why: str | None
) -> None:
    value, makers = squared()
    assert Recompute(value, makers, 1, saved, paid, kept).against == why


def test_operations_count_as_traffic() -> None:
    value, makers = squared()
    most = int(1 / OPERATION)
    assert Recompute(value, makers * most, 1, SIZE, 0, 0).against is None
    assert Recompute(value, makers * (most + 1), 1, SIZE, 0, 0).against is not None


def test_sizes_are_told_in_units_of_a_reader() -> None:
    assert [size_text(n) for n in (12, 20_480, 1_572_864)] == ["12 B", "20.5 kB", "1.6 MB"]
