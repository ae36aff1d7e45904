"""Programs for `stale_cases`: attributes of objects of all kinds."""

import argparse
import operator
import threading
import types
from types import SimpleNamespace
from typing import Any

from stale_cases import Box, Case, case, setter


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
