"""Programs whose result depends on something besides their tensors, and a change of it.

Each case is a function without arguments that returns (f, change): `f(x)` gives another result
after `change()`. The tests call it eagerly, jitted, and again after the change.
"""

from __future__ import annotations

import argparse
import array
import collections
import contextvars
import dataclasses
import decimal
import enum
import fractions
import functools
import math
import operator
import os
import pathlib
import queue
import threading
import types
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

import treadle
from treadle import nn

Case = tuple[Callable[[Any], Any], Callable[[], None]]
CASES: dict[str, Callable[[], Case]] = {}


def case(make: Callable[[], Case]) -> Callable[[], Case]:
    CASES[make.__name__] = make
    return make


class Box:
    """An object with the attributes that it is given."""

    kind = 2

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def scaled(self, x: Any) -> Any:
        return x * 2


def setter(target: Any, name: str, value: Any) -> Callable[[], None]:
    return lambda: setattr(target, name, value)


# --- attributes ------------------------------------------------------------------------------


@case
def attribute() -> Case:
    box = Box(k=2)
    return lambda x: x * box.k, setter(box, "k", 3)


@case
def nested_attribute() -> Case:
    box = Box(inner=Box(inner=Box(k=2)))
    return lambda x: x * box.inner.inner.k, setter(box.inner.inner, "k", 3)


@case
def nested_object_replaced() -> Case:
    box = Box(inner=Box(k=2))
    return lambda x: x * box.inner.k, setter(box, "inner", Box(k=3))


@case
def attribute_by_name() -> Case:
    box, name = Box(k=2), "".join(["k"])
    return lambda x: x * getattr(box, name), setter(box, "k", 3)


@case
def the_name_of_the_attribute() -> Case:
    box, which = Box(k=2, j=3), Box(name="k")
    return lambda x: x * getattr(box, which.name), setter(which, "name", "j")


@case
def attribute_by_attrgetter() -> Case:
    box, get = Box(inner=Box(k=2)), operator.attrgetter("inner.k")
    return lambda x: x * get(box), setter(box.inner, "k", 3)


@case
def attribute_in_a_format_string() -> Case:
    box = Box(k=2)
    return lambda x: x * int("{.k}".format(box)), setter(box, "k", 3)  # noqa: UP032


@case
def attributes_by_vars() -> Case:
    box = Box(a=1, b=2)
    return lambda x: x * sum(vars(box).values()), setter(box, "b", 3)


@case
def the_order_of_attributes() -> Case:
    box = Box(a=1, b=2)

    def change() -> None:
        box.__dict__.update({"a": box.__dict__.pop("a")})

    return lambda x: x * next(iter(vars(box).values())), change


@case
def an_attribute_instead_of_another() -> Case:
    box = Box(unread=1)

    def change() -> None:
        del box.unread
        box.kind = 3

    return lambda x: x * box.kind, change


@case
def attribute_of_a_namespace() -> Case:
    config = SimpleNamespace(k=2)
    return lambda x: x * config.k, setter(config, "k", 3)


@case
def item_in_a_namespace() -> Case:
    config = SimpleNamespace(table={"k": [1, 2]})
    return lambda x: x * config.table["k"][1], lambda: config.table["k"].__setitem__(1, 3)


@case
def namespaces_compared() -> Case:
    one, two = SimpleNamespace(k=1), SimpleNamespace(k=1)
    return lambda x: x * 2 if one == two else x, setter(one, "k", 3)


@case
def a_namespace_printed() -> Case:
    config = SimpleNamespace(k=2)
    return lambda x: x * len(f"{config}"), setter(config, "k", 33)


@case
def attribute_of_parsed_options() -> Case:
    options = argparse.Namespace(k=2)
    return lambda x: x * options.k, setter(options, "k", 3)


@case
def a_slot() -> Case:
    class Slotted:
        __slots__ = ("k",)

    slotted = Slotted()
    slotted.k = 2
    return lambda x: x * slotted.k, setter(slotted, "k", 3)


@case
def attribute_of_a_module_object() -> Case:
    module = types.ModuleType("settings_made_here")
    module.__dict__["k"] = 2
    return lambda x: x * module.k, setter(module, "k", 3)


@case
def a_flag_that_appears() -> Case:
    box = Box()
    return lambda x: x * (3 if hasattr(box, "flag") else 2), setter(box, "flag", True)


