"""Loops over memory: elementwise maths, rows (softmax, layer norm), sums, a transpose.

Each job is written once for an array module: NumPy's, JAX's, torch's or Treadle's functions are
handed in by name, so that the same formula is timed everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace as Namespace
from typing import Any

import numpy as np

from treadle.bench.workload import Program, Step, Work, Workload, add

Formula = Callable[[Any, Any], Any]  # (functions, x) -> result


def _numpy_functions() -> Namespace:
    def gelu(x: Any) -> Any:
        return 0.5 * x * (1 + np.tanh(0.7978845608 * (x + 0.044715 * x**3)))

    def softmax(x: Any) -> Any:
        e = np.exp(x - x.max(1, keepdims=True))
        return e / e.sum(1, keepdims=True)

    def layer_norm(x: Any) -> Any:
        centred = x - x.mean(1, keepdims=True)
        return centred / np.sqrt((centred * centred).mean(1, keepdims=True) + 1e-5)

    return Namespace(
        exp=np.exp,
        tanh=np.tanh,
        sigmoid=lambda x: 1 / (1 + np.exp(-x)),
        gelu=gelu,
        softmax=softmax,
        layer_norm=layer_norm,
        sum=lambda x, axis, keep=False: x.sum(axis, keepdims=keep),
        copied=np.ascontiguousarray,
    )


def _treadle_functions() -> Namespace:
    import treadle as t

    return Namespace(
        exp=t.exp,
        tanh=t.tanh,
        sigmoid=t.sigmoid,
        gelu=lambda x: t.gelu(x, approximate="tanh"),
        softmax=lambda x: t.softmax(x, axis=1),
        layer_norm=lambda x: t.layer_norm(x, (x.shape[1],)),
        sum=lambda x, axis, keep=False: t.sum(x, axis=axis, keepdims=keep),
        copied=lambda x: x,
    )


def _torch_functions() -> Namespace:
    import torch
    from torch.nn import functional as f

    return Namespace(
        exp=torch.exp,
        tanh=torch.tanh,
        sigmoid=torch.sigmoid,
        gelu=lambda x: f.gelu(x, approximate="tanh"),
        softmax=lambda x: torch.softmax(x, 1),
        layer_norm=lambda x: f.layer_norm(x, (x.shape[1],)),
        sum=lambda x, axis, keep=False: torch.sum(x, axis, keepdim=keep),
        copied=lambda x: x.contiguous(),
    )


def _jax_functions() -> Namespace:
    import jax
    from jax import numpy as jnp

    def layer_norm(x: Any) -> Any:
        centred = x - x.mean(1, keepdims=True)
        return centred * jax.lax.rsqrt((centred * centred).mean(1, keepdims=True) + 1e-5)

    return Namespace(
        exp=jnp.exp,
        tanh=jnp.tanh,
        sigmoid=jax.nn.sigmoid,
        gelu=jax.nn.gelu,
        softmax=lambda x: jax.nn.softmax(x, axis=1),
        layer_norm=layer_norm,
        sum=lambda x, axis, keep=False: jnp.sum(x, axis, keepdims=keep),
        copied=lambda x: x,
    )


def _data(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _programs(shape: tuple[int, ...], formula: Formula) -> dict[str, Program]:
    def ours() -> Step:
        import treadle

        functions, x = _treadle_functions(), treadle.tensor(_data(shape))
        step = treadle.jit(lambda x: formula(functions, x))
        return lambda: step(x)

    def plain() -> Step:
        functions, x = _numpy_functions(), _data(shape)
        return lambda: formula(functions, x)

    def torch_step(compiled: bool) -> Step:
        import torch

        functions, x = _torch_functions(), torch.from_numpy(_data(shape))

        def step(x: Any) -> Any:
            return formula(functions, x)

        chosen = torch.compile(step) if compiled else step
        return lambda: chosen(x)

    def jax_step() -> Step:
        import jax

        functions, x = _jax_functions(), jax.numpy.asarray(_data(shape))
        step = jax.jit(lambda x: formula(functions, x))
        return lambda: step(x).block_until_ready()

    return {
        "treadle": ours,
        "numpy": plain,
        "torch": lambda: torch_step(False),
        "compile": lambda: torch_step(True),
        "jax": jax_step,
    }


def _layer_norm_gradient(shape: tuple[int, ...]) -> dict[str, Program]:
    """d/dx of sum(layer_norm(x) * w), w a fixed array: forward and backward."""

    def ours() -> Step:
        import treadle

        functions = _treadle_functions()
        x, w = treadle.tensor(_data(shape)), treadle.tensor(_data(shape)[::-1].copy())
        step = treadle.jit(
            treadle.grad(lambda x, w: treadle.sum(functions.layer_norm(x) * w), argnums=0)
        )
        return lambda: step(x, w)

    def torch_step(compiled: bool) -> Step:
        import torch

        functions = _torch_functions()
        x = torch.from_numpy(_data(shape)).requires_grad_()
        w = torch.from_numpy(_data(shape)[::-1].copy())

        def loss(x: Any, w: Any) -> Any:
            return (functions.layer_norm(x) * w).sum()

        chosen = torch.compile(loss) if compiled else loss
        return lambda: torch.autograd.grad(chosen(x, w), x)

    def jax_step() -> Step:
        import jax

        functions = _jax_functions()
        x, w = (jax.numpy.asarray(a) for a in (_data(shape), _data(shape)[::-1].copy()))
        step = jax.jit(jax.grad(lambda x, w: (functions.layer_norm(x) * w).sum()))
        return lambda: step(x, w).block_until_ready()

    return {
        "treadle": ours,
        "torch": lambda: torch_step(False),
        "compile": lambda: torch_step(True),
        "jax": jax_step,
    }


def _add_loop(
    name: str, title: str, shape: tuple[int, ...], formula: Formula, result: int | None = None
) -> None:
    """A job that reads `shape` and writes `result` elements (default: as many)."""
    size = 4.0 * float(np.prod(shape))
    written = size if result is None else 4.0 * result
    work = Work(bytes_moved=size + written) if written == size else Work(bytes_read=size)
    add(Workload(name, title, work, _programs(shape, formula)))


_ROWS = (4096, 1024)
_SQUARE = (4096, 4096)

_add_loop(
    "elementwise-4m",
    "tanh(1.5x+.5)*sigmoid(x)+gelu(x), 4M float32",
    (1 << 22,),
    lambda f, x: f.tanh(1.5 * x + 0.5) * f.sigmoid(x) + f.gelu(x),
)
_add_loop("softmax", "softmax 4096 x 1024 along rows", _ROWS, lambda f, x: f.softmax(x))


def _hand_written_softmax(f: Any, x: Any) -> Any:
    e = f.exp(x)
    return e / f.sum(e, 1, True)


_add_loop("softmax-hand", "exp(x) / exp(x).sum(1), 4096 x 1024", _ROWS, _hand_written_softmax)
_add_loop("layer-norm", "layer norm 4096 x 1024", _ROWS, lambda f, x: f.layer_norm(x))
add(
    Workload(
        "layer-norm-grad",
        "layer norm 4096 x 1024, forward and backward",
        Work(bytes_moved=3.0 * 4 * 4096 * 1024),
        _layer_norm_gradient(_ROWS),
    )
)
_add_loop("sum-0", "sum over axis 0, 4096 x 4096", _SQUARE, lambda f, x: f.sum(x, 0), 4096)
_add_loop("sum-1", "sum over axis 1, 4096 x 4096", _SQUARE, lambda f, x: f.sum(x, 1), 4096)
_add_loop("transpose", "x.T + 1, 4096 x 4096, contiguous", _SQUARE, lambda f, x: f.copied(x.T + 1))
