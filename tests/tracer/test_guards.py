"""Guards: nothing that shaped a trace changes in silence; what did not shape it is not guarded."""

from __future__ import annotations

import enum
import functools
import math
import sys
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any, get_args

import numpy as np
import pytest
from interpreting import InterpretingCompiler

import treadle
from treadle import nn
from treadle.tracer import backend, items
from treadle.tracer.explain import set_explain
from treadle.tracer.guards import _Writer
from treadle.tracer.jit import jit
from treadle.tracer.paths import reach


@pytest.fixture(autouse=True)
def compiler() -> Iterator[InterpretingCompiler]:
    before = backend.compiler()
    mine = InterpretingCompiler()
    backend.register_compiler(mine)
    yield mine
    backend.register_compiler(before)
    set_explain(True)


def f32(*values: float) -> treadle.Tensor:
    return treadle.tensor(np.array(values, np.float32))


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Box:
    kind = "box"

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    @property
    def doubled(self) -> Any:
        return self.value * 2  # type: ignore[attr-defined]

    def shown(self, x: Any) -> Any:
        return x + OFFSET


class Slotted:
    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


OFFSET: Any = 1
TABLE: dict[str, Any] = {"offset": 1, "names": ["a"]}


def helper(x: Any) -> Any:
    return x + TABLE["offset"]


def caller(x: Any) -> Any:
    return next(helper(v) for v in [x])


