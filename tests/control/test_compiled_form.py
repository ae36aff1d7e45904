"""What a compiled loop is: native, in planned memory, with all outside that need not be in it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from bodies import arrays, assert_same, rnn, scalar

import treadle
from treadle.codegen.plan_control import ControlPlan
from treadle.codegen.target import named
from treadle.ir.control import scan_attrs
from treadle.ir.graph import Function, Instr, walk
from treadle.runtime.driver import compile_stages
from treadle.runtime.stages import Compilation
from treadle.tracer.backend import CompileOptions


def compiled(fn: Any, *args: Any) -> Compilation:
    found: Compilation = treadle.jit(fn).compiled(*args).executable.compilation
    return found


def scans(fn: Function) -> list[Instr]:
    return [i for i in fn.instrs if i.op.name == "scan"]


def rnn_of(length: int, width: int = 32) -> list[Any]:
    shapes = ((24, width), (width, width), (width,), (8, width), (length, 8, 24))
    return arrays(*shapes, dtype=np.float32)


def test_code_does_not_grow_with_the_length() -> None:
    gradient = treadle.grad(scalar(rnn))
    short, long = (compiled(gradient, *rnn_of(n)) for n in (512, 2048))
    assert abs(len(long.emitted.ir) - len(short.emitted.ir)) < 0.02 * len(short.emitted.ir)
    assert len(long.plan.kernels) <= len(short.plan.kernels) + 2


def test_a_plain_python_loop_unrolls() -> None:
    def plain(w: Any, u: Any, b: Any, h: Any, xs: Any) -> Any:
        for t in range(xs.shape[0]):
            h = treadle.tanh(xs[t] @ w + h @ u + b)
        return h

    done = compiled(plain, *rnn_of(5))
    assert not scans(done.kernels)
    assert sum(i.op.name == "contract" for i in done.kernels.instrs) == 10


def test_the_input_product_of_all_steps_is_one_before_the_loop() -> None:
    done = compiled(rnn, *rnn_of(16))
    (loop,) = scans(done.kernels)
    inside = [i for i in walk(loop.regions[0]) if i.op.name == "contract"]
    before = [i for i in done.kernels.instrs if i.op.name == "contract"]
    assert len(inside) == len(before) == 1
    assert before[0].args[0].type.shape == (16 * 8, 24)


def test_weight_gradients_of_all_steps_are_one_product_behind_the_loop() -> None:
    done = compiled(treadle.grad(scalar(rnn), (0, 1, 2)), *rnn_of(16))
    forward, back = scans(done.kernels)
    assert scan_attrs(back).reverse
    assert scan_attrs(back).carries == 1  # the hidden state's cotangent, no sum over steps
    behind = done.kernels.instrs[done.kernels.instrs.index(back) + 1 :]
    specs = [i.attrs.spec for i in behind if i.op.name == "contract"]  # type: ignore[attr-defined]
    assert specs == ["km,kn->mn", "km,kn->mn"]
    assert [i.op.name for i in forward.regions[0].instrs].count("contract") == 1


def test_a_product_that_is_a_row_is_one_behind_the_loop() -> None:
    def model(v: Any, *args: Any) -> Any:
        def body(h: Any, x: Any) -> Any:
            h = treadle.tanh(h + x)
            return h, h @ v

        return treadle.scan(body, *args)[1]

    v, h, xs = arrays((16, 12), (4, 16), (9, 4, 16), dtype=np.float32)
    done = compiled(model, v, h, xs)
    (loop,) = scans(done.kernels)
    assert not any(i.op.name == "contract" for i in walk(loop.regions[0]))
    assert_same(treadle.jit(model)(v, h, xs), model(v, h, xs), 1e-5)


def test_rows_are_read_and_written_where_they_lie() -> None:
    done = compiled(
        lambda h, xs: treadle.scan(lambda h, x: (h * x, h + x), h, xs), *arrays((64,), (9, 64))
    )
    (loop,) = scans(done.kernels)
    kinds = [i.op.name for i in loop.regions[0].instrs]
    assert kinds == ["fused"]
    inner = done.memory.inner[loop].plans[0]
    assert not inner.copies
    assert inner.workspace == 0


def test_a_carry_that_is_read_where_it_is_written_is_updated_in_place() -> None:
    h, xs = arrays((64,), (9, 64))
    done = compiled(
        lambda h, xs: treadle.scan(lambda h, x: (treadle.sin(h) * x, None), h, xs), h, xs
    )
    (loop,) = scans(done.kernels)
    assert done.memory.inner[loop].spare == (None,)
    turned = compiled(lambda h, xs: treadle.scan(lambda h, x: (h[::-1] * x, None), h, xs), h, xs)
    (loop,) = scans(turned.kernels)
    assert done.memory.inner.keys() != turned.memory.inner.keys()
    assert turned.memory.inner[loop].spare != (None,)


def test_every_step_uses_one_workspace() -> None:
    def loop(length: int) -> Compilation:
        args = rnn_of(length)
        return compiled(lambda *a: rnn(*a)[0], *args)

    (short,), (long,) = (list(loop(n).memory.inner.values()) for n in (4, 400))
    assert short.size == long.size


def test_what_a_scan_keeps_is_planned_and_remat_keeps_less() -> None:
    def loss(h: Any, xs: Any, remat: bool) -> Any:
        def body(h: Any, x: Any) -> Any:
            for _ in range(6):
                h = treadle.tanh(h * x + 0.1)
            return h, h.sum()

        return treadle.scan(body, h, xs, remat=remat)[1].sum()

    h, xs = arrays((8, 32), (64, 8, 32), dtype=np.float32)
    workspace, values = {}, {}
    for remat in (False, True):
        gradient = treadle.grad(lambda h, xs, remat=remat: loss(h, xs, remat), (0, 1))
        workspace[remat] = compiled(gradient, h, xs).memory.workspace
        values[remat] = treadle.jit(gradient)(h, xs)
    assert_same(values[True], values[False], 1e-5)
    assert workspace[True] < 0.3 * workspace[False]


def test_remat_of_layers_needs_less_memory() -> None:
    def layer(x: Any, w: Any) -> Any:
        for _ in range(4):
            x = treadle.tanh(x @ w) * treadle.sigmoid(x)
        return x

    def loss(wrap: Any) -> Any:
        def total(ws: Any, x: Any) -> Any:
            for w in ws:
                x = wrap(layer)(x, w)
            return x.sum()

        return total

    ws = arrays(*[(64, 64)] * 6, dtype=np.float32)
    (x,) = arrays((512, 64), dtype=np.float32)
    plain, again = (treadle.grad(loss(wrap)) for wrap in (lambda f: f, treadle.remat))
    peaks = [compiled(f, ws, x).memory.peak for f in (plain, again)]
    assert peaks[1] < 0.7 * peaks[0]
    assert_same(treadle.jit(again)(ws, x), treadle.jit(plain)(ws, x), 1e-4)


def test_a_loop_that_ends_early_runs_no_further_step() -> None:
    def f(x: Any, limit: Any) -> Any:
        def body(c: Any) -> Any:
            value, steps = c
            treadle.check(value.sum() <= limit, "a step too many")
            return value * 2.0, steps + 1

        return treadle.while_loop(lambda c: c[0].sum() < limit, body, (x, 0), max_steps=1000)

    jitted = treadle.jit(f)
    x = treadle.ones((4,))
    assert int(jitted(x, treadle.tensor(60.0))[1]) == 4
    assert int(jitted(x, treadle.tensor(1.0))[1]) == 0
    assert int(jitted(x, treadle.tensor(1e30))[1]) == 98


def test_max_steps_ends_a_loop() -> None:
    def f(x: Any) -> Any:
        return treadle.while_loop(lambda c: c.sum() < 1e9, lambda c: c + 1.0, x, max_steps=3)

    x = treadle.zeros((2,))
    assert treadle.jit(f)(x).tolist() == f(x).tolist() == [3.0, 3.0]


def test_only_the_branch_that_is_taken_runs() -> None:
    def f(x: Any) -> Any:
        def fails() -> Any:
            treadle.check(x.sum() > 1e9, "the other branch ran")
            return x

        return treadle.cond(x.sum() > 100.0, fails, lambda: x * 2.0)

    assert treadle.jit(f)(treadle.ones((3,))).tolist() == [2.0, 2.0, 2.0]


def test_products_of_looked_up_rows_are_looked_up() -> None:
    def loss(table: Any, w: Any, index: Any) -> Any:
        return treadle.sin(table[index] @ w).sum()

    table, w = arrays((7, 32), (32, 64), dtype=np.float32)
    index = treadle.tensor(np.random.default_rng(0).integers(0, 7, (16, 8)))
    gradient = treadle.grad(loss, (0, 1))
    done = compiled(gradient, table, w, index)
    products = [i for i in done.kernels.instrs if i.op.name == "contract"]
    assert {v.type.size for i in products for v in i.args[:2]} <= {7 * 32, 32 * 64, 7 * 64}
    assert_same(treadle.jit(gradient)(table, w, index), gradient(table, w, index), 1e-4)


@pytest.mark.parametrize("target", ["sse2", "avx2", "avx512", "neon"])
def test_a_loop_has_code_for_every_target(target: str) -> None:
    args = rnn_of(16, 64)
    traced = treadle.jit(treadle.grad(scalar(rnn))).trace(*args)
    done = compile_stages(traced, CompileOptions(), named(target))
    assert sum(isinstance(k.body, ControlPlan) for k in done.plan.kernels) == 2
    assert done.assembly()


def test_constant_arrays_of_bodies_and_branches_are_buffers_of_the_module() -> None:
    numbers = np.linspace(0.0, 1.0, 24).reshape(4, 6)

    def f(x: Any) -> Any:
        def body(c: Any, row: Any) -> Any:
            table = treadle.tensor(numbers + 1.0)
            c = treadle.cond(
                row.sum() > 0.0,
                lambda: c * treadle.tensor(numbers),
                lambda: c + table + treadle.tensor(numbers[::-1].copy()),
            )
            return c, c.sum()

        return treadle.scan(body, x[0], x)

    x = treadle.tensor(np.random.default_rng(3).standard_normal((5, 4, 6)))
    assert_same(treadle.jit(f)(x), f(x))


@pytest.mark.parametrize(
    ("rows", "depth", "columns", "dtype"),
    [
        (4, 256, 64, np.float32),
        (7, 130, 96, np.float32),
        (33, 256, 128, np.float32),
        (5, 300, 48, np.float64),
        (32, 700, 64, np.float32),
    ],
)
def test_weights_in_panels_give_the_same_product(
    rows: int, depth: int, columns: int, dtype: Any
) -> None:
    def f(w: Any, b: Any, h: Any, xs: Any) -> Any:
        def body(h: Any, x: Any) -> Any:
            z = treadle.tanh(h @ w + b + x)
            return treadle.concat([z] * (depth // columns + 1), axis=1)[:, :depth] * 0.5, z

        return treadle.scan(body, h, xs)

    shapes = ((depth, columns), (columns,), (rows, depth), (6, rows, columns))
    args = arrays(*shapes, dtype=dtype)
    args[0] = args[0] * 0.1
    done = compiled(f, *args)
    assert f"in panels of {128 // np.dtype(dtype).itemsize}" in str(done.plan)
    assert_same(treadle.jit(f)(*args), f(*args), 1e-4 if dtype is np.float32 else 1e-11)


def test_a_carry_whose_old_values_are_rows_lives_in_them() -> None:
    def f(h: Any, xs: Any, reverse: bool) -> Any:
        return treadle.scan(lambda h, x: (treadle.sin(h) * x, h), h, xs, reverse=reverse)

    h, xs = arrays((33,), (7, 33))
    for reverse in (False, True):
        done = compiled(lambda h, xs, r=reverse: f(h, xs, r), h, xs)
        (loop,) = scans(done.kernels)
        memory = done.memory.inner[loop]
        assert memory.stacked == (0,)
        assert not memory.plans[0].copies
        assert_same(treadle.jit(f)(h, xs, reverse), f(h, xs, reverse))
