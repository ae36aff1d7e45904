"""The thread pool as LLVM IR: written with the project's own writer, compiled once per process.

    void treadle_parallel(ptr fn, ptr ctx, i64 tiles, i64 threads)
        calls `fn(ctx, tile, slot)` once for each tile from 0 to tiles - 1, on up to `threads`
        threads of which the caller is one, and returns when all are done. `slot` is less than
        `threads` and no two tiles that run at a time have the same one. Where the pool is taken
        (another thread's call), everything runs on the caller.
    void treadle_pool_reset(i64 cores, i64 spin, i64 brief)
        forgets all workers: before the first call, and in the child of a fork, where they are gone.
    i64 treadle_pool_workers()
        how many workers have been started.

One 64-bit word says what is to be done: `generation << 32 | first << 16 | last`, the tiles that
nobody has taken yet. A thread takes one by a compare-and-swap of that word: even slots the first,
odd slots the last, so that with two threads each finds much the same data in its cache in every
kernel. The function and its context are read before the swap, which succeeds only while their
region runs; hence a caller waits for tiles and never for threads: a worker that the system keeps
from running delays nobody, and one that comes late finds nothing to take.

Workers are started when a call first asks for them. With nothing to do they look at the word again
and again (`pause`) for a bounded time and then sleep. The caller, too, sleeps when it has waited
that long for another thread's tile: the core that it leaves is where that thread will run.

A thread that shares its core with another process loses it in the middle of a tile, for
milliseconds, and everybody waits. So whoever finds that it was kept off its core (the clock jumped
while it looked), or waits for a tile for longer than two of its own took, reports the time lost.
Where that comes to a quarter of the time, regions run on one thread less: for 10 ms, twice as long
each time that the next try is lost again, at most a third of a second. Where more threads are asked
for than there are cores this is left to the system, and nobody looks for long.

After a crowd, Linux often leaves a worker on the caller's core: the two never run at a time for
long, so that nothing looks out of balance, and a step takes longer than on one thread. A worker
that finds itself there moves to another core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from treadle.codegen.llvm import (
    I1,
    I8,
    I32,
    I64,
    NULL,
    PTR,
    VOID,
    FunctionWriter,
    Module,
    Val,
)
from treadle.codegen.pool_crowd import write_crowd, write_joining
from treadle.codegen.pool_state import (
    BRIEF,
    BUSY,
    CONDITION,
    CORE,
    CORES,
    CTX,
    DONE,
    FN,
    GENERATION,
    LEFT_OUT,
    LIMIT,
    MAX_THREADS,
    MOVED,
    MUTEX,
    ROOM,
    SIZE,
    SLEEPERS,
    SPIN,
    STARTED,
    THREADS,
    TILES,
    WAITING,
    WORD,
    Parking,
    i32,
    modify,
    pause,
    read,
    swap,
    write,
    write_clock,
    write_park,
)
from treadle.codegen.target import Target

PARALLEL: Final = "treadle_parallel"
RESET: Final = "treadle_pool_reset"
WORKERS: Final = "treadle_pool_workers"

MAX_TILES: Final = 0x7FFF

_CPU_WORDS: Final = 16  # of a cpu_set_t
_PAUSES: Final = 32  # between two looks at the clock: some 0.5 to 2 us
_JUMP: Final = 250_000  # ns between two looks that tell of a thread kept off its core
_LATE: Final = 50_000  # ns besides twice the time of an own tile
_STAY: Final = 2_000_000  # ns between two moves from one core to another


def parking_of(target: Target) -> Parking | None:
    """How threads sleep on `target`'s system; None where there is no pool."""
    if "linux" in target.triple:
        return "futex"
    return "condition" if "darwin" in target.triple else None


def emit_pool(target: Target, parking: Parking) -> str:
    """The pool's module. `parking`: `futex` (Linux) or `condition` (any POSIX system)."""
    module = Module(target)
    state = module.variable("pool", f"[{SIZE} x i8]")
    write_clock(module, "darwin" in target.triple)
    write_park(module, state, parking, target)
    write_crowd(module, state)
    write_joining(module, state)
    _write_spin(module, state)
    _write_work(module, state)
    _write_move(module, state, parking)
    _write_worker(module, state, parking)
    _write_start(module, state, "darwin" in target.triple)
    _write_wait(module, state)
    _write_parallel(module, state, parking)
    _write_reset(module, state, parking)
    w = module.function(WORKERS, I64, [])
    w.ret(read(w, I64, w.gep(state, STARTED)))
    return str(module)


# --- waiting ---------------------------------------------------------------------------------


