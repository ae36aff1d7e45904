"""Rows in order and rows by number: sort, argsort, top k, embedding; batch norm."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from treadle.bench.workload import Program, Step, Work, Workload, add

ROWS = (4096, 1024)
TABLE, NUMBERS = (50_000, 512), 8192
IMAGES = (32, 64, 56, 56)
BEST = 10


def _normal(shape: tuple[int, ...], seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def _formulas(
    data: Callable[[], tuple[Any, ...]],
    ours: Callable[[Any], Any],
    plain: Callable[..., Any] | None,
    theirs: Callable[[Any], Any],
    with_jax: Callable[[Any], Any] | None,
) -> dict[str, Program]:
    """`ours`, `theirs` and `with_jax` get the peer's module and give the function to time."""

    def treadle_step() -> Step:
        import treadle

        xs, step = [treadle.tensor(a) for a in data()], treadle.jit(ours(treadle))
        return lambda: step(*xs)

    def numpy_step() -> Step:
        assert plain is not None
        xs = data()
        return lambda: plain(*xs)

    def torch_step() -> Step:
        import torch

        xs, step = [torch.from_numpy(a) for a in data()], theirs(torch)
        return lambda: step(*xs)

    def jax_step() -> Step:
        import jax

        assert with_jax is not None
        xs, step = [jax.numpy.asarray(a) for a in data()], jax.jit(with_jax(jax))
        return lambda: jax.block_until_ready(step(*xs))

    programs = {"treadle": treadle_step, "torch": torch_step}
    programs |= {"numpy": numpy_step} if plain else {}
    return programs | ({"jax": jax_step} if with_jax else {})


def _looked_up() -> tuple[Any, ...]:
    numbers = np.random.default_rng(1).integers(0, TABLE[0], NUMBERS)
    return _normal(TABLE), numbers, _normal((NUMBERS, TABLE[1]), 2)


def _embedding_of_ours(t: Any) -> Any:
    def loss(table: Any, numbers: Any, weights: Any) -> Any:
        return t.sum(t.nn.functional.embedding(numbers, table) * weights)

    return t.grad(loss)


def _embedding_of_torch(torch: Any) -> Any:
    def step(table: Any, numbers: Any, weights: Any) -> Any:
        leaf = table.requires_grad_()
        found = torch.nn.functional.embedding(numbers, leaf)
        return torch.autograd.grad(found, leaf, weights)

    return step


def _embedding_of_jax(jax: Any) -> Any:
    return jax.grad(lambda table, numbers, weights: (table[numbers] * weights).sum())


def _images() -> tuple[Any, ...]:
    channels = (IMAGES[1],)
    return _normal(IMAGES), _normal(channels, 1), _normal(channels, 2), _normal(IMAGES, 3)


def _batch_norm_of_ours(t: Any) -> Any:
    def loss(x: Any, w: Any, b: Any, ct: Any) -> Any:
        return t.sum(t.nn.functional.batch_norm(x, None, None, w, b, training=True) * ct)

    return t.grad(loss, argnums=(0, 1, 2))


def _batch_norm_of_torch(torch: Any) -> Any:
    def step(x: Any, w: Any, b: Any, ct: Any) -> Any:
        leaves = [v.requires_grad_() for v in (x, w, b)]
        found = torch.nn.functional.batch_norm(leaves[0], None, None, *leaves[1:], training=True)
        return torch.autograd.grad(found, leaves, ct)

    return step


def _batch_norm_of_jax(jax: Any) -> Any:
    def loss(x: Any, w: Any, b: Any, ct: Any) -> Any:
        off = x - x.mean((0, 2, 3), keepdims=True)
        scale = jax.lax.rsqrt((off * off).mean((0, 2, 3), keepdims=True) + 1e-5)
        wide = [v[:, None, None] for v in (w, b)]
        return ((off * scale * wide[0] + wide[1]) * ct).sum()

    return jax.grad(loss, argnums=(0, 1, 2))


_ELEMENTS = float(np.prod(ROWS))

add(
    Workload(
        "sort",
        "sort 4096 x 1024 along rows",
        Work(bytes_moved=8 * _ELEMENTS),
        _formulas(
            lambda: (_normal(ROWS),),
            lambda t: lambda x: t.sort(x),
            lambda x: np.sort(x),
            lambda torch: lambda x: torch.sort(x),
            lambda jax: lambda x: jax.numpy.sort(x),
        ),
    )
)
add(
    Workload(
        "argsort",
        "argsort 4096 x 1024 along rows, 64-bit indices",
        Work(bytes_moved=12 * _ELEMENTS),
        _formulas(
            lambda: (_normal(ROWS),),
            lambda t: lambda x: t.argsort(x),
            lambda x: np.argsort(x, kind="stable"),
            lambda torch: lambda x: torch.argsort(x, stable=True),
            lambda jax: lambda x: jax.numpy.argsort(x),
        ),
    )
)
add(
    Workload(
        "topk",
        f"the {BEST} largest of 4096 x 1024 along rows",
        Work(bytes_read=4 * _ELEMENTS),
        _formulas(
            lambda: (_normal(ROWS),),
            lambda t: lambda x: t.topk(x, BEST),
            None,
            lambda torch: lambda x: torch.topk(x, BEST),
            lambda jax: lambda x: jax.lax.top_k(x, BEST),
        ),
    )
)
add(
    Workload(
        "embedding-grad",
        "8192 rows of a table 50000 x 512, and the table's gradient",
        Work(bytes_moved=4.0 * TABLE[1] * (TABLE[0] + 3 * NUMBERS)),
        _formulas(_looked_up, _embedding_of_ours, None, _embedding_of_torch, _embedding_of_jax),
    )
)
add(
    Workload(
        "batch-norm-grad",
        "batch norm of 32 x 64 x 56 x 56 in training, three gradients",
        Work(bytes_moved=4.0 * 3 * float(np.prod(IMAGES))),
        _formulas(_images, _batch_norm_of_ours, None, _batch_norm_of_torch, _batch_norm_of_jax),
    )
)
