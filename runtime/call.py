"""The native call path: loads its code, and makes the function that each jitted function calls.

The code is compiled once a process, when a jitted function has been called a few times, and kept
until the process ends. Where objects are not laid out as it must know (`call_layout`), where
a symbol of CPython is missing, or where TREADLE_CALL_PATH=python says so, there is none, and calls
take the path through Python.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Final

import numpy as np

from treadle.codegen.call_table import Context
from treadle.codegen.target import host
from treadle.runtime import knobs
from treadle.runtime.call_layout import layout, objects
from treadle.runtime.call_tables import Call, call_of, stands_between
from treadle.tracer.backend import MISS
from treadle.tracer.guards import GuardPlan
from treadle.tracer.jit import BoundJitted, Jitted, switches
from treadle.tracer.modes import modes
from treadle.tracer.specialization import Specialization

Direct = Callable[..., Any]

_METH_VARARGS_FAST: Final = 0x0080 | 0x0002  # METH_FASTCALL | METH_KEYWORDS
_NEW_ARRAY: Final = 94  # PyArray_NewFromDescr in NumPy's table of functions, since its version 1.0


class Dispatcher:
    """Holds the calls of a jitted function, the first to be tried first."""

    __slots__ = ("calls",)

    def __init__(self, calls: tuple[Call, ...]) -> None:
        self.calls = calls


class CallPath:
    """Implements `treadle.tracer.backend.CallPath`."""

    def call(self, spec: Any, plan: Any, arguments: int) -> Call | None:
        """See `treadle.tracer.backend.CallPath.call`."""
        assert isinstance(spec, Specialization) and isinstance(plan, GuardPlan)
        if knobs.call_path() != "native" or objects() is None or arguments < 0:
            return None
        return call_of(spec, plan, arguments)

    def connect(self, calls: Sequence[Any]) -> tuple[Dispatcher, Direct] | None:
        """See `treadle.tracer.backend.CallPath.connect`."""
        try:
            code = _code()
        except MemoryError:  # for its compilation: calls go through Python
            return None
        if code is None:
            return None
        dispatcher = Dispatcher(tuple(calls))
        return dispatcher, code(dispatcher)


class _MethodDef(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )  # fmt: skip


@cache
def _code() -> Callable[[Dispatcher], Direct] | None:
    """Compile the call path; what makes a builtin function of a dispatcher."""
    from treadle.codegen.call import CALL, CONTEXT, emit_call
    from treadle.runtime.kept import load_kept

    new_array = _new_array()
    probe = Call.__new__(Call)
    probe.table = np.zeros(1, np.int64)
    known = layout(Dispatcher(()), probe, switches)
    if known is None or new_array is None:
        return None
    text = emit_call(host(), known)
    if not all(hasattr(ctypes.pythonapi, name) for name in _symbols(text)):
        return None
    code = load_kept(text, host())
    context = (ctypes.c_int64 * Context.COUNT).from_address(
        ctypes.CFUNCTYPE(ctypes.c_void_p)(code.address(CONTEXT))()
    )
    for name, x in _objects().items():
        context[name] = id(x)
    context[Context.DTYPE_HASH], context[Context.SHAPE_HASH] = hash("dtype"), hash("shape")
    context[Context.NEW_ARRAY] = new_array
    definition = _MethodDef(b"direct", code.address(CALL), _METH_VARARGS_FAST, None)
    # Functions made of it may outlive this module's names.
    for x in (code, definition, *_objects().values()):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(x))
    for function in (Jitted.__call__, BoundJitted.__call__):
        stands_between(function.__code__)
    make = ctypes.pythonapi.PyCFunction_NewEx
    make.argtypes = (ctypes.POINTER(_MethodDef), ctypes.py_object, ctypes.c_void_p)
    make.restype = ctypes.py_object
    return lambda dispatcher: make(ctypes.byref(definition), dispatcher, None)


def _objects() -> dict[Context, Any]:
    return {
        Context.MISS: MISS, Context.NONE: None, Context.MODES: modes, Context.TRACE: _TRACE,
        Context.GRAD: _GRAD, Context.SWITCHES: switches, Context.ZERO: 0, Context.TRUE: True,
        Context.FALSE: False, Context.TUPLE: tuple, Context.LIST: list, Context.DICT: dict,
        Context.INT: int, Context.STR: str, Context.FLOAT: float, Context.ARRAY: np.ndarray,
        Context.DTYPE_NAME: _DTYPE, Context.SHAPE_NAME: _SHAPE,
        Context.DISPATCH_CODE: Jitted.__call__.__code__,
        Context.BOUND_CODE: BoundJitted.__call__.__code__,
    }  # fmt: skip


# One object each, whose address the code holds.
_TRACE, _GRAD, _DTYPE, _SHAPE = "trace", "grad", "dtype", "shape"


def _symbols(text: str) -> list[str]:
    """The functions of CPython that the code calls."""
    return [name for name in re.findall(r"^declare .* @(\w+)\(", text, re.M) if "Py" in name]


@cache
def _new_array() -> int | None:
    """The address of NumPy's PyArray_NewFromDescr, tried out; None where it is not what it should
    be."""
    try:
        from numpy._core import _multiarray_umath as core  # type: ignore[attr-defined]
    except ImportError:
        from numpy.core import _multiarray_umath as core
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.argtypes, get.restype = (ctypes.py_object, ctypes.c_char_p), ctypes.c_void_p
    table = get(core._ARRAY_API, None)
    if not table:
        return None
    address = int(ctypes.c_int64.from_address(table + 8 * _NEW_ARRAY).value)
    obj, pointer, number = ctypes.py_object, ctypes.c_void_p, ctypes.c_int
    make = ctypes.PYFUNCTYPE(obj, obj, obj, number, pointer, pointer, pointer, number, pointer)
    dtype = np.dtype(np.float32)
    ctypes.pythonapi.Py_IncRef(obj(dtype))  # it goes over to the array
    made = make(address)(np.ndarray, dtype, 2, (ctypes.c_ssize_t * 2)(3, 5), None, None, 0, None)
    fits = type(made) is np.ndarray and made.shape == (3, 5) and made.dtype is dtype
    return address if fits and made.flags.c_contiguous else None
