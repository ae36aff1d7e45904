"""State: what a jitted function reads from outside is an input, what it assigns is written back."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from interpreting import InterpretingCompiler

import treadle
from treadle import nn
from treadle.tracer import backend
from treadle.tracer.explain import set_explain
from treadle.tracer.jit import jit


@pytest.fixture(autouse=True)
def compiler() -> Iterator[InterpretingCompiler]:
    before = backend.compiler()
    mine = InterpretingCompiler()
    backend.register_compiler(mine)
    set_explain(False)
    yield mine
    set_explain(True)
    backend.register_compiler(before)


def f32(*values: float) -> treadle.Tensor:
    return treadle.tensor(np.array(values, np.float32))


class Box:
    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Slotted:
    __slots__ = ("count", "w")

    def __init__(self, w: Any) -> None:
        self.w = w


GLOBAL = treadle.tensor([1.0])
CONFIG: dict[str, Any] = {"scale": 2.0, "w": treadle.tensor([3.0])}


# --- reading ---------------------------------------------------------------------------------


def test_captured_tensors_are_inputs_known_by_their_path() -> None:
    box = Box(inner=Box(w=f32(1)), listed=[{"k": (f32(2),)}], slotted=Slotted(f32(3)))
    bound = f32(4)

    @jit
    def f(x: Any) -> Any:
        captured = box.inner.w + box.listed[0]["k"][0] + box.slotted.w + bound
        return x + captured + GLOBAL + CONFIG["w"]

    fn = f.trace(f32(0))
    assert [(p.path, p.kind) for p in fn.params] == [
        ("x", "arg"), ("box.inner.w", "state"), ("box.listed[0]['k'][0]", "state"),
        ("box.slotted.w", "state"), ("bound", "state"), ("GLOBAL", "state"),
        ("CONFIG['w']", "state"),
    ]  # fmt: skip
    assert f(f32(0)).item() == 14


def test_a_tensor_that_is_replaced_is_read_anew_without_compiling(
    compiler: InterpretingCompiler,
) -> None:
    box = Box(w=f32(1), items=[f32(2)])
    f = jit(lambda x: x * box.w + box.items[0])
    assert f(f32(10)).item() == 12
    box.w, box.items = f32(3), [f32(4)]
    assert f(f32(10)).item() == 34
    with treadle.no_grad():
        box.w += 1
    assert f(f32(10)).item() == 44
    assert len(compiler.compiled) == 1


def test_captured_arrays_are_inputs_too(compiler: InterpretingCompiler) -> None:
    table = np.array([1.0, 2.0], np.float32)
    f = jit(lambda x: x + table)
    assert f(f32(0, 0)).tolist() == [1, 2]
    table[:] = 5
    assert f(f32(0, 0)).tolist() == [5, 5]
    assert [p.path for p in compiler.compiled[0].params] == ["x", "table"]
    assert len(compiler.compiled) == 1


def test_an_array_that_numpy_read_in_the_trace_is_guarded() -> None:
    table = np.array([1.0, 2.0], np.float32)
    f = jit(lambda x: x + float(table.max()))
    assert f(f32(0)).item() == 2
    table[0] = 7
    assert f(f32(0)).item() == 7


def test_an_object_given_as_an_argument_is_state() -> None:
    def f(model: Any, x: Any) -> Any:
        model.total = model.total + x
        return model.total * model.by

    g = jit(f)
    box = Box(total=f32(0), by=2)
    assert [g(box, f32(n)).item() for n in (1, 2, 3)] == [2, 6, 12]
    assert box.total.item() == 6
    assert [p.path for p in g.trace(box, f32(1)).params] == ["x", "model.total"]
    other = Box(total=f32(100), by=2)
    assert g(other, f32(1)).item() == 202
    assert len(g.specializations) == 1


# --- writing in place ------------------------------------------------------------------------


def test_in_place_changes_reach_every_view(compiler: InterpretingCompiler) -> None:
    w = treadle.tensor(np.zeros((2, 2), np.float32))
    row, column = w[0], w[:, 1]

    @jit
    def f(x: Any) -> Any:
        w[1] = x
        row.add_(1.0)
        return column * 1

    assert f(f32(3, 4)).tolist() == [1, 4]
    assert w.tolist() == [[1, 1], [3, 4]]
    assert row.tolist() == [1, 1] and column.tolist() == [1, 4]
    f(f32(5, 6))
    assert w.tolist() == [[2, 2], [5, 6]] and column.tolist() == [2, 6]
    assert len(compiler.compiled) == 1


def test_a_numpy_view_keeps_its_values() -> None:
    w = f32(1, 2)
    f = jit(lambda: w.mul_(2.0).sum())
    f()
    shown = w.numpy()
    f()
    assert shown.tolist() == [2, 4] and w.tolist() == [4, 8]
    f()
    assert shown.tolist() == [2, 4] and w.tolist() == [8, 16]


def test_an_argument_changed_in_place_is_changed() -> None:
    @jit
    def f(x: Any, batch: dict[str, Any]) -> None:
        x.add_(1.0)
        batch["y"].mul_(batch["factor"])

    x, y = f32(1), f32(2)
    f(x, {"y": y, "factor": 3.0})
    f(x, {"y": y, "factor": 3.0})
    assert x.item() == 3 and y.item() == 18


def test_a_result_is_not_overwritten_by_a_later_call() -> None:
    w = f32(1)

    @jit
    def f() -> Any:
        before = w * 1
        w.add_(1.0)
        return before, w * 1

    first = f()
    f()
    assert [t.item() for t in first] == [1, 2]


def test_the_old_buffer_of_a_rebound_attribute_stays_as_it_was() -> None:
    box = Box(w=f32(1))
    f = jit(lambda: setattr(box, "w", box.w * 2))
    old = box.w
    view = old[0:1]
    f()
    f()
    assert old.item() == 1 and view.item() == 1 and box.w.item() == 4


# --- rebinding -------------------------------------------------------------------------------


def test_everything_that_is_rebound_is_assigned_at_each_call(
    compiler: InterpretingCompiler,
) -> None:
    box = Box(w=f32(1))
    params = {"w": f32(1), "rest": [f32(1)]}
    slotted = Slotted(f32(1))
    queue = deque([f32(1)])
    local = f32(1)

    @jit
    def f(x: Any) -> None:
        nonlocal local
        box.w = box.w + x
        params["w"] = params["w"] + x
        params["rest"][0] = params["rest"][0] + x
        slotted.w = slotted.w + x
        queue[0] = queue[0] + x
        local = local + x

    for _ in range(3):
        f(f32(1))
    values = [box.w, params["w"], params["rest"][0], slotted.w, queue[0], local]
    assert [v.item() for v in values] == [4] * 6
    assert len(compiler.compiled) == 1


def test_globals_and_class_attributes_are_assigned() -> None:
    class Counter:
        total = f32(0)

    module = types.ModuleType("counting")
    module.__dict__.update(treadle=treadle, total=f32(0))
    exec("def f(x):\n    global total\n    total = total + x\n    return total\n", module.__dict__)
    f = jit(module.f)
    assert [f(f32(2)).item() for _ in range(3)] == [2, 4, 6]
    assert module.total.item() == 6

    @jit
    def g(x: Any) -> None:
        Counter.total = Counter.total + x

    g(f32(1)), g(f32(1))
    assert Counter.total.item() == 2


def test_arguments_own_containers_are_assigned() -> None:
    @dataclass
    class State:
        w: Any
        steps: Any

    @jit
    def f(params: dict[str, Any], state: State, lr: float) -> None:
        params["w"] = params["w"] - lr * state.w
        state.w = state.w * 2
        state.steps[0] = state.steps[0] + 1

    params = {"w": f32(10), "array": np.ones(2, np.float32)}
    state = State(f32(1), [f32(0)])
    kept = params["array"]
    f(params, state, 0.5)
    f(params, state, 0.5)
    assert params["w"].item() == 8.5 and state.w.item() == 4 and state.steps[0].item() == 2
    assert params["array"] is kept


def test_new_and_deleted_items_and_attributes_are_assigned_too() -> None:
    box = Box(old=1)
    cache: dict[str, Any] = {}

    @jit
    def f(x: Any) -> None:
        if hasattr(box, "old"):
            del box.old
        box.new = {"pair": (x, x * 2), "name": "n"}
        cache["y"] = x + 1

    f(f32(1))
    assert not hasattr(box, "old")
    assert box.new["pair"][1].item() == 2 and box.new["name"] == "n"
    f(f32(5))
    assert box.new["pair"][1].item() == 10 and cache["y"].item() == 6


def test_tensors_that_change_places_keep_their_identity() -> None:
    a, b = f32(1), f32(2)
    box = Box(a=a, b=b)

    @jit
    def swap() -> None:
        box.a, box.b = box.b, box.a

    swap()
    assert box.a is b and box.b is a
    swap()
    assert box.a is a and box.b is b


def test_one_new_tensor_in_two_places_is_one_afterwards() -> None:
    box = Box(a=None, b=None, part=None)

    @jit
    def f(x: Any) -> None:
        box.a = box.b = x * 1
        box.part = box.a[1:]

    for _ in range(2):
        f(f32(1, 2))
        assert box.a is box.b
        box.a[1] = 7.0
        assert box.part.tolist() == [7]


def test_python_numbers_that_the_function_changes_are_assigned_and_retrace() -> None:
    box = Box(n=0, ready=False, log=[])

    @jit
    def f(x: Any) -> Any:
        if not box.ready:
            box.ready = True
            return x
        box.n += 1
        box.log.append(box.n)
        return x * box.n

    results = [f(f32(1)).item() for _ in range(4)]
    assert results == [1, 1, 2, 3]
    assert box.n == 3 and box.log == [1, 2, 3] and box.ready is True


def test_a_trace_that_raises_restores_everything() -> None:
    class Counter:
        n = 0

    box = Box(w=f32(1), slotted=Slotted(f32(1)), seen={1}, queue=deque([1]))
    w = treadle.tensor([1.0], requires_grad=True)
    w.grad = before = f32(5)
    cell = 1

    @jit
    def f(x: Any, params: Any) -> None:
        nonlocal cell
        cell = 2
        Counter.n = 1
        box.w.add_(1.0)
        box.w = x
        box.slotted.count = 3
        box.seen.add(2)
        box.queue.append(2)
        params["w"] = x
        w.grad = None
        (w * x).sum().backward()
        raise ValueError("stop")

    params = {"w": f32(1)}
    old, given_w = box.w, params["w"]
    with pytest.raises(ValueError, match="stop"):
        f(f32(2), params)
    assert box.w is old and old.item() == 1 and not hasattr(box.slotted, "count")
    assert box.seen == {1} and list(box.queue) == [1] and cell == 1 and Counter.n == 0
    assert params["w"] is given_w and w.grad is before


def test_a_run_that_faults_leaves_all_state_as_before() -> None:
    w = treadle.tensor([1.0, 2.0])
    box = Box(last=None)

    @jit
    def f(i: Any) -> None:
        w.add_(1.0)
        box.last = w[i] * 1

    f(treadle.tensor([1]))
    kept = box.last
    with pytest.raises(treadle.IndexFault):
        f(treadle.tensor([2]))
    assert w.tolist() == [2, 3] and box.last is kept


# --- .grad -----------------------------------------------------------------------------------


def test_grad_left_set_is_a_result_and_grad_set_to_none_costs_nothing() -> None:
    w = treadle.tensor([1.0], requires_grad=True)

    @jit
    def keep(x: Any) -> None:
        w.grad = None
        (w * x).sum().backward()

    @jit
    def drop(x: Any) -> Any:
        (w * x).sum().backward()
        found = w.grad
        w.grad = None
        return found

    keep(f32(3)), keep(f32(4))
    assert w.grad is not None and w.grad.item() == 4
    assert [r.path for r in keep.specializations[0].function.results] == ["w.grad"]
    w.grad = None
    assert drop(f32(5)).item() == 5 and w.grad is None
    assert [r.path for r in drop.specializations[0].function.results] == ["out"]


def test_an_entering_grad_counts_only_where_it_is_read(compiler: InterpretingCompiler) -> None:
    w = treadle.tensor([1.0], requires_grad=True)

    @jit
    def accumulate(x: Any) -> None:
        (w * x).sum().backward()

    @jit
    def fresh(x: Any) -> None:
        w.grad = None
        (w * x).sum().backward()

    for _ in range(3):
        accumulate(f32(2))
    assert w.grad is not None and w.grad.item() == 6
    assert len(compiler.compiled) == 2  # with and without an entering grad
    fresh(f32(1))
    w.grad = None
    fresh(f32(1))
    assert len(compiler.compiled) == 3


def test_zeroed_grads_are_changed_in_place() -> None:
    w = treadle.tensor([1.0], requires_grad=True)
    w.grad = f32(0)

    @jit
    def f(x: Any) -> Any:
        w.grad.zero_()  # type: ignore[union-attr]
        (w * x).sum().backward()
        return w.grad

    assert f(f32(3)).item() == 3
    assert f(f32(4)).item() == 4 and w.grad.item() == 4


def test_a_tracked_change_of_an_outside_tensor_gives_it_a_history() -> None:
    set_explain(False)

    def run(wrap: Any) -> list[Any]:
        w = treadle.tensor([2.0], requires_grad=True)
        mean, base = f32(0), f32(1, 2, 3)

        def f(x: Any, part: Any) -> None:
            mean.add_((w * w * x).mean())
            part *= w

        step = wrap(f)
        for n in (1, 2):
            step(f32(n), base[1:])
        (mean * base.sum()).sum().backward()
        assert w.grad is not None
        return [mean.item(), mean.requires_grad, base.tolist(), w.grad.item()]

    assert run(jit) == run(lambda f: f)


# --- a model ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [treadle.optim.Adam, treadle.optim.SGD, treadle.optim.AdamW])
def test_a_train_step_is_one_program_and_equals_the_eager_one(
    make: Any, compiler: InterpretingCompiler
) -> None:
    def build() -> tuple[Any, Any, Any]:
        treadle.manual_seed(3)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        optimizer = make(model.parameters(), lr=0.1)

        def step(x: Any, y: Any) -> Any:
            loss = treadle.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return model, optimizer, step

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(5, 4)).astype(np.float32), rng.integers(0, 3, 5)
    (eager_model, eager_opt, eager), (model, opt, step) = build(), build()
    fast = jit(step)
    for n in range(4):
        if n == 2:
            opt.param_groups[0]["lr"] = eager_opt.param_groups[0]["lr"] = 0.05
        expected = eager(treadle.tensor(x), treadle.tensor(y)).item()
        assert fast(x, y).item() == pytest.approx(expected, rel=1e-5)
    for mine, theirs in zip(model.parameters(), eager_model.parameters(), strict=True):
        np.testing.assert_allclose(mine.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)
        assert mine.grad is not None
    assert len(compiler.compiled) == 1


def test_training_mode_is_guarded(compiler: InterpretingCompiler) -> None:
    class Net(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2 if self.training else x

    net = Net()
    f = jit(lambda x: net(x))
    assert f(f32(1)).item() == 2
    net.eval()
    assert f(f32(1)).item() == 1
    net.train()
    assert f(f32(1)).item() == 2
    assert len(compiler.compiled) == 2


def test_a_module_jits_itself_and_its_methods() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)

        @jit
        def forward(self, x: Any) -> Any:
            return self.fc(x)

    net = Net()
    x = f32(1, 2).reshape((1, 2))
    expected = (x @ net.fc.weight.T + net.fc.bias).numpy()
    np.testing.assert_allclose(net(x).numpy(), expected, rtol=1e-6)
    np.testing.assert_allclose(jit(net)(x).numpy(), expected, rtol=1e-6)
    assert [p.path for p in Net.forward.trace(net, x).params] == [
        "x", "self.fc.weight", "self.fc.bias",
    ]  # fmt: skip


# --- random programs -------------------------------------------------------------------------

OPS = ("bind_a", "bind_b", "add_a", "view_a", "item_0", "item_1", "swap", "append", "global")


@given(st.lists(st.sampled_from(OPS), min_size=1, max_size=6), st.integers(1, 3))
def test_random_stateful_programs_do_what_plain_python_does(ops: list[str], calls: int) -> None:
    def build() -> tuple[Any, Any]:
        a = f32(1, 2)
        box = Box(a=a, b=f32(3, 4), items=[a, f32(5, 6)], n=f32(0))

        def f(x: Any) -> Any:
            for op in ops:
                if op == "bind_a":
                    box.a = box.b + x
                elif op == "bind_b":
                    box.b = box.a[0:2]
                elif op == "add_a":
                    box.a += x
                elif op == "view_a":
                    box.a[0:1] *= 2.0
                elif op == "item_0":
                    box.items[0] = box.a
                elif op == "item_1":
                    box.items[1] = box.items[0] * box.items[-1]
                elif op == "swap":
                    box.a, box.b = box.b, box.a
                elif op == "append":
                    box.items = [*box.items[1:], x * 1]
                else:
                    box.n.add_(x.sum())
            return box.a, box.items[0] + x

        return box, f

    def state(box: Any) -> list[Any]:
        tensors = [box.a, box.b, *box.items, box.n]
        shared = [[s.cell is t.cell for s in tensors] for t in tensors]
        return [[t.tolist() for t in tensors], shared]

    (eager_box, eager), (box, f) = build(), build()
    fast = jit(f)
    for n in range(calls):
        expected = [t.tolist() for t in eager(f32(n, 1))]
        assert [t.tolist() for t in fast(f32(n, 1))] == expected
        assert state(box) == state(eager_box)
