"""What `jit` promises of calls: arguments, results, composition, recompilation, errors."""

from __future__ import annotations

import functools
import gc
import math
import weakref
from collections import namedtuple
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np
import pytest
from interpreting import Interpreted, InterpretingCompiler

import treadle
from treadle.ir.types import TensorType, float32
from treadle.tracer import backend
from treadle.tracer.explain import set_explain
from treadle.tracer.jit import disable_jit, jit, on_first_call

Pair = namedtuple("Pair", ["left", "right"])


@dataclass
class Batch:
    image: Any
    label: Any = None


class Mode(Enum):
    DOUBLE = 2
    TRIPLE = 3


@pytest.fixture(autouse=True)
def compiler() -> Iterator[InterpretingCompiler]:
    before = backend.compiler()
    mine = InterpretingCompiler()
    backend.register_compiler(mine)
    yield mine
    backend.register_compiler(before)


def f32(*values: float) -> treadle.Tensor:
    return treadle.tensor(np.array(values, np.float32))


# --- arguments and results -------------------------------------------------------------------


def test_a_second_call_with_the_same_types_compiles_nothing(compiler: InterpretingCompiler) -> None:
    f = jit(lambda x: x * 2 + 1)
    assert f(f32(1, 2)).tolist() == [3, 5]
    assert f(f32(3, 4)).tolist() == [7, 9]
    assert len(compiler.compiled) == 1


def test_any_tree_goes_in_and_comes_out() -> None:
    @jit
    def f(batch: Any, pair: Any, options: Any) -> Any:
        total = batch.image + pair.left * options["scale"][0] + pair.right
        return {"sum": total, "rest": (Batch(total, None), [pair], options["name"])}

    x = f32(1, 2)
    out = f(Batch(x), Pair(x, 2.0), {"scale": (x, None), "name": "n"})
    assert out["sum"].tolist() == [4, 8]
    batch, [pair], name = out["rest"]
    assert type(batch) is Batch and batch.label is None and name == "n"
    assert type(pair) is Pair and pair.left is x and pair.right == 2.0


def test_positional_keyword_default_and_variadic_arguments_are_one_signature(
    compiler: InterpretingCompiler,
) -> None:
    @jit
    def f(x: Any, y: Any = 3.0, *more: Any, z: Any = 0.0, **named: Any) -> Any:
        return x + y + z + sum(more) + sum(named.values())

    x = f32(1)
    assert f(x).item() == f(x=x).item() == f(x, y=3.0).item() == f(x, 3.0, z=0.0).item() == 4
    assert len(compiler.compiled) == 1
    assert f(x, 1.0, x, x, z=2.0, k=x).item() == 7


def test_the_same_tensor_may_be_given_twice_in_any_pattern() -> None:
    @jit
    def f(x: Any, y: Any) -> Any:
        with treadle.no_grad():
            x += 1
        return x * y

    a, b = f32(1), f32(10)
    assert f(a, b).item() == 20 and a.item() == 2
    assert f(a, a).item() == 9 and a.item() == 3
    assert f(a, b).item() == 40 and a.item() == 4


def test_numpy_arrays_are_read_and_never_written(compiler: InterpretingCompiler) -> None:
    f = jit(lambda x: x.T @ x)
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.array_equal(f(array).numpy(), array.T @ array)
    strided = np.arange(12, dtype=np.float32).reshape(3, 4)[:, ::2]
    assert np.array_equal(f(strided).numpy(), strided.T @ strided)
    assert len(compiler.compiled) == 1

    @jit
    def write(x: Any) -> Any:
        x[0] = 1
        return x

    with pytest.raises(treadle.TraceError, match="changes its argument x, a NumPy array"):
        write(array)


def test_an_array_and_a_view_given_back_are_what_they_are_without_jit() -> None:
    base = f32(1, 2, 3, 4)
    f = jit(lambda x: (x, x[1:], x * 1))
    same, view, copy = f(base)
    assert same is base
    with treadle.no_grad():
        base[1] = 20
    assert view.tolist() == [20, 3, 4]
    assert copy.tolist() == [1, 2, 3, 4]
    array = np.ones(2, np.float32)
    (given, *_) = f(array)
    array[0] = 5
    assert given.tolist() == [1, 1]