@case
def attribute_of_a_function() -> Case:
    def helper(x: Any) -> Any:
        return x * helper.k  # type: ignore[attr-defined]

    helper.k = 2  # type: ignore[attr-defined]
    return lambda x: helper(x), setter(helper, "k", 3)


@case
def a_private_attribute() -> Case:
    class Private:
        def __init__(self) -> None:
            self.__k = 2

        def __call__(self, x: Any) -> Any:
            return x * self.__k

    private = Private()
    return lambda x: private(x), setter(private, "_Private__k", 3)


@case
def attribute_of_a_thread_local() -> Case:
    local = threading.local()
    local.k = 2
    return lambda x: x * local.k, setter(local, "k", 3)


@case
def attributes_read_by_code_of_its_own() -> Case:
    class Local:
        def __getattribute__(self, name: str) -> Any:
            inside = object.__getattribute__(self, "__dict__")
            return inside["store"][name] if name == "k" else object.__getattribute__(self, name)

    local = Local()
    local.__dict__["store"] = {"k": 2}
    return lambda x: x * local.k, lambda: local.__dict__["store"].__setitem__("k", 3)


@case
def a_value_formatted_by_percent() -> Case:
    class Local:
        length = 2

        def __str__(self) -> str:
            return "x" * self.length

    local = Local()
    return lambda x: x * len("%s" % local), setter(local, "length", 3)  # noqa: UP031


# --- globals, closures, defaults ---------------------------------------------------------------

GLOBAL = 2
TABLE = {"k": 2}


def global_helper(x: Any) -> Any:
    return x * GLOBAL


def rebind(name: str, value: Any) -> Callable[[], None]:
    """The change of a global; `restore_globals` takes it back."""
    return lambda: globals().__setitem__(name, value)


def restore_globals() -> None:
    globals().update(GLOBAL=2, TABLE={"k": 2}, global_helper=_global_helper)


_global_helper = global_helper


@case
def a_global() -> Case:
    return lambda x: x * GLOBAL, rebind("GLOBAL", 3)


@case
def a_global_of_a_helper() -> Case:
    return lambda x: global_helper(x), rebind("GLOBAL", 3)


@case
def an_item_of_a_global() -> Case:
    return lambda x: x * TABLE["k"], lambda: TABLE.__setitem__("k", 3)


@case
def a_global_container_rebound() -> Case:
    return lambda x: x * TABLE["k"], rebind("TABLE", {"k": 3})


@case
def a_global_through_eval() -> Case:
    return lambda x: x * eval("GLOBAL"), rebind("GLOBAL", 3)


@case
def a_global_through_globals() -> Case:
    name = "GLO" + "BAL"
    return lambda x: x * globals()[name], rebind("GLOBAL", 3)


@case
def a_closure_cell() -> Case:
    k = 2

    def change() -> None:
        nonlocal k
        k = 3

    return lambda x: x * k, change


@case
def a_cell_of_a_nested_closure() -> Case:
    k = 2

    def outer() -> Callable[[Any], Any]:
        def middle(x: Any) -> Any:
            def inner(x: Any) -> Any:
                return x * k

            return inner(x)

        return middle

    def change() -> None:
        nonlocal k
        k = 3

    nested = outer()
    return lambda x: nested(x), change


@case
def a_default_argument() -> Case:
    def scaled(x: Any, k: int = 2) -> Any:
        return x * k

    return scaled, setter(scaled, "__defaults__", (3,))


@case
def a_keyword_default() -> Case:
    def scaled(x: Any, *, k: int = 2) -> Any:
        return x * k

    return scaled, setter(scaled, "__kwdefaults__", {"k": 3})


@case
def a_default_of_a_helper() -> Case:
    def helper(x: Any, k: int = 2) -> Any:
        return x * k

    return lambda x: helper(x), setter(helper, "__defaults__", (3,))


@case
def a_keyword_default_of_a_helper() -> Case:
    def helper(x: Any, *, k: int = 2) -> Any:
        return x * k

    return lambda x: helper(x), setter(helper, "__kwdefaults__", {"k": 3})


@case
def a_mutable_default() -> Case:
    def scaled(x: Any, ks: list[int] = [2]) -> Any:  # noqa: B006  the default is what changes
        return x * ks[0]

    return scaled, lambda: scaled.__defaults__[0].__setitem__(0, 3)