def check_change(
    f: Any, change: Callable[[], None], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`f` must follow `change` as plain Python does, and say what changed."""
    x = f32(1)
    assert f(x).tolist() == f.__wrapped__(x).tolist()
    assert f(x).tolist() == f.__wrapped__(x).tolist()
    assert len(f.specializations) == 1
    capsys.readouterr()
    change()
    assert f(x).tolist() == f.__wrapped__(x).tolist()
    assert len(f.specializations) == 2
    assert expected in capsys.readouterr().err


SCALARS = [
    (1, 2, "1 -> 2"),
    (1, True, "1 -> True"),
    (1, 1.0, "1 -> 1.0"),
    (0.0, -0.0, "0.0 -> -0.0"),
    (1.0, math.nan, "1.0 -> nan"),
    (math.inf, 3.0, "inf -> 3.0"),
    (None, 1, "None -> 1"),
    ("a", "b", "'a' -> 'b'"),
    (Color.RED, Color.BLUE, "<Color.RED: 1> -> <Color.BLUE: 2>"),
    (b"a", b"b", "b'a' -> b'b'"),
    (treadle.float32, treadle.float64, "treadle.float32 -> treadle.float64"),
    (np.float32(1), np.float32(2), "np.float32(1.0) -> np.float32(2.0)"),
    ((1, 2), (1, 3), "value[1]: 2 -> 3"),
    ([1], [1, 2], "len(box.value): 1 -> 2"),
    ([1], (1,), "box.value: list -> tuple"),
    ({"k": 1}, {"k": 1, "l": 2}, "keys of box.value: ['k'] -> ['k', 'l']"),
    ({"k": 1, "l": 2}, {"l": 2, "k": 1}, "keys of box.value"),
    (OrderedDict(k=1), OrderedDict(k=2), "box.value['k']: 1 -> 2"),
    ({1, 2}, {1, 3}, "box.value: [1, 2] -> [1, 3]"),
    (list(range(100)), [*range(99), 7], "box.value: [0, 1"),
    (deque([1]), deque([2]), "box.value[0]: 1 -> 2"),
    (Slotted(1), Slotted(2), "box.value.value: 1 -> 2"),
    (Box(value=1), Slotted(1), "box.value: Box -> Slotted"),
]


def read(value: Any) -> float:
    """A number that depends on everything about `value`."""
    if isinstance(value, (Box, Slotted)):
        return read(value.value) + len(type(value).__name__)  # type: ignore[union-attr]
    return float(len(repr(value)) + sum(map(ord, repr(value))) % 1000)


@pytest.mark.parametrize(("before", "after", "expected"), SCALARS, ids=lambda v: repr(v)[:20])
def test_a_changed_value_of_an_attribute_retraces(
    before: Any, after: Any, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    box = Box(value=before)
    f = jit(lambda x: x + read(box.value))
    check_change(f, lambda: setattr(box, "value", after), expected, capsys)


@pytest.mark.parametrize("value", [math.nan, -0.0, np.float32("nan"), 10**30, "x" * 100, (), {}])
def test_an_equal_value_does_not_retrace(value: Any) -> None:
    box = Box(value=value)
    f = jit(lambda x: x + read(box.value))
    f(f32(1))
    box.value = type(value)(value) if not isinstance(value, np.generic) else np.float32("nan")
    f(f32(1))
    assert len(f.specializations) == 1


def test_globals_of_the_function_and_of_what_it_calls(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    f = jit(lambda x: x + OFFSET)
    check_change(f, lambda: monkeypatch.setitem(globals(), "OFFSET", 5), "OFFSET: 1 -> 5", capsys)
    g = jit(caller)
    change = functools.partial(monkeypatch.setitem, TABLE, "offset", 7)
    check_change(g, change, "TABLE['offset']: 1 -> 7", capsys)
    h = jit(lambda x: Box(value=0).shown(x))
    check_change(h, lambda: monkeypatch.setitem(globals(), "OFFSET", 9), "OFFSET: 5 -> 9", capsys)


def test_a_function_that_is_replaced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    f = jit(caller)
    change = functools.partial(monkeypatch.setitem, globals(), "helper", lambda x: x * 10)
    check_change(f, change, "code of helper", capsys)


def test_a_method_that_is_replaced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Box(value=3)
    f = jit(lambda x: box.shown(x))
    change = functools.partial(monkeypatch.setattr, Box, "shown", lambda self, x: x * 10)
    check_change(f, change, "Box.shown", capsys)


def test_closures_defaults_partials_class_attributes_and_modules(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def outer(n: int) -> Any:
        def inner(x: Any, extra: Any = [1]) -> Any:  # noqa: B006  the default is what changes
            return x + n + extra[0]

        def change() -> None:
            nonlocal n
            n += 1

        return inner, change

    inner, change = outer(1)
    check_change(jit(lambda x: inner(x)), change, "n: 1 -> 2", capsys)
    defaults = inner.__defaults__
    check_change(
        jit(lambda x: inner(x)), lambda: defaults[0].__setitem__(0, 5), "[0]: 1 -> 5", capsys
    )
    part = Box(call=functools.partial(max, 1))
    f = jit(lambda x: x + part.call(0))
    change_part = functools.partial(setattr, part, "call", functools.partial(max, 9))
    check_change(f, change_part, "part.call.args[0]: 1 -> 9", capsys)
    box = Box(value=1)
    g = jit(lambda x: x + len(box.kind))
    check_change(g, lambda: monkeypatch.setattr(Box, "kind", "other"), "'box' -> 'other'", capsys)
    config = types.ModuleType("config_of_test")
    config.__dict__["rate"] = 2
    monkeypatch.setitem(sys.modules, "config_of_test", config)
    h = jit(lambda x: x * config.rate)
    change_module = functools.partial(config.__dict__.__setitem__, "rate", 3)
    check_change(h, change_module, "config_of_test.rate: 2 -> 3", capsys)


def test_a_property_reads_what_is_guarded(capsys: pytest.CaptureFixture[str]) -> None:
    box = Box(value=1)
    f = jit(lambda x: x + box.doubled)
    check_change(f, lambda: setattr(box, "value", 4), "box.value: 1 -> 4", capsys)


def test_a_name_that_appears_where_there_was_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    f = jit(lambda x: x + abs(-2))
    change = functools.partial(
        monkeypatch.setitem, globals(), "abs", lambda _: 50
    )  # shadows the builtin
    check_change(f, change, "abs: (not there) ->", capsys)
    box = Box()
    g = jit(lambda x: x * 2 if hasattr(box, "flag") else x)
    check_change(g, lambda: setattr(box, "flag", True), "attributes of box: [] -> ['flag']", capsys)


def test_tensors_are_guarded_by_type_and_flags(capsys: pytest.CaptureFixture[str]) -> None:
    box = Box(w=f32(1))
    f = jit(lambda x: x * box.w)
    check_change(f, lambda: setattr(box, "w", f32(1, 2)), "box.w.shape: (1,) -> (2,)", capsys)
    box.w = f32(1)
    f(f32(1))
    assert len(f.specializations) == 2
    box.w.requires_grad_()
    capsys.readouterr()
    f(f32(1))
    assert "box.w.requires_grad: False -> True" in capsys.readouterr().err
    box.w = None
    with pytest.raises(TypeError, match="NoneType"):
        f(f32(1))


def test_objects_that_were_one_and_are_two(capsys: pytest.CaptureFixture[str]) -> None:
    shared = [1]
    box = Box(a=shared, b=shared)
    f = jit(lambda x: x + (10 if box.a is box.b else 0) + box.a[0])
    check_change(f, lambda: setattr(box, "b", [1]), "box.b", capsys)


def test_storages_that_were_two_and_are_one() -> None:
    set_explain(False)
    box = Box(a=f32(1), b=f32(2))

    @jit
    def f() -> Any:
        box.a.add_(1.0)
        return box.b * 1

    assert f().item() == 2
    box.b = box.a
    assert f().item() == 3
    box.b = box.a[:]
    assert f().item() == 4
    box.b = f32(7)
    assert f().item() == 7
    assert box.a.item() == 5


def test_plain_values_that_no_code_names_are_not_guarded() -> None:
    box = Box(w=f32(2), seen=0, log=["x"], history={"loss": [1.0]})
    f = jit(lambda x: x * box.w)
    for n in range(3):
        box.seen += 1
        box.log.append("y")
        box.history["loss"].append(float(n))
        f(f32(1))
    assert len(f.specializations) == 1


def test_values_read_by_a_computed_name_are_guarded(capsys: pytest.CaptureFixture[str]) -> None:
    box = Box(hidden=1)
    f = jit(lambda x: x + getattr(box, "hid" + "den"))
    check_change(f, lambda: setattr(box, "hidden", 2), "box.hidden: 1 -> 2", capsys)


def test_cycles_and_deep_structures_are_walked_once() -> None:
    box = Box(value=1)
    box.me = box
    box.listed = [box]
    box.listed.append(box.listed)
    deep: Any = {"w": f32(3)}
    for _ in range(3000):
        deep = {"next": deep}

    def follow(node: Any) -> Any:
        while "next" in node:
            node = node["next"]
        return node["w"]

    f = jit(lambda x: x * follow(deep) + box.me.listed[1][0].value)
    assert f(f32(1)).item() == 4
    assert f(f32(2)).item() == 7
    assert len(f.specializations) == 1


def test_a_huge_structure_is_refused_with_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.tracer.walk.LIMIT", 1000)
    objects = [Box(value=object()) for _ in range(2000)]
    f = jit(lambda x: x * len(objects))
    with pytest.raises(treadle.TraceError, match=r"more than 1000 values .*objects"):
        f(f32(1))


def test_the_guard_of_a_model_and_its_optimiser_is_cheap() -> None:
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)])
    optimizer = treadle.optim.Adam(model.parameters())

    @jit
    def step(x: Any) -> Any:
        loss = model(x).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    x = treadle.tensor(np.ones((2, 4), np.float32))
    step(x)
    (spec,) = step.specializations
    best = math.inf
    for _ in range(20):
        started = perf_counter()
        for _ in range(20):
            assert spec.match((x,)) is not None
        best = min(best, (perf_counter() - started) / 20)
    assert best < 100e-6  # some 10 us on an idle machine; a walk would take milliseconds


def test_the_standard_library_and_numpy_are_not_walked() -> None:
    import json
    import logging

    log = logging.getLogger("treadle.test")

    def f(x: Any) -> Any:
        log.debug("%s", json.dumps([1]))
        return x * np.float32(2)

    tree = reach(f, ("x",), (f32(1),))
    assert len(tree.items) < 40
    found = {(item.path, item.kind) for item in tree.items}
    assert {("log", "same"), ("json", "same"), ("json.dumps", "same")} <= found


def test_every_kind_has_a_guard_and_facts() -> None:
    for kind in get_args(items.Kind):
        assert kind == "absent" or hasattr(_Writer, f"check_{kind}")
