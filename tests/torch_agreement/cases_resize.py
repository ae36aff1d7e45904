"""Resizing: modes, sizes and factors up and down, with corners aligned and not."""

from __future__ import annotations

from typing import Any

from agreement import Case, normal

from treadle.nn import functional

RECORDED = 30


def resized(shape: tuple[int, ...], mode: str, **options: Any) -> Case:
    named = "-".join(f"{k}={v}".replace(" ", "") for k, v in options.items())
    return Case(
        f"interpolate-{mode}-{'x'.join(map(str, shape))}-{named}",
        lambda x: functional.interpolate(x, mode=mode, **options),
        lambda torch, x: torch.nn.functional.interpolate(x, mode=mode, **options),
        (normal(*shape),),
        twice=True,
    )


_PLANE = (2, 2, 4, 5)
_SIZES = ((8, 10), (4, 5), (3, 3), (7, 4), (1, 1), 6, (12, 15))
_FACTORS = (2, 0.5, 1.5, (2.7, 0.6), 3)

CASES = [
    *(resized(_PLANE, m, size=s) for m in ("nearest", "nearest-exact", "area") for s in _SIZES),
    *(resized(_PLANE, m, scale_factor=f) for m in ("nearest", "nearest-exact") for f in _FACTORS),
    *(
        resized(_PLANE, m, size=s, align_corners=c)
        for m in ("bilinear", "bicubic")
        for s in _SIZES
        for c in (False, True)
    ),
    *(
        resized(_PLANE, m, scale_factor=f, align_corners=c)
        for m in ("bilinear", "bicubic")
        for f in _FACTORS
        for c in (False, True)
    ),
    *(
        resized(_PLANE, "bilinear", scale_factor=f, recompute_scale_factor=True)
        for f in (1.5, (2.7, 0.6))
    ),
    *(resized((2, 3, 6), m, size=s) for m in ("nearest", "linear") for s in (1, 4, 6, 9, 13)),
    *(resized((2, 3, 6), "linear", scale_factor=f, align_corners=True) for f in (0.5, 2, 2.5)),
    resized((1, 1, 1, 1), "bilinear", size=(3, 2)),
    resized((0, 2, 3, 3), "nearest", size=(3, 2)),
]
