"""Crowds: what the pool does where other processes take its threads' cores.

lost(now, time)     so much time went by because a thread was kept off its core
joining(threads)    how many of them may take part in the next region
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.llvm import I64, VOID, Module, Val
from treadle.codegen.pool_state import (
    CALM,
    CORES,
    LEFT_OUT,
    LOST,
    MAX_THREADS,
    PERIOD,
    REPORTED,
    THREADS,
    read,
    write,
)

_CROWD: Final = 3_000_000  # ns lost, a quarter of the time that passes forgiven
_CALM_AT_FIRST: Final = 10_000_000  # ns for which a thread is left out
_CALM_AT_MOST: Final = 320_000_000
_AGAIN: Final = 30_000_000  # ns after a try in which a crowd is still the same one


def write_crowd(module: Module, state: Val) -> None:
    """`lost(now, time)`: so much time went by because a thread was kept off its core. Where it is
    much, leave out one thread more for a while."""
    w = module.function("lost", VOID, [(I64, "now"), (I64, "time")], internal=True)
    now, time = w.args
    reported, lost = w.gep(state, REPORTED), w.gep(state, LOST)
    passed = w.sub(now, read(w, I64, reported))
    write(w, now, reported)
    kept = w.binary("llvm.smax", w.sub(read(w, I64, lost), w.sdiv(passed, 4)), 0)
    total = w.add(kept, time)
    threads, cores = read(w, I64, w.gep(state, THREADS)), read(w, I64, w.gep(state, CORES))
    much = w.icmp("sgt", total, _CROWD)
    write(w, w.select(much, w.int(0), total), lost)
    with w.if_(w.and_(much, w.icmp("sle", threads, cores)), "crowd"):
        period, calm, left_out = (w.gep(state, at) for at in (PERIOD, CALM, LEFT_OUT))
        again = w.icmp("slt", now, w.add(read(w, I64, calm), _AGAIN))
        longer = w.binary("llvm.smin", w.mul(read(w, I64, period), 2), _CALM_AT_MOST)
        new = w.select(again, longer, w.int(_CALM_AT_FIRST))
        write(w, new, period)
        write(w, w.add(now, new), calm)
        more = w.add(read(w, I64, left_out), 1)
        write(w, w.binary("llvm.smin", more, MAX_THREADS), left_out)
    w.ret()


def write_joining(module: Module, state: Val) -> None:
    """`joining(threads)`: how many of them may take part now."""
    w = module.function("joining", I64, [(I64, "threads")], internal=True)
    (threads,) = w.args
    calm, left_out = w.gep(state, CALM), w.gep(state, LEFT_OUT)
    left = read(w, I64, left_out)
    crowded = w.icmp("ne", left, 0)
    fits = w.icmp("sle", threads, read(w, I64, w.gep(state, CORES)))
    with w.if_(w.and_(crowded, fits), "crowded"):
        now = w.call("now", I64, [])
        over = w.icmp("sge", now, read(w, I64, calm))
        rest = w.sub(left, w.cast("zext", over, I64))
        with w.if_(over, "over"):  # try with one thread more
            write(w, rest, left_out)
            write(w, w.add(now, read(w, I64, w.gep(state, PERIOD))), calm)
        fewer = w.binary("llvm.smax", w.sub(threads, rest), 1)
        done = w.new_block("unreached")
        w.ret(fewer)
        w.start(done)
    w.ret(threads)
