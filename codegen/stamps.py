"""Time stamps around the kernels of a step: what a profile is made of.

Only a module compiled with the option `profile` has any of this. `bufs` then ends with one more
pointer, to a table of events of three words: clock before, clock after, number of the thread. The
first event is the whole step; then come, kernel by kernel, the kernel as the caller's thread sees
it and, where it has more than one tile, each of its tiles.

The clock is the CPU's: cycles of the time stamp counter on x86, the system counter on AArch64 (its
cycle counter traps in user code). Reading it costs some 10 ns. How fast it goes, `CLOCK` tells.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from treadle.codegen.abi import KERNEL_PARAMS, Context
from treadle.codegen.emission import Emission
from treadle.codegen.llvm import I64, PTR, VOID, FunctionWriter, Type, Val
from treadle.codegen.plan import KernelPlan, Plan
from treadle.codegen.target import Target

CLOCK: Final = "treadle_clock"  # i64 treadle_clock(): what the clock shows
EVENT_WORDS: Final = 3


def first_events(plan: Plan) -> tuple[int, ...]:
    """The number of each kernel's first event, and that of all events."""
    numbers = [1]
    for kernel in plan.kernels:
        numbers.append(numbers[-1] + 1 + (kernel.tiles if kernel.tiles > 1 else 0))
    return tuple(numbers)


class Stamps:
    """Writes the stamps of one module's entry. `field`: the place in a kernel's context that holds
    the table's address, behind all operands."""

    def __init__(
        self, state: Emission, w: FunctionWriter, plan: Plan, table: Val, ctx: Context, field: int
    ) -> None:
        self.state, self.w, self.table, self.field = state, w, table, field
        self.first = dict(zip((k.name for k in plan.kernels), first_events(plan), strict=False))
        w.store(table, ctx.address(field), align=8)
        clock = state.module.function(CLOCK, I64, [])
        clock.ret(_clock(clock, state.target))

    def begin(self) -> None:
        """The step begins."""
        self._stamp(0, 0)

    def end(self) -> None:
        """The step has come to its end."""
        self._stamp(0, 1)

    @contextmanager
    def around(self, kernel: KernelPlan) -> Iterator[None]:
        """The call of a kernel is written inside."""
        event = self.first[kernel.name]
        self._stamp(event, 0)
        yield
        self._stamp(event, 1)

    def tile_function(self, name: str, kernel: KernelPlan) -> str:
        """The name of a function that runs a tile as `name` does and stamps it."""
        timed = f"{kernel.name}_timed"
        w = self.state.module.function(timed, VOID, KERNEL_PARAMS, internal=True)
        ctx, tile, slot = w.args
        table = w.load(PTR, Context(w, ctx).address(self.field), align=8)
        word = w.mul(w.add(tile, self.first[kernel.name] + 1), EVENT_WORDS)
        event = w.gep(table, word, I64)
        w.store(_clock(w, self.state.target), event)
        w.call(name, VOID, [ctx, tile, slot])
        w.store(_clock(w, self.state.target), w.gep(event, 1, I64))
        w.store(slot, w.gep(event, 2, I64))
        w.ret()
        return timed

    def _stamp(self, event: int, word: int) -> None:
        w = self.w
        w.store(_clock(w, self.state.target), w.gep(self.table, event * EVENT_WORDS + word, I64))


def _clock(w: FunctionWriter, target: Target) -> Val:
    if target.is_x86:
        return w.external("llvm.readcyclecounter", I64, ())
    # llvm.readsteadycounter is 0 here (LLVM 22), and inline assembly needs LLVM's parser.
    name = "llvm.read_volatile_register.i64"
    w.module.declare(name, I64, [Type("metadata", "metadata", 0, "")])
    return w.inst(I64, f'call i64 @{name}(metadata !{{!"CNTVCT_EL0"}})')
