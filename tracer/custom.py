"""`treadle.custom_vjp`: a function with a derivative of its own, as a pair of functions.

@treadle.custom_vjp
def log1pexp(x):
    return treadle.log1p(treadle.exp(x))

def forward(x):
    return log1pexp(x), x

def backward(x, ct):
    return (ct * treadle.sigmoid(x),)

log1pexp.defvjp(forward, backward)
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, overload

from treadle.ir.errors import ArgumentError, GradientError
from treadle.tracer import pytree, rule
from treadle.tracer.control_trees import check_function, tree_of
from treadle.tracer.errors import located_errors
from treadle.tracer.tensor import Tensor
from treadle.tracer.traceback import leaving


@overload
def custom_vjp(fun: Callable[..., Any], *, nondiff_argnums: Sequence[int] = ...) -> CustomVjp: ...
@overload
def custom_vjp(
    fun: None = ..., *, nondiff_argnums: Sequence[int] = ...
) -> Callable[[Callable[..., Any]], CustomVjp]: ...
def custom_vjp(
    fun: Callable[..., Any] | None = None, *, nondiff_argnums: Sequence[int] = ()
) -> CustomVjp | Callable[[Callable[..., Any]], CustomVjp]:
    """`fun`, whose derivative is what `defvjp` gives it: `f.defvjp(forward, backward)`.

    `forward(*args)` returns (result, residuals), `backward(residuals, ct)` a tuple with one
    gradient for each argument: a tree of tensors as the argument is, None for zero and for what
    holds no tensors. Results and residuals are trees (tuples, lists, dicts, dataclasses); `ct` is
    one like the result, with None in the places of tensors that are not float. The arguments
    numbered `nondiff_argnums` stand before the residuals in the call of `backward`, and have no
    gradient.

    Without a derivative being taken, `fun` runs. Inside of `forward`, the function itself is `fun`.
    Also `@custom_vjp` and `@custom_vjp(nondiff_argnums=(0,))`.
    """
    if fun is None:
        return functools.partial(custom_vjp, nondiff_argnums=nondiff_argnums)
    check_function("custom_vjp", fun)
    return CustomVjp(fun, tuple(nondiff_argnums))


class CustomVjp:
    """A function with a derivative of its own; made by `treadle.custom_vjp`."""

    def __init__(self, fun: Callable[..., Any], nondiff_argnums: tuple[int, ...]) -> None:
        self.fun = fun
        self.nondiff_argnums = nondiff_argnums
        self.forward: Callable[..., Any] | None = None
        self.backward: Callable[..., Any] | None = None
        self.__name__ = str(getattr(fun, "__name__", type(fun).__name__))
        functools.update_wrapper(self, fun)

    def defvjp(self, forward: Callable[..., Any], backward: Callable[..., Any]) -> None:
        """Set the derivative; see `treadle.custom_vjp`."""
        check_function("defvjp", forward)
        check_function("defvjp", backward)
        self.forward, self.backward = forward, backward

    def __get__(self, instance: Any, owner: type[Any] | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __repr__(self) -> str:
        return f"<custom_vjp {self.__name__}>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._called(args, kwargs)
        except BaseException as error:
            leaving(error)
            raise

    def _called(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self in _in_forward():
            return self.fun(*args, **kwargs)
        with located_errors():
            if self.forward is None or self.backward is None:
                raise GradientError(
                    f"{self.__name__} has no derivative yet: give it one with "
                    f"{self.__name__}.defvjp(forward, backward)"
                )
            positional = self._positional(args, kwargs)
            run = _Run(self, positional)
        results = rule.call(run, run.tensors)
        return run.output(results)

    def _positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """All arguments by position, defaults included."""
        try:
            bound = inspect.signature(self.fun).bind(*args, **kwargs)
        except ValueError:  # a function of C code does not tell
            return args
        bound.apply_defaults()
        if bound.kwargs:
            raise ArgumentError(
                f"{self.__name__} has arguments by keyword only ({', '.join(bound.kwargs)}); a "
                "custom_vjp takes its arguments by position"
            )
        return bound.args


_running = threading.local()


def _in_forward() -> list[CustomVjp]:
    """The functions whose forward functions run on this thread."""
    found: list[CustomVjp] = _running.__dict__.setdefault("forward", [])
    return found


class _Run:
    """One call: a `treadle.tracer.rule.Rule`."""

    def __init__(self, function: CustomVjp, args: tuple[Any, ...]) -> None:
        self.function = self.key = function
        self.label = function.__name__
        self.nondiff = {n % len(args) if args else n for n in function.nondiff_argnums}
        self.args = args
        self.leaves: list[Any] = []
        self.trees: list[tuple[int, pytree.TreeDef]] = []  # argument's number, its structure
        self.names: list[str] = []
        self.tensors: list[Tensor] = []
        self.places: list[int] = []
        for n, arg in enumerate(args):
            if n in self.nondiff:
                continue
            listed, tree = pytree.flatten_with_paths(arg, f"argument {n}")
            self.trees.append((n, tree))
            for path, leaf in listed:
                if isinstance(leaf, Tensor):
                    self.places.append(len(self.leaves))
                    self.names.append(path)
                    self.tensors.append(leaf)
                    leaf = None
                self.leaves.append(leaf)

    def _arguments(self, inputs: Sequence[Tensor]) -> list[Any]:
        leaves = list(self.leaves)
        for n, x in zip(self.places, inputs, strict=True):
            leaves[n] = x
        args, start = list(self.args), 0
        for n, tree in self.trees:
            args[n] = pytree.unflatten(tree, leaves[start : start + tree.leaf_count])
            start += tree.leaf_count
        return args

    def forward(self, inputs: Sequence[Tensor], asked: Sequence[bool]) -> rule.Made:
        args = self._arguments(inputs)
        if any(asked):
            out, residuals = self._with_residuals(args)
        else:
            out, residuals = self.function.fun(*args), None
        self.args = tuple(a if n in self.nondiff else None for n, a in enumerate(args))
        results, self.tree = tree_of(out, f"{self.label} gives")
        self.floats = [x.dtype.is_float for x in results]
        self.residuals, self.residual_tree = pytree.flatten(residuals)
        self.held = [n for n, x in enumerate(self.residuals) if isinstance(x, Tensor)]
        kept = [self.residuals[n] for n in self.held]
        for n in self.held:
            self.residuals[n] = None
        return rule.Made(results, set(), kept)

    def _with_residuals(self, args: Sequence[Any]) -> tuple[Any, Any]:
        function = self.function
        assert function.forward is not None
        running = _in_forward()
        running.append(function)
        try:
            found = function.forward(*args)
        finally:
            running.pop()
        if not isinstance(found, tuple) or len(found) != 2:
            raise GradientError(
                f"the forward function of {self.label} must return (result, residuals), found "
                f"{type(found).__name__}"
            )
        return found

    def backward(
        self, kept: Sequence[Tensor], cts: Sequence[Tensor], asked: Sequence[bool]
    ) -> Sequence[object]:
        residuals = list(self.residuals)
        for n, x in zip(self.held, kept, strict=True):
            residuals[n] = x
        given = iter(cts)
        ct = pytree.unflatten(self.tree, [next(given) if f else None for f in self.floats])
        extra = [self.args[n] for n in sorted(self.nondiff)]
        assert self.function.backward is not None
        found = self.function.backward(*extra, pytree.unflatten(self.residual_tree, residuals), ct)
        return self._gradients(found)

    def _gradients(self, found: Any) -> list[object]:
        if not isinstance(found, (tuple, list)) or len(found) != len(self.trees):
            count = f"{len(found)} gradients" if isinstance(found, (tuple, list)) else "one value"
            raise GradientError(
                f"the backward function of {self.label} gave {count}, expected a tuple of "
                f"{len(self.trees)}, one for each argument (None for what holds no tensor)"
            )
        grads: list[object] = []
        for grad, (n, tree) in zip(found, self.trees, strict=True):
            grads += rule.gradient_leaves(self.label, f"argument {n}", grad, tree)
        return [grads[n] for n in self.places]

    def output(self, results: Sequence[Tensor]) -> Any:
        """The tree that the function gave."""
        return pytree.unflatten(self.tree, results)
