"""Pools: grids over kernel, stride, padding, dilation and rounding, ties, NaN, adaptive sizes."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from agreement import Case, Draw, distinct, fixed, normal

from treadle.nn import functional

RECORDED = 50


def _text(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


def pool(
    name: str, shape: tuple[int, ...], *args: Any, draw: Draw | None = None, **options: Any
) -> Case:
    """The pool of that name with PyTorch's arguments; a maximum at distinct values."""
    ours = getattr(functional, name)

    def theirs(torch: Any, x: Any) -> Any:
        return getattr(torch.nn.functional, name)(x, *args, **options)

    given = [*map(_text, args), *(f"{k}={_text(v)}" for k, v in options.items())]
    named = "-".join([name, _text(shape), *given, *(["odd"] if draw else [])])
    drawn = draw or (distinct(*shape) if "max" in name else normal(*shape))
    return Case(named, lambda x: ours(x, *args, **options), theirs, (drawn,), twice=draw is None)


def _max_pools() -> list[Case]:
    found = []
    for kernel, stride, padding, dilation, up in product(
        (2, (3, 2)), (None, 1, (2, 3)), (0, 1), (1, (2, 1)), (False, True)
    ):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": up}
        found.append(pool("max_pool2d", (2, 2, 8, 7), kernel, **options, return_indices=True))
    for kernel, stride, padding, up in product((2, 3, 5), (None, 1, 2), (0, 1), (False, True)):
        options = {"stride": stride, "padding": padding, "ceil_mode": up}
        found.append(pool("max_pool1d", (2, 3, 11), kernel, **options, return_indices=up))
    return found


def _avg_pools() -> list[Case]:
    found = []
    for kernel, stride, padding, up, counted in product(
        (2, (3, 2)), (None, 1, (2, 3)), (0, 1), (False, True), (False, True)
    ):
        options = {"padding": padding, "ceil_mode": up, "count_include_pad": counted}
        found.append(pool("avg_pool2d", (2, 2, 8, 7), kernel, stride, **options))
    for kernel, stride, padding, up, counted in product(
        (2, 3), (None, 1, 2), (0, 1), (False, True), (False, True)
    ):
        options = {"padding": padding, "ceil_mode": up, "count_include_pad": counted}
        found.append(pool("avg_pool1d", (2, 3, 10), kernel, stride, **options))
    found += [
        pool("avg_pool2d", (2, 2, 5, 5), 3, 2, padding=1, divisor_override=n) for n in (1, 7, -2)
    ]
    return found


def _adaptive() -> list[Case]:
    sizes = (1, 2, 3, 5, 7, (2, None), (None, 3), (4, 9), (6, 1))
    found = [
        pool(f"adaptive_{kind}_pool2d", (2, 3, 6, 7), size)
        for size, kind in product(sizes, ("avg", "max"))
    ]
    for size in (1, 3, 4, 8, 11):
        found.append(pool("adaptive_avg_pool1d", (2, 3, 8), size))
        found.append(pool("adaptive_max_pool1d", (2, 3, 8), size, return_indices=True))
    found.append(pool("adaptive_max_pool2d", (2, 3, 5, 7), (3, 4), return_indices=True))
    found.append(pool("adaptive_max_pool2d", (3, 5, 7), 2, return_indices=True))
    found.append(pool("adaptive_avg_pool2d", (3, 5, 7), 2))
    return found


def _odd() -> list[Case]:
    """Equal elements, NaN and infinities: which element is taken, and gets the gradient."""
    rng = np.random.default_rng(0)
    found = []
    ties = rng.integers(0, 2, (2, 3, 7, 6)).astype(np.float64)
    nans = np.where(rng.uniform(size=ties.shape) < 0.3, np.nan, ties)
    low = np.where(rng.uniform(size=ties.shape) < 0.8, -np.inf, ties)
    for number, values in enumerate((ties, nans, low, np.full_like(ties, -np.inf))):
        for kernel, padding in ((2, 0), (3, 1)):
            case = pool(
                "max_pool2d", ties.shape, kernel, padding=padding, stride=2 - number % 2,
                dilation=1 + number // 2, return_indices=True, draw=fixed(values),
            )  # fmt: skip
            found.append(case)
    found.append(pool("max_pool1d", (6, 42), 3, draw=fixed(nans.reshape(6, 42))))
    found.append(pool("adaptive_max_pool2d", ties.shape, (2, 4), draw=fixed(ties)))
    found.append(pool("adaptive_max_pool2d", nans.shape, (3, 5), draw=fixed(nans)))
    return found


def _edges() -> list[Case]:
    """Empty batches, inputs without a batch axis, kernels with more taps than are unrolled."""
    return [
        pool("max_pool2d", (0, 3, 5, 6), 2),
        pool("max_pool2d", (3, 5, 6), 2, return_indices=True),
        pool("max_pool2d", (2, 2, 9, 9), (7, 6), 1, (3, 2), return_indices=True),
        pool("max_pool1d", (2, 2, 50), 40, 3, 20, return_indices=True),
        pool("max_pool1d", (3, 8), 3),
        pool("max_pool2d", (1, 1, 1, 1), 1),
        pool("max_pool2d", (1, 2, 4, 4), 3, 2, ceil_mode=True),
        pool("max_pool2d", (1, 2, 2, 2), 3, 2, ceil_mode=True),
        pool("avg_pool2d", (0, 3, 5, 6), 2),
        pool("avg_pool2d", (3, 5, 6), 2),
        pool("avg_pool2d", (2, 2, 9, 9), (7, 6), 1, (3, 2)),
        pool("avg_pool1d", (2, 2, 50), 40, 3, 20),
        pool("avg_pool1d", (3, 8), 3),
        pool("avg_pool2d", (1, 2, 2, 2), 3, 2, ceil_mode=True),
    ]


CASES = [*_max_pools(), *_avg_pools(), *_adaptive(), *_odd(), *_edges()]
