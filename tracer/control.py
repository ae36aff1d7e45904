"""Loops and branches that stay loops and branches: scan, map, while_loop, cond, switch; and remat.

Eagerly they are plain Python: a loop over rows, an `if`. In a trace the function is traced once and
becomes a region of one instruction, so that compile time and code do not depend on how often it
runs. Both give the same; what is wrong with a body is the same error in both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError, GradientError, ShapeError
from treadle.ir.types import TensorType, int64
from treadle.tracer import pytree, tape
from treadle.tracer.api.arguments import array_function
from treadle.tracer.api.creation import zeros
from treadle.tracer.api.manipulation import stack
from treadle.tracer.control_trace import Branches, Loop, Made, trace_branches, trace_loop
from treadle.tracer.control_trees import (
    Carry,
    Rows,
    as_predicate,
    check_function,
    same_results,
    tree_of,
    without_numbers,
)
from treadle.tracer.create import clone
from treadle.tracer.execute import apply
from treadle.tracer.history import History
from treadle.tracer.modes import modes
from treadle.tracer.promote import constant
from treadle.tracer.region import RegionTrace
from treadle.tracer.tensor import Tensor, as_result_of
from treadle.tracer.trace import Trace

R = TypeVar("R")
_MOST = 2**63 - 1  # steps of a loop without a bound


@array_function
def scan(
    f: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any,
    length: int | None = None,
    reverse: bool = False,
    remat: bool = False,
) -> tuple[Any, Any]:
    """`carry, y = f(carry, x)` for each row x of `xs`; returns the last carry, and the ys stacked.

    `init`, `xs` and the ys are trees (tuples, lists, dicts, dataclasses) of tensors; x has the
    structure of `xs`, whose leaves have one first axis, of size T; the ys get such an axis. `xs`
    may be None where `length` says T. `reverse` runs from the last row to the first; ys stand at
    the places of their xs. The carry keeps its structure, shapes and dtypes.

    Tensors that `f` reads from outside are used by every step; those that it changes in place are
    handed from step to step. It can be differentiated, to any order, by all of these. The backward
    pass keeps what it needs of each step; with `remat` it keeps the carries only, and computes the
    rest again.

    Raises ShapeError or DTypeError for a carry that changes, naming it, and for xs that do not fit.
    """
    carry, rows = Carry("scan", f, init, 2), Rows("scan", xs, length)
    if type(reverse) is not bool or type(remat) is not bool:
        raise ArgumentError(f"reverse and remat must be bools, found {reverse!r} and {remat!r}")

    def step(carried: list[Tensor], row: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        out = f(carry.tree(carried), rows.tree(row))
        if not isinstance(out, tuple) or len(out) != 2:
            raise ArgumentError(
                f"scan expects (carry, y) from its function, found {type(out).__name__}"
                f"{carry.defined}"
            )
        return carry.checked(out[0]), rows.outputs(out[1], carry.defined)

    if modes.trace is not None or not rows.count:
        finals, ys = _scan_traced(step, carry, rows, reverse, remat)
    else:
        finals, ys = _scan_eagerly(step, carry, rows, reverse)
    return carry.tree(finals), rows.output_tree(ys)


@array_function
def map(f: Callable[[Any], Any], xs: Any) -> Any:
    """`f(x)` for each row x of `xs`, stacked: `scan` without a carry."""
    check_function("map", f, 1)

    def step(carry: tuple[()], x: Any) -> tuple[tuple[()], Any]:
        return carry, f(x)

    functools.update_wrapper(step, f, assigned=(), updated=())
    return scan(step, (), xs)[1]


Step = Callable[[list[Tensor], list[Tensor]], tuple[list[Tensor], list[Tensor]]]


def _scan_eagerly(
    step: Step, carry: Carry, rows: Rows, reverse: bool
) -> tuple[list[Tensor], list[Tensor]]:
    carried = carry.leaves
    done: list[list[Tensor]] = []
    order = range(rows.count)
    for t in reversed(order) if reverse else order:
        # Copies: a step may change what it gets, which is nobody else's in a trace.
        carried, ys = step(_copies(carried), [clone(x[t]) for x in rows.leaves])
        done.append(_copies(ys))  # a later step may change what this one has given
    if reverse:
        done.reverse()
    return _copies(carried), [stack(column) for column in zip(*done, strict=True)]


def _copies(tensors: Sequence[Tensor]) -> list[Tensor]:
    """What goes in or out of a loop or a branch has storage of its own, as in a trace."""
    return [clone(x) for x in tensors]


def _scan_traced(
    step: Step, carry: Carry, rows: Rows, reverse: bool, remat: bool
) -> tuple[list[Tensor], list[Tensor]]:
    if modes.trace is None:  # no step runs, and only a trace tells what a step would give
        return _copies(carry.leaves), [
            zeros(t.static_shape, dtype=t.dtype) for t in _traced_rows(step, carry, rows)
        ]

    def body(carried: list[Tensor], row: list[Tensor]) -> Made:
        return Made(None, *step(carried, row))

    inner = body
    if remat:
        inner = _remat_body(body)
    loop = Loop(
        "body",
        f"the body of scan{carry.defined}",
        inner,
        carry.leaves,
        rows.leaves,
        carry.names,
        rows.names,
        rows.count,
        reverse,
    )
    made = trace_loop(modes.trace, loop)
    return made.carries, made.rows


def _remat_body(body: Callable[[list[Tensor], list[Tensor]], Made]) -> Any:
    """The whole step as one remat: the backward pass has its operands only."""

    def again(carried: list[Tensor], row: list[Tensor]) -> Made:
        count = len(carried)
        outs = _remat_tensors("the body of scan", lambda: _listed(body(carried, row)))
        return Made(None, outs[:count], outs[count:])

    return again


def _listed(made: Made) -> list[Tensor]:
    return [*made.carries, *made.rows]


def _traced_rows(step: Step, carry: Carry, rows: Rows) -> list[TensorType]:
    """The types of the ys stacked, where there is no row."""
    trace = Trace("shapes", lambda x: f"outside {id(x)}")
    with trace:
        region = RegionTrace(trace, "body", "the body of scan")
        with region.entered():
            carried = [
                region.entering(c.type, n, False)
                for c, n in zip(carry.leaves, carry.names, strict=True)
            ]
            row = [
                region.entering(TensorType(x.dtype, x.type.shape[1:]), n, False)
                for x, n in zip(rows.leaves, rows.names, strict=True)
            ]
            _, ys = step(carried, row)
    return [TensorType(y.dtype, (0, *y.type.shape)) for y in ys]


# --- while -------------------------------------------------------------------------------------


@array_function
def while_loop(
    cond: Callable[[Any], Any],
    body: Callable[[Any], Any],
    init: Any,
    max_steps: int | None = None,
) -> Any:
    """`while cond(carry): carry = body(carry)`, from `init`; returns the last carry.

    The carry is a tree of tensors that keeps its structure, shapes and dtypes; `cond` gives one
    bool. The loop ends as soon as it is false, and after `max_steps` in any case. A derivative
    needs `max_steps`: memory for what the backward pass needs of each step is set aside for so
    many.

    Raises ShapeError or DTypeError for a carry that changes, or a condition that is not one bool;
    GradientError where a loop without `max_steps` is differentiated.
    """
    if max_steps is not None and (type(max_steps) is not int or max_steps < 0):
        raise ArgumentError(f"max_steps must be an int of at least 0 or None, found {max_steps!r}")
    check_function("while_loop's cond", cond, 1)
    carry = Carry("while_loop", body, init, 1)

    def goes_on(carried: list[Tensor]) -> Tensor:
        return as_predicate(cond(carry.tree(carried)), "while_loop's condition")

    def step(carried: list[Tensor]) -> list[Tensor]:
        return carry.checked(body(carry.tree(carried)))

    if modes.trace is None:
        return carry.tree(_while_eagerly(goes_on, step, carry, max_steps))

    def turn(carried: list[Tensor], _: list[Tensor]) -> Made:
        following = step(carried)
        return Made(goes_on(following), following, [])

    limit = _MOST if max_steps is None else max_steps
    first = goes_on(carry.leaves).detach()
    steps = apply("where", first, constant(limit, int64), constant(0, int64))
    loop = Loop(
        "body", f"the body of while_loop{carry.defined}", turn, carry.leaves, (), carry.names, (),
        max_steps, until=True, steps=steps,
    )  # fmt: skip
    return carry.tree(trace_loop(modes.trace, loop).carries)


def _while_eagerly(
    goes_on: Callable[[list[Tensor]], Tensor],
    step: Callable[[list[Tensor]], list[Tensor]],
    carry: Carry,
    max_steps: int | None,
) -> list[Tensor]:
    carried, done = carry.leaves, 0
    while (max_steps is None or done < max_steps) and bool(goes_on(carried)):
        carried = step(_copies(carried))
        done += 1
    found = _copies(carried)
    return found if max_steps is not None or not done else [_without_derivative(x) for x in found]


def _without_derivative(x: Tensor) -> Tensor:
    """`x`, whose derivative is refused as it is in a compiled call."""
    if not modes.grad or not x.requires_grad:
        return x

    def refuse(cts: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        raise GradientError(NO_MAX_STEPS)

    found = as_result_of(Tensor(x.cell, x.maps, History(len(x.maps)), x.type), x)
    tape.record_saved((tape.save_edge(x),), [found], refuse)
    return found


NO_MAX_STEPS = (
    "while_loop without max_steps= has no derivative: what the backward pass needs of each step "
    "has to be kept, and how many there are is not known; pass max_steps="
)


# --- branches ------------------------------------------------------------------------------------


@array_function
def cond(pred: Any, true_fn: Callable[..., R], false_fn: Callable[..., R], *operands: Any) -> R:
    """`true_fn(*operands)` if `pred`, one bool, else `false_fn(*operands)`; only that one runs.

    Both give trees of one structure, shapes and dtypes. What either changes in place of tensors
    from outside is changed if it runs. It can be differentiated, to any order; the backward pass
    computes again what it needs of the branch.

    Raises ShapeError or DTypeError where the branches' results differ.
    """
    check_function("cond's true_fn", true_fn, len(operands))
    check_function("cond's false_fn", false_fn, len(operands))
    if isinstance(pred, (bool, np.bool_)):
        return true_fn(*operands) if pred else false_fn(*operands)
    found = as_predicate(pred, "cond's condition")
    if modes.trace is None:
        taken = true_fn if bool(found) else false_fn
        return _branch_eagerly(taken, operands, f"cond's {'true' if bool(found) else 'false'}_fn")
    index = apply("cast", found.detach(), dtype=int64)
    whats = ["cond's false_fn", "cond's true_fn"]
    result: R = _branch(index, [false_fn, true_fn], operands, ["false", "true"], whats)
    return result


@array_function
def switch(index: Any, branches: Sequence[Callable[..., R]], *operands: Any) -> R:
    """`branches[index](*operands)`; an index out of range is taken as the nearest in range.

    As `cond`, with any number of branches and an integer `index` of rank 0.
    """
    if not isinstance(branches, Sequence):
        raise DTypeError(f"switch expects a list of functions, found {_named(branches)}")
    functions = list(branches)
    if not functions:
        raise ArgumentError("switch needs at least one branch")
    for n, function in enumerate(functions):
        check_function(f"switch's branch {n}", function, len(operands))
    if isinstance(index, (int, np.integer)) and not isinstance(index, bool):
        return functions[min(max(int(index), 0), len(functions) - 1)](*operands)
    if not isinstance(index, Tensor) or not index.dtype.is_integer:
        raise DTypeError(f"switch's index must be an integer, found {_named(index)}")
    if index.ndim:
        raise ShapeError(f"switch's index must be one integer, found {index.type}")
    if modes.trace is None:
        number = min(max(int(index), 0), len(functions) - 1)
        return _branch_eagerly(functions[number], operands, f"switch's branch {number}")
    numbers = range(len(functions))
    whats = [f"switch's branch {n}" for n in numbers]
    result: R = _branch(index, functions, operands, [f"branch{n}" for n in numbers], whats)
    return result


def _named(x: object) -> str:
    return str(x.type) if isinstance(x, Tensor) else f"{type(x).__name__} {x!r:.40}"


def _branch_eagerly(function: Callable[..., R], operands: Sequence[Any], what: str) -> R:
    leaves, tree = tree_of(function(*operands), f"{what} gives")
    result: R = pytree.unflatten(tree, _copies(leaves))
    return result


def _branch(
    index: Tensor,
    functions: Sequence[Callable[..., Any]],
    operands: Sequence[Any],
    names: Sequence[str],
    whats: Sequence[str],
) -> Any:
    assert modes.trace is not None
    trees: list[pytree.TreeDef] = []

    def runs(function: Callable[..., Any], what: str) -> Callable[[], list[Tensor]]:
        def run() -> list[Tensor]:
            leaves, tree = tree_of(function(*operands), f"{what} gives")
            trees.append(tree)
            return leaves

        return run

    def agree(regions: list[RegionTrace], given: list[list[Tensor]]) -> list[list[Tensor]]:
        return same_results(regions, trees, given, whats)

    run = [runs(f, w) for f, w in zip(functions, whats, strict=True)]
    outs = trace_branches(modes.trace, Branches("switch", names, whats, run, agree), index)
    return pytree.unflatten(trees[0], outs)


# --- remat ---------------------------------------------------------------------------------------


def remat(fn: Callable[..., R]) -> Callable[..., R]:
    """`fn`, of which the backward pass keeps nothing but what goes in: it computes the rest again.

    It trades memory for time: a network whose every layer is a remat keeps one activation a layer.
    Works in jitted functions, inside the bodies of loops as well; run eagerly it is `fn` itself.
    What it gives has storage of its own, also where `fn` gives back what it was given.
    """
    check_function("remat", fn)

    @functools.wraps(fn)
    def again(*args: Any, **kwargs: Any) -> R:
        return _remat(fn, args, kwargs)

    return again


def _remat(fn: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
    if modes.trace is None:
        leaves, rebuild = without_numbers(fn(*args, **kwargs))
        given: R = rebuild(_copies(leaves))
        return given
    trees: list[Callable[[Sequence[Tensor]], Any]] = []

    def run() -> list[Tensor]:
        leaves, rebuild = without_numbers(fn(*args, **kwargs))
        trees.append(rebuild)
        return leaves

    outs = _remat_tensors(f"remat of {getattr(fn, '__name__', 'a function')}", run)
    result: R = trees[0](outs)
    return result


def _remat_tensors(what: str, run: Callable[[], list[Tensor]]) -> list[Tensor]:
    assert modes.trace is not None
    branches = Branches("remat", ["again"], [what], [run], lambda regions, given: given)
    return trace_branches(modes.trace, branches, None)
