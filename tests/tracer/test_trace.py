"""A trace: state by path, nothing outside touched, lost values explained, `backward()`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings, strategies as st

from treadle.ir.errors import GradientError, TraceError
from treadle.ir.graph import Function, Result
from treadle.ir.interpreter import interpret
from treadle.ir.types import TensorType, float32, float64
from treadle.passes import autodiff
from treadle.passes.manager import PassContext
from treadle.tracer import api
from treadle.tracer.create import tensor
from treadle.tracer.modes import active_trace, no_grad
from treadle.tracer.tensor import Tensor
from treadle.tracer.trace import Trace

F32 = TensorType(float32, (3,))


def start(**reachable: Any) -> Trace:
    """A trace that finds these tensors and arrays by their names."""

    def resolve(x: Any) -> str | None:
        for path, there in reachable.items():
            same_cell = isinstance(there, Tensor) and there.cell is getattr(x, "cell", None)
            same_grad = isinstance(there, Tensor) and there.history.grad is x
            if there is x or same_cell:
                return path
            if same_grad:
                return f"{path}.grad"
        return None

    return Trace("f", resolve)


def run(trace: Trace, values: Mapping[str, Any], **inputs: Any) -> dict[str, np.ndarray[Any, Any]]:
    """Interpret what was traced, after autodiff; `values`: tensors or Values to return."""
    results = [
        Result(trace.value_of(v) if isinstance(v, Tensor) else v, path)
        for path, v in values.items()
    ]
    fn = autodiff.run(trace.finish(results), PassContext())
    arrays = [np.asarray(inputs[p.path], p.value.type.dtype.dtype) for p in fn.params]
    return dict(zip(values, interpret(fn, arrays), strict=True))


def ops(fn: Function) -> list[str]:
    return [i.op.name for i in fn.instrs]


def test_captured_tensors_and_arrays_become_state_by_their_path() -> None:
    w, a = tensor([1.0, 2.0, 3.0]), np.array([1.0, 1.0, 1.0], np.float32)
    trace = start(w=w, a=a)
    with trace:
        x = trace.arg(F32, "x")
        out = x * w + a + a + w.reshape(1, 3)[0]
    fn = trace.finish([Result(trace.value_of(out), "out")])
    assert [(p.kind, p.path) for p in fn.params] == [("arg", "x"), ("state", "w"), ("state", "a")]
    assert [c.path for c in trace.captures] == ["w", "a"]
    found = interpret(fn, [np.full(3, 2, np.float32), w.numpy(), a])
    assert found[0].tolist() == [5, 8, 11]


def test_an_array_made_inside_is_a_constant() -> None:
    trace = start()
    with trace:
        out = trace.arg(F32, "x") + np.array([1, 2, 3], np.float32)
        made = tensor([1.0, 2.0, 3.0])
    found = run(trace, {"out": out, "made": made}, x=[1, 1, 1])
    assert found["out"].tolist() == [2, 3, 4]
    assert found["made"].tolist() == [1, 2, 3]


def test_an_array_that_changes_while_tracing_is_never_stale() -> None:
    trace = start()
    with trace:
        steps, x = np.zeros(3, np.float32), trace.arg(F32, "x")
        for i in range(3):
            steps[i] = 1
            x = x + steps
    assert run(trace, {"x": x}, x=[0, 0, 0])["x"].tolist() == [3, 2, 1]
    captured = np.zeros(3, np.float32)
    trace = start(a=captured)
    with trace:
        out = trace.arg(F32, "x") + captured
        captured[0] = 1
        with pytest.raises(TraceError, match="changes the NumPy array a in place"):
            out + captured
    with pytest.raises(TraceError, match="changes the NumPy array a in place"):
        trace.finish([Result(trace.value_of(out), "out")])


def test_an_unreachable_tensor_is_an_error_that_says_what_to_do() -> None:
    hidden = tensor([1.0, 2.0, 3.0])
    expected = pytest.raises(TraceError, match=r"no path.*pass it as an argument.*test_trace\.py")
    with expected, start() as trace:
        trace.arg(F32, "x") * hidden
    assert active_trace() is None


def test_writes_to_state_are_values_and_touch_nothing() -> None:
    w = tensor([1.0, 2.0, 3.0])
    trace = start(w=w)
    with trace:
        w += 1
        w[0] = 9.0
        doubled = w * 2
    assert w.tolist() == [1, 2, 3]
    assert w.cell.version == 0
    assert list(trace.written) == [w.cell]
    assert trace.entry[w.cell] is not trace.values[w.cell]
    found = run(trace, {"doubled": doubled, "w": trace.values[w.cell]}, w=w.numpy())
    assert found["doubled"].tolist() == [18, 6, 8]
    assert found["w"].tolist() == [9, 3, 4]


def test_a_trace_that_raises_leaves_everything_as_it_was() -> None:
    w = tensor([1.0, 2.0, 3.0], requires_grad=True)
    buffer = tensor([0.0, 0.0, 0.0])
    with pytest.raises(ZeroDivisionError), start(w=w, buffer=buffer):
        buffer.copy_(w * 2)
        (w * w).sum().backward()
        with no_grad():
            w -= 0.1
        assert buffer.requires_grad
        raise ZeroDivisionError
    assert active_trace() is None
    assert w.tolist() == [1, 2, 3]
    assert w.grad is None
    assert not buffer.requires_grad
    assert buffer.is_leaf
    (w * buffer).sum().backward()  # the eager history works on


def test_an_argument_may_be_the_callers_own_tensor() -> None:
    w = tensor([1.0, 2.0, 3.0])
    trace = start(other=w)
    with trace:
        trace.bind(w, "x")
        alias = w.reshape(3)
        alias += 1
    fn = trace.finish([Result(trace.values[w.cell], "x", "state")])
    assert [(p.kind, p.path) for p in fn.params] == [("arg", "x")]
    assert interpret(fn, [w.numpy()])[0].tolist() == [2, 3, 4]


def test_one_trace_a_thread() -> None:
    with start(), pytest.raises(TraceError, match="inlined"), start():
        pass
    assert active_trace() is None


# --- values that a trace does not have -------------------------------------------------------


@pytest.mark.parametrize(
    ("ask", "hint"),
    [
        (lambda t: bool(t.sum() > 0), "treadle.where"),
        (lambda t: 1 if t.sum() > 0 else 2, "treadle.where"),
        (lambda t: int(t.sum()), "signature"),
        (lambda t: float(t.sum()), "keep it as a tensor"),
        (lambda t: t.sum().item(), "keep it as a tensor"),
        (lambda t: t.tolist(), "treadle's own functions"),
        (lambda t: t.numpy(), "treadle's own functions"),
        (lambda t: np.asarray(t), "treadle's own functions"),
        (lambda t: np.exp(t), "treadle's own functions"),
        (lambda t: range(t.argmax()), "index with the tensor"),
        (lambda t: 2.0 in t, "treadle.where"),
    ],
)
def test_asking_for_a_value_names_the_line_its_origin_and_a_way_out(ask: Any, hint: str) -> None:
    with pytest.raises(TraceError, match=hint) as caught, start() as trace:
        ask(trace.arg(F32, "x") * 2)
    message = str(caught.value)
    assert message.count("test_trace.py") == 2, message  # the origin, and this line at the end
    assert "made by `" in message


def test_a_captured_tensor_has_no_value_in_a_trace_either() -> None:
    w = tensor([1.0, 2.0, 3.0])
    with pytest.raises(TraceError, match="bool"), start(w=w):
        if w.sum() > 0:
            raise AssertionError


def test_shapes_lengths_and_printing_work_in_a_trace(capsys: Any) -> None:
    with start() as trace:
        x = trace.arg(TensorType(float64, (2, 3)), "x")
        y = x.exp()
        assert len(y) == 2
        assert y.shape == (2, 3)
        assert y.ndim == 2
        assert len([row * 2 for row in y]) == 2
        print(y, f"{y}", f"{y.sum():.3f}", [y], x)
    out = capsys.readouterr().out
    assert "<traced tensor f64[2, 3], made by `exp` at" in out
    assert "a parameter of the traced function" in out


def test_a_leaked_tensor_names_the_line_that_made_it() -> None:
    kept: list[Tensor] = []
    with start() as trace:
        kept.append(trace.arg(F32, "x") * 2)
    for use in (
        lambda t: t + 1,
        lambda t: t.numpy(),
        lambda t: float(t[0]),
        lambda t: t.__setitem__(0, 1.0),
    ):
        with pytest.raises(TraceError, match=r"made at .*test_trace\.py:\d+, is used"):
            use(kept[0])
    assert "has ended" in repr(kept[0])
    with pytest.raises(TraceError, match="in another trace"), start():
        kept[0] + 1


# --- floats ----------------------------------------------------------------------------------


def test_float_arguments_are_weak() -> None:
    with start() as trace:
        lr = trace.arg(TensorType(float64), "lr", weak=True)
        step = lr * 2 + 1
        assert step.weak
        assert step.dtype == float64
        assert (trace.arg(F32, "x") * step).dtype == float32
        assert (tensor([1, 2]) * lr).dtype == float32
        assert lr.astype("float64").weak is False
        assert tensor(lr).dtype == float32
        before = lr
        lr *= 0.5  # as for a Python float: the name is bound to another value
        assert before is not lr
    found = run(trace, {"lr": lr, "before": before}, lr=3.0, x=[0, 0, 0])
    assert found["lr"] == 1.5
    assert found["before"] == 3.0


# --- differentiation -------------------------------------------------------------------------


def both(
    program: Callable[..., Any], *data: Any, grads: bool = True
) -> tuple[list[Tensor], dict[str, np.ndarray[Any, Any]]]:
    """The same program eagerly and traced, on leaves w0, w1, ...: eager leaves, traced results."""
    leaves = [tensor(np.array(d, np.float64), requires_grad=True) for d in data]
    trace = start(**{f"w{i}": t for i, t in enumerate(leaves)})
    with trace:
        out = program(*leaves)
    values: dict[str, Any] = {} if out is None else {"out": out}
    for i, t in enumerate(leaves):
        values[f"w{i}"] = trace.values[t.cell]
        grad = trace.grads.get(t.history)
        if grad is not None:
            values[f"w{i}.grad"] = grad
    inputs = {f"w{i}": np.array(t.numpy()) for i, t in enumerate(leaves)}
    found = run(trace, values, **inputs)
    again = program(*leaves)
    if again is not None:
        np.testing.assert_allclose(found["out"], again.numpy(), rtol=1e-12)
    for i, t in enumerate(leaves):
        np.testing.assert_allclose(found[f"w{i}"], t.numpy(), rtol=1e-12)
        if t.grad is not None:
            np.testing.assert_allclose(found[f"w{i}.grad"], t.grad.numpy(), rtol=1e-12)
        else:
            assert f"w{i}.grad" not in found
    return leaves, found


def _train_step(w: Tensor, b: Tensor) -> Tensor:
    x = api.asarray(np.array([[1.0, 2.0], [3.0, 4.0]]))
    loss = ((x @ w + b).tanh() ** 2).sum()
    loss.backward()
    with no_grad():
        for p in (w, b):
            assert p.grad is not None
            p -= 0.1 * p.grad
            p.grad = None
    return loss


def _twice(w: Tensor) -> Tensor:
    (w * w).sum().backward()
    (w.exp() * w[0]).sum().backward()
    assert w.grad is not None
    return w.grad * 2


def _retained(w: Tensor) -> Tensor:
    loss = (w * w).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    return loss


def _used_again_after_an_update(w: Tensor) -> Tensor:
    before = (w * w).sum()
    with no_grad():
        w *= 3
    after = (w * w * w).sum()
    after.backward()
    return after + before


def _detached(w: Tensor) -> Tensor:
    loss = (w * w.detach() * (w * 2).detach()).sum()
    loss.backward()
    return loss


def _in_place(w: Tensor) -> Tensor:
    y = w * 2
    y[0] = y[1].clone() * w[2]
    y += w
    view = y.reshape(3, 1)
    view *= w.reshape(3, 1)
    loss = (y * view[:, 0]).sum()
    loss.backward()
    return loss


def _tracked_into_a_constant(w: Tensor) -> Tensor:
    base = api.zeros((3, 3), dtype="float64")
    base.T[1] = w
    base[0, 0] = 5.0
    loss = (base * base).sum() * w[0]
    loss.backward()
    return loss


def _weighted(w: Tensor) -> None:
    (w * w).backward(api.asarray(np.array([1.0, 10.0, 100.0])))


@pytest.mark.parametrize(
    "program",
    [_twice, _retained, _used_again_after_an_update, _detached, _in_place,
     _tracked_into_a_constant, _weighted],
)  # fmt: skip
def test_backward_in_a_trace_equals_eager_backward(program: Callable[..., Any]) -> None:
    leaves, _ = both(program, [0.5, -1.0, 2.0])
    assert leaves[0].grad is not None


def test_a_train_step_is_plain_arithmetic_outside_of_the_gradient() -> None:
    both(_train_step, [[0.1, 0.2], [0.3, 0.4]], [0.0, 0.1])
    w = tensor(np.ones((2, 2)), requires_grad=True)
    b = tensor(np.zeros(2), requires_grad=True)
    trace = start(w=w, b=b)
    with trace:
        _train_step(w, b)
    fn = trace.finish([Result(trace.values[t.cell], "state") for t in (w, b)])
    assert "stop_gradient" not in ops(fn)
    assert ops(fn).count("variable") == 2
    assert ops(fn).count("gradient") == 1
    assert trace.grads == {w.history: None, b.history: None}


def test_an_entering_grad_is_read_only_where_the_program_reads_it() -> None:
    w = tensor(np.array([1.0, 2.0]), requires_grad=True)
    (w * 1).sum().backward()
    reset, kept = start(w=w), start(w=w)
    with reset:
        w.grad = None
        (w * w).sum().backward()
    assert reset.grad_reads == {}
    with kept:
        (w * w).sum().backward()
        total = w.grad
    assert w.history in kept.grad_reads
    assert total is not None
    assert run(kept, {"g": total}, **{"w": [1, 2], "w.grad": [1, 1]})["g"].tolist() == [3, 5]
    assert w.grad is not None and w.grad.tolist() == [1, 1]


def test_errors_of_backward_are_the_same_in_a_trace() -> None:
    w = tensor([1.0, 2.0], requires_grad=True)
    with start(w=w):
        with pytest.raises(GradientError, match="needs `gradient`"):
            (w * w).backward()
        with pytest.raises(GradientError, match="does not require grad"):
            w.detach().sum().backward()
        with pytest.raises(GradientError, match="in place"):
            w.add_(1)
        loss = (w * w).sum()
        loss.backward()
        with pytest.raises(GradientError, match=r"`sum` at .*test_trace\.py.* a second time"):
            loss.backward()
        y = w * 2
        with no_grad():
            y += 1
        with pytest.raises(GradientError, match="history no longer describes"):
            y.sum()


def test_backward_into_a_history_outside_of_the_trace_is_explained() -> None:
    w = tensor([1.0, 2.0], requires_grad=True)
    y = w * 2
    with start(y=y), pytest.raises(GradientError, match="computed outside"):
        (y * y).sum().backward()


def test_requires_grad_of_a_tensor_from_outside_cannot_change_in_a_trace() -> None:
    w = tensor([1.0])
    with start(w=w):
        with pytest.raises(TraceError, match="requires_grad_"):
            w.requires_grad_()
        inside = api.zeros((2,)).requires_grad_()
        (inside * 3).sum().backward()
        assert inside.grad is not None
    assert not w.requires_grad


def test_instructions_carry_the_users_line() -> None:
    with start() as trace:
        x = trace.arg(F32, "x")
        x.T.sum(axis=0) + 1
    lines = {i.loc.line for i in trace.builder.instrs if i.loc is not None}
    files = {i.loc.file for i in trace.builder.instrs if i.loc is not None}
    assert len(lines) == 1
    assert files == {__file__}
    assert all(i.loc is not None for i in trace.builder.instrs)


# --- random programs with aliases ------------------------------------------------------------

_STEPS: dict[str, Callable[[list[Tensor], int, int], Tensor | None]] = {
    "tanh": lambda pool, i, j: pool[i].tanh(),
    "product": lambda pool, i, j: pool[i].reshape(6) * pool[j].reshape(6),
    "sum": lambda pool, i, j: pool[i] * 2 + pool[j].sum(),
    "rows": lambda pool, i, j: pool[i].reshape(2, 3)[::-1],
    "transposed": lambda pool, i, j: pool[i].reshape(2, 3).T,
    "detached": lambda pool, i, j: pool[i].detach(),
    "copied": lambda pool, i, j: pool[i].clone(),
    "unrecorded": lambda pool, i, j: _unrecorded(pool[i]),
    "add in place": lambda pool, i, j: _changed(pool[i], lambda t: t.add_(pool[j].mean())),
    "scale in place": lambda pool, i, j: _changed(pool[i], lambda t: t.mul_(1.5)),
    "assign a part": lambda pool, i, j: _changed(
        pool[i].reshape(6)[1:4], lambda t: t.copy_(pool[j].reshape(6)[:3].clone())
    ),
    "overwrite": lambda pool, i, j: _changed(pool[i], lambda t: t.copy_(pool[j].reshape(t.shape))),
}


def _unrecorded(x: Tensor) -> Tensor:
    with no_grad():
        return x * 3


def _changed(x: Tensor, change: Callable[[Tensor], Any]) -> None:
    change(x)


def _loss(w: Tensor, steps: list[tuple[str, int, int]]) -> Tensor:
    pool = [w * 1.5, w.sin(), api.full((2, 3), 0.5, dtype="float64")]
    for name, i, j in steps:
        made = _STEPS[name](pool, i % len(pool), j % len(pool))
        if made is not None:
            pool.append(made)
    total = (w * w).sum()
    for k, t in enumerate(pool):
        total = total + (t * t).sum() * (0.1 + 0.01 * k)
    return total


_programs = st.lists(
    st.tuples(st.sampled_from(sorted(_STEPS)), st.integers(0, 7), st.integers(0, 7)), max_size=8
)


@settings(max_examples=150, deadline=None)
@given(_programs)
def test_random_programs_with_aliases_have_the_same_values_and_gradients_in_a_trace(
    steps: list[tuple[str, int, int]],
) -> None:
    data = np.array([[0.3, -0.8, 0.5], [0.9, -0.2, 0.1]])
    w = tensor(data, requires_grad=True)
    try:
        eager = _loss(w, steps)
        eager.backward()
    except GradientError:  # eager history refuses what the program overwrites
        assume(False)
    fresh = tensor(data, requires_grad=True)
    trace = start(w=fresh)
    with trace:
        loss = _loss(fresh, steps)
        loss.backward()
    found = run(trace, {"loss": loss, "grad": trace.grads[fresh.history]}, w=data)
    np.testing.assert_allclose(found["loss"], eager.numpy(), rtol=1e-10)
    assert w.grad is not None
    np.testing.assert_allclose(found["grad"], w.grad.numpy(), rtol=1e-9, atol=1e-11)
    if not {"detached", "unrecorded"} & {name for name, _, _ in steps}:
        direction = np.array([[1.0, -0.5, 0.25], [0.5, 1.0, -1.0]]) * 1e-6
        ahead, behind = (_loss(tensor(data + d), steps).item() for d in (direction, -direction))
        slope = (w.grad.numpy() * direction).sum()
        np.testing.assert_allclose((ahead - behind) / 2, slope, rtol=1e-4, atol=1e-12)
