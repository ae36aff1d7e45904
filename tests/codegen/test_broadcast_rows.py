"""Softmax of rows that a broadcast has repeated.

What is computed once for several elements of a row, and kept for the row's later passes, varies
along fewer loops than the row has.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import treadle
from treadle import Tensor

FORMS: dict[str, Callable[[Tensor, int], Tensor]] = {
    "repeat last": lambda a, axis: treadle.softmax(treadle.repeat(a, 2, axis=-1), axis=axis),
    "repeat first": lambda a, axis: treadle.softmax(treadle.repeat(a, 3, axis=0), axis=axis),
    "new axis inside": lambda a, axis: treadle.softmax(
        treadle.broadcast_to(a[:, None], (a.shape[0], 7, a.shape[1])), axis=axis
    ),
    "new axis last": lambda a, axis: treadle.softmax(
        treadle.broadcast_to(a[:, :, None], (*a.shape, 20)), axis=axis
    ),
    "a column": lambda a, axis: treadle.softmax(
        treadle.exp(a[:, :1]) + treadle.zeros((a.shape[0], 20)), axis=axis
    ),
}


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("form", FORMS)
def test_values_that_repeat_within_a_row_are_kept_once(form: str, axis: int) -> None:
    fn = FORMS[form]
    for shape in ((1, 1), (4, 3), (5, 17), (40, 33)):
        x = treadle.tensor(np.random.default_rng(1).standard_normal(shape).astype("float32"))
        jitted = treadle.jit(lambda a: fn(a, axis))(x)
        np.testing.assert_allclose(jitted.numpy(), fn(x, axis).numpy(), rtol=2e-6, atol=1e-7)
