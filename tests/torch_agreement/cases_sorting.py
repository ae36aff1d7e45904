"""Order: sort, argsort, topk, running products and extremes; rows by number: embedding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from agreement import Case, distinct, fixed, integers, normal, uniform

import treadle
from treadle.nn import functional

TIES = fixed(np.array([[2.0, 1.0, 2.0, -0.0, 0.0, 1.0], [3.0, 3.0, 3.0, 0.0, -1.0, 3.0]]))
ODD = fixed(np.array([[np.nan, 1.0, np.inf, np.nan], [-np.inf, 0.0, np.nan, 2.0]]))


def _sorted(draw: Any, name: str, axis: int, descending: bool) -> Case:
    def ours(x: Any) -> Any:
        return [f(x, axis=axis, descending=descending) for f in (treadle.sort, treadle.argsort)]

    def theirs(torch: Any, x: Any) -> Any:
        return torch.sort(x, dim=axis, descending=descending, stable=True)

    return Case(f"sort-{name}-{axis}-{descending}", ours, theirs, (draw,), twice=True)


def _topk(k: int, axis: int, largest: bool) -> Case:
    return Case(
        f"topk-{k}-{axis}-{largest}",
        lambda x: treadle.topk(x, k, axis, largest),
        lambda t, x: t.topk(x, k, axis, largest),
        (distinct(4, 70, 3) if k > 5 else distinct(4, 7, 5),),
        twice=True,
    )


def _running(name: str, axis: int) -> Case:
    ours: Callable[..., Any] = getattr(treadle, name)
    return Case(
        f"{name}-{axis}",
        lambda x: ours(x, axis),
        lambda t, x: getattr(t, name)(x, axis),
        (normal(3, 4, 5),),
        twice=name == "cumprod",
    )


def _cumprod_of_zeros(count: int) -> Case:
    x = np.arange(1.0, 7.0)
    x[1 : 1 + count] = 0.0
    return Case(
        f"cumprod-zeros-{count}", lambda x: treadle.cumprod(x, 0), lambda t, x: t.cumprod(x, 0),
        (fixed(x),), twice=True,
    )  # fmt: skip


def _embedding(shape: tuple[int, ...], padding: int | None) -> Case:
    return Case(
        f"embedding-{shape}-{padding}",
        lambda i, w: functional.embedding(i, w, padding),
        lambda t, i, w: t.nn.functional.embedding(i, w, padding),
        (integers(0, 5, *shape), normal(5, 3)),
        twice=True,
    )


def _along(axis: int) -> Case:
    return Case(
        f"take_along_axis-{axis}",
        lambda x, i: treadle.take_along_axis(x, i, axis=axis),
        lambda t, x, i: t.take_along_dim(x, i, axis),
        (normal(3, 3, 3), integers(0, 3, 3, 3, 3)),
        twice=True,
    )


def _limited(name: str, *draws: Any) -> Case:
    return Case(
        f"clip-{name}", lambda x, *m: treadle.clip(x, *m), lambda t, x, *m: t.clamp(x, *m), draws
    )


RECORDED = 20

CASES = [
    *(_sorted(distinct(3, 7, 5), "plain", axis, d) for axis in (0, 1, -1) for d in (False, True)),
    *(_sorted(TIES, "ties", 1, d) for d in (False, True)),
    *(_sorted(ODD, "odd", 1, d) for d in (False, True)),
    _sorted(distinct(130), "long", 0, True),
    *(_topk(k, axis, largest) for k in (1, 3) for axis in (0, 1, 2) for largest in (True, False)),
    _topk(66, 1, True),
    *(_running(name, axis) for name in ("cumprod", "cummax", "cummin") for axis in (0, 1, 2)),
    *(_cumprod_of_zeros(n) for n in (1, 2)),
    *(_embedding(s, p) for s in ((7,), (2, 6)) for p in (None, 2, -1)),
    *(_along(axis) for axis in (0, 1, 2)),
    _limited("tensors", normal(4, 5), uniform(-1, 0, 4, 5), uniform(0, 1, 4, 5)),
    _limited("row", normal(4, 5), uniform(-1, 0, 1, 5), uniform(0, 1, 1, 5)),
]
