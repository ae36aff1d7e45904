"""Programs for `stale_cases`: branches, containers and values of all kinds."""

import array
import collections
import contextvars
import decimal
import enum
import fractions
import functools
import math
import os
import pathlib
import queue
import types
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from stale_cases import CASES, Box, Case, case, setter

import treadle


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
