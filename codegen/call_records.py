"""Reading and writing a table of the native call path: its records, its registers, references."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from treadle.codegen.call_guard import word
from treadle.codegen.call_table import Word
from treadle.codegen.llvm import I64, PTR, VOID, FunctionWriter, Val


def take(w: FunctionWriter, x: Val) -> None:
    """Count a reference."""
    w.external("Py_IncRef", VOID, [x])


def let_go(w: FunctionWriter, x: Val) -> None:
    """Give a reference back; of null, nothing."""
    w.external("Py_DecRef", VOID, [x])


@contextmanager
def records(
    w: FunctionWriter, table: Val, first: Word, count: Word, size: int, label: str
) -> Iterator[tuple[Val, Val]]:
    """A loop over the records at `table[first]`; yields number and address."""
    base = word(w, table, first)
    with w.loop(0, word(w, table, count, I64), label=label) as n:
        yield n, w.gep(base, w.mul(n, 8 * size))


def record(w: FunctionWriter, table: Val, first: Word, size: int, n: Val) -> Val:
    return w.gep(word(w, table, first), w.mul(n, 8 * size))


def register(w: FunctionWriter, table: Val, number: Val) -> Val:
    return w.load(PTR, w.gep(word(w, table, Word.REGISTERS), number, PTR), align=8)


def put(w: FunctionWriter, x: Val, base: Val, index: int) -> None:
    """Into the word at position `index`."""
    w.store(x, w.gep(base, 8 * index), align=8)


def exchange(w: FunctionWriter, x: Val, owner: Val, offset: int) -> Val:
    """Put a new reference into a slot; the caller owns the one that was there."""
    place = w.gep(owner, offset)
    old = w.load(PTR, place, align=8)
    w.store(x, place, align=8)
    return old


def called(w: FunctionWriter, function: Val) -> Val:
    return w.external("PyObject_CallNoArgs", PTR, [function])
