"""The cost of a call: x*2+1 on four floats, with and without Python values to guard."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from treadle.bench.workload import Step, Work, Workload, add

_X = np.arange(4, dtype=np.float32)


def _treadle() -> Step:
    import treadle

    x = treadle.tensor(_X)
    step = treadle.jit(lambda x: x * 2 + 1)
    return lambda: step(x)


def _numpy() -> Step:
    return lambda: _X * 2 + 1


def _torch_step(compiled: bool) -> Step:
    import torch

    x = torch.from_numpy(_X)

    def step(x: Any) -> Any:
        return x * 2 + 1

    chosen = torch.compile(step) if compiled else step
    return lambda: chosen(x)


def _jax() -> Step:
    import jax

    x = jax.numpy.asarray(_X)
    step = jax.jit(lambda x: x * 2 + 1)
    return lambda: step(x).block_until_ready()


add(
    Workload(
        "call",
        "x*2+1 on 4 floats: the cost of a call",
        Work(),
        {
            "treadle": _treadle,
            "numpy": _numpy,
            "torch": lambda: _torch_step(False),
            "compile": lambda: _torch_step(True),
            "jax": _jax,
        },
    )
)


GUARDED = 50


def _with_guards(count: int) -> Step:
    """The same call where the function reads `count` captured Python numbers."""
    import treadle

    x = treadle.tensor(_X)
    config = SimpleNamespace(**{f"option{n}": n for n in range(count)})
    # A function of this package would not be guarded: what the package reads does not change.
    scope: dict[str, Any] = {"config": config}
    exec("def step(x):\n    return x * 2 + (1 if any(vars(config).values()) else 0)\n", scope)
    step = treadle.jit(scope["step"])
    return lambda: step(x)


add(
    Workload(
        f"guards-{GUARDED}",
        f"the same with {GUARDED} captured Python values: what guards cost",
        Work(),
        {"treadle": lambda: _with_guards(GUARDED)},
    )
)