def _write_spin(module: Module, state: Val) -> None:
    """`spin(address, seen, limit)`: looks at the i32 there until it differs from `seen`, for at
    most `limit` ns, or less where there is a crowd."""
    w = module.function(
        "spin", VOID, [(PTR, "address"), (I32, "seen"), (I64, "limit")], internal=True
    )
    address, seen, limit = w.args
    done = w.new_block("done")

    def leave_if(condition: Val, label: str) -> None:
        go_on = w.new_block(label)
        w.cond_br(condition, done, go_on)
        w.start(go_on)

    started = w.call("now", I64, [])
    threads, cores, left_out, brief = (
        read(w, I64, w.gep(state, at)) for at in (THREADS, CORES, LEFT_OUT, BRIEF)
    )
    crowded = w.or_(w.icmp("ne", left_out, 0), w.icmp("sgt", threads, cores))
    end = w.add(started, w.select(crowded, w.binary("llvm.smin", brief, limit), limit))

    def look(carried: Sequence[Val]) -> Sequence[Val]:
        with w.loop(0, _PAUSES, label="pause"):
            leave_if(w.icmp("ne", read(w, I32, address, "acquire"), seen), "same")
            pause(w)
        now = w.call("now", I64, [])
        jump = w.sub(now, carried[0])
        with w.if_(w.icmp("sgt", jump, _JUMP), "kept_off", unlikely=True):
            w.call("lost", VOID, [now, jump])
        leave_if(w.icmp("sgt", jump, _JUMP), "on_core")
        return [now]

    w.while_([started], lambda carried: w.icmp("slt", carried[0], end), look, "look")
    w.br(done)
    w.start(done)
    w.ret()


def _write_wait(module: Module, state: Val) -> None:
    """`wait(tiles, patience)`: until so many tiles of the region are done. The caller looks for
    `patience` ns, then sleeps: its core may be the one that the other thread needs."""
    w = module.function("wait", VOID, [(I64, "tiles"), (I64, "patience")], internal=True)
    patience = w.args[1]
    place, waiting = w.gep(state, DONE), w.gep(state, WAITING)
    goal = w.cast("trunc", w.args[0], I32)

    def done(how: str = "acquire") -> Val:
        return read(w, I32, place, how)

    def wait(carried: Sequence[Val]) -> Sequence[Val]:
        w.call("spin", VOID, [place, carried[0], patience])
        with w.if_(w.icmp("eq", done(), carried[0]), "asleep"):
            # Whoever finishes the last tile sees this flag, or `park` sees the tile.
            write(w, w.int(1), waiting, "seq_cst")
            w.call("park", VOID, [place, carried[0]])
            write(w, w.int(0), waiting)
        return [done()]

    before = done()
    with w.if_(w.icmp("ne", before, goal), "not_yet"):
        started = w.call("now", I64, [])
        w.while_([before], lambda carried: w.icmp("ne", carried[0], goal), wait, "wait")
        now = w.call("now", I64, [])
        waited = w.sub(now, started)
        with w.if_(w.icmp("sgt", waited, patience), "late", unlikely=True):
            w.call("lost", VOID, [now, waited])
    w.ret()


# --- taking tiles ----------------------------------------------------------------------------


def _write_work(module: Module, state: Val) -> None:
    """`work(slot)`: takes and runs tiles as long as there are any for that slot; how many."""
    w = module.function("work", I64, [(I64, "slot")], internal=True)
    (slot,) = w.args
    place = w.gep(state, WORD)
    from_end = w.icmp("ne", w.and_(slot, 1), 0)
    look, some, take, run, nothing = map(w.new_block, ("look", "some", "take", "run", "nothing"))
    mine = w.alloca(I64)
    w.store(w.int(0), mine)
    w.br(look)
    w.start(look)
    word = read(w, I64, place, "acquire")
    first, last = w.and_(w.lshr(word, 16), 0xFFFF), w.and_(word, 0xFFFF)
    w.cond_br(w.icmp("ult", first, last), some, nothing)
    w.start(some)
    fn, ctx = (read(w, PTR, w.gep(state, at)) for at in (FN, CTX))
    tiles, threads = (read(w, I64, w.gep(state, at)) for at in (TILES, THREADS))
    w.cond_br(w.icmp("ult", slot, threads), take, nothing)
    w.start(take)
    new = w.select(from_end, w.sub(word, 1), w.add(word, 1 << 16))
    w.cond_br(swap(w, place, word, new), run, look)
    w.start(run)
    tile = w.select(from_end, w.sub(last, 1), first)
    _call(w, fn, ctx, tile, slot)
    w.store(w.add(w.load(I64, mine), 1), mine)
    before = modify(w, "add", w.gep(state, DONE), w.int(1), "seq_cst")
    with w.if_(w.icmp("eq", w.add(before, 1), tiles), "last"):
        waiting = read(w, I64, w.gep(state, WAITING), "seq_cst")
        with w.if_(w.icmp("ne", waiting, 0), "asleep"):
            w.call("unpark", VOID, [w.gep(state, DONE), i32(1)])
    w.br(look)
    w.start(nothing)
    w.ret(w.load(I64, mine))


