"""Float32 functions over all 2^32 inputs: the largest error of compiled code, and where it is.

The exact results are those of the compiled float64 code of the same function, for this machine's
widest vectors. That code is off by at most 4 units of float64's last place (`accuracy.measure`
holds it to that, against mpmath), which is less than a hundred-millionth of one of float32's.
Inputs are counted by their bit patterns: input k of a sweep is the float32 whose bits are
k * stride, so that a stride above 1 gives a sample that is dense at every exponent.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.codegen.llvm import (
    F32,
    F64,
    I32,
    I64,
    PTR,
    FunctionWriter,
    Module,
    Val,
    int_const,
    lane_const,
    vec,
)
from treadle.codegen.scalar_llvm import Element, LlvmScalarOps
from treadle.codegen.target import Target, host
from treadle.ir.builder import Builder
from treadle.ir.graph import Function, Result
from treadle.ir.op import get_op
from treadle.ir.scalar import Scalar
from treadle.ir.types import DType, TensorType, float32, float64
from treadle.passes import expand
from treadle.passes.manager import run_pipeline
from treadle.runtime.cores import usable_cores
from treadle.runtime.native import NativeCode, load

Array = npt.NDArray[Any]

ALL: Final = 2**32
CHUNK: Final = 2**16  # its results in both formats fit into a core's second cache

# The float functions of one operand, by the name of the table: the op and its attributes.
FUNCTIONS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    **{
        name: (name, {})
        for name in (
            "exp", "expm1", "exp2", "log", "log1p", "log2", "sin", "cos", "tanh", "sigmoid",
            "erf", "erfc", "erfinv", "softplus", "sqrt", "rsqrt", "silu",
        )
    },
    "gelu": ("gelu", {"approximate": False}),
    "gelu-tanh": ("gelu", {"approximate": True}),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Worst:
    """The largest error in units of the last place, and an input that has it."""

    error: float
    x: float


def sweep(
    name: str,
    targets: Sequence[Target],
    peers: Mapping[str, Callable[[Array], Array]] | None = None,
    stride: int = 1,
) -> dict[str, Worst]:
    """The largest errors of `name` on each target and peer, over every `stride`-th bit pattern.

    A stride of 1 takes all of them; otherwise it should be odd, or low bits never change.
    """
    lanes = 64
    count = ALL // stride // lanes * lanes
    exact = _Kernel(name, float64, host())
    ours = {t.name: _Kernel(name, float32, t) for t in targets}
    comparison = _Comparison()
    workers = usable_cores()
    share = -(-count // workers // CHUNK) * CHUNK

    def part(first: int) -> dict[str, Worst]:
        return _part(first, min(first + share, count), stride, exact, ours, peers or {}, comparison)

    with ThreadPoolExecutor(workers) as threads:
        parts = list(threads.map(part, range(0, count, share)))
    for kernel in (exact, *ours.values()):
        kernel.close()
    comparison.close()
    return {who: max((p[who] for p in parts), key=lambda w: w.error) for who in parts[0]}


def _part(
    first: int,
    stop: int,
    stride: int,
    exact: _Kernel,
    ours: Mapping[str, _Kernel],
    peers: Mapping[str, Callable[[Array], Array]],
    comparison: _Comparison,
) -> dict[str, Worst]:
    """One thread's inputs, chunk by chunk."""
    wide, narrow = np.empty(CHUNK, np.float64), np.empty(CHUNK, np.float32)
    records = {who: _Record() for who in (*ours, *peers)}
    for start in range(first, stop, CHUNK):
        n = min(CHUNK, stop - start)
        exact.run(start * stride, stride, wide, n)
        for who, kernel in ours.items():
            kernel.run(start * stride, stride, narrow, n)
            comparison.run(narrow, wide, n, start, records[who])
        if peers:
            x = patterns(start, n, stride)
            for who, fn in peers.items():
                comparison.run(fn(x), wide, n, start, records[who])
    return {who: record.worst(stride) for who, record in records.items()}


def patterns(start: int, count: int, stride: int) -> Array:
    """Inputs `start` to `start + count` of a sweep."""
    numbers = np.arange(start, start + count, dtype=np.uint64) * np.uint64(stride)
    return numbers.astype(np.uint32).view(np.float32)


# --- the functions ---------------------------------------------------------------------------


def _function(name: str, dtype: DType) -> Function:
    """The op as a function of one element, composites expanded."""
    op_name, attrs = FUNCTIONS[name]
    op = get_op(op_name)
    b = Builder("f")
    x = b.param(TensorType(dtype, ()), "x")
    (y,) = b.emit(op, [x], op.attrs(**attrs))
    return run_pipeline(b.finish([Result(y, "y")]), (expand.PASS,))


def element_of(s: LlvmScalarOps, name: str, x: Element) -> Element:
    """The function's code, written into the writer of `s`."""
    fn = _function(name, x.dtype)
    known = dict(zip(fn.inputs, (x,), strict=True))
    for instr in fn.instrs:
        if instr.op.name == "const":
            value = float(instr.attrs.data.array())  # type: ignore[attr-defined]
            known[instr.results[0]] = s.const(value, x.dtype)
            continue
        assert isinstance(instr.op.lower, Scalar), instr.op
        args = (known[a] for a in instr.args)
        known[instr.results[0]] = instr.op.lower.fn(s, instr.attrs, *args)
    return known[fn.outputs[0]]