@case
def a_partial() -> Case:
    box = Box(call=functools.partial(operator.mul, 2))
    return lambda x: box.call(x), setter(box, "call", functools.partial(operator.mul, 3))


# --- branches and containers -----------------------------------------------------------------


@case
def a_branch_flag() -> Case:
    box = Box(deep=False)
    return lambda x: x * 3 if box.deep else x * 2, setter(box, "deep", True)


@case
def a_branch_on_none() -> Case:
    box = Box(scale=None)
    return lambda x: x if box.scale is None else x * box.scale, setter(box, "scale", 3)


@case
def a_tensor_instead_of_none() -> Case:
    box = Box(scale=None)
    change = setter(box, "scale", treadle.tensor(np.float32(3)))
    return lambda x: x if box.scale is None else x * box.scale, change


@case
def the_length_of_a_list() -> Case:
    layers = [2, 2]
    return lambda x: x * len(layers), lambda: layers.append(2)


@case
def an_element_of_a_list() -> Case:
    layers = [2, 2]
    return lambda x: x * sum(layers), lambda: layers.__setitem__(1, 3)


@case
def one_of_many_elements() -> Case:
    table = list(range(1000))
    return lambda x: x * sum(table), lambda: table.__setitem__(777, 3)


@case
def a_key_of_a_dict() -> Case:
    table = {"a": 2}
    return lambda x: x * (3 if "b" in table else 2), lambda: table.__setitem__("b", 0)


@case
def the_order_of_keys() -> Case:
    table = {"a": 2, "b": 3}
    return lambda x: x * next(iter(table.values())), lambda: table.update({"a": table.pop("a")})


@case
def keys_that_are_equal_and_not_alike() -> Case:
    table: dict[Any, int] = {1: 2}

    def change() -> None:
        table.clear()
        table[True] = 2

    return lambda x: x * len(str(next(iter(table)))), change


@case
def a_nested_item() -> Case:
    table: dict[str, Any] = {"a": [{"b": (1, 2)}]}
    return lambda x: x * table["a"][0]["b"][1], lambda: table["a"][0].__setitem__("b", (1, 3))


@case
def an_element_of_a_set() -> Case:
    members = {1, 2}
    return lambda x: x * (2 if 2 in members else 3), lambda: members.discard(2)


@case
def an_object_of_a_set() -> Case:
    one, two = Box(k=1), Box(k=2)
    members = {one}
    return lambda x: x * sum(b.k for b in members), lambda: members.add(two)


@case
def an_attribute_of_an_object_of_a_set() -> Case:
    one = Box(k=2)
    members = {one}
    return lambda x: x * sum(b.k for b in members), setter(one, "k", 3)


@case
def the_order_of_a_set() -> Case:
    box = Box(members={0, 8})
    return lambda x: x * (1 + next(iter(box.members))), setter(box, "members", {8, 0})


@case
def a_frozenset() -> Case:
    box = Box(members=frozenset({1, 2}))
    return lambda x: x * len(box.members), setter(box, "members", frozenset({1, 2, 3}))


@case
def a_deque() -> Case:
    last = collections.deque([1, 2], maxlen=2)
    return lambda x: x * last[-1], lambda: last.append(3)


@case
def a_default_dict() -> Case:
    table: collections.defaultdict[str, int] = collections.defaultdict(lambda: 2)
    return lambda x: x * dict.get(table, "k", 2), lambda: table.__setitem__("k", 3)


@case
def the_factory_of_a_default_dict() -> Case:
    table: collections.defaultdict[str, int] = collections.defaultdict(lambda: 2)

    def read(x: Any) -> Any:
        found = table["k"]
        del table["k"]
        return x * found

    return read, setter(table, "default_factory", lambda: 3)


@case
def a_counter() -> Case:
    counts = collections.Counter("aab")
    return lambda x: x * counts["a"], lambda: counts.update("a")


@case
def an_ordered_dict() -> Case:
    table = collections.OrderedDict(a=2, b=3)
    return lambda x: x * next(iter(table.values())), lambda: table.move_to_end("a")


@case
def a_chain_map() -> Case:
    first: dict[str, int] = {}
    chain = collections.ChainMap(first, {"k": 2})
    return lambda x: x * chain["k"], lambda: first.__setitem__("k", 3)


