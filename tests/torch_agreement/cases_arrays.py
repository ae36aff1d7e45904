"""Array functions: triangles, limits, norms, products, running sums."""

from __future__ import annotations

from typing import Any

from agreement import Case, distinct, normal

import treadle


def _named(name: str, draws: tuple[Any, ...], twice: bool = False, **options: Any) -> Case:
    """The function of that name, with keyword arguments that PyTorch has as well."""
    listed = "-".join(f"{k}={v}" for k, v in options.items())

    def theirs(torch: Any, *xs: Any) -> Any:
        return getattr(torch, name)(*xs, **options)

    ours = getattr(treadle, name)
    return Case(f"{name}-{listed}", lambda *xs: ours(*xs, **options), theirs, draws, twice)


def _triangles() -> list[Case]:
    def case(name: str, k: int) -> Case:
        ours = getattr(treadle, name)
        return Case(
            f"{name}-{k}", lambda x: ours(x, k=k), lambda t, x: getattr(t, name)(x, k),
            (normal(2, 4, 5),),
        )  # fmt: skip

    return [case(name, k) for name in ("tril", "triu") for k in (-5, -1, 0, 2)]


def _limits() -> list[Case]:
    def case(low: float | None, high: float | None) -> Case:
        return Case(
            f"clip-{low}-{high}",
            lambda x: treadle.clip(x, low, high),
            lambda t, x: t.clip(x, low, high),
            (normal(4, 9),),
        )

    return [case(*bounds) for bounds in ((-0.5, 0.5), (None, 0.25), (0.0, None), (0.3, 0.1))]


def _norms() -> list[Case]:
    def case(p: float, axis: Any, keepdims: bool) -> Case:
        return Case(
            f"norm-{p}-{axis}-{keepdims}",
            lambda x: treadle.norm(x, p, axis, keepdims),
            lambda t, x: t.linalg.vector_norm(x, p, axis, keepdims),
            (distinct(3, 4, 5),),
            twice=p not in (0.0, float("inf"), float("-inf")),
        )

    powers = (0.0, 1.0, 2.0, 3.0, 0.5, float("inf"), float("-inf"))
    return [
        case(p, axis, keepdims)
        for p in powers
        for axis, keepdims in ((None, False), (1, True), ((0, 2), False))
    ]


CASES = [
    *_triangles(),
    *_limits(),
    *_norms(),
    _named("outer", (normal(4), normal(6)), twice=True),
    _named("dot", (normal(7), normal(7)), twice=True),
    *(_named("cumsum", (normal(3, 4, 5),), axis=axis) for axis in (0, 1, -1)),
]
