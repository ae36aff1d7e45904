"""Whether a value is stored for a later kernel or computed there again: the cost model.

    %1, %2 = contract(..) { h = add(product, b); return h, mul(h, h) }      mul: 10,240 elements
    %3 = contract(.., %1, %2) { .. }

`%2` costs writing it and reading it in each consumer. Computed again it costs its instructions,
once for each element and consumer, and reading `%1` where a consumer does not read that anyway.
Both are counted in bytes of traffic (`OPERATION` says how many an instruction is worth), so that
the decision depends on the program alone, not on the machine. Memory decides as well: what is
computed from must not live longer than before by more bytes than the value had.

Only cheap instructions may be computed again (`fuse_regions.is_cheap`): the same instructions over
the same bits give the same bits. What is decided is noted; `treadle dump` shows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Instr, Loc, Value
from treadle.ir.types import TensorType
from treadle.passes.manager import PassContext

OPERATION: Final = 0.125
"""What an instruction costs, in bytes of traffic for each byte of its result. Measured with sums of
chains of up to 17 instructions and of up to 4 arrays; see docs/decisions/0021."""

ROWS: Final = 16
"""The scalars of rows of at least this many elements may live longer beside a value's operand: a
normalised row is had again from the row, its mean and its deviation."""

MIN_ELEMENTS: Final = 1024
"""Smaller values stay in the nearest cache; what is decided about them is not worth a note."""


@dataclass(frozen=True, slots=True)
class Recompute:
    """What computing `value` again would save and cost.

    `makers`: the instructions that each of `consumers` kernels would run. Bytes: `saved`, which are
    neither written nor read; `paid`, which are read in their place; `kept`, which stay in memory
    longer than they would.
    """

    value: Value
    makers: tuple[Instr, ...]
    consumers: int
    saved: int
    paid: int
    kept: int

    @property
    def operations(self) -> int:
        """Instructions that each element takes in each consumer."""
        return len(self._computing)

    @property
    def _computing(self) -> list[Instr]:
        return [i for i in self.makers if i.op.name != "broadcast_to"]

    @property
    def effort(self) -> float:
        """The instructions' cost in bytes of traffic."""
        made = sum(bytes_of(i.results[0].type) for i in self._computing)
        return OPERATION * made * self.consumers

    @property
    def against(self) -> str | None:
        """Why the value is better stored; None where it is better computed again."""
        size = bytes_of(self.value.type)
        if self.kept > size + size // ROWS:
            return f"{size_text(self.kept)} would stay in memory in place of {self._size}"
        if self.paid + self.effort > self.saved:
            return (
                f"{size_text(self.saved)} of traffic cost less than reading "
                f"{size_text(self.paid)} and {_counted(self.operations)} each"
            )
        return None

    @property
    def _size(self) -> str:
        return size_text(bytes_of(self.value.type))

    def note(self, ctx: PassContext) -> None:
        """Leave the decision with the pass."""
        why = self.against
        if why is not None:
            note_stored(ctx, self.value, why)
        elif elements(self.value.type) >= MIN_ELEMENTS:
            names = ", ".join(i.op.name for i in reversed(self.makers))
            less = size_text(self.saved - self.paid)
            ctx.fired(
                "recompute",
                _loc(self.value),
                f"{names} of {elements(self.value.type):,} elements: "
                f"{less} less traffic for {_counted(self.operations)} each",
            )


def note_stored(ctx: PassContext, value: Value, why: str) -> None:
    """Note that `value` is stored for later kernels, and why."""
    maker = value.producer
    if maker is not None and elements(value.type) >= MIN_ELEMENTS:
        text = f"{maker.op.name} of {elements(value.type):,} elements: {why}"
        ctx.reason("stored", maker.loc, text, maker.op.name)


def elements(type: TensorType) -> int:
    """The number of elements; a symbolic size counts as a small one."""
    count = 1
    for size in type.shape:
        count *= size if isinstance(size, int) else 32
    return count


def bytes_of(type: TensorType) -> int:
    """The bytes of a value, its symbolic sizes counted as small ones."""
    return elements(type) * type.dtype.itemsize


def size_text(count: int) -> str:
    """`count` bytes for a reader: 1.6 MB, 20.5 kB, 12 B."""
    for unit, size in (("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def total(values: Sequence[Value]) -> int:
    """The bytes of several values."""
    return sum(bytes_of(v.type) for v in values)


def _loc(value: Value) -> Loc | None:
    return value.producer.loc if value.producer is not None else None


def _counted(operations: int) -> str:
    return f"{operations} operation" + ("s" if operations != 1 else "")
