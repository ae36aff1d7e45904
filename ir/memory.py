"""Where each Value of a KERNELS-level Function lives: the memory plan's data.

`passes/memory.py` makes the plan, `codegen/` reads it, so its types stand here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr, Value


@dataclass(frozen=True, slots=True)
class Place:
    """A buffer and a byte offset into it.

    `param` and `result` are the caller's buffers, counted as in the Function; `const` is the n-th
    constant array of the module; `workspace` is the one block that a call is given (index 0).
    A view (reshape) has the place of what it views.
    """

    kind: Literal["param", "result", "const", "workspace"]
    index: int
    offset: int = 0

    def __str__(self) -> str:
        if self.kind == "workspace":
            return f"workspace+{self.offset}"
        return f"{self.kind} {self.index}" + (f"+{self.offset}" if self.offset else "")


@dataclass(frozen=True, slots=True)
class Copy:
    """After the last instruction, copy `value` to the buffer of result `result`: a result that is
    a parameter, a constant or another result's buffer must not share memory with it."""

    value: Value
    result: int


@dataclass(frozen=True, slots=True, eq=False)
class ControlMemory:
    """The memory of a loop or a branch: the plan of each region, whose workspace begins at `offset`
    of the program's, and how many bytes all of it takes there.

    Of a loop: `spare`, for each carry the second buffer's distance from `offset`, None where it
    needs none; `stacked`, for each carry the number of the array of results whose rows hold it,
    None where there is none; `flag`, the distance of the bool that says whether to go on.
    """

    plans: tuple[MemoryPlan, ...]
    offset: int
    size: int
    spare: tuple[int | None, ...] = ()
    stacked: tuple[int | None, ...] = ()
    flag: int = 0

    @property
    def carries(self) -> str:
        """How many carries of a loop live where."""
        stacked = sum(row is not None for row in self.stacked)
        turning = sum(spare is not None for spare in self.spare)
        in_place = len(self.spare) - stacked - turning
        text = f"{in_place} in place, {turning} in two buffers"
        return f"{text}, {stacked} in rows" if stacked else text


@dataclass(frozen=True, slots=True, eq=False)
class MemoryPlan:
    """The plan of one Function.

    `places`: every Value that has memory (constants of rank 0 are folded into kernels).
    `workspace`: bytes of the block for intermediates; every offset is 64-byte aligned.
    `in_place`: (param, result) pairs that share the param's buffer: state updated in place.
    `fault_barrier`: after this instruction a run whose fault record is set returns at once; no
    instruction up to it writes a buffer that outlives the call other than fresh results. -1: no
    instruction can fault.
    `peak`: bytes live at the worst instruction, parameters and results included.
    `inner`: the memory of the regions of loops and branches.
    """

    places: Mapping[Value, Place]
    workspace: int
    in_place: tuple[tuple[int, int], ...] = ()
    copies: tuple[Copy, ...] = ()
    fault_barrier: int = -1
    peak: int = 0
    inner: Mapping[Instr, ControlMemory] = field(default_factory=dict)