def test_views_of_any_offset_share_a_specialization_and_are_written_through(
    compiler: InterpretingCompiler,
) -> None:
    @jit
    def f(x: Any) -> Any:
        x *= 2
        return x.sum()

    base = treadle.tensor(np.arange(6, dtype=np.float32))
    assert f(base[0:2]).item() == 2
    assert f(base[2:4]).item() == 10
    assert f(base[1:6:4]).item() == 14
    assert base.tolist() == [0, 4, 4, 6, 4, 10]
    assert len(compiler.compiled) == 1


def test_floats_are_inputs_and_ints_part_of_the_signature(compiler: InterpretingCompiler) -> None:
    f = jit(lambda x, a, n: x * a + n)
    set_explain(False)
    x = f32(1, 2)
    assert f(x, 0.5, 1).tolist() == [1.5, 2]
    assert f(x, 1.5, 1).tolist() == [2.5, 4]
    assert f(x, np.float64(2.5), 1).tolist() == [3.5, 6]
    assert len(compiler.compiled) == 2  # np.float64 is another type
    assert f(x, 1.5, 2).tolist() == [3.5, 5]
    assert f(x, 1.5, True).tolist() == [2.5, 4]
    assert len(compiler.compiled) == 4
    set_explain(True)


def test_a_float_computed_from_floats_is_a_float_again() -> None:
    f = jit(lambda a, b: a * b + 1)
    result = f(0.1, 0.2)
    assert type(result) is float and result == 0.1 * 0.2 + 1


@pytest.mark.parametrize("value", [math.nan, -0.0, math.inf, 1e300])
def test_a_float_argument_keeps_its_bits(value: float) -> None:
    result = jit(lambda a: a * 1.0)(value)
    assert np.float64(result).tobytes() == np.float64(value).tobytes()


def test_strings_enums_dtypes_and_none_select(compiler: InterpretingCompiler) -> None:
    set_explain(False)

    @jit
    def f(x: Any, mode: Any, how: str = "plain") -> Any:
        if mode is None:
            return x
        return x * mode.value if how == "plain" else -x * mode.value

    x = f32(1)
    assert [f(x, m).item() for m in (Mode.DOUBLE, Mode.TRIPLE, None)] == [2, 3, 1]
    assert f(x, Mode.DOUBLE, "other").item() == -2
    assert f(x, Mode.DOUBLE, how="plain").item() == 2
    assert len(compiler.compiled) == 4
    set_explain(True)


# --- what can be jitted ----------------------------------------------------------------------


class Scale:
    offset = 5

    def __init__(self, by: float) -> None:
        self.by = f32(by)
        self.calls = 0

    @jit
    def method(self, x: Any) -> Any:
        """Multiplies."""
        return x * self.by

    @jit
    @staticmethod
    def static(x: Any) -> Any:
        return x + 1

    @classmethod
    @jit
    def from_class(cls, x: Any) -> Any:
        return x + cls.offset

    @jit
    @classmethod
    def from_class_too(cls, x: Any) -> Any:
        return x + cls.offset

    def plain(self, x: Any) -> Any:
        return x - self.by

    def __call__(self, x: Any) -> Any:
        return x / self.by


def test_methods_are_bound_to_their_object(compiler: InterpretingCompiler) -> None:
    two, three = Scale(2), Scale(3)
    x = f32(6)
    assert [two.method(x).item(), three.method(x).item(), two.method(x).item()] == [12, 18, 12]
    assert len(compiler.compiled) == 1  # another object of the same structure
    assert Scale.method(two, x).item() == 12
    assert two.method.__name__ == "method" and two.method.__doc__ == "Multiplies."
    assert "self.by" in two.method.ir("traced", x)


def test_static_and_class_methods_in_either_order() -> None:
    x = f32(1)
    for owner in (Scale, Scale(2)):
        assert owner.static(x).item() == 2
        assert owner.from_class(x).item() == 6
        assert owner.from_class_too(x).item() == 6


def test_recursion_and_tensors_as_defaults() -> None:
    @jit
    def power(x: Any, n: int, base: Any = f32(1)) -> Any:  # noqa: B008  a tensor as a default
        return base if n == 0 else x * power(x, n - 1)

    assert power(f32(3), 4).item() == 81


def test_bound_methods_partials_and_callable_objects() -> None:
    two = Scale(2)
    x = f32(6)
    assert jit(two.plain)(x).item() == 4
    assert jit(two)(x).item() == 3
    assert jit(functools.partial(two.plain))(x).item() == 4
    assert jit(functools.partial(lambda a, b: a - b, b=1.0))(x).item() == 5
    two.by = f32(3)
    bound = jit(two.plain)
    assert bound(x).item() == 3
    two.by = f32(5)
    assert bound(x).item() == 1


