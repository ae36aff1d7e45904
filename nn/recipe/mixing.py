"""Samples that are mixed up: by a reshape, or by a layer that takes another axis for the batch.

- The gradient of one sample's result with respect to the inputs of the others is 0.
- Where it is not, the program is interpreted twice, with one sample exchanged: the first value in
  which the change is no longer confined to that sample's place is the culprit.
- Reshapes in the user's code whose results have their inputs' axes in another order are named, be
  it samples that they mix or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.cut import cut
from treadle.ir.errors import TreadleError
from treadle.ir.graph import Function, Instr, Loc, Value
from treadle.ir.interpreter import interpret
from treadle.ir.types import shape_text
from treadle.nn.module import Module
from treadle.nn.recipe.probe import Look, exchanged
from treadle.nn.recipe.report import Finding
from treadle.nn.recipe.reshapes import reordered
from treadle.nn.recipe.samples import Samples
from treadle.nn.recipe.tracing import layer_name

Array = npt.NDArray[Any]

_NOISE = 1e-6  # of a sample's own gradient
_MOST_ELEMENTS = 50_000_000  # that are kept to find a culprit


def mixed(model: Module, found: Look) -> Iterator[Finding]:
    """Samples whose results depend on other samples' inputs, and what makes them."""
    others = _others(found)
    if not others:
        return
    culprit = _culprit(found)
    spread = ", ".join(map(str, others[:6])) + (", .." if len(others) > 6 else "")
    said = f"the result of sample {found.middle} of {len(found.samples)} depends on the inputs of "
    said += f"samples {spread}"
    if culprit is None:
        yield Finding("mixed-samples", "error", f"{said}; what mixes them was not found")
        return
    layer = layer_name(model, found.trace.made_in.get(culprit, ""))
    line = found.trace.line_of(culprit)
    if culprit.op.name == "batch_norm":
        yield Finding(
            "mixed-samples", "warning",
            f"{said}: this batch norm has no running statistics and takes the batch's in "
            "evaluation mode, too",
            layer, line, "track_running_stats=True",
        )  # fmt: skip
        return
    yield Finding(
        "mixed-samples", "error", f"{said}; `{culprit.op.name}` mixes them: {_types(culprit)}",
        layer, line, _advice(culprit, found, _batch_first(model, found, culprit)),
    )  # fmt: skip


def _others(found: Look) -> list[int]:
    """The other samples that the middle one's result depends on."""
    reaches = [r for name, r in found.given.items() if name.startswith("reach")]
    own = found.middle
    seen: set[int] = set()
    for reach in reaches:
        limit = _NOISE * float(reach[own])
        seen |= {int(n) for n in np.flatnonzero(reach > limit) if n != own}
    known = bool(reaches) and any(r[own] > 0 for r in reaches)
    if seen or (known and not found.others):
        return sorted(seen)
    return _others_by_exchange(found)


def _others_by_exchange(found: Look) -> list[int]:
    """As `_others`, without derivatives: which results change where one sample is exchanged. The
    other way round, but as good."""
    after = found.program.run(exchanged(found).named())
    changed: set[int] = set()
    for name in found.outputs:
        rows = _differs(found.given[name], after[name]).reshape(len(found.samples), -1).any(axis=1)
        changed |= {int(n) for n in np.flatnonzero(rows)}
    for name in found.others:  # whose places are whose cannot be told where they are mixed
        if not keeps_apart(
            _differs(found.given[name], after[name]), len(found.samples), found.middle
        ):
            changed |= set(range(len(found.samples)))
    return sorted(changed - {found.middle})


def _differs(a: Array, b: Array) -> Array:
    """Where two arrays differ; NaN equals NaN."""
    found: Array = a != b
    return found & ~(np.isnan(a) & np.isnan(b)) if a.dtype.kind == "f" else found


# --- the culprit -------------------------------------------------------------------------------


def _culprit(found: Look) -> Instr | None:
    """The first instruction whose operands keep samples apart and whose result does not."""
    fn = found.program.function
    needed = [r.value for r in fn.results if r.path in (*found.outputs, *found.others)]
    values = _on_the_way(fn, needed)
    if sum(int(np.prod(v.type.static_shape)) for v in values) > _MOST_ELEMENTS:
        return None
    part = cut(fn, [(str(n), v) for n, v in enumerate(values)])
    before, after = _interpreted(found, part, found.samples), None
    if before is not None:
        after = _interpreted(found, part, exchanged(found))
    if before is None or after is None:
        return None
    apart = {p.value: True for p in fn.params}
    count, own = len(found.samples), found.middle
    for value, x, y in zip(values, before, after, strict=True):
        made = value.producer
        apart[value] = keeps_apart(_differs(x, y), count, own)
        if made is not None and not apart[value] and all(apart.get(a, True) for a in made.args):
            return made
    return None


