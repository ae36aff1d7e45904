"""The native run of a specialization whose guard holds: make what a call makes, run, put back.

    ptr treadle_run(ptr table)      the result; the sentinel MISS where nothing has been done

Everything that allocates, and so may run Python code (the garbage collector does), comes first.
From there on nothing can fail and no Python code runs: addresses are gathered, the compiled
function is entered, and references are exchanged. What these held is let go at the very end, when
the call is complete. So a call has happened as a whole or not at all.
"""

from __future__ import annotations

from collections.abc import Callable

from treadle.codegen.call_guard import WRITEABLE, Exits, at, contiguous, word
from treadle.codegen.call_make import BUILD, MAKE, write_build, write_make
from treadle.codegen.call_records import (
    called,
    exchange,
    let_go,
    put,
    record,
    records,
    register,
    take,
)
from treadle.codegen.call_table import (
    Context,
    Grad,
    Layout,
    Made,
    Node,
    NodeKind,
    Param,
    ParamKind,
    Result,
    Word,
    Write,
)  # fmt: skip
from treadle.codegen.llvm import I1, I32, I64, NULL, PTR, VOID, FunctionWriter, Module, Val

RUN = "treadle_run"
_FETCH, _RELEASE, _GATHER, _LET_GO = (
    f"treadle_{name}" for name in ("fetch", "release", "gather", "let_go")
)


def write_run(module: Module, layout: Layout, context: Val) -> None:
    """Add `treadle_run` and its parts to `module`."""
    _write_fetch(module)
    _write_release(module)
    write_make(module, layout, context)
    write_build(module)
    _write_gather(module, layout, context)
    _write_finish(module, layout, context)


def _write_fetch(module: Module) -> None:
    """Own what the guard has fetched."""
    w = module.function(_FETCH, VOID, [(PTR, "table")], internal=True)
    (table,) = w.args
    with records(w, table, Word.FETCHED, Word.FETCHED_COUNT, 1, "fetched") as (_, place):
        take(w, register(w, table, w.load(I64, place, align=8)))
    w.ret()


def _write_release(module: Module) -> None:
    """Let go of everything that a call held on its way; the table is free again."""
    w = module.function(_RELEASE, VOID, [(PTR, "table")], internal=True)
    (table,) = w.args
    rows: tuple[tuple[Word, Word, int, int], ...] = (
        (Word.RESULTS, Word.RESULT_COUNT, Result.SIZE, Result.MADE),
        (Word.CELLS, Word.CELL_COUNT, Made.SIZE, Made.OBJECT),
        (Word.HISTORIES, Word.HISTORY_COUNT, Made.SIZE, Made.OBJECT),
        (Word.TENSORS, Word.TENSOR_COUNT, Made.SIZE, Made.OBJECT),
        (Word.WRITES, Word.WRITE_COUNT, Write.SIZE, Write.VERSION),
        (Word.TREE, Word.TREE_COUNT, Node.SIZE, Node.MADE),
    )
    for first, count, size, field in rows:
        with records(w, table, first, count, size, "row") as (_, row):
            held = word(w, row, field)
            put(w, NULL, row, field)
            let_go(w, held)
    with records(w, table, Word.FETCHED, Word.FETCHED_COUNT, 1, "fetched") as (_, place):
        let_go(w, register(w, table, w.load(I64, place, align=8)))
    put(w, w.int(0), table, Word.BUSY)
    w.ret()


# --- addresses -------------------------------------------------------------------------------


def _write_gather(module: Module, layout: Layout, context: Val) -> None:
    """Put the addresses of parameters and results into the table's buffers; false where a
    parameter is not what the compiled function can take as it is."""
    w = module.function(_GATHER, I1, [(PTR, "table")], internal=True)
    (table,) = w.args
    failed = w.new_block("failed")
    exits = Exits(w, failed)
    buffers = word(w, table, Word.BUFFERS)
    with records(w, table, Word.PARAMS, Word.PARAM_COUNT, Param.SIZE, "param") as (n, row):
        value = register(w, table, word(w, row, Param.REGISTER, I64))
        kind = word(w, row, Param.KIND, I64)
        done, number, memory = map(w.new_block, ("done", "number", "memory"))
        w.cond_br(w.icmp("eq", kind, ParamKind.FLOAT), number, memory)
        w.start(number)
        bits = at(w, value, layout.objects.float_value, I64)
        room = w.gep(row, 8 * Param.VALUE)
        w.store(bits, room, align=8)
        w.br(done)
        w.start(memory)
        (array,) = w.branch(
            w.icmp("eq", kind, ParamKind.TENSOR),
            lambda: [_storage(w, value, row, layout, context, exits)],
            lambda: [value],
            "array",
        )
        exits.unless(contiguous(w, array, layout))
        with w.if_(w.icmp("ne", word(w, row, Param.OWNED, I64), 0), "owned"):
            flags = at(w, array, layout.objects.array_flags, I32)
            exits.unless_same(w.and_(flags, WRITEABLE), WRITEABLE)
        put(w, array, row, Param.HELD)
        data, end = at(w, array, layout.objects.array_data), w.block
        w.br(done)
        w.start(done)
        address = w.phi(PTR, [(room, number), (data, end)])
        w.store(address, w.gep(buffers, n, PTR), align=8)
    params = word(w, table, Word.PARAM_COUNT, I64)
    with records(w, table, Word.RESULTS, Word.RESULT_COUNT, Result.SIZE, "result") as (n, row):
        shared = word(w, row, Result.SHARED, I64)
        (address,) = w.branch(
            w.icmp("slt", shared, 0),
            lambda: [at(w, word(w, row, Result.MADE), layout.objects.array_data)],
            lambda: [w.load(PTR, w.gep(buffers, shared, PTR), align=8)],
            "address",
        )
        w.store(address, w.gep(buffers, w.add(params, n), PTR), align=8)
    w.ret(1)
    w.start(failed)
    w.ret(0)