def test_name_doc_and_wrapped_stay() -> None:
    def f(x: Any) -> Any:
        """Doc."""
        return x

    g = jit(max_specializations=3)(f)
    assert (g.__name__, g.__doc__, g.__wrapped__) == ("f", "Doc.", f)
    assert jit(g).__wrapped__ is f


def test_what_is_no_function_or_no_single_step_is_refused() -> None:
    with pytest.raises(TypeError, match="jit expects a function, found int 3"):
        jit(3)  # type: ignore[call-overload]

    def generator() -> Iterator[int]:
        yield 1

    with pytest.raises(treadle.TraceError, match="is a generator"):
        jit(generator)
    with pytest.raises(ValueError, match='check must be None or "eager"'):
        jit(lambda x: x, check="later")  # type: ignore[call-overload]


def test_wrong_arguments_are_the_error_that_python_gives() -> None:
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        jit(lambda x: x)()


# --- composition -----------------------------------------------------------------------------


def test_jit_in_jit_is_one_program(compiler: InterpretingCompiler) -> None:
    inner = jit(lambda x: x * 2)
    outer = jit(lambda x: inner(x) + 1)
    assert outer(f32(1)).item() == 3
    assert len(compiler.compiled) == 1 and not inner.specializations


def test_disable_jit_runs_python(compiler: InterpretingCompiler) -> None:
    seen = []

    @jit
    def f(x: Any) -> Any:
        seen.append(float(x.sum().item()))
        return x

    with disable_jit():
        f(f32(1, 2))
    assert seen == [3.0] and not compiler.compiled


def test_grad_of_jit_and_jit_of_grad_agree_with_plain_grad() -> None:
    def f(x: Any) -> Any:
        return (x * x * x).sum()

    x = f32(1, 2)
    expected = treadle.grad(f)(x).tolist()
    assert treadle.grad(jit(f))(x).tolist() == expected == [3, 12]
    assert jit(treadle.grad(f))(x).tolist() == expected
    second = treadle.grad(lambda y: jit(treadle.grad(f))(y).sum())
    assert second(x).tolist() == [6, 12]


def test_backward_goes_through_a_jitted_call() -> None:
    w = treadle.tensor([1.0, 2.0], requires_grad=True)
    b = treadle.tensor(3.0, requires_grad=True)
    f = jit(lambda x, scale: ((x * w) * scale, b * 2, x.sum()))
    x = f32(5, 7)
    product, twice, total = f(x, 2.0)
    assert product.requires_grad and not product.is_leaf and not total.requires_grad
    (product.sum() + twice).backward()
    assert w.grad is not None and w.grad.tolist() == [10, 14]
    assert b.grad is not None and b.grad.item() == 2


def test_backward_through_a_call_uses_the_values_of_that_call() -> None:
    w = treadle.tensor([2.0], requires_grad=True)
    f = jit(lambda x: x * w * w)
    array = np.array([3.0], np.float32)
    first = f(array)
    array[0] = 100
    with treadle.no_grad():
        w *= 10
    first.backward()
    assert w.grad is not None and w.grad.item() == 12


def test_backward_through_several_calls_and_an_argument() -> None:
    x = treadle.tensor([1.0, 2.0], requires_grad=True)
    f = jit(lambda y: y * y)
    f(f(x) + 1).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [8, 40]


def test_a_history_used_up_inside_is_used_up_outside() -> None:
    w = treadle.tensor([2.0], requires_grad=True)

    @jit
    def step(x: Any) -> Any:
        loss = (x * w).sum()
        loss.backward()
        return loss

    loss = step(f32(3))
    assert loss.requires_grad
    with pytest.raises(treadle.GradientError, match="a second time"):
        loss.backward()


def test_no_grad_is_part_of_the_signature(capsys: pytest.CaptureFixture[str]) -> None:
    w = treadle.tensor([2.0], requires_grad=True)
    f = jit(lambda x: x * w)
    assert f(f32(1)).requires_grad
    with treadle.no_grad():
        assert not f(f32(1)).requires_grad
    assert "grad mode: True -> False" in capsys.readouterr().err
    assert f(f32(1)).requires_grad