@case
def a_user_dict() -> Case:
    table = collections.UserDict(k=2)
    return lambda x: x * table["k"], lambda: table.__setitem__("k", 3)


@case
def a_user_list() -> Case:
    found = collections.UserList([2])
    return lambda x: x * found[0], lambda: found.__setitem__(0, 3)


@case
def a_mapping_proxy() -> Case:
    table = {"k": 2}
    proxy = types.MappingProxyType(table)
    return lambda x: x * proxy["k"], lambda: table.__setitem__("k", 3)


@case
def a_view_of_a_dict() -> Case:
    table = {"k": 2}
    values = table.values()
    return lambda x: x * sum(values), lambda: table.__setitem__("k", 3)


@case
def a_method_of_a_dict() -> Case:
    table = {"k": 2}
    get = table.get
    return lambda x: x * get("k"), lambda: table.__setitem__("k", 3)


@case
def a_slot_wrapper_of_a_list() -> Case:
    found = [1, 2]
    size = found.__len__
    return lambda x: x * size(), lambda: found.append(3)


@case
def a_queue() -> Case:
    waiting: queue.SimpleQueue[int] | queue.Queue[int] = queue.Queue()
    waiting.put(1)
    return lambda x: x * waiting.queue[-1], lambda: waiting.put(3)  # type: ignore[union-attr]


class Point(NamedTuple):
    a: int
    b: int


@case
def a_named_tuple_replaced() -> Case:
    box = Box(point=Point(1, 2))
    return lambda x: x * box.point.b, setter(box, "point", box.point._replace(b=3))


@case
def a_class_of_a_list() -> Case:
    class Found(list):  # type: ignore[type-arg]
        k = 2

    found = Found([1])
    return lambda x: x * found.k, setter(found, "k", 3)


@case
def a_cell_object() -> Case:
    cell = types.CellType(2)
    return lambda x: x * cell.cell_contents, setter(cell, "cell_contents", 3)


# --- values ------------------------------------------------------------------------------------


def value_case(name: str, old: Any, new: Any, read: Callable[[Any], Any]) -> None:
    def make() -> Case:
        box = Box(value=old)
        return lambda x: x * read(box.value), setter(box, "value", new)

    CASES[name] = make


class Shade(enum.Enum):
    DARK = 2
    LIGHT = 3


class Count(int):
    pass


class Name(str):
    pass


value_case("an_int", 2, 3, int)
value_case("a_bool_for_an_int", 1, True, lambda v: len(str(v)))
value_case("a_float", 2.0, 3.0, float)
value_case("minus_zero", 0.0, -0.0, lambda v: math.copysign(1, v))
value_case("a_nan", math.nan, 3.0, lambda v: 2 if math.isnan(v) else v)
value_case("a_string", "ab", "abc", len)
value_case("some_bytes", b"ab", b"abc", len)
value_case("a_bytearray", bytearray(b"ab"), bytearray(b"abc"), len)
value_case("a_complex_number", 2 + 1j, 3 + 1j, lambda v: v.real)
value_case("a_complex_zero", complex(0, 0.0), complex(0, -0.0), lambda v: math.copysign(2, v.imag))
value_case("a_fraction", fractions.Fraction(1, 2), fractions.Fraction(3, 2), float)
value_case("a_decimal", decimal.Decimal("1.0"), decimal.Decimal("1.00"), lambda v: len(str(v)))
value_case("a_path", pathlib.Path("a/b"), pathlib.Path("a/b/c"), lambda v: len(v.parts))
value_case("a_range", range(0, 3, 2), range(0, 4, 2), lambda v: v.stop)
value_case("a_slice", slice(0, 2), slice(0, 3), lambda v: v.stop)
value_case("an_enum", Shade.DARK, Shade.LIGHT, lambda v: v.value)
value_case(
    "a_dtype",
    treadle.float32,
    treadle.float64,
    lambda v: len(repr(v)) if v == treadle.float32 else 3,
)
value_case("a_numpy_dtype", np.dtype("f4"), np.dtype("f8"), lambda v: v.itemsize)
value_case("a_numpy_scalar", np.float32(2), np.float32(3), float)
value_case("a_numpy_bool", np.bool_(True), np.bool_(False), lambda v: 2 if v else 3)
value_case("a_type", int, float, lambda v: len(v.__name__))
value_case("an_int_subclass", Count(2), Count(3), int)
value_case("a_string_subclass", Name("ab"), Name("abc"), len)
value_case("an_array_of_the_standard_library", array.array("i", [2]), array.array("i", [3]), sum)


