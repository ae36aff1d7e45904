"""State: what a function reaches is read and written back as plain Python does, call after call."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import Tensor, nn

Step = Callable[..., Any]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    treadle.set_explain(False)
    yield
    treadle.set_explain(True)


def values(*numbers: float) -> Tensor:
    return treadle.tensor(np.array(numbers, np.float32))


class Cell:
    """An object with state."""

    def __init__(self) -> None:
        self.h = values(1, 2)
        self.seen: dict[str, Any] = {"m": values(0, 0), "list": [values(3, 4)]}

    def rebind(self, x: Any) -> Any:
        self.h = self.h * 0.5 + x
        return self.h

    def rebind_item(self, x: Any) -> Any:
        self.seen["m"] = self.seen["m"] + x
        self.seen["list"][0] = self.seen["list"][0] * x
        return self.seen["m"]

    def operators(self, x: Any) -> Any:
        self.h += x
        self.h *= 2
        self.h -= 1
        self.h /= 4
        return self.h + 0

    def items(self, x: Any) -> Any:
        self.h[0] = x[1]
        self.h[1:] += x[:1]
        return self.h * 1

    def copies(self, x: Any) -> Any:
        self.h.copy_(x)
        self.seen["m"].add_(self.h).mul_(2.0)
        return self.seen["m"] - x

    def state(self) -> list[Any]:
        tensors = [self.h, self.seen["m"], *self.seen["list"]]
        return [t.numpy().tolist() for t in tensors]


def both(build: Callable[[], tuple[Step, Callable[[], Any]]], calls: int = 4) -> Any:
    """Results and state after each call, eager and jitted; equal. Returns the jitted function."""
    (eager, seen), (f, seen_jitted) = build(), build()
    jitted = treadle.jit(f)
    for n in range(calls):
        one, other = values(n, 1 - n), values(n, 1 - n)
        np.testing.assert_array_equal(np.asarray(jitted(one)), np.asarray(eager(other)))
        assert seen_jitted() == seen()
    return jitted


@pytest.mark.parametrize("method", ["rebind", "rebind_item", "operators", "items", "copies"])
def test_state_of_an_object_is_read_and_written_back(method: str) -> None:
    def build() -> tuple[Step, Callable[[], Any]]:
        cell = Cell()
        return getattr(cell, method), cell.state

    jitted = both(build)
    assert len(jitted.specializations) == 1


COUNT = values(0, 0)


def test_state_in_closures_globals_containers_and_other_objects() -> None:
    def build() -> tuple[Step, Callable[[], Any]]:
        global COUNT
        COUNT = values(0, 0)
        total, table, cell, listed = values(0, 0), {"t": values(1, 1)}, Cell(), [Cell()]

        def step(x: Any) -> Any:
            global COUNT
            nonlocal total
            COUNT = COUNT + 1
            total = total + x
            table["t"] *= 2
            listed[0].h = cell.h + x
            return total + table["t"] + listed[0].rebind(x) + COUNT

        def seen() -> Any:
            tensors = (COUNT, total, table["t"], cell.h, listed[0].h)
            return [t.numpy().tolist() for t in tensors]

        return step, seen

    (eager, seen), (f, seen_jitted) = build(), build()
    expected = [(eager(values(n, 1)).numpy().tolist(), seen()) for n in range(3)]
    globals()["COUNT"] = values(0, 0)
    jitted = treadle.jit(f)
    for n in range(3):
        assert (jitted(values(n, 1)).numpy().tolist(), seen_jitted()) == expected[n]
    assert len(jitted.specializations) == 1


def test_attributes_of_functions_and_new_ones_of_classes_are_state() -> None:
    def build() -> tuple[Step, Callable[[], Any]]:
        class Base:
            total = values(0, 0)

            @classmethod
            def add(cls, x: Any) -> Any:
                cls.total = cls.total + x
                return cls.total * 1

        class Derived(Base):
            pass

        def table(x: Any) -> Any:
            if not hasattr(table, "kept"):
                table.kept = x * 2  # type: ignore[attr-defined]
            return table.kept  # type: ignore[attr-defined]

        def step(x: Any) -> Any:
            step.last = x + Derived.add(x)  # type: ignore[attr-defined]
            return table(x) + step.last  # type: ignore[attr-defined]

        def seen() -> Any:
            kept = getattr(table, "kept", x0).tolist()
            last = getattr(step, "last", x0).tolist()
            return [
                Base.total.tolist(),
                Derived.total.tolist(),
                kept,
                last,
                "total" in vars(Derived),
            ]

        return step, seen

    x0 = values(0)
    both(build)


def test_objects_that_stand_in_several_places_are_one() -> None:
    cell, params = Cell(), {"w": values(1, 1), "layers": [values(2, 2)]}
    cell.seen = {}

    def step(x: Any, given: Any) -> Any:
        if not cell.seen:
            steps = [x * 2]
            cell.seen = {"one": steps, "other": steps, "inside": {"deep": (steps, steps)}}
        cell.seen["one"].append(x)
        params["w"] = params["w"] + x
        given["new"] = x + 1
        made = [x]
        return cell.seen["other"][-1], params, params["layers"], given, made, {"again": made}

    jitted = treadle.jit(step)
    for n in range(1, 4):
        given = {"x": values(n, n), "rate": 0.5}
        _, found, layers, back, made, again = jitted(values(n, n), given)
        assert found is params and layers is params["layers"] and back is given
        assert made is again["again"]
        seen = cell.seen
        assert (
            seen["one"] is seen["other"] is seen["inside"]["deep"][0] is seen["inside"]["deep"][1]
        )
        assert len(seen["one"]) == n + 1 and given["rate"] == 0.5 and "new" in given


def test_a_float_that_is_stored_in_an_argument_is_a_float() -> None:
    def step(state: Any) -> Any:
        state["rate"] = state["rate"] * 0.5
        state["w"] = state["w"] * state["rate"]
        return state["rate"]

    jitted = treadle.jit(step)
    state = {"rate": 1.0, "w": values(1, 2)}
    for n in range(1, 4):
        assert jitted(state) == 0.5**n
        assert type(state["rate"]) is float and state["rate"] == 0.5**n
    assert len(jitted.specializations) == 1


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("filled", [True, False])
def test_tensors_of_a_cached_function_are_state(size: int | None, filled: bool) -> None:
    @functools.lru_cache(maxsize=size)
    def table(n: int) -> Any:
        return treadle.arange(float(n)), treadle.ones(n)

    @treadle.jit
    def f(x: Any) -> Any:
        numbers, ones = table(2)
        return x * numbers + ones

    if filled:
        table(2)
    for _ in range(3):
        assert f(values(1, 2)).tolist() == [1, 3]
        table(3)
    assert len(f.specializations) == 1
    table(2)[0].add_(1.0)
    assert table(2)[0].tolist() == [1, 2]  # a traced value did not stay in the cache
    assert f(values(1, 2)).tolist() == ([2, 5] if filled else [1, 3])


def test_the_order_of_keys_is_that_of_plain_python() -> None:
    def build() -> tuple[Step, Callable[[], Any]]:
        table = {"a": values(1), "b": values(2)}
        ordered = OrderedDict(a=values(1), b=values(2))

        def step(x: Any) -> Any:
            table["a"] = table.pop("a") + x
            ordered.move_to_end(next(iter(ordered)))
            ordered["c"] = x * 2
            return next(iter(table.values())) * next(iter(ordered.values()))

        def seen() -> Any:
            return [(k, v.tolist()) for t in (table, ordered) for k, v in t.items()]

        return step, seen

    both(build)


def test_state_is_updated_in_place_where_nobody_else_holds_it() -> None:
    total = treadle.zeros(1000)

    @treadle.jit
    def step(x: Any) -> None:
        total.add_(x)

    step(treadle.ones(1000))
    buffer = total.cell.buffer
    for _ in range(3):
        step(treadle.ones(1000))
    assert total.cell.buffer is buffer
    held = total.numpy()
    step(treadle.ones(1000))
    assert held[0] == 4 and total.numpy()[0] == 5


def test_gradients_accumulate_over_several_calls_and_backward_outside() -> None:
    def build() -> tuple[Step, Callable[[], Any]]:
        w = values(1, 2).requires_grad_()

        def step(x: Any) -> Any:
            loss = (w * w * x).sum()
            loss.backward()
            return loss.detach()

        return step, lambda: w.grad.numpy().tolist() if w.grad is not None else None

    both(build)


@pytest.mark.parametrize("to_none", [True, False])
def test_zero_grad_both_ways_in_a_train_step(to_none: bool) -> None:
    def build() -> tuple[Step, Callable[[], Any]]:
        w = values(1, 2).requires_grad_()
        optimizer = treadle.optim.SGD([w], lr=0.5, momentum=0.5)

        def step(x: Any) -> Any:
            optimizer.zero_grad(set_to_none=to_none)
            (w * x).sum().backward()
            optimizer.step()
            return w.detach() * 1

        def seen() -> Any:
            grad = None if w.grad is None else w.grad.numpy().tolist()
            return [w.numpy().tolist() if not w.requires_grad else w.detach().tolist(), grad]

        return step, seen

    both(build)


def test_parameters_replaced_and_loaded_after_the_first_call() -> None:
    model = nn.Linear(2, 2)
    step = treadle.jit(lambda x: model(x))
    x = treadle.ones((1, 2))
    step(x)
    model.load_state_dict(
        {k: np.full(v.shape, 2.0, np.float32) for k, v in model.state_dict().items()}
    )
    np.testing.assert_array_equal(step(x).detach(), [[6, 6]])
    model.weight = nn.Parameter(np.ones((2, 2), np.float32))
    np.testing.assert_array_equal(step(x).detach(), [[4, 4]])
    assert len(step.specializations) == 1


def test_two_instances_of_one_class_keep_their_own_state() -> None:
    class Counter:
        def __init__(self, start: float) -> None:
            self.n = values(start)

        @treadle.jit
        def add(self, x: Any) -> Any:
            self.n = self.n + x
            return self.n * 1

    one, two = Counter(0), Counter(10)
    for n in range(1, 4):
        assert one.add(values(1)).item() == n
        assert two.add(values(2)).item() == 10 + 2 * n
    assert len(Counter.add.specializations) == 1


def test_parameters_shared_between_objects_are_one() -> None:
    def build() -> tuple[Step, Callable[[], Any]]:
        one, two = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        with treadle.no_grad():
            one.weight.copy_(np.array([[1, 2], [3, 4]], np.float32))
        two.weight = one.weight
        optimizer = treadle.optim.SGD([one.weight], lr=0.25)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = two(one(x)).sum()
            loss.backward()
            optimizer.step()
            return loss.detach()

        return step, lambda: [two.weight is one.weight, two.weight.detach().tolist()]

    both(build, calls=3)


def test_the_same_tensor_passed_twice_and_as_state() -> None:
    held = Cell()

    def step(a: Any, b: Any) -> Any:
        a += b
        held.h = held.h + a
        return a * b + held.h

    jitted = treadle.jit(step)
    for wrap in (step, jitted):
        held.h = values(1, 1)
        a, b = values(1, 2), values(3, 4)
        found = [wrap(a, b).tolist(), wrap(a, a).tolist(), wrap(held.h, b).tolist()]
        found += [wrap(held.h, held.h).tolist(), a.tolist(), b.tolist(), held.h.tolist()]
        if wrap is step:
            expected = found
    assert found == expected


def test_an_input_that_is_also_state_and_one_that_is_also_assigned() -> None:
    def build() -> tuple[Step, Callable[[], Any]]:
        cell = Cell()

        def step(x: Any) -> Any:
            cell.h, old = x, cell.h  # the very argument is bound
            cell.seen["m"] = old
            x += old
            return old + x

        def seen() -> Any:
            return [*cell.state(), cell.h is cell.seen["m"]]

        return step, seen

    both(build)
    cell = Cell()
    keep = treadle.jit(lambda x: setattr(cell, "h", x))
    x = values(5, 6)
    keep(x)
    assert cell.h is x


def test_results_that_are_inputs_state_or_views_of_them() -> None:
    cell = Cell()
    f = treadle.jit(lambda x, y: (x, cell.h, x[1:], {"y": y}, x))
    x, y = values(1, 2), values(3)
    same, held, part, tree, again = f(x, y)
    assert same is x and held is cell.h and tree["y"] is y and again is x
    part += 5
    np.testing.assert_array_equal(x, [1, 7])


def test_results_are_never_overwritten_by_later_calls() -> None:
    state = values(0, 0)

    @treadle.jit
    def step(x: Any) -> Any:
        state.add_(x)
        return state * 1, x + 1, state[:1] + 0

    results = [step(values(n, n)) for n in range(4)]
    sums = [0, 1, 3, 6]
    for n, (total, more, first) in enumerate(results):
        np.testing.assert_array_equal(total, [sums[n]] * 2)
        np.testing.assert_array_equal(more, [n + 1] * 2)
        np.testing.assert_array_equal(first, [sums[n]])
    fed = values(1, 1)
    double = treadle.jit(lambda x: x * 2)
    chain = [fed := double(fed) for _ in range(4)]
    assert [t.tolist()[0] for t in chain] == [2, 4, 8, 16]


def test_a_trace_that_raises_leaves_everything_as_it_was() -> None:
    cell, array, names = Cell(), np.zeros(2), ["a"]
    w = values(1, 2).requires_grad_()
    before = cell.state()

    def step(x: Any) -> Any:
        cell.h += x
        cell.seen["new"] = x
        cell.seen["list"].append(x)
        cell.seen = {}
        names.append("b")
        array[0] = 7
        (w * x).sum().backward()
        with treadle.no_grad():
            w.mul_(2)
        raise KeyError("of the user")

    for _ in range(2):
        with pytest.raises(KeyError, match="of the user"):
            treadle.jit(step)(values(1, 1))
        assert cell.state() == before
        assert list(cell.seen) == ["m", "list"] and len(cell.seen["list"]) == 1
        assert names == ["a"] and w.grad is None and w.detach().tolist() == [1, 2]
        np.testing.assert_array_equal(array, [0, 0])


def twice_beside(held: dict[str, Tensor], new: Callable[[Tensor], Tensor]) -> Step:
    """A step that needs the old value and binds a new one."""

    def step() -> Tensor:
        old = held["w"]
        held["w"] = new(old)
        return old * 2.0

    return step


@pytest.mark.parametrize(
    "new",
    [
        lambda w: treadle.reshape(w, (1, 6)) + 3.0,
        lambda w: treadle.reshape(w, (2, 3)) * 1.0,
        lambda w: treadle.reshape(w * 2.0, (6, 1)),
        lambda w: treadle.arange(6),
        lambda w: (w * 2.0).astype(treadle.int64),
    ],
    ids=["one axis more", "the same elements", "reshaped last", "other numbers", "another dtype"],
)
def test_state_bound_to_as_many_bytes_of_another_type_has_that_type(
    new: Callable[[Tensor], Tensor],
) -> None:
    """The new value must not take over the array of the old one, which has its own shape."""
    seen = []
    for wrap in (lambda f: f, treadle.jit):
        held: dict[str, Tensor] = {}
        step = wrap(twice_beside(held, new))
        for _ in range(3):
            held["w"] = treadle.tensor(np.arange(1.0, 7.0))
            step()
            found = held["w"].numpy()
            assert (found.shape, found.dtype) == (held["w"].shape, held["w"].dtype.dtype)
            seen.append((found.shape, found.dtype, found.tolist()))
    assert all(one == seen[0] for one in seen)


def test_one_view_or_container_as_two_arguments_is_one_object() -> None:
    """A view whose storage nobody else reaches, a list, and a list that holds an array."""

    def write(x: Tensor, y: Tensor) -> tuple[Tensor, bool]:
        x[0] = 9.0
        return x + y, x is y

    def extend(x: list[Any], y: list[Any]) -> tuple[Tensor, bool]:
        x.append(treadle.asarray(x[0]) * 2.0)
        return y[0] + y[-1], x is y

    for f, make in (
        (write, lambda: values(1, 2, 3)[1:]),
        (extend, lambda: [values(1, 2, 3)[1:]]),
        (extend, lambda: [np.array([4.0, 5.0])]),
    ):
        step = treadle.jit(f)
        for _ in range(3):
            given, plain = make(), make()
            found, one = step(given, given)
            expected, _ = f(plain, plain)
            assert one
            assert found.tolist() == expected.tolist()
            assert len(given) == len(plain)
