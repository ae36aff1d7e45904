"""How the reference interpreter runs loops and branches, given how a region is run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from treadle.ir.control import operands, results, scan_attrs
from treadle.ir.graph import Function, Instr
from treadle.ir.op import Array

Run = Callable[[Function, Sequence[Array]], list[Array]]


def run_control(instr: Instr, args: Sequence[Array], run: Run) -> list[Array]:
    """The results of a scan, switch or remat."""
    if instr.op.name == "scan":
        return _run_scan(instr, args, run)
    if instr.op.name == "switch":
        last = len(instr.regions) - 1
        index = min(max(int(args[0]), 0), last)
        return run(instr.regions[index], args[1:])
    return run(instr.regions[0], args)


def _run_scan(instr: Instr, args: Sequence[Array], run: Run) -> list[Array]:
    a = scan_attrs(instr)
    (region,) = instr.regions
    given = operands(a, args)
    types = [v.type for v in results(a, instr.results).arrays]
    stacks = [np.zeros(t.static_shape, t.dtype.dtype) for t in types]
    carries = list(given.carries)
    bound = a.length
    if given.steps is not None:
        most = max(int(given.steps), 0)
        bound = most if bound is None else min(most, bound)
    done = 0
    while bound is None or done < bound:
        at = bound - 1 - done if a.reverse and bound is not None else done
        rows: list[Any] = [np.asarray(x[at]) for x in given.arrays]
        made = results(a, run(region, [*given.consts, *carries, *rows]))
        carries = list(made.carries)
        for stack, row in zip(stacks, made.arrays, strict=True):
            stack[at] = row
        done += 1
        if made.first is not None and not made.first:
            break
    first = [np.array(done, np.int64)] if a.until else []
    return [*first, *carries, *stacks]