@case
def a_bytearray_in_place() -> Case:
    data = bytearray(b"\2")
    return lambda x: x * data[0], lambda: data.__setitem__(0, 3)


@case
def a_memory_view_in_place() -> Case:
    data = bytearray(b"\2")
    view = memoryview(data)
    return lambda x: x * view[0], lambda: data.__setitem__(0, 3)


@case
def a_typed_array_in_place() -> Case:
    data = array.array("i", [2])
    return lambda x: x * data[0], lambda: data.__setitem__(0, 3)


@case
def the_attribute_of_an_int_subclass() -> Case:
    count = Count(1)
    count.k = 2  # type: ignore[attr-defined]
    return lambda x: x * count.k, setter(count, "k", 3)  # type: ignore[attr-defined]


@case
def the_value_of_an_enum_in_place() -> Case:
    class Sizes(enum.Enum):
        SMALL = [2]  # noqa: RUF012

    return lambda x: x * Sizes.SMALL.value[0], lambda: Sizes.SMALL.value.__setitem__(0, 3)


@case
def a_method_of_an_enum() -> Case:
    box = Box(k=2)

    class Mode(enum.Enum):
        ON = 1

        def factor(self) -> int:
            return int(box.k)

    return lambda x: x * Mode.ON.factor(), setter(box, "k", 3)


@case
def a_context_variable() -> Case:
    variable = contextvars.ContextVar("variable", default=2)
    return lambda x: x * variable.get(), lambda: (variable.set(3), None)[1]


@case
def a_weak_reference() -> Case:
    one = Box(k=2)
    reference = weakref.ref(one)
    return lambda x: x * reference().k, setter(one, "k", 3)  # type: ignore[union-attr]


@case
def a_dead_weak_reference() -> Case:
    box = Box(inner=Box(k=2))
    reference = weakref.ref(box.inner)
    return lambda x: x * (3 if reference() is None else 2), setter(box, "inner", None)


@case
def an_environment_variable() -> Case:
    os.environ["TREADLE_TEST_CASE"] = "ab"
    change = functools.partial(os.environ.__setitem__, "TREADLE_TEST_CASE", "abc")
    return lambda x: x * len(os.environ["TREADLE_TEST_CASE"]), change


@case
def an_environment_variable_through_getenv() -> Case:
    os.environ["TREADLE_TEST_CASE"] = "ab"
    change = functools.partial(os.environ.__setitem__, "TREADLE_TEST_CASE", "abc")
    return lambda x: x * len(os.getenv("TREADLE_TEST_CASE", "")), change


# --- NumPy arrays ------------------------------------------------------------------------------


def changed_in_place(array: np.ndarray[Any, Any]) -> Callable[[], None]:
    return lambda: array.__setitem__(0, 9)


@case
def an_array_that_the_program_reads() -> Case:
    a = np.array([2, 2, 2], np.float32)
    return lambda x: x * treadle.tensor(a), changed_in_place(a)


@case
def an_array_as_an_operand() -> Case:
    a = np.array([2, 2, 2], np.float32)
    return lambda x: x * a, changed_in_place(a)


@case
def an_array_that_numpy_reads() -> Case:
    a = np.array([2, 2, 2], np.float32)
    return lambda x: x * float(a.sum()), changed_in_place(a)


@case
def an_array_that_both_read() -> Case:
    a = np.array([2, 2, 2], np.float32)
    return lambda x: x * a / float(np.abs(a).max()), changed_in_place(a)


@case
def an_array_that_both_read_through_a_local() -> Case:
    a = np.array([2, 2, 2], np.float32)

    def f(x: Any) -> Any:
        scale = a
        y = x * scale
        return y / float(scale.max())

    return f, changed_in_place(a)


@case
def an_array_that_both_read_through_a_helper() -> Case:
    a = np.array([2, 2, 2], np.float32)

    def peak(array: Any) -> float:
        return float(array.max())

    return lambda x: x * a / peak(a), changed_in_place(a)


@case
def arrays_of_a_list_that_both_read() -> Case:
    arrays = [np.array([2, 2, 2], np.float32)]
    return lambda x: x * arrays[0] / max(float(a.max()) for a in arrays), changed_in_place(
        arrays[0]
    )


