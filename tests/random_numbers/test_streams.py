"""The same stream eagerly and compiled, by the public functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import Tensor


def ulps(found: np.ndarray, expected: np.ndarray) -> float:
    """The largest distance in units of the last place."""
    gap = np.abs(found.astype(np.longdouble) - expected)
    return float(np.max(gap / np.spacing(np.abs(expected))))


EXACT: dict[str, Callable[[Any], Tensor]] = {
    "uniform": lambda g: treadle.random.uniform(g, (37, 20)),
    "uniform between": lambda g: treadle.random.uniform(g, (501,), -3.0, 7.5),
    "uniform float64": lambda g: treadle.random.uniform(g, (501,), 1.0, 2.0, dtype="float64"),
    "bernoulli": lambda g: treadle.random.bernoulli(g, 0.3, (6, 50)),
    "randint": lambda g: treadle.random.randint(g, (301,), -5, 1000),
    "randint wide": lambda g: treadle.random.randint(g, (301,), -(2**62), 2**62 + 12345),
    "randint uint8": lambda g: treadle.random.randint(g, (301,), 0, 256, dtype="uint8"),
    "permutation": lambda g: treadle.random.permutation(g, 300),
    "rows in another order": lambda g: treadle.random.permutation(g, treadle.eye(9)),
    "split": lambda g: treadle.random.split(treadle.random.key(3), 5),
    "fold_in": lambda g: treadle.random.fold_in(treadle.random.key(3), 5),
}
CLOSE: dict[str, Callable[[Any], Tensor]] = {
    "normal": lambda g: treadle.random.normal(g, (37, 20)),
    "normal float64": lambda g: treadle.random.normal(g, (501,), dtype="float64"),
}


@pytest.mark.parametrize("name", [*EXACT, *CLOSE])
def test_eager_and_jitted_draws_are_the_same(name: str) -> None:
    draw = (EXACT | CLOSE)[name]
    for make in (lambda: treadle.Generator(11), lambda: treadle.random.key(11)):
        eager = draw(make()).numpy()
        source = make()
        jitted = treadle.jit(lambda s=source: draw(s))().numpy()
        if name in EXACT:
            np.testing.assert_array_equal(jitted, eager)
        else:
            assert ulps(jitted, eager) <= 4


def test_derived_distributions_agree_eager_and_jitted() -> None:
    """Of a few roundings more: the logarithms of Gumbel numbers, a quantile."""
    for draw in (
        lambda g: treadle.random.gumbel(g, (400,)),
        lambda g: treadle.random.truncated_normal(g, -1.0, 2.0, (400,)),
    ):
        eager = draw(treadle.Generator(4)).numpy()
        source = treadle.Generator(4)
        jitted = treadle.jit(lambda: draw(source))().numpy()  # noqa: B023  called at once
        np.testing.assert_allclose(jitted, eager, rtol=1e-5, atol=1e-6)
    logits = np.random.default_rng(0).standard_normal((50, 7)).astype(np.float32)
    eager = treadle.random.categorical(treadle.random.key(1), logits).numpy()
    key = treadle.random.key(1)
    jitted = treadle.jit(lambda: treadle.random.categorical(key, logits))().numpy()
    np.testing.assert_array_equal(jitted, eager)
