"""The reference interpreter: runs a Function op by op with the NumPy references.

It is slow and obvious, and the truth that passes and compiled code are held to. A Function of any
level runs, regions included; only `gradient` does not, which is an instruction for the autodiff
pass. Symbolic dimensions take their sizes from the arrays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from treadle.ir.errors import DTypeError, GradientError, ShapeError, TreadleError
from treadle.ir.graph import Function, Instr, Loc, Value
from treadle.ir.interpreter_control import run_control
from treadle.ir.op import Array, Attrs, Trait, attr_items
from treadle.ir.types import Dim, Size, TensorType, type_of_array

Sizes = dict[str, int]


def interpret(fn: Function, arrays: Sequence[Array]) -> list[Array]:
    """The results of `fn`, one array each, for one array a parameter, in the Function's order.

    Results share no memory with the arguments nor with each other. Raises ShapeError or DTypeError
    where an array does not fit its parameter, GradientError for a `gradient` instruction,
    IndexFault where a checked index is out of range; errors of an instruction end with its line.
    """
    return _run(fn, _checked(fn, arrays))


def _run(fn: Function, arrays: Sequence[Array]) -> list[Array]:
    sizes = _bind(fn, arrays)
    held: dict[Value, Array] = dict(zip(fn.inputs, arrays, strict=True))
    kept = set(fn.outputs)
    dying = _last_uses(fn)
    for instr in fn.instrs:
        outs = _step(instr, [held[a] for a in instr.args], sizes)
        held.update(zip(instr.results, outs, strict=True))
        for value in dying.get(instr, ()):
            if value not in kept:
                del held[value]
    return _unshared([held[value] for value in fn.outputs], arrays)


def _last_uses(fn: Function) -> dict[Instr, list[Value]]:
    """Which values each instruction is the last to touch (one that nothing uses: its maker)."""
    last: dict[Value, Instr] = {}
    for instr in fn.instrs:
        last.update(dict.fromkeys((*instr.results, *instr.args), instr))
    dying: dict[Instr, list[Value]] = {}
    for value, instr in last.items():
        dying.setdefault(instr, []).append(value)
    return dying


def _unshared(results: Sequence[Array], arrays: Sequence[Array]) -> list[Array]:
    taken = [*arrays]
    fresh = []
    for result in results:
        shared = any(np.may_share_memory(result, other) for other in taken)
        fresh.append(result.copy() if shared else result)
        taken.append(fresh[-1])
    return fresh


# --- arguments -------------------------------------------------------------------------------


def _checked(fn: Function, arrays: Sequence[Array]) -> list[Array]:
    """The arguments as arrays of the parameters' dtypes and ranks."""
    if len(arrays) != len(fn.params):
        paths = ", ".join(p.path for p in fn.params)
        raise ShapeError(f"@{fn.name} takes {len(fn.params)} arrays ({paths}), found {len(arrays)}")
    checked = [np.asarray(a) for a in arrays]
    for param, array in zip(fn.params, checked, strict=True):
        expected, found = param.value.type, type_of_array(array)
        if found.dtype != expected.dtype:
            raise DTypeError(f"parameter {param.path!r} is {expected}, found an array {found}")
        if found.rank != expected.rank:
            raise ShapeError(f"parameter {param.path!r} is {expected}, found an array {found}")
    return checked


def _bind(fn: Function, arrays: Sequence[Array]) -> Sizes:
    """The size of each name in the parameters' symbolic dimensions."""
    pairs = [
        (param, dim, size)
        for param, array in zip(fn.params, arrays, strict=True)
        for dim, size in zip(param.value.type.shape, array.shape, strict=True)
    ]
    sizes: Sizes = {}
    for _, dim, size in pairs:
        if isinstance(dim, Dim) and dim.terms == (((str(dim),), 1),):
            sizes.setdefault(str(dim), size)
    for param, dim, size in pairs:
        if isinstance(dim, Dim) and not dim.names <= sizes.keys():
            raise ShapeError(
                f"the size of {dim} of parameter {param.path!r} ({param.value.type}) is not told "
                "by any parameter that has it as a dimension of its own"
            )
        if _size(dim, sizes) != size:
            known = ", ".join(f"{n}={s}" for n, s in sizes.items())
            raise ShapeError(
                f"parameter {param.path!r} is {param.value.type}, found a size {size} where "
                f"{dim} is expected" + (f" (with {known})" if known else "")
            )
    return sizes


def _size(size: Size, sizes: Mapping[str, int]) -> int:
    return size.evaluate(dict(sizes)) if isinstance(size, Dim) else size


# --- instructions ----------------------------------------------------------------------------


def _step(instr: Instr, args: Sequence[Array], sizes: Sizes) -> Sequence[Array]:
    try:
        outs = _results(instr, args, sizes)
    except TreadleError as error:
        if instr.loc is not None and not error.located:
            raise _with_line(error, instr.loc) from error
        raise
    for out, result in zip(outs, instr.results, strict=True):
        shape = tuple(_size(s, sizes) for s in result.type.shape)
        expected, found = TensorType(result.type.dtype, shape), type_of_array(out)
        if found != expected:
            raise ShapeError(
                f"{instr.op.name} computed {found}, the instruction says {expected}: "
                "its type rule and its reference disagree, or a pass gave it a wrong type"
            )
    return outs


def _with_line(error: TreadleError, loc: Loc) -> TreadleError:
    placed = type(error)(f"{error} (at {loc})")
    placed.located = True
    return placed


def _results(instr: Instr, args: Sequence[Array], sizes: Sizes) -> Sequence[Array]:
    if instr.op.name == "gradient":
        raise GradientError(
            "a gradient instruction cannot be interpreted; run the autodiff pass first"
        )
    if instr.op.name == "contract" and instr.regions:
        return _finished(instr, args)
    if instr.op.has(Trait.CONTROL):
        return run_control(instr, args, _run)
    if not instr.op.has(Trait.REGION):
        return instr.op.run_ref(_bound(instr.attrs, sizes) if sizes else instr.attrs, args)
    (region,) = instr.regions
    if instr.op.name == "fused_table":
        return _run_table(region, args)
    return _run(region, args)


def _finished(instr: Instr, args: Sequence[Array]) -> Sequence[Array]:
    """A product with its epilogue, and the tail of that where it has one."""
    product = instr.op.run_ref(instr.attrs, args[:2])
    behind = 1 + len(instr.regions[0].params)
    done = _run(instr.regions[0], [*product, *args[2:behind]])
    if len(instr.regions) == 1:
        return done
    return [*done, *_run(instr.regions[1], [*done, *args[behind:]])]


def _run_table(region: Function, args: Sequence[Array]) -> list[Array]:
    """The region once for each instance; the flat length is bound anew each time."""
    takes = len(region.params)
    results: list[Array] = []
    for first in range(0, len(args), takes):
        results += _run(region, args[first : first + takes])
    return results


def _bound(attrs: Attrs, sizes: Sizes) -> Attrs:
    """The attributes with numbers for symbolic sizes."""
    items = attr_items(attrs)
    return type(attrs)(**{name: _bound_value(value, sizes) for name, value in items})


def _bound_value(value: Any, sizes: Sizes) -> Any:
    if isinstance(value, Dim):
        return value.evaluate(sizes)
    if isinstance(value, tuple):
        return tuple(_bound_value(item, sizes) for item in value)
    return value