def test_a_function_that_reads_what_is_being_differentiated_is_differentiated_compiled() -> None:
    w = treadle.tensor([2.0], requires_grad=True)
    box = Batch(f32(1))
    f = jit(lambda: (box.image * box.image * w).sum())
    f()

    def hidden(v: Any) -> Any:
        box.image = v * 1.0  # the jitted function reads it from outside
        return f()

    assert treadle.grad(hidden)(f32(3)).item() == 12
    assert treadle.grad(lambda v: treadle.grad(hidden)(v).sum())(f32(3)).item() == 4
    assert len(f.specializations) == 2


# --- recompilation ---------------------------------------------------------------------------


def test_a_recompilation_says_why_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    @jit
    def step(x: Any, y: Any = None) -> Any:
        return x.sum()

    step(np.ones((32, 4), np.float32))
    assert capsys.readouterr().err == ""
    step(np.ones((16, 4), np.float32))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "test_jit.py" in line and " step: recompiled because" in line
    assert "x.shape: (32, 4) -> (16, 4) (keep shapes equal" in line
    step(f32(1))
    assert "x: ndarray -> Tensor" in capsys.readouterr().err
    step(np.ones((32, 4), np.float32), "s")
    assert "y: None -> 's'" in capsys.readouterr().err


def test_explanations_can_be_switched_off(capsys: pytest.CaptureFixture[str]) -> None:
    set_explain(False)
    f = jit(lambda x: x)
    f(f32(1)), f(f32(1, 2))
    set_explain(True)
    assert capsys.readouterr().err == ""


def test_explain_lists_specializations_guards_and_calls() -> None:
    f = jit(lambda x, n: x * n)
    f(f32(1), 2), f(f32(2), 2)
    text = f.explain()
    assert "1 specialization" in text and "2 calls, compiled in" in text
    assert "x: Tensor (1,) float32" in text and "n: 2" in text


def test_the_budget_raises_and_names_what_keeps_changing() -> None:
    set_explain(False)
    f = jit(lambda x, n: x * n, max_specializations=2)
    f(f32(1), 1), f(f32(1), 2)
    with pytest.raises(treadle.TraceError, match=r"2 specializations .* differs by n: 2 -> 3"):
        f(f32(1), 3)
    assert f(f32(1), 2).item() == 2
    set_explain(True)


# --- looking inside --------------------------------------------------------------------------


def test_types_may_stand_for_tensors() -> None:
    f = jit(lambda x, lr: {"y": treadle.exp(x["a"]) * lr})
    fn = f.trace({"a": TensorType(float32, (2, 3))}, lr=0.1)
    assert [str(p.value.type) for p in fn.params] == ["f32[2, 3]", "f64[]"]
    assert [p.path for p in fn.params] == ["x['a']", "lr"]
    assert [r.path for r in fn.results] == ["out['y']"]
    assert "exp" in f.ir("traced", {"a": TensorType(float32, (2, 3))}, 0.1)
    assert not f.specializations


def test_ir_without_arguments_is_that_of_the_last_call() -> None:
    f = jit(lambda x: treadle.exp(x))
    with pytest.raises(treadle.TraceError, match="has not been called yet"):
        f.ir()
    f(f32(1))
    assert "exp" in f.ir() and "exp" in f.ir("expand")


def test_observers_see_the_first_call_before_it_is_traced() -> None:
    seen: list[Any] = []

    def observe(fn: Any, args: Any, kwargs: Any) -> None:
        seen.append((fn, args, kwargs, len(fn.specializations)))

    on_first_call.append(observe)
    try:
        f = jit(lambda x, k: x)
        x = f32(1)
        f(x, k=1)
        f(x, k=1)
    finally:
        on_first_call.remove(observe)
    assert seen == [(f, (x,), {"k": 1}, 0)]


# --- errors ----------------------------------------------------------------------------------


def test_control_flow_on_a_traced_value_names_the_line_and_the_origin() -> None:
    @jit
    def f(x: Any) -> Any:
        total = x.sum()
        if total > 0:
            return x
        return -x

    with pytest.raises(treadle.TraceError, match=r"gt.*test_jit\.py.*treadle\.where"):
        f(f32(1))


def test_a_value_that_leaks_is_an_error_that_names_its_line() -> None:
    class Box:
        pass

    box = Box()

    @jit
    def f(x: Any) -> Any:
        inside = Box()
        inside.y = x * 2  # type: ignore[attr-defined]
        box.inside = inside  # type: ignore[attr-defined]
        return x

    with pytest.raises(treadle.TraceError, match=r"made at .*test_jit\.py.*box\.inside, a Box"):
        f(f32(1))
    assert not hasattr(box, "inside")


