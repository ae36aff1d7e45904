"""Activations as functions, away from their kinks, at ordinary and at large arguments."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from agreement import Case, Draw, distinct, fixed, normal

import treadle

_LARGE = fixed([[-1000.0, -100.0, -30.0, -8.0], [8.0, 25.0, 100.0, 1000.0]])


def _case(name: str, draws: tuple[Draw, ...] = (distinct(4, 6),), label: str = "",
          twice: bool = True, **options: Any) -> Case:  # fmt: skip
    listed = "-".join([label, *(f"{k}={v}" for k, v in options.items())])
    ours = getattr(treadle.nn.functional, name)
    return Case(
        f"{name}-{listed}",
        lambda *xs: ours(*xs, **options),
        lambda torch, *xs: getattr(torch.nn.functional, name)(*xs, **options),
        draws,
        twice,
    )


_PLAIN = (
    "relu", "relu6", "leaky_relu", "elu", "celu", "selu", "gelu", "silu", "mish", "sigmoid",
    "hardsigmoid", "logsigmoid", "tanh", "hardtanh", "hardswish", "softplus", "softsign",
    "tanhshrink",
)  # fmt: skip

_KINKS = {
    "relu": [0.0], "relu6": [0.0, 6.0], "leaky_relu": [0.0], "elu": [0.0], "celu": [0.0],
    "selu": [0.0], "hardtanh": [-1.0, 1.0], "hardswish": [-3.0, 3.0],
}  # fmt: skip

CASES = [
    *(_case(name, (fixed(x),), "kinks", twice=False) for name, x in _KINKS.items()),
    *(_case(name, twice=name not in ("hardsigmoid", "hardswish")) for name in _PLAIN),
    *(_case(name, (_LARGE,), "large", twice=False) for name in _PLAIN),
    _case("leaky_relu", negative_slope=0.3),
    _case("elu", alpha=0.5),
    _case("celu", alpha=0.5),
    _case("gelu", approximate="tanh"),
    _case("hardtanh", min_val=-0.4, max_val=0.9),
    _case("softplus", beta=2.0, threshold=1.5, twice=False),
    _case("prelu", (distinct(4, 6), fixed([0.25])), "one"),
    _case("prelu", (fixed(-0.7), fixed([0.25])), "no-axes", twice=False),
    _case("prelu", (distinct(2, 3, 4), fixed([0.25, 0.5, -0.1])), "channels"),
    *(_case(name, dim=dim) for name in ("softmax", "softmin", "log_softmax") for dim in (0, -1)),
    _case("glu", dim=0),
    _case("glu"),
    _case("normalize", (normal(3, 4, 5),)),
    _case("normalize", (normal(3, 4, 5),), p=1.0, dim=-1),
    _case("linear", (normal(2, 3, 4), normal(5, 4)), "no-bias"),
    _case("linear", (normal(3, 4), normal(5, 4), normal(5))),
]

# PyTorch's derivative of hardsigmoid takes the float32 nearest to 1/6 in float64 as well.
RECORDED = 20  # all of them have their digests
CASES = [replace(c, tolerance=1e-7) if c.name == "hardsigmoid-" else c for c in CASES]