class _Kernel:
    """`name` of consecutive inputs of a sweep, in one format, compiled for one target."""

    def __init__(self, name: str, dtype: DType, target: Target) -> None:
        module = Module(target)
        params = [(I64, "first"), (I64, "stride"), (PTR, "out"), (I64, "n")]
        w = module.function("run", I64, params)
        first, stride, out, n = w.args
        lanes = target.lanes(dtype)
        s = LlvmScalarOps(w, lanes)
        narrow = w.cast("trunc", stride, I32)
        ramp = w.mul(lane_const(range(lanes), I32), w.splat(narrow, lanes))
        elem = F32 if dtype is float32 else F64
        with w.loop(0, n, lanes) as i:
            start = w.cast("trunc", w.add(first, w.mul(i, stride)), I32)
            x = w.bitcast(w.add(w.splat(start, lanes), ramp), vec(F32, lanes))
            x = x if dtype is float32 else w.cast("fpext", x, F64)
            y = element_of(s, name, s.element(x, dtype))
            w.store(s.wide(y), w.gep(out, i, elem))
        w.ret(0)
        self._code = load(str(module), target)
        self._run = _entry(self._code, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)

    def run(self, first: int, stride: int, out: Array, n: int) -> None:
        self._run(first, stride, out.ctypes.data, n)

    def close(self) -> None:
        self._code.close()


def _entry(code: NativeCode, *params: Any) -> Callable[..., int]:
    return ctypes.CFUNCTYPE(ctypes.c_int64, *params, ctypes.c_int64)(code.address("run"))


# --- the comparison --------------------------------------------------------------------------


class _Record:
    """The largest error of each lane so far, and at which input."""

    def __init__(self) -> None:
        lanes = host().lanes(float64)
        self.errors = np.full(lanes, -1.0)
        self.inputs = np.zeros(lanes, np.int64)

    def worst(self, stride: int) -> Worst:
        k = int(np.argmax(self.errors))
        x = patterns(int(self.inputs[k]), 1, stride)[0]
        return Worst(float(self.errors[k]), float(x))


class _Comparison:
    """`accuracy.ulps` as machine code, which keeps the largest."""

    def __init__(self) -> None:
        target = host()
        lanes = target.lanes(float64)
        module = Module(target)
        params = [(PTR, "got"), (PTR, "exact"), (I64, "n"), (PTR, "errors"), (PTR, "inputs")]
        w = module.function("run", I64, [*params, (I64, "first")])
        got, exact, n, errors, inputs, first = w.args
        before = [w.load(vec(F64, lanes), errors), w.load(vec(I64, lanes), inputs)]
        ramp = lane_const(range(lanes), I64)
        with w.carry(0, n, lanes, before) as loop:
            at = w.add(w.splat(w.add(first, loop.index), lanes), ramp)
            narrow = w.load(vec(F32, lanes), w.gep(got, loop.index, F32), align=4)
            wide = w.load(vec(F64, lanes), w.gep(exact, loop.index, F64), align=8)
            error = _ulps(w, narrow, wide)
            more = w.fcmp("ogt", error, loop.carried[0])
            loop.next = [
                w.select(more, error, loop.carried[0]),
                w.select(more, at, loop.carried[1]),
            ]
        for value, place in zip(loop.results, (errors, inputs), strict=True):
            w.store(value, place)
        w.ret(0)
        self._code = load(str(module), target)
        self._run = _entry(
            self._code, *[ctypes.c_void_p] * 2, ctypes.c_int64, *[ctypes.c_void_p] * 2
        )

    def run(self, got: Array, exact: Array, n: int, first: int, record: _Record) -> None:
        assert got.dtype == np.float32
        assert got.size >= n
        places = (record.errors.ctypes.data, record.inputs.ctypes.data)
        self._run(got.ctypes.data, exact.ctypes.data, n, *places, first)

    def close(self) -> None:
        self._code.close()


def _ulps(w: FunctionWriter, got: Val, exact: Val) -> Val:
    lanes = got.type.lanes
    inf = float("inf")
    expected = w.cast("fptrunc", exact, F32)
    # 2^23 over the exact result's power of two, which is at least the smallest normal one.
    exponent = w.and_(w.bitcast(exact, vec(I64, lanes)), 0x7FF << 52)
    exponent = w.binary("llvm.umax", exponent, (1023 - 126) << 52)
    places = w.sub(w.splat(int_const((2 * 1023 + 23) << 52), lanes), exponent)
    off = w.unary("llvm.fabs", w.fsub(w.cast("fpext", got, F64), exact))
    error = w.fmul(off, w.bitcast(places, exact.type))
    plain = w.and_(
        w.fcmp("olt", w.unary("llvm.fabs", expected), inf),
        w.fcmp("olt", w.unary("llvm.fabs", got), inf),
    )
    both_nan = w.and_(w.fcmp("uno", got, got), w.fcmp("uno", exact, exact))
    same = w.or_(w.fcmp("oeq", got, expected), both_nan)
    otherwise = w.select(same, w.const(0.0, exact.type), inf)
    return w.select(plain, error, otherwise)


def compared(got: Array, exact: Array) -> Worst:
    """The largest error of float32 results against float64 ones; `x` counts from 0 as an integer.

    The number of elements must be a multiple of 64.
    """
    comparison, record = _Comparison(), _Record()
    comparison.run(np.ascontiguousarray(got), np.ascontiguousarray(exact), got.size, 0, record)
    comparison.close()
    k = int(np.argmax(record.errors))
    return Worst(float(record.errors[k]), float(record.inputs[k]))
