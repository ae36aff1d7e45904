"""`treadle.grad` and `treadle.value_and_grad`: derivatives of functions, to any order.

Each differentiated argument is given to the function under a history of its own (a variable), so
that an inner derivative never mistakes an outer one's argument for its own: in

    grad(lambda x: x * grad(lambda y: x * y)(1.0))(2.0)

the inner derivative is with respect to `y` alone. Eagerly a result keeps a history exactly where
somebody can still differentiate it: an enclosing `grad`, or a leaf that requires grad.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from treadle.ir.errors import DTypeError, GradientError
from treadle.ir.graph import Value
from treadle.ir.types import shape_text
from treadle.tracer import pytree, tape
from treadle.tracer.cell import Cell
from treadle.tracer.errors import located, located_errors
from treadle.tracer.history import History, leaves_of
from treadle.tracer.modes import enable_grad, modes, no_grad
from treadle.tracer.promote import as_operand, number_of, weak_constant
from treadle.tracer.tensor import Tensor, as_result_of
from treadle.tracer.trace import Trace, reached_from
from treadle.tracer.traceback import leaving

Argnums = int | Sequence[int]


def grad(fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False) -> Callable[..., Any]:
    """A function that computes the gradient of `fn`, whose result is a float scalar.

    `argnums`: which positional arguments to differentiate; each a tree (tuple, list, dict,
    dataclass) of float tensors, NumPy arrays or Python floats. The gradient is a tree of the same
    structure, a tuple of such trees where `argnums` is a sequence. With `has_aux`, `fn` returns
    (value, aux) and the result is (gradient, aux).

    Raises DTypeError for an argument that is not float, GradientError for a result that is not a
    float scalar.
    """
    both = value_and_grad(fn, argnums, has_aux)

    @functools.wraps(fn)
    def gradient(*args: Any, **kwargs: Any) -> Any:
        try:
            value, grads = both(*args, **kwargs)
        except BaseException as error:
            leaving(error)
            raise
        return (grads, value[1]) if has_aux else grads

    return gradient


def value_and_grad(
    fn: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """As `grad`; the result is (value, gradient), or ((value, aux), gradient) with `has_aux`."""
    if not callable(fn):
        raise located(DTypeError(f"grad expects a function, found {type(fn).__name__} {fn!r:.60}"))

    @functools.wraps(fn)
    def evaluated(*args: Any, **kwargs: Any) -> Any:
        try:
            return _evaluated(fn, args, kwargs, argnums, has_aux)
        except BaseException as error:
            leaving(error)
            raise

    return evaluated


def _evaluated(
    fn: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    argnums: Argnums,
    has_aux: bool,
) -> Any:
    with located_errors():
        arguments = _Arguments(args, argnums)
    level = _level(arguments.tensors)
    try:
        with enable_grad():
            out = fn(*arguments.replaced(level.variables), **kwargs)
        with located_errors():
            value, aux = _split(out, has_aux)
            grads = level.gradients(value)
    finally:
        level.close()
    result = level.settled(value)
    if has_aux:
        result = (result, pytree.tree_map(level.settled, aux))
    return result, arguments.like([level.settled(g) for g in grads])


class _Arguments:
    """The positional arguments, and the leaves of those that are differentiated."""

    def __init__(self, args: tuple[Any, ...], argnums: Argnums) -> None:
        self.args = args
        self.single = isinstance(argnums, (int, np.integer))
        listed: Sequence[Any] = argnums if isinstance(argnums, (list, tuple)) else (argnums,)
        self.positions = [_position(n, len(args)) for n in listed]
        self.trees: list[tuple[pytree.TreeDef, int]] = []
        self.tensors: list[Tensor] = []
        for n in self.positions:
            leaves, tree = pytree.flatten_with_paths(args[n], f"argument {n}")
            self.trees.append((tree, len(leaves)))
            self.tensors.extend(_float_tensor(leaf, path) for path, leaf in leaves)

    def _trees(self, leaves: Sequence[Tensor]) -> list[Any]:
        found, start = [], 0
        for tree, count in self.trees:
            found.append(pytree.unflatten(tree, leaves[start : start + count]))
            start += count
        return found

    def replaced(self, variables: Sequence[Tensor]) -> list[Any]:
        """The arguments with variables in place of the leaves."""
        args = list(self.args)
        for n, tree in zip(self.positions, self._trees(variables), strict=True):
            args[n] = tree
        return args

    def like(self, leaves: Sequence[Tensor]) -> Any:
        """Leaves in the structure of the differentiated arguments."""
        trees = self._trees(leaves)
        return trees[0] if self.single else tuple(trees)


def _position(n: Any, count: int) -> int:
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise DTypeError(f"argnums must be ints, found {type(n).__name__} {n!r}")
    if not -count <= n < count:
        raise GradientError(
            f"argnums names positional argument {n}, and the call has {count} of them"
        )
    return int(n) % count


def _float_tensor(leaf: Any, path: str) -> Tensor:
    number = number_of(leaf)
    if isinstance(number, float):
        return weak_constant(number)
    if number is None and not isinstance(leaf, (Tensor, np.ndarray)):
        raise DTypeError(
            f"cannot differentiate by {path}: it is {_named(leaf)}; expected float tensors, NumPy "
            "arrays or Python floats"
        )
    found = as_operand(leaf)
    if not found.dtype.is_float:
        shown = f"the {type(number).__name__} {number}" if number is not None else str(found.type)
        raise DTypeError(
            f"cannot differentiate by {path}: it is {shown}; only floats have derivatives, so "
            "name the float arguments with argnums, or convert it"
        )
    return found


def _split(out: Any, has_aux: bool) -> tuple[Tensor, Any]:
    value, aux = out, None
    if has_aux:
        if not isinstance(out, tuple) or len(out) != 2:
            raise GradientError(
                f"has_aux=True expects (value, aux) from the function, found {_named(out)}"
            )
        value, aux = out
    if not isinstance(value, Tensor):
        if not isinstance(value, float) or number_of(value) is None:
            raise GradientError(
                f"the differentiated function must return a float scalar, found {_named(value)}"
            )
        value = weak_constant(value)
    if not value.dtype.is_float:
        raise GradientError(
            f"the differentiated function must return a float scalar, found {value.type}"
        )
    if value.ndim:
        raise GradientError(
            "the differentiated function must return a scalar, found shape "
            f"{shape_text(value.shape)}; sum or average it"
        )
    return value, aux


def gradients_by(y: Tensor, leaves: Sequence[Tensor], create_graph: bool) -> list[Tensor | None]:
    """The gradients of `y`, of one element, with respect to leaves that require grad; None for one
    that it does not depend on. With `create_graph` they can be differentiated themselves."""
    trace = modes.trace
    histories = [x.history for x in leaves]
    if trace is None:
        found = tape.gradients(y, tape.ones_like(y), histories, create_graph)
        return [
            None if g is None else as_result_of(g, x) for g, x in zip(found, leaves, strict=True)
        ]
    root = trace.tracked_value(y)
    reached = reached_from(root)
    asked = [(i, v) for i, h in enumerate(histories) for v in trace.variables_of(h) if v in reached]
    values = trace.gradient(root, trace.builder.ones_like(root), [v for _, v in asked])
    grads: list[Tensor | None] = [None] * len(leaves)
    for (i, _), value in zip(asked, values, strict=True):
        more, have = as_result_of(trace.new(value), leaves[i]), grads[i]
        if create_graph:
            trace.track([more])
        else:
            trace.builder.active.discard(value)
        with enable_grad() if create_graph else no_grad():
            grads[i] = more if have is None else have + more
    return grads


def _named(x: Any) -> str:
    return f"{type(x).__name__} {x!r:.60}"


def _level(tensors: Sequence[Tensor]) -> _Eager | _Traced:
    trace = modes.trace
    return _Eager(tensors) if trace is None else _Traced(trace, tensors)


class _Eager:
    """One derivative being taken on the eager history."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.recorded = modes.grad
        self.variables = []
        for x in tensors:
            parent = tape.edge_of(x) if self.recorded else None
            history = History.of_variable(len(x.maps), parent)
            variable = Tensor(x.cell, x.maps, history, x.type, x.weak)
            self.variables.append(as_result_of(variable, x))
        self.own = {v.history for v in self.variables}

    def gradients(self, value: Tensor) -> list[Tensor]:
        """One gradient a variable."""
        outer = leaves_of([tape.edge_of(value)]) - self.own
        create_graph = self.recorded and any(h.alive for h in outer)
        targets = [v.history for v in self.variables]
        found = tape.gradients(value, tape.ones_like(value), targets, create_graph)
        grads = []
        for variable, ct in zip(self.variables, found, strict=True):
            shown = _zeros(variable) if ct is None else ct
            grad = Tensor(shown.cell, shown.maps, shown.history, shown.type, variable.weak)
            grads.append(as_result_of(grad, variable))
        return grads

    def close(self) -> None:
        """Nobody can ask for a derivative by these variables any more."""
        for history in self.own:
            history.open = False

    def settled(self, x: Any) -> Any:
        """`x` without its history unless somebody can still differentiate it."""
        if not isinstance(x, Tensor) or not x.requires_grad:
            return x
        if self.recorded and any(h.alive for h in leaves_of([tape.edge_of(x)])):
            return x
        return x.detach()


