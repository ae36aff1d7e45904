"""Values of an epilogue that the epilogues of later contractions compute again.

    %1, %2 = contract(%x, %w) { h = product + b; return h, h * h }
    %3 = contract(%y, %v, %1, %2) { .. sub(%1, %2) .. }

becomes

    %1 = contract(%x, %w) { product + b }
    %3 = contract(%y, %v, %1) { .. sub(%1, %1 * %1) .. }

where `treadle.passes.recompute` finds that cheaper. What such a value is computed from must be
stored anyway, or be read by all consumers anyway: nothing is computed for this alone, and new state
is never written under a reader that was not there before.
"""

from __future__ import annotations

from collections.abc import Sequence, Set as AbstractSet
from typing import Final

from treadle.ir.graph import Instr, Value
from treadle.ir.op import Trait
from treadle.ir.regions import is_epilogue_op
from treadle.passes.fuse_build import is_scalar_const
from treadle.passes.fuse_regions import MAX_CHEAP, is_cheap
from treadle.passes.fuse_shapes import is_fusible
from treadle.passes.recompute import Recompute, bytes_of, total

MAX_SEEN: Final = 64  # instructions looked at for the reason


def weigh(
    value: Value,
    stored: AbstractSet[Value],
    reads: Sequence[AbstractSet[Value]],
    brief: bool = False,
) -> Recompute | str:
    """What it costs to compute `value` again in consumers, or why that cannot be done.

    `stored`: what the epilogue that makes it stores anyway; `reads`: what each consumer reads.
    `brief`: the first reason will do, else it is the one that says most.
    """
    makers: dict[Instr, None] = {}
    leaves: dict[Value, None] = {}
    unfit: list[tuple[int, str]] = []
    work = [value]
    while work and len(makers) < (MAX_CHEAP + 1 if brief else MAX_SEEN):
        here = work.pop()
        if is_scalar_const(here) or here in leaves:
            continue
        if here is not value and (here in stored or all(here in r for r in reads)):
            leaves[here] = None
            continue
        why = _unfit(here, value)
        if why is not None:
            unfit.append(why)
            if brief:
                break
            continue
        maker = here.producer
        assert maker is not None, "a parameter is not fit"
        makers[maker] = None
        work.extend(maker.args)
    if len(makers) > MAX_CHEAP:
        unfit.append((1, f"it takes more than {MAX_CHEAP} operations"))
    if unfit:
        return min(unfit)[1]
    extra = [[v for v in leaves if v not in r] for r in reads]
    late = dict.fromkeys(v for values in extra for v in values)
    size = bytes_of(value.type)
    return Recompute(
        value,
        tuple(makers),
        consumers=len(reads),
        saved=size * (1 + len(reads)),
        paid=sum(total(values) for values in extra),
        kept=total(list(late)),
    )


def _unfit(here: Value, value: Value) -> tuple[int, str] | None:
    """Why `here`, which nobody has in memory for sure, cannot be computed in a consumer, behind a
    rank: what says most about the value comes first."""
    maker = here.producer
    if maker is None:
        return 3, "it is computed from a parameter that its readers do not read"
    if maker.op.name == "contract":
        return 2, "it is computed from a product that is not stored"
    if maker.op.has(Trait.EXPENSIVE):
        return 0, f"{maker.op.name} is expensive"
    if not is_fusible(maker) or not is_epilogue_op(maker) or not is_cheap(maker):
        return 4, f"it is computed from {maker.op.name}, which no epilogue computes again"
    if here.type.shape != value.type.shape:
        return 5, f"it is computed from {maker.op.name}, which is broadcast"
    return None
