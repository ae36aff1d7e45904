"""Loops and branches that the tests of this folder run eagerly and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import treadle

Fn = Callable[..., Any]


def arrays(*shapes: tuple[int, ...], dtype: Any = np.float64, seed: int = 0) -> list[Any]:
    """Tensors of normal numbers."""
    rng = np.random.default_rng(seed)
    return [treadle.tensor(0.5 * rng.standard_normal(s).astype(dtype)) for s in shapes]


def leaves(tree: Any) -> list[np.ndarray[Any, Any]]:
    """The tensors of a tree as NumPy arrays."""
    from treadle.tracer.pytree import flatten

    return [np.asarray(x) for x in flatten(tree)[0]]


def assert_same(found: Any, expected: Any, tolerance: float = 1e-11) -> None:
    """Equal trees of arrays, up to rounding."""
    left, right = leaves(found), leaves(expected)
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def rnn(w: Any, u: Any, b: Any, h: Any, xs: Any, **how: Any) -> Any:
    """h = tanh(x w + h u + b) for each row; the last h, and all of them."""

    def body(h: Any, x: Any) -> Any:
        h = treadle.tanh(x @ w + h @ u + b)
        return h, h

    return treadle.scan(body, h, xs, **how)


def lstm(w: Any, u: Any, b: Any, state: Any, xs: Any, **how: Any) -> Any:
    """A long short-term memory (Hochreiter and Schmidhuber, 1997), gates i, f, g, o."""

    def body(state: Any, x: Any) -> Any:
        h, c = state
        z = x @ w + h @ u + b
        n = h.shape[1]
        i, f, g, o = (z[:, k * n : (k + 1) * n] for k in range(4))
        c = treadle.sigmoid(f) * c + treadle.sigmoid(i) * treadle.tanh(g)
        h = treadle.sigmoid(o) * treadle.tanh(c)
        return (h, c), h

    return treadle.scan(body, state, xs, **how)


def rnn_arguments(length: int = 5) -> list[Any]:
    return arrays((3, 4), (4, 4), (4,), (2, 4), (length, 2, 3))


def lstm_arguments(length: int = 4) -> list[Any]:
    w, u, b, h, c, xs = arrays((3, 16), (4, 16), (16,), (2, 4), (2, 4), (length, 2, 3))
    return [w, u, b, (h, c), xs]


def scalar(f: Fn) -> Fn:
    """A float of all that `f` gives, in which no two elements weigh the same."""

    def total(*args: Any) -> Any:
        from treadle.tracer.pytree import flatten

        value = treadle.tensor(0.0, dtype=treadle.float64)
        for n, x in enumerate(flatten(f(*args))[0]):
            if x.dtype.is_float:
                weights = np.linspace(0.5 + n, 1.5 + n, x.size)
                weight = treadle.tensor(weights.astype(x.dtype.dtype).reshape(x.shape))
                value = value + (x * weight * x).sum().astype(treadle.float64)
        return value

    return total


def carried_sum(xs: Any) -> Any:
    """A carry of several parts: a dict with a sum, a product and a count."""

    def body(carry: Any, x: Any) -> Any:
        total = carry["total"] + x
        product = carry["product"] * treadle.cos(x)
        return {"total": total, "product": product, "count": carry["count"] + 1}, (
            total.sum(),
            x * product,
        )

    first = {"total": xs[0] * 0.0, "product": xs[0] * 0.0 + 1.0, "count": 0}
    return treadle.scan(body, first, xs)


def swapping(a: Any, b: Any, xs: Any) -> Any:
    """Carries that change places."""

    def body(carry: Any, x: Any) -> Any:
        a, b = carry
        return (b * x.sum(), treadle.sin(a)), a

    return treadle.scan(body, (a, b), xs)


def nested(w: Any, xs: Any) -> Any:
    """A scan in the body of a scan."""

    def outer(h: Any, rows: Any) -> Any:
        def inner(h: Any, x: Any) -> Any:
            h = treadle.tanh(h @ w + x)
            return h, h.sum()

        h, sums = treadle.scan(inner, h, rows)
        return h * 0.5, sums

    return treadle.scan(outer, xs[0, 0] * 0.0, xs)


def branching(x: Any, y: Any) -> Any:
    """A branch taken by data, in each step of a loop."""

    def body(h: Any, row: Any) -> Any:
        h = treadle.cond(
            row.sum() > 0.0,
            lambda: treadle.sin(h) * row,
            lambda: h + row * row * y,
        )
        return h, h * 2.0

    return treadle.scan(body, x[0] * 0.0 + 1.0, x)


def chosen(index: Any, x: Any) -> Any:
    """One of three branches."""
    return treadle.switch(
        index, [lambda x: treadle.exp(x), lambda x: x * x * x, lambda x: treadle.tanh(x) / 2.0], x
    )


def halving(x: Any, limit: Any) -> Any:
    """A loop that ends early: halves until the norm is small."""
    return treadle.while_loop(
        lambda c: (c[0] * c[0]).sum() > limit,
        lambda c: (c[0] * 0.5 + treadle.sin(c[0]) * 0.1, c[1] + 1),
        (x, 0),
        max_steps=50,
    )


def mapped(w: Any, xs: Any) -> Any:
    return treadle.map(lambda x: (treadle.tanh(x @ w), x.sum()), xs)


def case(name: str) -> tuple[Fn, list[Any]]:
    """A function and its arguments."""
    return CASES[name]()


CASES: dict[str, Callable[[], tuple[Fn, list[Any]]]] = {
    "rnn": lambda: (rnn, rnn_arguments()),
    "rnn-one-step": lambda: (rnn, rnn_arguments(1)),
    "rnn-reverse": lambda: (lambda *a: rnn(*a, reverse=True), rnn_arguments()),
    "rnn-remat": lambda: (lambda *a: rnn(*a, remat=True), rnn_arguments()),
    "lstm": lambda: (lstm, lstm_arguments()),
    "lstm-reverse": lambda: (lambda *a: lstm(*a, reverse=True), lstm_arguments()),
    "carried-sum": lambda: (carried_sum, arrays((6, 3))),
    "swapping-odd": lambda: (swapping, arrays((3,), (3,), (5, 2))),
    "swapping-even": lambda: (swapping, arrays((3,), (3,), (4, 2))),
    "nested": lambda: (nested, arrays((3, 3), (4, 2, 3))),
    "branching": lambda: (branching, arrays((6, 3), (3,))),
    "switch-0": lambda: (lambda x: chosen(treadle.tensor(0), x), arrays((4,))),
    "switch-1": lambda: (lambda x: chosen(treadle.tensor(1), x), arrays((4,))),
    "switch-9": lambda: (lambda x: chosen(treadle.tensor(9), x), arrays((4,))),
    "halving": lambda: (halving, [*arrays((4,)), treadle.tensor(0.01, dtype=treadle.float64)]),
    "no-turn": lambda: (halving, [*arrays((4,)), treadle.tensor(100.0, dtype=treadle.float64)]),
    "mapped": lambda: (mapped, arrays((3, 2), (5, 3))),
}