def _storage(
    w: FunctionWriter, x: Val, row: Val, layout: Layout, context: Val, exits: Exits
) -> Val:
    """The buffer of a tensor that is no view; of one that the run overwrites, only where no NumPy
    view of it is in anybody's hands."""
    slots, none = layout.tensors, word(w, context, Context.NONE)
    exits.unless_same(at(w, at(w, x, slots.maps), layout.objects.size, I64), 0)
    cell = at(w, x, slots.cell)
    exits.unless_same(at(w, cell, slots.cell_home), none)
    with w.if_(w.icmp("ne", word(w, row, Param.OWNED, I64), 0), "free"):
        exits.unless_same(at(w, cell, slots.cell_export), none)
    return at(w, cell, slots.cell_buffer)


# --- the call --------------------------------------------------------------------------------


def _write_finish(module: Module, layout: Layout, context: Val) -> None:
    w = module.function(RUN, PTR, [(PTR, "table")], internal=True)
    (table,) = w.args
    undone, ready = w.new_block("undone"), w.new_block("ready")
    exits = Exits(w, undone)
    w.call(_FETCH, VOID, [table])
    exits.unless(w.call(MAKE, I1, [table]))
    tree = w.call(BUILD, PTR, [table])
    exits.if_null(tree)
    spoiled = w.new_block("spoiled")
    late = Exits(w, spoiled)
    (site,) = w.branch(
        w.icmp("ne", word(w, table, Word.WRITE_COUNT, I64), 0),
        lambda: [_site(w, table, context, late)],
        lambda: [_owned(w, word(w, context, Context.NONE))],
        "site",
    )
    late.if_null(site)
    lost = w.new_block("lost")
    latest = Exits(w, lost)
    with w.if_(w.icmp("ne", word(w, table, Word.PREPARE), NULL), "prepare"):
        done = called(w, word(w, table, Word.PREPARE))
        latest.if_null(done)
        let_go(w, done)
    latest.unless(w.call(_GATHER, I1, [table]))
    latest.unless_same(_entered(w, table), 0)
    w.br(ready)

    w.start(ready)
    _write_state(w, table, layout, context, site)
    hits = w.add(word(w, table, Word.HITS, I64), 1)
    put(w, hits, table, Word.HITS)
    let_go(w, site)
    w.call(_LET_GO, VOID, [table])
    w.call(_RELEASE, VOID, [table])
    w.ret(tree)

    w.start(lost)
    let_go(w, site)
    w.br(spoiled)
    w.start(spoiled)
    let_go(w, tree)
    w.br(undone)
    w.start(undone)
    w.external("PyErr_Clear", VOID, [])
    w.call(_RELEASE, VOID, [table])
    miss = word(w, context, Context.MISS)
    w.ret(_owned(w, miss))
    _write_let_go(module)


def _owned(w: FunctionWriter, x: Val) -> Val:
    take(w, x)
    return x


def _entered(w: FunctionWriter, table: Val) -> Val:
    """Run the compiled function: 0, or the number of a fault. While other threads run, the
    buffers of its parameters are held: someone may replace them."""
    entry, buffers = word(w, table, Word.ENTRY), word(w, table, Word.BUFFERS)
    fault = w.gep(table, 8 * Word.FAULT)

    def enter() -> Val:
        return w.inst(I64, f"call i64 {entry.ref}({buffers}, {fault})")

    def released() -> list[Val]:
        _hold(w, table, take)
        state = w.external("PyEval_SaveThread", PTR, [])
        found = enter()
        w.external("PyEval_RestoreThread", VOID, [state])
        _hold(w, table, let_go)
        return [found]

    alone = w.icmp("eq", word(w, table, Word.RELEASE, I64), 0)
    (found,) = w.branch(alone, lambda: [enter()], released, "run")
    return found


def _hold(w: FunctionWriter, table: Val, how: Callable[[FunctionWriter, Val], None]) -> None:
    with records(w, table, Word.PARAMS, Word.PARAM_COUNT, Param.SIZE, "held") as (_, row):
        array = w.icmp("ne", word(w, row, Param.KIND, I64), ParamKind.FLOAT)
        with w.if_(array, "array"):
            how(w, word(w, row, Param.HELD))