@case
def a_large_array_that_numpy_reads() -> Case:
    a = np.full(5_000_000, 2, np.float32)
    return lambda x: x * float(a[0]), changed_in_place(a)


@case
def a_view_of_an_array_that_changes() -> Case:
    base = np.full(6, 2, np.float32)
    part = base[::2]
    return lambda x: x * float(part.sum()), changed_in_place(base)


@case
def an_array_of_objects() -> Case:
    a = np.array([2, "text", None], object)
    return lambda x: x * a[0], changed_in_place(a)


@case
def an_object_in_an_array_of_objects() -> Case:
    box = Box(k=2)
    a = np.array([box], object)
    return lambda x: x * a[0].k, setter(box, "k", 3)


@case
def an_array_of_records() -> Case:
    a = np.zeros(2, np.dtype([("k", "i4"), ("v", "f8")]))
    a["k"] = 2
    return lambda x: x * int(a["k"][0]), lambda: a["k"].__setitem__(0, 3)


@case
def a_masked_array() -> Case:
    a = np.ma.masked_array([2.0, 3.0], [False, False])
    return lambda x: x * float(a.sum()), lambda: a.mask.__setitem__(0, True)


@case
def an_array_replaced() -> Case:
    box = Box(a=np.array([2, 2, 2], np.float32))
    return lambda x: x * box.a.sum(), setter(box, "a", np.array([3, 3, 3], np.float32))


@case
def an_array_whose_type_changes() -> Case:
    box = Box(a=np.array([2, 2, 2], np.float32))
    return lambda x: x * box.a.itemsize, setter(box, "a", np.array([2, 2, 2], np.float64))


# --- functions, methods, classes -----------------------------------------------------------------


@case
def a_function_rebound() -> Case:
    return lambda x: global_helper(x), rebind("global_helper", lambda x: x * 3)


@case
def the_code_of_a_function() -> Case:
    def helper(x: Any) -> Any:
        return x * 2

    return lambda x: helper(x), setter(helper, "__code__", (lambda x: x * 3).__code__)


@case
def the_code_of_the_function_itself() -> Case:
    def f(x: Any) -> Any:
        return x * 2

    return f, setter(f, "__code__", (lambda x: x * 3).__code__)


@case
def a_function_in_a_dict() -> Case:
    table: dict[str, Callable[[Any], Any]] = {"f": lambda x: x * 2}
    return lambda x: table["f"](x), lambda: table.__setitem__("f", lambda x: x * 3)


@case
def callables_in_a_list() -> Case:
    steps: list[Callable[[Any], Any]] = [lambda x: x * 2]
    return lambda x: functools.reduce(lambda y, f: f(y), steps, x), lambda: steps.append(
        lambda x: x * 3
    )


@case
def the_cell_of_a_function_in_a_list() -> Case:
    k = 2

    def change() -> None:
        nonlocal k
        k = 3

    steps = [lambda x: x * k]
    return lambda x: steps[0](x), change


@case
def a_method_patched_on_its_class() -> Case:
    class Local(Box):
        def scaled(self, x: Any) -> Any:
            return x * 2

    local = Local()
    return lambda x: local.scaled(x), setter(Local, "scaled", lambda self, x: x * 3)


@case
def a_method_patched_on_an_instance() -> Case:
    box = Box()
    return lambda x: box.scaled(x), setter(box, "scaled", lambda x: x * 3)


@case
def a_method_that_hides_that_of_a_base() -> Case:
    class Local(Box):
        pass

    local = Local()
    return lambda x: local.scaled(x), setter(Local, "scaled", lambda self, x: x * 3)


@case
def a_method_of_a_layer_patched() -> Case:
    layer = nn.Sequential(nn.Identity())
    change = setter(layer[0], "forward", lambda x: x * 3)
    return lambda x: layer(x), change


@case
def a_bound_method_replaced() -> Case:
    one, two = Box(k=2), Box(k=3)

    class Scaler(Box):
        def __call__(self, x: Any) -> Any:
            return x * self.k

    box = Box(call=Scaler(k=2).__call__)
    assert one is not two
    return lambda x: box.call(x), setter(box, "call", Scaler(k=3).__call__)


@case
def a_class_attribute() -> Case:
    class Local(Box):
        k = 2

    return lambda x: x * Local.k, setter(Local, "k", 3)


