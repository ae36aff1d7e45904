"""More programs for `stale_cases`: what changes lies behind a wrapper or another name.

Decorators, functions that Treadle made of others (`no_grad()(f)`, `grad(f)`), attributes of
functions and of jitted functions, and modules that are no globals.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from stale_cases import Box, Case, case, setter

import treadle

Transform = Callable[[Callable[[Any], Any]], Callable[[Any], Any]]


def library() -> Any:
    """A module that counts as one of a library, with a function that may be patched."""
    module = types.ModuleType("colorsys")
    module.__dict__.update(factor=lambda: 2, inner=Box(factor=lambda: 2))
    return module


def wrapped_case(name: str, transform: Transform, inside: bool) -> None:
    def make() -> Case:
        k = 2

        def scaled(x: Any) -> Any:
            return x * x * k

        def change() -> None:
            nonlocal k
            k = 3

        made = transform(scaled)
        return (lambda x: made(x)) if inside else made, change

    make.__name__ = f"what_{name}_wraps" + ("_as_a_helper" if inside else "")
    case(make)


def passing_on(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


TRANSFORMS: dict[str, Transform] = {
    "a_decorator": passing_on,
    "no_grad": lambda f: treadle.no_grad()(f),
    "grad": lambda f: treadle.grad(lambda x: f(x).sum()),
    "grad_of_grad": lambda f: treadle.grad(
        lambda x: (treadle.grad(lambda y: f(y).sum())(x) * x).sum()
    ),
    "jit": lambda f: treadle.jit(f),
    "a_partial": lambda f: functools.partial(f),
}
for _name, _transform in TRANSFORMS.items():
    wrapped_case(_name, _transform, inside=False)
    wrapped_case(_name, _transform, inside=True)


@case
def an_attribute_that_a_function_gets() -> Case:
    def helper(x: Any) -> Any:
        return x * getattr(helper, "k", 2)

    return lambda x: helper(x), setter(helper, "k", 3)


@case
def an_attribute_that_a_function_gets_where_its_absence_is_caught() -> Case:
    def helper(x: Any) -> Any:
        try:
            return x * helper.k  # type: ignore[attr-defined]
        except AttributeError:
            return x

    return lambda x: helper(x), setter(helper, "k", 3)


@case
def an_attribute_of_a_jitted_function() -> Case:
    @treadle.jit
    def helper(x: Any) -> Any:
        return x * helper.k  # type: ignore[attr-defined]

    helper.k = 2  # type: ignore[attr-defined]
    return lambda x: helper(x), setter(helper, "k", 3)


@case
def a_function_of_a_library_in_a_closure() -> Case:
    module = library()
    return lambda x: x * module.factor(), setter(module, "factor", lambda: 3)


@case
def a_function_of_a_library_that_an_object_holds() -> Case:
    box = Box(module=library())
    return lambda x: x * box.module.factor(), setter(box.module, "factor", lambda: 3)


@case
def a_function_of_a_library_imported_where_it_is_called() -> Case:
    import colorsys

    known = colorsys.rgb_to_hsv

    def f(x: Any) -> Any:
        import colorsys as colors

        hue, _, _ = colors.rgb_to_hsv(0.2, 0.4, 0.4)
        return x * hue

    def change() -> None:
        colorsys.rgb_to_hsv = lambda *_: (3.0, 0.0, 0.0)

    restoring.append(lambda: setattr(colorsys, "rgb_to_hsv", known))
    return f, change


restoring: list[Callable[[], None]] = []


def restore_modules() -> None:
    """Take back the changes of modules."""
    while restoring:
        restoring.pop()()
