"""What a native call makes before it runs: arrays, storages, histories, tensors, the result's tree.

All of it may run Python code (the collector does), and may fail: nothing has been done then.
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.call_guard import Exits, at, is_null, word
from treadle.codegen.call_records import called, put, record, records, register, take
from treadle.codegen.call_table import (
    Context,
    Layout,
    Made,
    Node,
    NodeKind,
    Result,
    Word,
    Write,
)  # fmt: skip
from treadle.codegen.llvm import I1, I32, I64, NULL, PTR, FunctionWriter, Module, Val

MAKE: Final = "treadle_make"
BUILD: Final = "treadle_build"


def write_make(module: Module, layout: Layout, context: Val) -> None:
    """Make arrays, storages, histories, tensors and version numbers; false where one failed."""
    w = module.function(MAKE, I1, [(PTR, "table")], internal=True)
    (table,) = w.args
    failed = w.new_block("failed")
    exits = Exits(w, failed)
    slots = layout.tensors
    with records(w, table, Word.RESULTS, Word.RESULT_COUNT, Result.SIZE, "result") as (_, row):
        fresh = w.icmp("slt", word(w, row, Result.SHARED, I64), 0)
        with w.if_(fresh, "fresh"):
            (array,) = w.branch(
                is_null(w, word(w, row, Result.MAKE)),
                lambda: [_small_array(w, row, context)],
                lambda: [called(w, word(w, row, Result.MAKE))],
                "array",
            )
            exits.if_null(array)
            put(w, array, row, Result.MADE)
    with records(w, table, Word.CELLS, Word.CELL_COUNT, Made.SIZE, "cell") as (_, row):
        cell = _copied(w, row, exits)
        result = record(w, table, Word.RESULTS, Result.SIZE, word(w, row, Made.FIRST, I64))
        _set(w, word(w, result, Result.MADE), cell, slots.cell_buffer)
    with records(w, table, Word.HISTORIES, Word.HISTORY_COUNT, Made.SIZE, "history") as (_, row):
        _copied(w, row, exits)
    with records(w, table, Word.TENSORS, Word.TENSOR_COUNT, Made.SIZE, "tensor") as (_, row):
        tensor = _copied(w, row, exits)
        cells, histories = word(w, row, Made.FIRST, I64), word(w, row, Made.SECOND, I64)
        cell = word(w, record(w, table, Word.CELLS, Made.SIZE, cells), Made.OBJECT)
        history = word(w, record(w, table, Word.HISTORIES, Made.SIZE, histories), Made.OBJECT)
        _set(w, cell, tensor, slots.cell)
        _set(w, history, tensor, slots.history)
    with records(w, table, Word.WRITES, Word.WRITE_COUNT, Write.SIZE, "write") as (_, row):
        cell = at(w, register(w, table, word(w, row, Write.REGISTER, I64)), slots.cell)
        now = w.external("PyLong_AsLongLong", I64, [at(w, cell, slots.cell_version)])
        following = w.external("PyLong_FromLongLong", PTR, [w.add(now, 1)])
        exits.if_null(following)
        put(w, following, row, Write.VERSION)
    w.ret(1)
    w.start(failed)
    w.ret(0)


def _small_array(w: FunctionWriter, row: Val, context: Val) -> Val:
    """A fresh NumPy array; the reference to its dtype goes over to it."""
    dtype = word(w, row, Result.DTYPE)
    take(w, dtype)
    rank = w.cast("trunc", word(w, row, Result.RANK, I64), I32)
    kind, shape = word(w, context, Context.ARRAY), word(w, row, Result.SHAPE)
    made = word(w, context, Context.NEW_ARRAY)
    zero = Val("0", I32)
    args = ", ".join(map(str, (kind, dtype, rank, shape, NULL, NULL, zero, NULL)))
    return w.inst(PTR, f"call ptr {made.ref}({args})")


def _copied(w: FunctionWriter, row: Val, exits: Exits) -> Val:
    """A fresh object with the slots of its template."""
    made = w.external("PyType_GenericAlloc", PTR, [word(w, row, Made.TYPE), w.int(0)])
    exits.if_null(made)
    pairs = word(w, row, Made.SLOTS)
    with w.loop(0, word(w, row, Made.SLOT_COUNT, I64), label="slot") as n:
        pair = w.gep(pairs, w.mul(n, 16))
        value = word(w, pair, 1)
        take(w, value)
        w.store(value, w.gep(made, w.load(I64, pair, align=8)), align=8)
    put(w, made, row, Made.OBJECT)
    return made


def _set(w: FunctionWriter, x: Val, owner: Val, offset: int) -> None:
    """Fill an empty slot."""
    take(w, x)
    w.store(x, w.gep(owner, offset), align=8)


def write_build(module: Module) -> None:
    """The tree of the result, children before parents; the last node is the root. Null where that
    failed."""
    w = module.function(BUILD, PTR, [(PTR, "table")], internal=True)
    (table,) = w.args
    failed = w.new_block("failed")
    exits = Exits(w, failed)
    with records(w, table, Word.TREE, Word.TREE_COUNT, Node.SIZE, "node") as (_, row):
        done = w.new_block("done")
        blocks = {kind: w.new_block(kind.name.lower()) for kind in NodeKind}
        cases = " ".join(f"i64 {k.value}, label %{b.name}" for k, b in blocks.items())
        kind = word(w, row, Node.KIND, I64)
        w.effect(f"switch i64 {kind.ref}, label %{failed.name} [ {cases} ]")
        for kind_, block in blocks.items():
            w.start(block)
            _write_node(w, kind_, table, row, exits)
            w.br(done)
        w.start(done)
    last = w.sub(word(w, table, Word.TREE_COUNT, I64), 1)
    root = record(w, table, Word.TREE, Node.SIZE, last)
    made = word(w, root, Node.MADE)
    put(w, NULL, root, Node.MADE)
    w.ret(made)
    w.start(failed)
    w.ret(NULL)


def _write_node(w: FunctionWriter, kind: NodeKind, table: Val, row: Val, exits: Exits) -> None:
    """Put a reference to what a node stands for into the node."""
    number = word(w, row, Node.OPERAND, I64)
    if kind in (NodeKind.CONSTANT, NodeKind.FETCHED, NodeKind.FRESH):
        if kind is NodeKind.CONSTANT:
            found = word(w, row, Node.OPERAND)
        elif kind is NodeKind.FETCHED:
            found = register(w, table, number)
        else:
            found = word(w, record(w, table, Word.TENSORS, Made.SIZE, number), Made.OBJECT)
        take(w, found)
        put(w, found, row, Node.MADE)
        return
    name = {NodeKind.TUPLE: "PyTuple", NodeKind.LIST: "PyList", NodeKind.DICT: "PyDict"}[kind]
    container = w.external(f"{name}_New", PTR, [] if kind is NodeKind.DICT else [number])
    exits.if_null(container)
    put(w, container, row, Node.MADE)
    children, keys = word(w, row, Node.CHILDREN), word(w, row, Node.KEYS)
    with w.loop(0, number, label="child") as n:
        which = w.load(I64, w.gep(children, n, I64), align=8)
        child = word(w, record(w, table, Word.TREE, Node.SIZE, which), Node.MADE)
        if kind is NodeKind.DICT:
            key = w.load(PTR, w.gep(keys, n, PTR), align=8)
            exits.unless_same(w.external("PyDict_SetItem", I32, [container, key, child]), 0)
        else:
            take(w, child)  # which the container takes over
            w.external(f"{name}_SetItem", I32, [container, n, child])