@case
def a_class_attribute_of_a_base() -> Case:
    class Base:
        k = 2

    class Derived(Base):
        pass

    derived = Derived()
    return lambda x: x * derived.k, setter(Base, "k", 3)


@case
def a_class_attribute_that_hides_that_of_a_base() -> Case:
    class Base:
        k = 2

    class Derived(Base):
        pass

    derived = Derived()
    return lambda x: x * derived.k, setter(Derived, "k", 3)


@case
def a_mutable_class_attribute() -> Case:
    class Local:
        ks = [2]  # noqa: RUF012  that it is shared is the point

    local = Local()
    return lambda x: x * local.ks[0], lambda: Local.ks.__setitem__(0, 3)


@case
def an_attribute_of_a_metaclass() -> Case:
    class Meta(type):
        k = 2

    class Local(metaclass=Meta):
        pass

    return lambda x: x * Local.k, setter(Meta, "k", 3)


@case
def the_class_of_an_object() -> Case:
    class One:
        k = 2

    class Two:
        k = 3

    one = One()
    return lambda x: x * one.k, setter(one, "__class__", Two)


@case
def the_bases_of_a_class() -> Case:
    class One:
        k = 2

    class Two:
        k = 3

    class Derived(One):
        pass

    derived = Derived()
    return lambda x: x * derived.k, setter(Derived, "__bases__", (Two,))


@case
def a_property_that_reads_an_attribute() -> Case:
    class Local:
        def __init__(self) -> None:
            self.v = 1

        @property
        def k(self) -> int:
            return self.v * 2

    local = Local()
    return lambda x: x * local.k, setter(local, "v", 2)


@case
def a_property_that_reads_a_global() -> Case:
    class Local:
        @property
        def k(self) -> int:
            return GLOBAL

    local = Local()
    return lambda x: x * local.k, rebind("GLOBAL", 3)


@case
def a_property_replaced() -> Case:
    class Local:
        @property
        def k(self) -> int:
            return 2

    local = Local()
    return lambda x: x * local.k, setter(Local, "k", property(lambda self: 3))


@case
def a_cached_property() -> Case:
    class Local:
        v = 2

        @functools.cached_property
        def k(self) -> int:
            return self.v

    local = Local()
    assert local.k == 2

    def change() -> None:
        local.v = 3
        del local.k

    return lambda x: x * local.k, change


@case
def a_descriptor() -> Case:
    class Descriptor:
        def __init__(self) -> None:
            self.value = 2

        def __get__(self, instance: Any, owner: Any = None) -> Any:
            return self.value

    descriptor = Descriptor()

    class Local:
        k = descriptor

    local = Local()
    return lambda x: x * local.k, setter(descriptor, "value", 3)


@case
def attributes_made_up() -> Case:
    class Local:
        def __getattr__(self, name: str) -> Any:
            return self.__dict__["store"][name]

    local = Local()
    local.__dict__["store"] = {"k": 2}
    return lambda x: x * local.k, lambda: local.store.__setitem__("k", 3)


@case
def a_static_method_replaced() -> Case:
    class Local:
        @staticmethod
        def scale(x: Any) -> Any:
            return x * 2

    return lambda x: Local.scale(x), setter(Local, "scale", staticmethod(lambda x: x * 3))


@case
def a_class_method_that_reads_its_class() -> Case:
    class Local:
        k = 2

        @classmethod
        def scale(cls, x: Any) -> Any:
            return x * cls.k

    return lambda x: Local.scale(x), setter(Local, "k", 3)


@case
def an_operator_replaced() -> Case:
    class Local:
        def __rmul__(self, x: Any) -> Any:
            return NotImplemented

        def __len__(self) -> int:
            return 2

    local = Local()
    return lambda x: x * len(local), setter(Local, "__len__", lambda self: 3)


@case
def a_representation() -> Case:
    class Local:
        def __init__(self) -> None:
            self.hidden = 2

        def __repr__(self) -> str:
            return "x" * self.hidden

    local = Local()
    return lambda x: x * len(repr(local)), setter(local, "hidden", 3)


@case
def a_global_of_a_function_that_bears_a_librarys_name() -> Case:
    names: dict[str, Any] = {"__name__": "json"}
    exec("K = 2\ndef helper(x):\n    return x * K", names)
    helper = names["helper"]
    return lambda x: helper(x), lambda: names.__setitem__("K", 3)


