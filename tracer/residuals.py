"""Splitting a function that computes its derivative too: forward with residuals, and backward.

    joint     func @f(x, w, ct) { ...; return y, grad_x, grad_w }       without `gradient`
    forward   func @f(x, w)     { ...; return y, residual 0, ... }
    backward  func @f_backward(inputs that it reads, residuals, ct) { ...; return grad_x, grad_w }

What the forward results need is computed by the forward function. Of that, what the backward
results need as well is saved as a residual, except constants, movements of saved values and what
is made from scalars (a mask that was drawn), which cost less to compute again than to store and
load.
"""

from __future__ import annotations

from collections.abc import Iterable

from treadle.ir.builder import Builder
from treadle.ir.control import instr_must_run
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Result, Value
from treadle.ir.op import Trait, can_fail
from treadle.ir.scalar import Numbered, Scalar


@dataclass(frozen=True, slots=True)
class Split:
    """`forward` has the results of the function, then the residuals. `backward` takes the inputs
    numbered `inputs`, then the residuals, then the cotangents."""

    forward: Function
    backward: Function
    inputs: tuple[int, ...]


def split(joint: Function, params: int, results: int) -> Split:
    """`joint` has `params` parameters, then one a cotangent; `results` results, then gradients."""
    forward_results = joint.results[:results]
    gradients = joint.results[results:]
    after = _dependent(joint, [p.value for p in joint.params[params:]])
    effects = [i for i in joint.instrs if instr_must_run(i)]
    ahead = _needed(
        joint, (r.value for r in forward_results), [i for i in effects if i not in after]
    )
    behind = _needed(joint, (r.value for r in gradients), [i for i in effects if i in after])
    again = _cheap(joint, ahead & behind)
    inputs = {p.value: n for n, p in enumerate(joint.params[:params])}
    saved: dict[Value, None] = {}
    read: dict[Value, None] = {}
    body = [i for i in joint.instrs if i in behind and (i not in ahead or i in again)]
    made = {value for i in body for value in i.results}
    cotangents = {p.value for p in joint.params[params:]}
    for value in (*(a for i in body for a in i.args), *(r.value for r in gradients)):
        if value in made or value in cotangents:
            continue
        (read if value in inputs else saved)[value] = None
    forward = _forward(joint, params, [i for i in joint.instrs if i in ahead], saved, results)
    backward = _backward(joint, params, body, list(read), list(saved), gradients)
    return Split(forward, backward, tuple(inputs[v] for v in read))


def _needed(fn: Function, roots: Iterable[Value], always: Iterable[Instr]) -> set[Instr]:
    """The instructions that `roots` depend on, and `always` with theirs."""
    found = set(always)
    stack = [*roots, *(a for i in found for a in i.args)]
    while stack:
        made = stack.pop().producer
        if made is not None and made not in found:
            found.add(made)
            stack.extend(made.args)
    return found


def _dependent(fn: Function, values: Iterable[Value]) -> set[Instr]:
    """The instructions that depend on `values`."""
    found: set[Instr] = set()
    reached = set(values)
    for instr in fn.instrs:
        if not reached.isdisjoint(instr.args):
            found.add(instr)
            reached.update(instr.results)
    return found


def _cheap(fn: Function, shared: set[Instr]) -> set[Instr]:
    """Of the instructions that both need, those that the backward function repeats."""
    made = _made_from_scalars(fn, shared)
    return {
        i
        for i in shared
        if (i.op.has(Trait.MOVEMENT) or not i.args or i in made) and not i.op.has(Trait.EFFECT)
    }


def _made_from_scalars(fn: Function, shared: set[Instr]) -> set[Instr]:
    """Instructions with large results whose operands are scalars or made from them likewise."""
    found: set[Instr] = set()
    for instr in fn.instrs:
        if instr not in shared or instr.op.has(Trait.EXPENSIVE) or can_fail(instr.op, instr.attrs):
            continue
        simple = isinstance(instr.op.lower, (Scalar, Numbered)) and instr.result.type.rank > 0
        if simple and all(a.type.rank == 0 or a.producer in found for a in instr.args):
            found.add(instr)
    return found


def _forward(
    joint: Function, params: int, body: list[Instr], saved: Iterable[Value], results: int
) -> Function:
    extra = [Result(value, f"residual {n}") for n, value in enumerate(saved)]
    kept = (*joint.results[:results], *extra)
    return Function(joint.name, joint.params[:params], tuple(body), kept)


def _backward(
    joint: Function,
    params: int,
    body: list[Instr],
    read: list[Value],
    saved: list[Value],
    gradients: tuple[Result, ...],
) -> Function:
    """New parameters stand for values of the forward function: an instruction's result cannot be
    a parameter."""
    builder = Builder(f"{joint.name}_backward")
    names = {p.value: p.path for p in joint.params}
    known: dict[Value, Value] = {v: builder.param(v.type, names[v]) for v in read}
    known |= {v: builder.param(v.type, f"residual {n}") for n, v in enumerate(saved)}
    for param in joint.params[params:]:
        builder.keep_param(param)
    for instr in body:
        builder.loc = instr.loc
        made = builder.rebuild(instr, [known.get(a, a) for a in instr.args])
        known.update(zip(instr.results, made, strict=True))
    return builder.finish([Result(known.get(r.value, r.value), r.path) for r in gradients])
