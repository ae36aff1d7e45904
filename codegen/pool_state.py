"""The state of the thread pool, and what its functions do to it and ask of the system.

The state is one block of memory, read and written by atomic instructions.
"""

from __future__ import annotations

from typing import Final, Literal

from treadle.codegen.llvm import I1, I32, I64, PTR, VOID, FunctionWriter, Module, Type, Val
from treadle.codegen.target import Target

Parking = Literal["futex", "condition"]
"""How threads sleep."""

MAX_THREADS: Final = 256

# The fields of the pool's state, bytes from its start. What different threads write lies in
# different pairs of cache lines (x86 fetches lines in pairs).
WORD: Final = 0
GENERATION: Final = 4  # the upper half of the word on a little-endian machine: what sleepers watch
DONE: Final = 128
FN, CTX, TILES, THREADS, CORE = 256, 264, 272, 280, 288
BUSY: Final = 384
SLEEPERS, ROOM = 512, 520
WAITING: Final = 640
STARTED, LIMIT, CORES, SPIN, BRIEF = 768, 776, 784, 792, 800
LEFT_OUT, CALM, PERIOD, REPORTED, LOST, MOVED = 832, 840, 848, 856, 864, 872
MUTEX: Final = 896  # pthread_mutex_t is 40 bytes on Linux, 64 on macOS
CONDITION: Final = 1024  # pthread_cond_t is 48 bytes on both
SIZE: Final = 1152


# --- atomics ---------------------------------------------------------------------------------


def read(w: FunctionWriter, type: Type, address: Val, order: str = "monotonic") -> Val:
    return w.inst(type, f"load atomic {type.text}, {address} {order}, align {type.bits // 8}")


def write(w: FunctionWriter, x: Val, address: Val, order: str = "monotonic") -> None:
    w.effect(f"store atomic {x}, {address} {order}, align {x.type.bits // 8}")


def modify(w: FunctionWriter, how: str, address: Val, x: Val, order: str) -> Val:
    """The old value; `how`: add, sub, xchg .."""
    return w.inst(x.type, f"atomicrmw {how} {address}, {x} {order}")


def swap(w: FunctionWriter, address: Val, old: Val, new: Val) -> Val:
    """An i1: whether `old` was there, and is now `new`."""
    pair = f"{{ {old.type.text}, i1 }}"
    found = w.inst(Type(pair, "i64", 0, ""), f"cmpxchg {address}, {old}, {new} acq_rel monotonic")
    return w.inst(I1, f"extractvalue {pair} {found.ref}, 1")


def i32(value: int) -> Val:
    return Val(str(value), I32)


def pause(w: FunctionWriter) -> None:
    """Tell the core that this is a loop that waits."""
    if w.target.is_x86:
        w.external("llvm.x86.sse2.pause", VOID, [])
    elif w.target.arch == "aarch64":
        w.external("llvm.aarch64.hint", VOID, [i32(1)])


# --- the system: the clock, sleeping ---------------------------------------------------------


def write_clock(module: Module, darwin: bool) -> None:
    """`now()`: nanoseconds of a clock that only goes forward."""
    w = module.function("now", I64, [], internal=True)
    spec = w.alloca(I64, 2)
    w.external("clock_gettime", I32, [i32(6 if darwin else 1), spec])
    seconds, rest = w.load(I64, spec), w.load(I64, w.gep(spec, 1, I64))
    w.ret(w.add(w.mul(seconds, 1_000_000_000), rest))


def write_park(module: Module, state: Val, parking: Parking, target: Target) -> None:
    """`park(address, seen)` sleeps while the i32 there is `seen` (it may wake early);
    `unpark(address, count)` wakes up to `count` of those that sleep there (it may wake more)."""
    park = module.function("park", VOID, [(PTR, "address"), (I32, "seen")], internal=True)
    unpark = module.function("unpark", VOID, [(PTR, "address"), (I32, "count")], internal=True)
    if parking == "futex":
        for w, operation in ((park, 0 | 128), (unpark, 1 | 128)):  # wait, wake; of this process
            address = w.cast("ptrtoint", w.args[0], I64)
            value = w.cast("zext", w.args[1], I64)
            number = 202 if target.is_x86 else 98
            nothing = w.int(0)
            numbers = [w.int(number), address, w.int(operation), value, nothing, nothing, nothing]
            w.external("syscall", I64, numbers)
            w.ret()
        return
    for w in (park, unpark):
        mutex, condition = w.gep(state, MUTEX), w.gep(state, CONDITION)
        w.external("pthread_mutex_lock", I32, [mutex])
        if w is park:
            with w.if_(w.icmp("eq", read(w, I32, w.args[0], "seq_cst"), w.args[1]), "same"):
                w.external("pthread_cond_wait", I32, [condition, mutex])
        else:
            w.external("pthread_cond_broadcast", I32, [condition])
        w.external("pthread_mutex_unlock", I32, [mutex])
        w.ret()