@case
def a_constructor() -> Case:
    class Local:
        def __init__(self) -> None:
            self.k = GLOBAL

    return lambda x: x * Local().k, rebind("GLOBAL", 3)


@case
def a_field_of_a_dataclass() -> Case:
    @dataclasses.dataclass
    class Config:
        k: int = 2

    config = Config()
    return lambda x: x * config.k, setter(config, "k", 3)


@case
def a_field_of_a_dataclass_by_replace() -> Case:
    @dataclasses.dataclass(frozen=True)
    class Config:
        k: int = 2
        j: int = 0

    box = Box(config=Config())

    def f(x: Any) -> Any:
        return x * dataclasses.replace(box.config, j=1).k

    return f, lambda: setattr(box, "config", Config(k=3))


@case
def a_field_matched_by_position() -> Case:
    @dataclasses.dataclass
    class Config:
        k: int = 2

    config = Config()

    def f(x: Any) -> Any:
        match config:
            case Config(2):
                return x * 2
        return x * 3

    return f, setter(config, "k", 3)


@case
def a_cached_function() -> Case:
    box = Box(k=2)

    @functools.lru_cache
    def cached() -> int:
        return int(box.k)

    def change() -> None:
        box.k = 3
        cached.cache_clear()

    return lambda x: x * cached(), change


@case
def a_single_dispatch_function() -> Case:
    box = Box(k=2)

    @functools.singledispatch
    def scale(x: Any) -> Any:
        return x * box.k

    return lambda x: scale(x), setter(box, "k", 3)


@case
def a_function_that_pretends_to_be_of_a_library() -> Case:
    box = Box(k=2)

    @functools.wraps(np.sum)
    def helper(x: Any) -> Any:
        return x * box.k

    return lambda x: helper(x), setter(box, "k", 3)


@case
def an_inner_jitted_function_rebound() -> Case:
    box = Box(f=treadle.jit(lambda x: x * 2))
    return lambda x: box.f(x), setter(box, "f", treadle.jit(lambda x: x * 3))


@case
def what_an_inner_jitted_function_reads() -> Case:
    box = Box(k=2)
    inner = treadle.jit(lambda x: x * box.k)
    return lambda x: inner(x), setter(box, "k", 3)


@case
def a_second_instance() -> Case:
    box = Box(inner=Box(k=2))
    return lambda x: box.inner.scaled(x) * box.inner.k, setter(box, "inner", Box(k=3))


@case
def an_instance_of_a_subclass() -> Case:
    class Local(Box):
        def scaled(self, x: Any) -> Any:
            return x * 3

    box = Box(inner=Box())
    return lambda x: box.inner.scaled(x), setter(box, "inner", Local())


@case
def a_library_function_patched() -> Case:
    def change() -> None:
        math.treadle_test_factor = lambda: 3  # type: ignore[attr-defined]

    math.treadle_test_factor = lambda: 2  # type: ignore[attr-defined]
    return lambda x: x * math.treadle_test_factor(), change  # type: ignore[attr-defined]


# --- networks ------------------------------------------------------------------------------------


@case
def the_training_flag() -> Case:
    class Model(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2 if self.training else x * 3

    model = Model()
    return lambda x: model(x), lambda: (model.eval(), None)[1]


@case
def the_training_flag_of_a_part() -> Case:
    class Part(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2 if self.training else x * 3

    model = nn.Sequential(nn.Identity(), nn.Sequential(Part()))
    return lambda x: model(x), lambda: (model[1].eval(), None)[1]


@case
def a_layer_replaced() -> Case:
    class Scale(nn.Module):
        def __init__(self, k: int) -> None:
            super().__init__()
            self.k = k

        def forward(self, x: Any) -> Any:
            return x * self.k

    model = Box(layers=[Scale(2)])
    return lambda x: model.layers[0](x), lambda: model.layers.__setitem__(0, Scale(3))


@case
def a_weight_replaced() -> Case:
    box = Box(w=treadle.tensor(np.float32(2)))
    return lambda x: x * box.w, setter(box, "w", treadle.tensor(np.float32(3)))


@case
def a_weight_changed_in_place() -> Case:
    w = treadle.tensor(np.float32(2))
    return lambda x: x * w, lambda: (w.copy_(treadle.tensor(np.float32(3))), None)[1]
