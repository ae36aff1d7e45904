"""Random numbers: 4 million evenly and normally distributed ones, dropout forward and backward.

Each step draws new numbers. JAX's take a key each, which is folded with the number of the step
inside the compiled function; its default generator is Threefry.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from treadle.bench.workload import Program, Step, Work, Workload, add

SIZE = 1 << 22
SHAPE = (4096, 1024)
PROBABILITY = 0.1


def _drawn(name: str) -> dict[str, Program]:
    """`name`: uniform or normal."""

    def ours() -> Step:
        import treadle

        draw = treadle.rand if name == "uniform" else treadle.randn
        return treadle.jit(lambda: draw(SIZE))

    def plain() -> Step:
        rng = np.random.default_rng(0)
        draw: Callable[..., Any] = rng.random if name == "uniform" else rng.standard_normal
        return lambda: draw(SIZE, dtype=np.float32)

    def torch_step() -> Step:
        import torch

        draw = torch.rand if name == "uniform" else torch.randn
        return lambda: draw(SIZE)

    def jax_step() -> Step:
        import jax

        draw, key = getattr(jax.random, name), jax.random.key(0)
        step = jax.jit(lambda n: draw(jax.random.fold_in(key, n), (SIZE,)))
        numbers = count()
        return lambda: step(next(numbers)).block_until_ready()

    return {"treadle": ours, "numpy": plain, "torch": torch_step, "jax": jax_step}


def _dropout() -> dict[str, Program]:
    """y = dropout(x) and the gradient of sum(y w) with respect to x."""

    def data() -> tuple[Any, Any]:
        rng = np.random.default_rng(0)
        x, w = (rng.standard_normal(SHAPE, dtype=np.float32) for _ in range(2))
        return x, w

    def ours() -> Step:
        import treadle
        from treadle.nn.functional import dropout

        x, w = map(treadle.tensor, data())

        @treadle.jit
        def step(x: Any, w: Any) -> Any:
            leaf = x.detach().requires_grad_(True)
            y = dropout(leaf, PROBABILITY)
            y.backward(w)
            return y.detach(), leaf.grad

        return lambda: step(x, w)

    def torch_step() -> Step:
        import torch

        x, w = (torch.from_numpy(a) for a in data())
        x.requires_grad_()

        def step() -> Any:
            y = torch.nn.functional.dropout(x, PROBABILITY)
            return y, torch.autograd.grad(y, x, w)

        return step

    def jax_step() -> Step:
        import jax

        x, w = (jax.numpy.asarray(a) for a in data())
        key = jax.random.key(0)

        def dropped(x: Any, key: Any) -> Any:
            kept = jax.random.bernoulli(key, 1 - PROBABILITY, x.shape)
            return jax.numpy.where(kept, x / (1 - PROBABILITY), 0.0)

        def both(x: Any, w: Any, n: Any) -> Any:
            y, pull = jax.vjp(lambda x: dropped(x, jax.random.fold_in(key, n)), x)
            return y, pull(w)[0]

        step, numbers = jax.jit(both), count()
        return lambda: jax.block_until_ready(step(x, w, next(numbers)))

    return {"treadle": ours, "torch": torch_step, "jax": jax_step}


for _name in ("uniform", "normal"):
    _work = Work(bytes_moved=4.0 * SIZE)
    add(Workload(f"{_name}-4m", f"{_name} random numbers, 4M float32", _work, _drawn(_name)))
add(
    Workload(
        "dropout",
        "dropout 4096 x 1024, forward and backward",
        Work(bytes_moved=4.0 * 4 * SHAPE[0] * SHAPE[1]),
        _dropout(),
    )
)