def _call(w: FunctionWriter, fn: Val, ctx: Val, tile: Val, slot: Val) -> None:
    w.effect(f"call void {fn.ref}({ctx}, {tile}, {slot})")


def _write_move(module: Module, state: Val, parking: Parking) -> None:
    """`move()`: leaves the core on which the caller of the region runs."""
    if parking != "futex":
        return
    w = module.function("move", VOID, [], internal=True)
    core = w.external("sched_getcpu", I32, [])
    threads, cores = read(w, I64, w.gep(state, THREADS)), read(w, I64, w.gep(state, CORES))
    here = w.icmp("eq", core, read(w, I32, w.gep(state, CORE)))
    with w.if_(w.and_(here, w.icmp("sle", threads, cores)), "here", unlikely=True):
        now, moved = w.call("now", I64, []), w.gep(state, MOVED)
        with w.if_(w.icmp("sgt", w.sub(now, read(w, I64, moved)), _STAY), "move"):
            write(w, now, moved)
            _leave(w, w.cast("zext", core, I64))
    w.ret()


def _leave(w: FunctionWriter, core: Val) -> None:
    """Forbid this thread the core, which moves it at once, and allow it again."""
    allowed, others = w.alloca(I64, _CPU_WORDS), w.alloca(I64, _CPU_WORDS)
    this, size = i32(0), w.int(8 * _CPU_WORDS)
    failed = w.external("sched_getaffinity", I32, [this, size, allowed])
    with w.if_(w.icmp("eq", failed, 0), "known"):
        with w.carry(0, _CPU_WORDS, 1, [w.int(0)], "word") as words:
            at = words.index
            bit = w.shl(w.int(1), w.and_(core, 63))
            bit = w.select(w.icmp("eq", at, w.lshr(core, 6)), bit, 0)
            word = w.and_(w.load(I64, w.gep(allowed, at, I64)), w.xor(bit, -1))
            w.store(word, w.gep(others, at, I64))
            words.next = [w.or_(words.carried[0], word)]
        with w.if_(w.icmp("ne", words.results[0], 0), "elsewhere"):
            w.external("sched_setaffinity", I32, [this, size, others])
            w.external("sched_setaffinity", I32, [this, size, allowed])


def _write_worker(module: Module, state: Val, parking: Parking) -> None:
    """`worker(slot)`: what a thread of the pool does for ever.

    It waits for another generation than the one at which it last found nothing to take. Where
    regions have no room for it, it sleeps until they ask for more threads: nobody wakes it in vain.
    """
    w = module.function("worker", PTR, [(PTR, "slot")], internal=True)
    slot = w.cast("ptrtoint", w.args[0], I64)
    place, sleepers = w.gep(state, GENERATION), w.gep(state, SLEEPERS)
    again, spin, left_out, sleep = map(w.new_block, ("again", "spin", "left_out", "sleep"))
    w.br(again)
    w.start(again)
    seen = read(w, I32, place, "acquire")
    room = read(w, I32, w.gep(state, ROOM), "acquire")
    if parking == "futex":
        w.call("move", VOID, [])
    w.call("work", I64, [slot])
    takes_part = w.icmp("ult", slot, read(w, I64, w.gep(state, THREADS)))
    w.cond_br(takes_part, spin, left_out)
    w.start(left_out)
    w.call("park", VOID, [w.gep(state, ROOM), room])
    w.br(again)
    w.start(spin)
    w.call("spin", VOID, [place, seen, read(w, I64, w.gep(state, SPIN))])
    w.cond_br(w.icmp("eq", read(w, I32, place, "acquire"), seen), sleep, again)
    w.start(sleep)
    # Whoever publishes a generation sees this sleeper, or `park` sees the generation.
    modify(w, "add", sleepers, w.int(1), "seq_cst")
    w.call("park", VOID, [place, seen])
    modify(w, "sub", sleepers, w.int(1), "seq_cst")
    w.br(again)


# --- the calls from outside ------------------------------------------------------------------