def _on_the_way(fn: Function, wanted: Sequence[Value]) -> list[Value]:
    """All values that `wanted` needs, in the program's order."""
    needed, found = set(wanted), []
    for instr in reversed(fn.instrs):
        if not needed.isdisjoint(instr.results):
            needed.update(instr.args)
            found += list(reversed(instr.results))
    return found[::-1]


def _interpreted(found: Look, part: Function, samples: Samples) -> list[Array] | None:
    arrays = samples.named()
    state = found.program.state
    given = [arrays[p.path] if p.path in arrays else state[p.value] for p in part.params]
    try:
        return interpret(part, given)
    except TreadleError:
        return None  # an instruction that only compiled code can run


def keeps_apart(changed: Array, count: int, own: int) -> bool:
    """Whether the elements that changed are all in the place of sample `own` of `count`: along some
    axis their number, by some divisor, is that sample's."""
    if not changed.any():
        return True
    for axis, size in enumerate(changed.shape):
        if size % count:
            continue
        rest = tuple(a for a in range(changed.ndim) if a != axis)
        places = np.flatnonzero(changed.any(axis=rest))
        inner = size // count
        for step in range(1, inner + 1):
            if inner % step == 0 and bool(((places // step) % count == own).all()):
                return True
    return False


def _types(instr: Instr) -> str:
    ins = [shape_text(a.type.shape) for a in instr.args]
    return f"{' and '.join(ins[:2])} to {shape_text(instr.results[0].type.shape)}"


def _batch_first(model: Module, found: Look, culprit: Instr) -> bool:
    """Whether the layer of `culprit`, or one around it, takes the batch for its second axis."""
    path = found.trace.made_in.get(culprit, "")
    layers = dict(model.named_modules())
    around = [path.rsplit(".", n)[0] for n in range(path.count(".") + 1)]
    return any(getattr(layers.get(p), "batch_first", None) is False for p in around)


def _advice(culprit: Instr, found: Look, second: bool) -> str:
    if second:
        return "the layer takes [T, N, F]: batch_first=True for [N, T, F], or exchange the axes"
    if culprit.op.name == "reshape":
        x, y = culprit.args[0].type.static_shape, culprit.results[0].type.static_shape
        meant = reordered(x, y)
        if meant is None:
            return _unjoined(x, y, len(found.samples)) or "split the axis as it was joined"
        return f"a permute is meant: {meant.code}"
    if culprit.op.name in ("scan", "while_loop"):
        return "the steps go along the axis of the samples: exchange the axes before"
    return "keep the axis of the samples apart, or exchange axes before"


def _unjoined(x: tuple[int, ...], y: tuple[int, ...], count: int) -> str | None:
    """What was meant where the axis of samples and others, joined before, was split in another
    order: the sizes in the order in which they were joined, then a permute."""
    at = next((n for n, (a, b) in enumerate(zip(x, y, strict=False)) if a != b), None)
    if at is None or len(y) != len(x) + 1 or count not in y[at : at + 2]:
        return None
    split = (*y[:at], y[at + 1], y[at], *y[at + 2 :])
    axes = (*range(at), at + 1, at, *range(at + 2, len(y)))
    return f"a permute is meant: x.reshape({shape_text(split)}).permute_dims({shape_text(axes)})"


# --- reshapes that the user wrote ----------------------------------------------------------------


def reshapes(model: Module, found: Look) -> Iterator[Finding]:
    """Reshapes in the user's code whose results have their inputs' axes in another order."""
    told: set[tuple[Loc | None, str]] = set()
    for instr in found.trace.reshapes:
        x, y = instr.args[0].type.static_shape, instr.results[0].type.static_shape
        meant = reordered(x, y)
        layer = layer_name(model, found.trace.made_in.get(instr, ""))
        if meant is None or (instr.loc, layer) in told:
            continue
        told.add((instr.loc, layer))
        yield Finding(
            "reshape", "warning",
            f"a reshape from {shape_text(x)} to {shape_text(y)}: the sizes are the input's in "
            "another order, the elements are not",
            layer, found.trace.line_of(instr), f"a permute is meant: {meant.code}",
        )  # fmt: skip
