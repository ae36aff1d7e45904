"""How a call hands over its buffers.

The entry is `i64 entry(ptr bufs, ptr fault)`: `bufs` points to an array of pointers, parameters,
then results, then the module's constants, then the workspace, then the address of the pool's
`treadle_parallel` (null: everything on the caller's thread) and, as an integer, the number of
threads; code that is compiled for a profile takes a table of time stamps behind them (`stamps`).

The result of an in-place pair has its parameter's pointer. Data are row-major and aligned to their
element; only the workspace is aligned to 64 bytes. The entry returns 0, or the number of a fault
site plus one; it puts the same into the first word of `fault` when it is done, and the offending
value into the second.

The workspace is the memory plan's block, then the kernels' shared scratch, then their scratch for
each thread, of as many bytes as the module says. So neither addresses nor the number of threads are
in the code.

A kernel is `void kernel(ptr ctx, i64 tile, i64 slot)`; `ctx` points to an array of pointers: the
scratch that threads share, the first one's own scratch, the fault record, the pool, the number of
threads, and then the kernel's operands and results (of a `fused_table`: one table).
"""

from __future__ import annotations

from dataclasses import field

from treadle.codegen.llvm import I64, PTR, FunctionWriter, Module, Type, Val
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function
from treadle.ir.memory import MemoryPlan, Place

ENTRY = "treadle_entry"
ENTRY_PARAMS: tuple[tuple[Type, str], ...] = ((PTR, "bufs"), (PTR, "fault"))
CONTEXT_FIELDS = 5  # before the operands
KERNEL_PARAMS: tuple[tuple[Type, str], ...] = ((PTR, "ctx"), (I64, "tile"), (I64, "slot"))


def entry_function(module: Module) -> FunctionWriter:
    """The function that a call enters."""
    return module.function(ENTRY, I64, ENTRY_PARAMS)


@dataclass(frozen=True, slots=True)
class Context:
    """The fields of a kernel's `ctx`, each loaded where it is asked for."""

    w: FunctionWriter
    base: Val

    def address(self, field: int) -> Val:
        return self.w.gep(self.base, field, PTR)

    def _load(self, field: int, type: Type = PTR) -> Val:
        return self.w.load(type, self.address(field), align=8)

    def shared(self) -> Val:
        return self._load(0)

    def scratch(self) -> Val:
        return self._load(1)

    def fault(self) -> Val:
        return self._load(2)

    def pool(self) -> tuple[Val, Val]:
        """The address of the pool's `parallel`, or null, and the number of threads."""
        return self._load(3), self._load(4, I64)

    def operand(self, number: int) -> Val:
        return self._load(CONTEXT_FIELDS + number)


@dataclass(slots=True)
class Buffers:
    """Addresses of places inside the entry, each pointer loaded once."""

    w: FunctionWriter
    fn: Function
    memory: MemoryPlan
    constants: int
    _loaded: dict[int, Val] = field(default_factory=dict)

    def slot(self, place: Place) -> int:
        """The place's position in `bufs`."""
        params, results = len(self.fn.params), len(self.fn.results)
        first = {
            "param": 0,
            "result": params,
            "const": params + results,
            "workspace": params + results + self.constants,
        }
        return first[place.kind] + place.index

    def address(self, place: Place) -> Val:
        """Where `place` begins."""
        base = self.pointer(self.slot(place))
        return self.w.gep(base, place.offset) if place.offset else base

    def pointer(self, slot: int) -> Val:
        """The pointer at position `slot` of `bufs`."""
        if slot not in self._loaded:
            bufs = self.w.args[0]
            self._loaded[slot] = self.w.load(PTR, self.w.gep(bufs, slot, PTR), align=8)
        return self._loaded[slot]

    def workspace(self, offset: int) -> Val:
        """Address in the workspace block."""
        return self.address(Place("workspace", 0, offset))

    def pool(self) -> tuple[Val, Val]:
        """The address of the pool's `parallel`, or null; the number of threads, as a pointer."""
        last = self.slot(Place("workspace", 0))
        return self.pointer(last + 1), self.pointer(last + 2)

    def stamps(self) -> Val:
        """The address of the table of time stamps, of code compiled for a profile."""
        return self.pointer(self.slot(Place("workspace", 0)) + 3)