def _write_start(module: Module, state: Val, darwin: bool) -> None:
    """`start(threads)`: as many workers as `threads` needs, or as the system gives.

    They block all signals, which are for the threads of Python.
    """
    w = module.function("start", VOID, [(I64, "threads")], internal=True)
    started, limit = w.gep(state, STARTED), w.gep(state, LIMIT)
    have = read(w, I64, started)
    want = w.binary("llvm.smin", w.sub(w.args[0], 1), read(w, I64, limit))
    with w.if_(w.icmp("slt", have, want), "more", unlikely=True):
        blocked, before, thread = w.alloca(I64, 16), w.alloca(I64, 16), w.alloca(I64)
        set_mask = i32(3 if darwin else 2)
        w.external("sigfillset", I32, [blocked])
        w.external("pthread_sigmask", I32, [set_mask, blocked, before])

        def create(carried: Sequence[Val]) -> Sequence[Val]:
            count, wanted = carried
            slot = w.cast("inttoptr", w.add(count, 1), PTR)
            args = [thread, NULL, Val("@worker", PTR), slot]
            failed = w.icmp("ne", w.external("pthread_create", I32, args), 0)
            return w.branch(failed, lambda: give_up(count), lambda: keep(count, wanted), "failed")

        def keep(count: Val, wanted: Val) -> Sequence[Val]:
            w.external("pthread_detach", I32, [w.load(PTR, thread, align=8)])
            return [w.add(count, 1), wanted]

        def give_up(count: Val) -> Sequence[Val]:
            write(w, count, limit)
            return [count, count]

        count, _ = w.while_([have, want], lambda c: w.icmp("slt", c[0], c[1]), create, "create")
        write(w, count, started)
        w.external("pthread_sigmask", I32, [set_mask, before, NULL])
    w.ret()


def _write_parallel(module: Module, state: Val, parking: Parking) -> None:
    params = [(PTR, "fn"), (PTR, "ctx"), (I64, "tiles"), (I64, "threads")]
    w = module.function(PARALLEL, VOID, params)
    fn, ctx, tiles, wanted = w.args
    busy = w.gep(state, BUSY)
    look, ask, share, alone = map(w.new_block, ("look", "ask", "share", "alone"))
    w.cond_br(w.and_(w.icmp("sgt", wanted, 1), w.icmp("sgt", tiles, 1)), look, alone)
    w.start(alone)
    with w.loop(0, tiles, label="tile") as tile:
        _call(w, fn, ctx, tile, w.int(0))
    w.ret()
    w.start(look)
    threads = w.call("joining", I64, [wanted])
    w.cond_br(w.icmp("sgt", threads, 1), ask, alone)
    w.start(ask)
    w.cond_br(swap(w, busy, w.int(0), w.int(1)), share, alone)
    w.start(share)
    w.call("start", VOID, [threads])
    before = read(w, I64, w.gep(state, THREADS))
    for value, at in ((fn, FN), (ctx, CTX), (tiles, TILES), (threads, THREADS)):
        write(w, value, w.gep(state, at))
    write(w, i32(0), w.gep(state, DONE))
    if parking == "futex":
        write(w, w.external("sched_getcpu", I32, []), w.gep(state, CORE))
    old = read(w, I32, w.gep(state, GENERATION))
    generation = w.shl(w.cast("zext", w.add(old, 1), I64), 32)
    write(w, w.or_(generation, tiles), w.gep(state, WORD), "seq_cst")
    with w.if_(w.icmp("sgt", threads, before), "more_room", unlikely=True):
        room = w.gep(state, ROOM)
        modify(w, "add", room, i32(1), "seq_cst")
        w.call("unpark", VOID, [room, i32(MAX_THREADS)])
    sleepers = read(w, I64, w.gep(state, SLEEPERS), "seq_cst")
    with w.if_(w.icmp("ne", sleepers, 0), "sleepers"):
        less_room = w.icmp("slt", threads, before)  # some that sleep here are for this no longer
        count = w.select(less_room, w.int(MAX_THREADS), w.sub(tiles, 1))
        w.call("unpark", VOID, [w.gep(state, GENERATION), w.cast("trunc", count, I32)])
    started = w.call("now", I64, [])
    mine = w.call("work", I64, [w.int(0)])
    each = w.sdiv(w.sub(w.call("now", I64, []), started), w.binary("llvm.smax", mine, 1))
    known = w.add(w.mul(each, 2), _LATE)
    patience = w.select(w.icmp("eq", mine, 0), read(w, I64, w.gep(state, SPIN)), known)
    w.call("wait", VOID, [tiles, patience])
    write(w, w.int(0), busy, "release")
    w.ret()


def _write_reset(module: Module, state: Val, parking: Parking) -> None:
    w = module.function(RESET, VOID, [(I64, "cores"), (I64, "spin"), (I64, "brief")])
    args = (state, Val("0", I8), w.int(SIZE), Val("false", I1))
    w.external("llvm.memset.p0.i64", VOID, args)
    for value, at in zip(w.args, (CORES, SPIN, BRIEF), strict=True):
        write(w, value, w.gep(state, at))
    write(w, w.int(MAX_THREADS - 1), w.gep(state, LIMIT))
    if parking == "condition":
        w.external("pthread_mutex_init", I32, [w.gep(state, MUTEX), NULL])
        w.external("pthread_cond_init", I32, [w.gep(state, CONDITION), NULL])
    w.ret()