def _site(w: FunctionWriter, table: Val, context: Val, exits: Exits) -> Val:
    """A reference to the user's line, or null. It is looked up where the frame and instruction
    that called are not those of the call before."""
    frame = w.external("PyEval_GetFrame", PTR, [])
    exits.if_null(frame)
    take(w, frame)
    for ours in (Context.DISPATCH_CODE, Context.BOUND_CODE):
        frame = _behind(w, frame, word(w, context, ours))
        exits.if_null(frame)
    code = w.external("PyFrame_GetCode", PTR, [frame])
    let_go(w, code)  # the frame holds it
    at_instruction = w.cast("sext", w.external("PyFrame_GetLasti", I32, [frame]), I64)
    known = w.icmp("eq", code, word(w, table, Word.SITE_CODE))
    known = w.and_(known, w.icmp("eq", at_instruction, word(w, table, Word.SITE_INSTRUCTION, I64)))
    let_go(w, frame)
    (site,) = w.branch(
        known,
        lambda: [_owned(w, word(w, table, Word.SITE))],
        lambda: [called(w, word(w, table, Word.LOCATE))],
        "known",
    )
    return site


def _behind(w: FunctionWriter, frame: Val, code: Val) -> Val:
    """The frame itself, or the one behind it (null: there is none) where it is Treadle's own, of
    that code, between the user's code and this."""
    found = w.external("PyFrame_GetCode", PTR, [frame])
    let_go(w, found)

    def back() -> list[Val]:
        behind = w.external("PyFrame_GetBack", PTR, [frame])
        let_go(w, frame)
        return [behind]

    ours = w.icmp("eq", found, code)
    (frame,) = w.branch(ours, back, lambda: [frame], "frame")
    return frame


def _write_state(w: FunctionWriter, table: Val, layout: Layout, context: Val, site: Val) -> None:
    """Exchange references: new content, version and line of each storage, and gradients. What
    these held goes to the table's list of things to let go."""
    slots = layout.tensors
    count = w.alloca(I64)
    w.store(w.int(0), count)
    dropped = word(w, table, Word.DROPPED)

    def drop(x: Val) -> None:
        n = w.load(I64, count)
        w.store(x, w.gep(dropped, n, PTR), align=8)
        w.store(w.add(n, 1), count)

    with records(w, table, Word.WRITES, Word.WRITE_COUNT, Write.SIZE, "write") as (_, row):
        cell = at(w, register(w, table, word(w, row, Write.REGISTER, I64)), slots.cell)
        result = record(w, table, Word.RESULTS, Result.SIZE, word(w, row, Write.RESULT, I64))
        fresh = word(w, result, Result.MADE)
        with w.if_(w.icmp("ne", fresh, NULL), "moved"):
            none = word(w, context, Context.NONE)
            drop(exchange(w, _owned(w, fresh), cell, slots.cell_buffer))
            drop(exchange(w, _owned(w, none), cell, slots.cell_export))
        drop(exchange(w, word(w, row, Write.VERSION), cell, slots.cell_version))
        put(w, NULL, row, Write.VERSION)
        drop(exchange(w, _owned(w, site), cell, slots.cell_written_at))
    with records(w, table, Word.GRADS, Word.GRAD_COUNT, Grad.SIZE, "grad") as (_, row):
        owner = _object(w, table, word(w, row, Grad.FRESH, I64), word(w, row, Grad.OWNER, I64))
        kind, operand = word(w, row, Grad.KIND, I64), word(w, row, Grad.OPERAND, I64)
        (new,) = w.branch(
            w.icmp("eq", kind, NodeKind.CONSTANT),
            lambda: [word(w, row, Grad.OPERAND)],
            lambda: [
                _object(w, table, w.cast("zext", w.icmp("eq", kind, NodeKind.FRESH), I64), operand)
            ],
            "grad",
        )
        drop(exchange(w, _owned(w, new), at(w, owner, slots.history), slots.grad))
    put(w, w.load(I64, count), table, Word.DROPPED_COUNT)


def _object(w: FunctionWriter, table: Val, fresh: Val, number: Val) -> Val:
    """A tensor that the call has made, or the value of a register."""
    (found,) = w.branch(
        w.icmp("ne", fresh, 0),
        lambda: [word(w, record(w, table, Word.TENSORS, Made.SIZE, number), Made.OBJECT)],
        lambda: [register(w, table, number)],
        "object",
    )
    return found


def _write_let_go(module: Module) -> None:
    """Let go of what the state held before: memory is freed, and finalisers run, only now."""
    w = module.function(_LET_GO, VOID, [(PTR, "table")], internal=True)
    (table,) = w.args
    dropped = word(w, table, Word.DROPPED)
    with w.loop(0, word(w, table, Word.DROPPED_COUNT, I64), label="dropped") as n:
        let_go(w, w.load(PTR, w.gep(dropped, n, PTR), align=8))
    w.ret()
