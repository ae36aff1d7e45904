"""The native call path: what stands between a call in Python and the compiled function.

    PyObject *treadle_call(PyObject *dispatcher, PyObject **args, Py_ssize_t n, PyObject *names)

is a METH_FASTCALL | METH_KEYWORDS function for all jitted functions of the process. The dispatcher
of a jitted function holds a tuple of calls, one a specialization; for each, the tables of
`treadle.codegen.call_table` say what the guard asks for and what the call does. Where no guard
holds, or anything at all is unusual (a trace is running, a view of a buffer is held by NumPy, a
fault was recorded), the result is the sentinel MISS, everything is as before, and the Python path
does the same again: it alone decides what a call means. See docs/decisions/0018.

CPython's objects are read at byte offsets that were measured in this process (`Layout`). The code
is written once a process and does not grow with the number of functions.
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.call_guard import GUARD, Exits, at, is_null, word, write_guard
from treadle.codegen.call_records import let_go, put, register, take
from treadle.codegen.call_run import RUN, write_run
from treadle.codegen.call_table import Context, Layout, Word
from treadle.codegen.llvm import I1, I32, I64, NULL, PTR, VOID, FunctionWriter, Module, Val
from treadle.codegen.target import Target

CALL: Final = "treadle_call"
CONTEXT: Final = "treadle_call_context"
_TRY = "treadle_try"
_PARAMS = [(PTR, "self"), (PTR, "args"), (I64, "nargs"), (PTR, "kwnames")]


def emit_call(target: Target, layout: Layout) -> str:
    """The call path as text of LLVM IR. `treadle_call_context()` gives the address of the words
    of `Context`, which are to be filled in before the first call."""
    module = Module(target)
    context = module.variable("context", f"[{Context.COUNT} x i64]")
    write_guard(module, layout, context)
    write_run(module, layout, context)
    _write_try(module, context)
    _write_call(module, layout, context)
    w = module.function(CONTEXT, PTR, [])
    w.ret(context)
    return str(module)


def _missed(w: FunctionWriter, context: Val) -> None:
    miss = word(w, context, Context.MISS)
    take(w, miss)
    w.ret(miss)


def _write_call(module: Module, layout: Layout, context: Val) -> None:
    w = module.function(CALL, PTR, _PARAMS)
    dispatcher, args, nargs, names = w.args
    miss, failed = w.new_block("miss"), w.new_block("failed")
    exits = Exits(w, miss)
    switches, zero = word(w, context, Context.SWITCHES), word(w, context, Context.ZERO)
    exits.unless_same(at(w, switches, layout.disabled), zero)
    exits.unless(is_null(w, names))
    trace = _mode(w, context, Context.TRACE)
    none = word(w, context, Context.NONE)
    with w.if_(is_null(w, trace), "error", unlikely=True):
        w.br(failed)
        w.start(w.new_block("unreached"))
    let_go(w, trace)
    exits.unless_same(trace, none)
    grad = _mode(w, context, Context.GRAD)
    with w.if_(is_null(w, grad), "error", unlikely=True):
        w.br(failed)
        w.start(w.new_block("unreached"))
    let_go(w, grad)  # True or False, which live for ever
    calls = at(w, dispatcher, layout.calls)
    take(w, calls)
    found = w.new_block("found")
    results: list[tuple[Val, object]] = []
    given = w.and_(nargs, (1 << 63) - 1)
    with w.loop(0, at(w, calls, layout.objects.size, I64), label="call") as n:
        items = w.gep(calls, layout.objects.tuple_items)
        call = w.load(PTR, w.gep(items, n, PTR), align=8)
        table = at(w, at(w, call, layout.table), layout.objects.array_data)
        result = w.call(_TRY, PTR, [table, args, given, grad])
        results.append((result, w.block))
        following = w.new_block("following")
        w.cond_br(w.icmp("eq", result, word(w, context, Context.MISS)), following, found)
        w.start(following)
    let_go(w, calls)
    w.br(miss)
    w.start(found)
    result = w.phi(PTR, results)  # type: ignore[arg-type]
    let_go(w, calls)
    w.ret(result)
    w.start(failed)
    w.ret(NULL)
    w.start(miss)
    _missed(w, context)


def _mode(w: FunctionWriter, context: Val, name: Context) -> Val:
    """An attribute of what this thread is doing (`treadle.tracer.modes`)."""
    modes = word(w, context, Context.MODES)
    return w.external("PyObject_GetAttr", PTR, [modes, word(w, context, name)])


def _write_try(module: Module, context: Val) -> None:
    """What one specialization gives; MISS, borrowed, where it does not fit; null for an error."""
    params = [(PTR, "table"), (PTR, "args"), (I64, "nargs"), (PTR, "grad")]
    w = module.function(_TRY, PTR, params, internal=True)
    table, args, nargs, grad = w.args
    miss, unfit = w.new_block("miss"), w.new_block("unfit")
    exits = Exits(w, miss)
    exits.unless_same(word(w, table, Word.BUSY, I64), 0)
    exits.unless_same(word(w, table, Word.ARGUMENTS, I64), nargs)
    exits.unless_same(word(w, table, Word.GRAD_MODE), grad)
    put(w, w.int(1), table, Word.BUSY)
    registers = word(w, table, Word.REGISTERS)
    with w.loop(0, nargs, label="argument") as n:
        argument = w.load(PTR, w.gep(args, n, PTR), align=8)
        w.store(argument, w.gep(registers, n, PTR), align=8)
    fits = w.call(GUARD, I1, [registers, word(w, table, Word.GUARD)])
    Exits(w, unfit).unless(fits)
    python = word(w, table, Word.PYTHON)
    with w.if_(w.icmp("ne", python, NULL), "python"):
        fetched = _fetched(w, table)
        put(w, w.int(0), table, Word.BUSY)
        with w.if_(is_null(w, fetched), "error"):
            w.ret(NULL)
            w.start(w.new_block("unreached"))
        result = w.external("PyObject_CallOneArg", PTR, [python, fetched])
        let_go(w, fetched)
        w.ret(result)
        w.start(w.new_block("unreached"))
    result = w.call(RUN, PTR, [table])
    missed = word(w, context, Context.MISS)
    with w.if_(w.icmp("eq", result, missed), "missed"):
        let_go(w, missed)
    w.ret(result)
    w.start(unfit)
    w.external("PyErr_Clear", VOID, [])
    put(w, w.int(0), table, Word.BUSY)
    w.br(miss)
    w.start(miss)
    w.ret(word(w, context, Context.MISS))


def _fetched(w: FunctionWriter, table: Val) -> Val:
    """A list of what the guard has fetched, or null."""
    count, numbers = word(w, table, Word.FETCHED_COUNT, I64), word(w, table, Word.FETCHED)
    made = w.external("PyList_New", PTR, [count])
    with w.if_(w.icmp("ne", made, NULL), "made"), w.loop(0, count, label="fetched") as n:
        value = register(w, table, w.load(I64, w.gep(numbers, n, I64), align=8))
        take(w, value)
        w.external("PyList_SetItem", I32, [made, n, value])
    return made
