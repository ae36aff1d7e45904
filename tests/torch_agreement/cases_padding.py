"""Padding: modes by sides, one to three axes, and pads that take elements away."""

from __future__ import annotations

from typing import Any

from agreement import Case, integers, normal

from treadle.nn import functional

RECORDED = 25


def padded(shape: tuple[int, ...], pad: tuple[int, ...], mode: str, value: Any = None) -> Case:
    def theirs(torch: Any, x: Any) -> Any:
        return torch.nn.functional.pad(x, pad, mode, value)

    named = "x".join(map(str, shape)) + "-" + "_".join(map(str, pad))
    return Case(
        f"pad-{mode}-{value}-{named}",
        lambda x: functional.pad(x, pad, mode, value),
        theirs,
        (normal(*shape),),
        twice=True,
    )


_PLANES = ((1, 1, 1, 1), (2, 0, 0, 3), (0, 3, 2, 1), (3, 3, 0, 0), (1, 2, 2, 2))
_LINES = ((1, 1), (0, 2), (3, 0), (3, 2))
_OTHER = ("reflect", "replicate", "circular")

CASES = [
    *(padded((2, 3, 4, 5), pad, mode) for mode in _OTHER for pad in _PLANES),
    *(padded((2, 3, 5), pad, mode) for mode in _OTHER for pad in _LINES),
    *(padded((3, 5), pad, mode) for mode in _OTHER for pad in _LINES[:2]),
    *(padded((3, 4, 5), pad, mode) for mode in _OTHER for pad in _PLANES[:2]),
    *(padded((2, 3, 4, 5), pad, "constant", v) for pad in _PLANES for v in (None, -1.5)),
    *(padded((2, 3, 4, 5), pad, "constant") for pad in ((-1, 2), (1, -2, -1, 0))),
    *(padded((2, 3, 5), pad, mode) for mode in _OTHER for pad in ((-1, 2), (3, -2))),
    padded((2, 3, 4, 5), (0, 0, 1, 2, 3, 4), "constant"),
    padded((2, 3, 4), (-2, -2), "constant", 7),
    padded((1, 2, 3), (7, 9), "replicate"),
    padded((1, 2, 3), (3, 3), "circular"),
    Case(
        "pad-integers",
        lambda x: functional.pad(x, (1, 2), value=3),
        lambda torch, x: torch.nn.functional.pad(x, (1, 2), value=3),
        (integers(-5, 5, 2, 3),),
    ),
]  # fmt: skip
