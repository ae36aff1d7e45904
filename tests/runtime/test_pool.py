"""The pool alone: every tile once, whatever the threads; nested calls; both ways to sleep."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from treadle.codegen.llvm import I64, PTR, VOID, Module
from treadle.codegen.pool import PARALLEL, RESET, WORKERS, Parking, emit_pool, parking_of
from treadle.codegen.target import NAMES, host, named
from treadle.runtime.native import NativeCode, assembly, load

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pool")

_THREADS = 8
_SLOT_TIME = 200  # loop iterations of a tile: long enough for tiles to overlap


@dataclass
class Native:
    """A pool of its own and kernels to run on it."""

    pool: NativeCode
    kernels: NativeCode
    run: Callable[..., None]
    workers: Callable[[], int]

    def tiles(
        self, kernel: str, ctx: ctypes.Array[ctypes.c_int64], tiles: int, threads: int
    ) -> None:
        self.run(self.kernels.address(kernel), ctx, tiles, threads)


def _kernels() -> str:
    """`count(ctx, tile, slot)`: ctx[tile] += 1, ctx[1000 + slot] must be free meanwhile, faults are
    counted in ctx[999]. `nested`: runs `count` through the pool whose address is ctx[998]."""
    module = Module(host())
    w = module.function("count", VOID, [(PTR, "ctx"), (I64, "tile"), (I64, "slot")])
    ctx, tile, slot = w.args
    here, room = w.gep(ctx, tile, I64), w.gep(ctx, w.add(slot, 1000), I64)
    w.store(w.add(w.load(I64, here), 1), here)
    taken = w.inst(I64, f"atomicrmw xchg {room}, i64 1 seq_cst")
    with w.loop(0, _SLOT_TIME) as i:
        w.effect(f"store volatile {i}, {w.gep(ctx, w.add(slot, 2000), I64)}")
    free = w.inst(I64, f"atomicrmw xchg {room}, i64 0 seq_cst")
    wrong = w.add(taken, w.sub(w.int(1), free))
    w.inst(I64, f"atomicrmw add {w.gep(ctx, 999, I64)}, {wrong} seq_cst")
    w.ret()
    w = module.function("nested", VOID, [(PTR, "ctx"), (I64, "tile"), (I64, "slot")])
    ctx, tile, slot = w.args
    pool = w.load(PTR, w.gep(ctx, 998, I64), align=8)
    own = w.gep(ctx, w.mul(w.add(slot, 1), 4000), I64)
    w.effect(f"call void {pool.ref}(ptr @count, {own}, i64 3, i64 4)")
    w.ret()
    return str(module)


@pytest.fixture(scope="module", params=["futex", "condition"])
def native(request: pytest.FixtureRequest) -> Iterator[Native]:
    parking: Parking = request.param
    if parking == "futex" and parking_of(host()) != "futex":
        pytest.skip("futexes are Linux's")
    pool, kernels = load(emit_pool(host(), parking), host()), load(_kernels(), host())
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(pool))  # its workers never end
    i64 = ctypes.c_int64
    ctypes.CFUNCTYPE(None, i64, i64, i64)(pool.address(RESET))(2, 100_000, 2_000)
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, i64, i64)(pool.address(PARALLEL))
    yield Native(pool, kernels, run, ctypes.CFUNCTYPE(i64)(pool.address(WORKERS)))


def _counted(native: Native, tiles: int, threads: int, times: int) -> None:
    ctx = (ctypes.c_int64 * 4000)()
    for _ in range(times):
        native.tiles("count", ctx, tiles, threads)
    assert list(ctx[:tiles]) == [times] * tiles
    assert ctx[tiles] == 0
    assert ctx[999] == 0, "two tiles ran at a time with one slot"


@pytest.mark.parametrize("threads", [1, 2, 3, 4, _THREADS])
@pytest.mark.parametrize("tiles", [0, 1, 2, 3, 7, 64, 500])
def test_every_tile_runs_once_and_no_slot_twice_at_a_time(
    native: Native, tiles: int, threads: int
) -> None:
    _counted(native, tiles, threads, 100)


def test_workers_start_when_they_are_first_asked_for_and_stay(native: Native) -> None:
    _counted(native, 4, 3, 1)
    before = native.workers()
    assert before >= 2
    _counted(native, 4, before + 2, 1)
    assert native.workers() == before + 1
    _counted(native, 4, 2, 1)
    assert native.workers() == before + 1


def test_sleeping_workers_are_woken(native: Native) -> None:
    for _ in range(20):
        time.sleep(0.002)  # twenty times as long as they look for work
        _counted(native, 64, 4, 1)


def test_a_call_from_inside_of_a_call_runs_on_its_own_thread(native: Native) -> None:
    ctx = (ctypes.c_int64 * (4000 * (_THREADS + 1)))()
    ctx[998] = native.pool.address(PARALLEL)
    native.tiles("nested", ctx, 10, 4)
    slots = [list(ctx[4000 * s : 4000 * s + 3]) for s in range(1, 5)]
    assert sum(counts[0] for counts in slots) == 10
    assert all(counts == [counts[0]] * 3 for counts in slots)


def test_calls_from_several_threads_do_not_disturb_each_other(native: Native) -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            for tiles in (2, 5, 33):
                _counted(native, tiles, 4, 200)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("name", NAMES)
def test_the_pool_is_machine_code_on_every_family(name: str) -> None:
    target = named(name)
    parking = parking_of(target)
    assert parking is not None
    text = assembly(emit_pool(target, parking), target)
    assert ("yield" if name == "neon" else "pause") in text


def test_a_system_that_the_pool_does_not_know_has_none() -> None:
    from dataclasses import replace

    assert parking_of(replace(named("avx2"), triple="x86_64-pc-windows-msvc")) is None
    assert parking_of(replace(named("neon"), triple="arm64-apple-darwin")) == "condition"
