"""`treadle.callback`: plain NumPy code that runs in the middle of a step.

In a trace the function does not run: a `callback` instruction stands for it, and compiled code
calls it. It gets NumPy arrays in the places of tensors, in the trees in which they came.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.host_function import HostFunction
from treadle.ir.types import TensorType
from treadle.tracer import pytree
from treadle.tracer.api.arguments import array_function
from treadle.tracer.control_trees import check_function
from treadle.tracer.execute import apply_multi
from treadle.tracer.modes import modes
from treadle.tracer.promote import as_tensor, is_operand, number_of
from treadle.tracer.tensor import Tensor


@array_function
def callback(fn: Callable[..., Any], *args: Any, result: Any = None, pure: bool = False) -> Any:
    """`fn(*args)`, with NumPy arrays in place of tensors; its results as tensors.

    `args` are trees (tuples, lists, dicts, dataclasses): tensors and arrays in them become
    read-only NumPy arrays that `fn` may keep, anything else is given as it is now. `result` says
    what `fn` returns: a tree of `TensorType`s, or of tensors and arrays whose types are meant; None
    where it returns nothing of interest. Python numbers that it returns take the dtype.

    In a jitted step compiled code calls `fn` at its place, in the order of the program, on the
    calling thread; what it raises, the call raises, with all state as before. It is called in every
    run, whether its results are used or not; with `pure` it may be left out where they are not.
    It has no derivative of its own: see `treadle.custom_vjp`. Raises ShapeError or DTypeError
    where what `fn` returns is not what `result` says.
    """
    check_function("callback", fn)
    if type(pure) is not bool:
        raise ArgumentError(f"pure must be a bool, found {pure!r:.40}")
    types, out = _result_types(result)
    leaves, tree = pytree.flatten(list(args))
    places = [n for n, leaf in enumerate(leaves) if isinstance(leaf, (Tensor, np.ndarray))]
    call = _flat(fn, leaves, places, tree, out)
    found = apply_multi(
        "callback",
        *(as_tensor(leaves[n]) for n in places),
        host=_host_function(fn, call),
        dtypes=tuple(t.dtype for t in types),
        shapes=tuple(t.shape for t in types),
        pure=pure,
    )
    return pytree.unflatten(out, found) if result is not None else None


def _result_types(result: Any) -> tuple[list[TensorType], pytree.TreeDef]:
    """The leaves of `result` as types, and its structure."""
    leaves, tree = pytree.flatten(result if result is not None else ())
    return [_type_of(leaf) for leaf in leaves], tree


def _type_of(spec: Any) -> TensorType:
    if isinstance(spec, TensorType):
        return spec
    if is_operand(spec) and number_of(spec) is None:
        return as_tensor(spec).type
    raise ArgumentError(
        f"callback: result holds a {type(spec).__name__} {spec!r:.40}; expected types "
        "(treadle.TensorType(treadle.float32, (3,))), tensors or arrays"
    )


def _flat(
    fn: Callable[..., Any],
    leaves: Sequence[Any],
    places: Sequence[int],
    tree: pytree.TreeDef,
    out: pytree.TreeDef,
) -> Callable[..., Sequence[Any]]:
    """`fn` on the arrays of `places`, giving the leaves of its result."""
    others = list(leaves)
    for n in places:
        others[n] = None  # a tensor of the trace must not be kept

    def call(*arrays: Any) -> Sequence[Any]:
        given = list(others)
        for n, array in zip(places, arrays, strict=True):
            given[n] = array
        found = fn(*pytree.unflatten(tree, given))
        if not out.leaf_count and not out.children:
            return ()
        listed, structure = pytree.flatten(found)
        if structure != out:
            wanted = "one array" if out.is_leaf else str(out)
            raise ShapeError(f"callback {_label(fn)} gave {structure}, expected {wanted}")
        return [x.numpy() if isinstance(x, Tensor) else x for x in listed]

    return call


def _host_function(fn: Callable[..., Any], call: Callable[..., Sequence[Any]]) -> HostFunction:
    if modes.trace is None:
        return HostFunction(call, _label(fn), 0)
    hosts = modes.trace.hosts
    hosts.append(fn)
    return HostFunction(call, _label(fn), len(hosts) - 1)


def _label(fn: Callable[..., Any]) -> str:
    while isinstance(fn, functools.partial):
        fn = fn.func
    return str(getattr(fn, "__qualname__", type(fn).__qualname__))
