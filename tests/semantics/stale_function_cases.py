"""Programs for `stale_cases`: functions, methods and jitted functions that are others later."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from stale_cases import Box, Case, case, setter

import treadle
from treadle import nn


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