def _zeros(x: Tensor) -> Tensor:
    return Tensor(Cell.of(np.zeros(x.type.static_shape, x.dtype.dtype)))


class _Traced:
    """One derivative being taken in a trace."""

    def __init__(self, trace: Trace, tensors: Sequence[Tensor]) -> None:
        self.trace = trace
        self.recorded = modes.grad
        self.variables = [trace.variable(x, self.recorded) for x in tensors]
        self.own = {v.history for v in self.variables}

    def gradients(self, value: Tensor) -> list[Tensor]:
        """One gradient a variable: the results of one `gradient` instruction."""
        trace = self.trace
        if not value.requires_grad:
            return [self._zeros(v) for v in self.variables]
        root = trace.tracked_value(value)
        reached = reached_from(root)
        asked = [
            (i, v)
            for i, x in enumerate(self.variables)
            for v in trace.variables_of(x.history)
            if v in reached
        ]
        found = trace.gradient(root, trace.builder.ones_like(root), [v for _, v in asked])
        alive = self.recorded and self._alive(reached)
        grads: list[Tensor | None] = [None] * len(self.variables)
        for (i, _), ct in zip(asked, found, strict=True):
            grads[i] = self._sum(grads[i], ct, alive, self.variables[i].weak)
        return [
            as_result_of(self._zeros(v) if ct is None else ct, v)
            for v, ct in zip(self.variables, grads, strict=True)
        ]

    def _sum(self, have: Tensor | None, ct: Value, alive: bool, weak: bool) -> Tensor:
        more = self.trace.new(ct, weak)
        if alive:
            self.trace.track([more])
        else:
            self.trace.builder.active.discard(ct)
        if have is None:
            return more
        with enable_grad() if alive else no_grad():
            return have + more

    def _zeros(self, x: Tensor) -> Tensor:
        zeros = self.trace.builder.full(x.type.shape, 0, x.dtype)
        return self.trace.new(zeros, x.weak)

    def _alive(self, reached: Collection[Value]) -> bool:
        """Whether somebody else can still differentiate what depends on `reached`."""
        return any(
            v in reached and h.alive and h not in self.own for h, v in self.trace.variables()
        )

    def close(self) -> None:
        """Nobody can ask for a derivative by these variables any more."""
        for history in self.own:
            history.open = False

    def settled(self, x: Any) -> Any:
        """`x` as seen from outside: tracked only if somebody can still differentiate it."""
        if not isinstance(x, Tensor) or not x.requires_grad:
            return x
        if self.recorded and self._alive(reached_from(self.trace.tracked_value(x))):
            return x
        return x.detach()
