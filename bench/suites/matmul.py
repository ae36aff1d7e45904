"""relu(a @ b + c) for square matrices: the contraction, with work for its epilogue."""

from __future__ import annotations

from typing import Any

import numpy as np

from treadle.bench.workload import Program, Step, Work, Workload, add

SIZES = (64, 256, 1024, 2048)


def _data(n: int) -> list[Any]:
    rng = np.random.default_rng(0)
    return [
        rng.standard_normal(s, dtype=np.float32) / np.float32(n**0.5) for s in ((n, n), (n, n), n)
    ]


def _treadle(n: int) -> Program:
    def program() -> Step:
        import treadle

        a, b, c = map(treadle.tensor, _data(n))
        step = treadle.jit(lambda a, b, c: treadle.relu(a @ b + c))
        return lambda: step(a, b, c)

    return program


def _numpy(n: int) -> Program:
    def program() -> Step:
        a, b, c = _data(n)
        return lambda: np.maximum(a @ b + c, 0)

    return program


def _torch(n: int, compiled: bool) -> Program:
    def program() -> Step:
        import torch

        a, b, c = map(torch.from_numpy, _data(n))

        def step(a: Any, b: Any, c: Any) -> Any:
            return torch.relu(a @ b + c)

        chosen = torch.compile(step) if compiled else step
        return lambda: chosen(a, b, c)

    return program


def _jax(n: int) -> Program:
    def program() -> Step:
        import jax

        a, b, c = map(jax.numpy.asarray, _data(n))
        step = jax.jit(lambda a, b, c: jax.nn.relu(a @ b + c))
        return lambda: step(a, b, c).block_until_ready()

    return program


for n in SIZES:
    add(
        Workload(
            f"matmul-{n}",
            f"relu(a @ b + c), {n} x {n}, float32",
            Work(flops=2.0 * n**3),
            {
                "treadle": _treadle(n),
                "numpy": _numpy(n),
                "torch": _torch(n, False),
                "compile": _torch(n, True),
                "jax": _jax(n),
            },
        )
    )
