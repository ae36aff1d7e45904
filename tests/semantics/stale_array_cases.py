"""Programs for `stale_cases`: NumPy arrays that are operands, that NumPy reads, and both."""

from collections.abc import Callable
from typing import Any

import numpy as np
from stale_cases import Box, Case, case, setter

import treadle


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
