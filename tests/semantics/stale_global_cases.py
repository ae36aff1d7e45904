"""Programs for `stale_cases`: globals, closures and defaults."""

import functools
import operator
from collections.abc import Callable
from typing import Any

from stale_cases import Box, Case, case, setter

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


@case
def a_function_rebound() -> Case:
    return lambda x: global_helper(x), rebind("global_helper", lambda x: x * 3)


@case
def a_property_that_reads_a_global() -> Case:
    class Local:
        @property
        def k(self) -> int:
            return GLOBAL

    local = Local()
    return lambda x: x * local.k, rebind("GLOBAL", 3)


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
