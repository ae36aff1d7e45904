"""Attention alone, causal, forward and backward: 48 heads of 64 rows, 4 heads of 1,024."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from treadle.bench.workload import Program, Step, Work, Workload, add

Sizes = tuple[int, int, int, int]  # batch, heads, rows, features


def _data(sizes: Sizes) -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(sizes, dtype=np.float32) for _ in range(4)]


def _treadle(sizes: Sizes) -> Step:
    import treadle as t

    q, k, v, ct = (t.tensor(x) for x in _data(sizes))

    def loss(q: Any, k: Any, v: Any, ct: Any) -> Any:
        out = t.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return t.sum(out * ct)

    step = t.jit(t.grad(loss, argnums=(0, 1, 2)))
    return lambda: step(q, k, v, ct)


def _torch(sizes: Sizes, compiled: bool) -> Step:
    import torch
    from torch.nn import functional

    *operands, ct = (torch.from_numpy(x) for x in _data(sizes))
    leaves = [x.requires_grad_() for x in operands]

    def forward(q: Any, k: Any, v: Any) -> Any:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    chosen = torch.compile(forward) if compiled else forward

    def step() -> Any:
        return torch.autograd.grad(chosen(*leaves), leaves, ct)

    return step


def _jax(sizes: Sizes) -> Step:
    import jax

    # JAX has heads behind rows: [batch, row, head, feature].
    *operands, ct = (jax.numpy.asarray(np.swapaxes(x, 1, 2)) for x in _data(sizes))

    def loss(q: Any, k: Any, v: Any, ct: Any) -> Any:
        return (jax.nn.dot_product_attention(q, k, v, is_causal=True) * ct).sum()

    step: Callable[..., Any] = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    return lambda: jax.block_until_ready(step(*operands, ct))


def _programs(sizes: Sizes) -> dict[str, Program]:
    return {
        "treadle": lambda: _treadle(sizes),
        "torch": lambda: _torch(sizes, False),
        "compile": lambda: _torch(sizes, True),
        "jax": lambda: _jax(sizes),
    }


def _work(sizes: Sizes) -> Work:
    """Two products forward, five backward (the scores once more), half of each (causal); q, k, v
    and the cotangent read, three gradients written."""
    batch, heads, rows, features = sizes
    product = 2.0 * batch * heads * rows * rows * features / 2
    return Work(flops=7 * product, bytes_moved=7 * 4.0 * batch * heads * rows * features)


for _name, _sizes in (("attention-64", (12, 4, 64, 32)), ("attention-1024", (1, 4, 1024, 64))):
    _batch, _heads, _rows, _features = _sizes
    add(
        Workload(
            _name,
            f"causal attention, {_batch * _heads} heads of {_rows} x {_features}: gradients",
            _work(_sizes),
            _programs(_sizes),
        )
    )
