"""Checks for your own functions and layers, for use in tests: derivatives, jit, closeness.

from treadle.testing import check_grad, check_jit, assert_close

def test_my_layer():
    layer, x = MyLayer(4), treadle.randn(3, 4)
    check_grad(layer, x)          # derivatives against finite differences, in float64
    check_jit(layer, x)           # the compiled function against plain Python
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.nn.copying import fresh_copy
from treadle.nn.module import Module
from treadle.tracer import pytree
from treadle.tracer.create import tensor
from treadle.tracer.grad import grad
from treadle.tracer.jit import jit
from treadle.tracer.tensor import Tensor

__all__ = ["assert_close", "check_grad", "check_jit"]

Array = npt.NDArray[Any]
_TOLERANCES = {"float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7)}  # PyTorch's: relative, absolute


def assert_close(
    actual: Any,
    expected: Any,
    rtol: float | None = None,
    atol: float | None = None,
    check_dtype: bool = True,
) -> None:
    """Raises AssertionError unless both have one structure, and in each place one shape, one dtype
    (unless not `check_dtype`) and |actual - expected| <= atol + rtol * |expected|; NaN equals NaN.

    Without tolerances those of the coarser dtype: 1.3e-6 and 1e-5 for float32, 1e-7 and 1e-7 for
    float64, 0 for others. The message says where, how many and how far.
    """
    _close("", actual, expected, rtol, atol, check_dtype)


def _close(where: str, a: Any, b: Any, rtol: Any, atol: Any, check_dtype: bool) -> None:
    at = where or "the values"
    if isinstance(b, Mapping):
        if not isinstance(a, Mapping) or set(a) != set(b):
            raise AssertionError(f"{at}: expected keys {sorted(b)}, found {_keys(a)}")
        for key in b:
            _close(f"{where}[{key!r}]", a[key], b[key], rtol, atol, check_dtype)
        return
    if isinstance(b, (tuple, list)):
        if not isinstance(a, (tuple, list)) or len(a) != len(b):
            raise AssertionError(f"{at}: expected {len(b)} parts, found {a!r:.80}")
        for n, (x, y) in enumerate(zip(a, b, strict=True)):
            _close(f"{where}[{n}]", x, y, rtol, atol, check_dtype)
        return
    x, y = _array(a), _array(b)
    if x.shape != y.shape:
        raise AssertionError(f"{at}: expected shape {y.shape}, found {x.shape}")
    if check_dtype and x.dtype != y.dtype:
        raise AssertionError(f"{at}: expected dtype {y.dtype}, found {x.dtype}")
    coarse = min((_TOLERANCES.get(str(d), (0.0, 0.0)) for d in (x.dtype, y.dtype)), key=_exact)
    relative = coarse[0] if rtol is None else rtol
    absolute = coarse[1] if atol is None else atol
    np.testing.assert_allclose(x, y, relative, absolute, equal_nan=True, err_msg=at)


def _exact(tolerances: tuple[float, float]) -> float:
    return -tolerances[1]


def _keys(found: Any) -> str:
    return str(sorted(found)) if isinstance(found, Mapping) else type(found).__name__


def _array(x: Any) -> Array:
    return x.detach().numpy() if isinstance(x, Tensor) else np.asarray(x)


def check_grad(
    fn: Callable[..., Any],
    *inputs: Any,
    eps: float = 1e-6,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    seed: int = 0,
) -> None:
    """Raises AssertionError unless the derivatives of `fn` at `inputs` agree with central
    differences of step `eps`, in float64.

    Differentiated are the float inputs and, where `fn` is a module, its parameters: of the sum of
    all float results, each weighted with random numbers from `seed`. Works on copies in float64;
    nothing of yours is changed. Choose inputs away from kinks, where there is no derivative.
    """
    model = fresh_copy(fn).double() if isinstance(fn, Module) else None
    call: Callable[..., Any] = fn if model is None else model
    params = [] if model is None else [p for _, p in model.named_parameters()]
    names = [] if model is None else [f"parameter {name}" for name, _ in model.named_parameters()]
    arrays = [np.array(_array(x)) for x in inputs]
    arrays = [a.astype(np.float64) if a.dtype.kind == "f" else a for a in arrays]
    wrt = [n for n, a in enumerate(arrays) if a.dtype.kind == "f"]
    names = [f"input {n}" for n in wrt] + names

    def total(*xs: Any) -> Any:
        rng = np.random.default_rng(seed)
        outs = [o for o in _leaves(call(*xs)) if o.dtype.is_float]
        parts = [(o * tensor(rng.standard_normal(o.shape))).sum() for o in outs]
        return sum(parts[1:], parts[0])

    xs = [tensor(a) for a in arrays]
    found = list(grad(total, argnums=tuple(wrt))(*xs)) if wrt else []
    if params:
        for param in params:
            param.grad = None
        total(*xs).backward()
        found += [p.grad for p in params]
    values = [arrays[n] for n in wrt] + [np.array(p.detach().numpy()) for p in params]
    for place, (name, value, derivative) in enumerate(zip(names, values, found, strict=True)):
        wanted = np.empty_like(value)
        for index in np.ndindex(*value.shape):
            ends = []
            for step in (eps, -eps):
                moved = value.copy()
                moved[index] += step
                ends.append(_moved(total, arrays, wrt, params, place, moved))
            wanted[index] = (ends[0] - ends[1]) / (2 * eps)
        have = np.zeros_like(value) if derivative is None else _array(derivative)
        np.testing.assert_allclose(
            have, wanted, rtol, atol, err_msg=f"the derivative with respect to {name}"
        )


def _moved(
    total: Callable[..., Any],
    arrays: Sequence[Array],
    wrt: Sequence[int],
    params: Sequence[Tensor],
    place: int,
    moved: Array,
) -> float:
    """`total` with one of the differentiated values replaced."""
    chosen = list(arrays)
    if place < len(wrt):
        chosen[wrt[place]] = moved
        return float(total(*(tensor(a) for a in chosen)).item())
    param = params[place - len(wrt)].detach()
    kept = np.array(param.numpy())
    param.copy_(moved)
    try:
        return float(total(*(tensor(a) for a in chosen)).item())
    finally:
        param.copy_(kept)


def check_jit(fn: Callable[..., Any], *inputs: Any, calls: int = 2) -> None:
    """Raises TraceError, which names what differs, unless the jitted `fn` gives what plain Python
    gives, results and changed state, in each of `calls` calls one after the other.

    The state of `fn` moves on as by so many calls of its own.
    """
    compiled = jit(fn)
    for _ in range(calls):
        compiled.compared(*inputs)


def _leaves(found: Any) -> list[Tensor]:
    return [x for x in pytree.flatten(found)[0] if isinstance(x, Tensor)]