def test_random_numbers_of_numpy_in_a_trace_are_an_error_and_are_not_drawn() -> None:
    rng = np.random.default_rng(0)
    f = jit(lambda x: x + rng.normal())
    g = jit(lambda x: x + np.random.rand())
    expected = np.random.default_rng(0).normal()
    for fn in (f, g):
        with pytest.raises(treadle.TraceError, match="draws random numbers"):
            fn(f32(1))
    assert rng.normal() == expected


def test_an_error_of_the_users_code_passes_through_and_changes_nothing() -> None:
    state = {"w": f32(1), "n": [1]}

    @jit
    def f(x: Any) -> Any:
        state["w"] = x * 2
        state["n"].append(2)
        state["new"] = x
        raise KeyError("mine")

    w = state["w"]
    with pytest.raises(KeyError, match="mine"):
        f(f32(1))
    assert state == {"w": w, "n": [1]} and w.tolist() == [1]  # type: ignore[comparison-overlap]
    assert treadle.exp(f32(0)).item() == 1  # no trace is left running


def test_check_eager_compares_results_and_state() -> None:
    w = treadle.tensor([1.0, 2.0], requires_grad=True)
    box = Batch(f32(1, 1))

    @jit(check="eager")
    def f(x: Any) -> Any:
        loss = (w * x).sum()
        loss.backward()
        box.image = box.image + x
        with treadle.no_grad():
            w.sub_(w.grad)
        return {"loss": loss}

    assert f(f32(1, 1))["loss"].item() == 3
    assert w.tolist() == [0, 1] and box.image.tolist() == [2, 2]
    assert w.grad is not None and w.grad.tolist() == [1, 1]


def test_check_eager_finds_a_miscompiled_program(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Interpreted.run
    monkeypatch.setattr(
        Interpreted, "run", lambda self, arrays, threads: [o + 1 for o in right(self, arrays)]
    )
    with pytest.raises(treadle.TraceError, match="the result differs from the eager result by"):
        jit(lambda x: x * 2, check="eager")(f32(1))


def test_backward_reaches_what_captured_tensors_were_computed_from() -> None:
    w = treadle.tensor([1.0, 2.0], requires_grad=True)

    def build() -> Any:
        row, computed = w[1:], w * 3  # the function reaches these, and not w
        return jit(lambda x: (x * row * computed).sum())

    f = build()
    f(f32(1)).backward()
    assert w.grad is not None and w.grad.tolist() == [6, 15]


def test_backward_inside_reaches_the_base_of_a_captured_view() -> None:
    w = treadle.tensor([1.0, 2.0], requires_grad=True)

    def build() -> Any:
        row = w[1:]
        return jit(lambda x: (x * row).sum().backward())

    f = build()
    f(f32(3)), f(f32(4))
    assert w.grad is not None and w.grad.tolist() == [0, 7]


def test_a_leaf_made_inside_keeps_its_flag_and_gradient() -> None:
    @jit
    def f(x: Any) -> Any:
        leaf = treadle.tensor([2.0], requires_grad=True)
        (leaf * x).sum().backward()
        return leaf

    leaf = f(f32(5))
    assert leaf.requires_grad and leaf.is_leaf
    assert leaf.grad.item() == 5


def test_a_specialization_keeps_no_object_of_the_user_alive() -> None:
    box = Scale(3)
    watched = weakref.ref(box), weakref.ref(box.by)

    @jit
    def f(holder: Any, x: Any) -> Any:
        holder.by = holder.by * x
        return holder.by

    f(box, f32(2))
    assert f.specializations
    del box
    gc.collect()
    assert [r() for r in watched] == [None, None]


def test_a_sum_of_floats_kept_in_an_attribute_becomes_a_run_time_number() -> None:
    set_explain(False)
    box = Batch(0.0)

    @jit
    def f(x: float) -> None:
        box.image = box.image + x

    for n in range(5):
        f(float(n))
    set_explain(True)
    assert float(box.image) == 10 and len(f.specializations) == 2


def test_calls_from_several_threads_compile_once_and_agree(
    compiler: InterpretingCompiler,
) -> None:
    f = jit(lambda x: x * 2 + 1)
    inputs = [treadle.tensor(np.full(3, n, np.float32)) for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda x: f(x).tolist(), inputs))
    assert results == [[2 * n + 1] * 3 for n in range(40)]
    assert len(compiler.compiled) == 1
