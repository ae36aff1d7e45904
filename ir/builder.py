"""Building programs.

`Ops` is the vocabulary in which derivative rules, expansions and rewrites are written: one method
per op, on handles of any kind. `Builder` implements it on `Value` and collects instructions; the
eager history implements it on tensors. Operands may be Python numbers, which become constants of
the other operand's dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Literal, TypeVar

import numpy as np

from treadle.ir.graph import Function, Instr, Loc, Param, Result, Value
from treadle.ir.op import NO_ATTRS, ArrayData, Attrs, OpDef, get_op
from treadle.ir.types import DType, Size, TensorType, normalize_axes

H = TypeVar("H")
Number = bool | int | float


class Ops(Generic[H]):
    """The ops as methods. A subclass implements `emit` and `type_of`."""

    def emit(self, op: OpDef, args: Sequence[H], attrs: Attrs = NO_ATTRS) -> tuple[H, ...]:
        """Apply `op`; its type rule may raise ShapeError or DTypeError."""
        raise NotImplementedError

    def type_of(self, x: H) -> TensorType:
        raise NotImplementedError

    def call(self, name: str, *args: H, **attrs: Any) -> H:
        """The only result of the op called `name` with the given attributes."""
        op = get_op(name)
        (out,) = self.emit(op, args, op.attrs(**attrs))
        return out

    def call_multi(self, name: str, *args: H, **attrs: Any) -> tuple[H, ...]:
        op = get_op(name)
        return self.emit(op, args, op.attrs(**attrs))

    # --- constants ---------------------------------------------------------------------------

    def const(self, value: Any, dtype: DType) -> H:
        """A constant: a number (rank 0) or an array."""
        return self.call("const", data=ArrayData.of(np.asarray(value, dtype.dtype)))

    def full(self, shape: Sequence[Size], value: Number, dtype: DType) -> H:
        scalar = self.const(value, dtype)
        return self.broadcast_to(scalar, shape) if len(shape) else scalar

    def zeros_like(self, x: H) -> H:
        t = self.type_of(x)
        return self.full(t.shape, 0, t.dtype)

    def ones_like(self, x: H) -> H:
        t = self.type_of(x)
        return self.full(t.shape, 1, t.dtype)

    def iota(self, shape: Sequence[Size], axis: int, dtype: DType) -> H:
        return self.call("iota", shape=tuple(shape), axis=axis, dtype=dtype)

    def _pair(self, x: H | Number, y: H | Number) -> tuple[H, H]:
        if isinstance(x, (bool, int, float)):
            assert not isinstance(y, (bool, int, float))
            return self.const(x, self.type_of(y).dtype), y
        if isinstance(y, (bool, int, float)):
            return x, self.const(y, self.type_of(x).dtype)
        return x, y

    def _binary(self, name: str, x: H | Number, y: H | Number) -> H:
        return self.call(name, *self._pair(x, y))

    # --- elementwise -------------------------------------------------------------------------

    def add(self, x: H | Number, y: H | Number) -> H:
        return self._binary("add", x, y)

    def sub(self, x: H | Number, y: H | Number) -> H:
        return self._binary("sub", x, y)

    def mul(self, x: H | Number, y: H | Number) -> H:
        return self._binary("mul", x, y)

    def div(self, x: H | Number, y: H | Number) -> H:
        return self._binary("div", x, y)

    def pow(self, x: H | Number, y: H | Number) -> H:
        return self._binary("pow", x, y)

    def maximum(self, x: H | Number, y: H | Number) -> H:
        return self._binary("maximum", x, y)

    def minimum(self, x: H | Number, y: H | Number) -> H:
        return self._binary("minimum", x, y)

    def eq(self, x: H | Number, y: H | Number) -> H:
        return self._binary("eq", x, y)

    def ne(self, x: H | Number, y: H | Number) -> H:
        return self._binary("ne", x, y)

    def lt(self, x: H | Number, y: H | Number) -> H:
        return self._binary("lt", x, y)

    def le(self, x: H | Number, y: H | Number) -> H:
        return self._binary("le", x, y)

    def gt(self, x: H | Number, y: H | Number) -> H:
        return self._binary("gt", x, y)

    def ge(self, x: H | Number, y: H | Number) -> H:
        return self._binary("ge", x, y)

    def logical_and(self, x: H, y: H) -> H:
        return self.call("logical_and", x, y)

    def logical_or(self, x: H, y: H) -> H:
        return self.call("logical_or", x, y)

    def logical_not(self, x: H) -> H:
        return self.call("logical_not", x)

    def where(self, cond: H, x: H | Number, y: H | Number) -> H:
        """`x` where `cond`, else `y`."""
        x, y = self._pair(x, y)
        return self.call("where", cond, x, y)

    def cast(self, x: H, dtype: DType) -> H:
        """`x` as `dtype`; `x` itself where it is that already."""
        if self.type_of(x).dtype == dtype:
            return x
        return self.call("cast", x, dtype=dtype)

    def neg(self, x: H) -> H:
        return self.call("neg", x)

    def exp(self, x: H) -> H:
        return self.call("exp", x)

    def log(self, x: H) -> H:
        return self.call("log", x)

    def sqrt(self, x: H) -> H:
        return self.call("sqrt", x)

    def tanh(self, x: H) -> H:
        return self.call("tanh", x)

    def sigmoid(self, x: H) -> H:
        return self.call("sigmoid", x)

    # --- reductions --------------------------------------------------------------------------

    def _reduce(self, name: str, x: H, axes: int | Sequence[int] | None, keepdims: bool) -> H:
        normal = normalize_axes(axes, self.type_of(x).rank)
        return self.call(name, x, axes=normal, keepdims=keepdims)

    def sum(self, x: H, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> H:
        return self._reduce("sum", x, axes, keepdims)

    def max(self, x: H, axes: int | Sequence[int] | None = None, keepdims: bool = False) -> H:
        return self._reduce("max", x, axes, keepdims)

    # --- movement ----------------------------------------------------------------------------

    def reshape(self, x: H, shape: Sequence[Size]) -> H:
        """`x` itself where it has that shape already."""
        if self.type_of(x).shape == tuple(shape):
            return x
        return self.call("reshape", x, shape=tuple(shape))

    def permute(self, x: H, perm: Sequence[int]) -> H:
        """Result axis i is operand axis perm[i]; `x` itself for the identity."""
        if tuple(perm) == tuple(range(len(perm))):
            return x
        return self.call("permute", x, perm=tuple(perm))

    def transpose(self, x: H) -> H:
        """The last two axes exchanged."""
        rank = self.type_of(x).rank
        return self.permute(x, (*range(rank - 2), rank - 1, rank - 2))

    def broadcast_to(self, x: H, shape: Sequence[Size]) -> H:
        """`x` itself where it has that shape already."""
        if self.type_of(x).shape == tuple(shape):
            return x
        return self.call("broadcast_to", x, shape=tuple(shape))

    def matmul(self, x: H, y: H) -> H:
        return self.call("matmul", x, y)

    def unbroadcast(self, x: H, shape: Sequence[Size]) -> H:
        """Sum `x` over the axes along which `shape` was broadcast to it."""
        have = self.type_of(x).shape
        extra = len(have) - len(shape)
        axes = [i for i, s in enumerate(have) if i < extra or (shape[i - extra] == 1 and s != 1)]
        summed = self.sum(x, axes, keepdims=True) if axes else x
        return self.reshape(summed, shape)


class _At:
    """See `Builder.at`: a class, for it takes half the time that a generator does."""

    __slots__ = ("_before", "_builder", "_loc")

    def __init__(self, builder: Builder, loc: Loc | None) -> None:
        self._builder, self._loc = builder, loc

    def __enter__(self) -> None:
        self._before, self._builder.loc = self._builder.loc, self._loc

    def __exit__(self, *raised: object) -> None:
        self._builder.loc = self._before


class Builder(Ops[Value]):
    """Collects the instructions of one Function."""

    def __init__(self, name: str = "main", loc: Loc | None = None) -> None:
        self.name = name
        self.loc = loc
        self._params: list[Param] = []
        self._instrs: list[Instr] = []

    @property
    def instrs(self) -> Sequence[Instr]:
        """What has been built so far."""
        return self._instrs

    @property
    def params(self) -> Sequence[Param]:
        """The parameters so far."""
        return self._params

    def at(self, loc: Loc | None) -> AbstractContextManager[None]:
        """Instructions emitted inside carry `loc`."""
        return _At(self, loc)

    def type_of(self, x: Value) -> TensorType:
        return x.type

    def param(self, type: TensorType, path: str, kind: Literal["arg", "state"] = "arg") -> Value:
        value = Value(type)
        self._params.append(Param(value, path, kind))
        return value

    def keep_param(self, param: Param) -> None:
        """Take over a parameter, with its Value, from another Function."""
        self._params.append(param)

    def emit(
        self,
        op: OpDef,
        args: Sequence[Value],
        attrs: Attrs = NO_ATTRS,
        regions: Sequence[Function] = (),
    ) -> tuple[Value, ...]:
        types = op.infer_types(attrs, [a.type for a in args])
        return self.emit_typed(op, args, attrs, types, regions)

    def emit_typed(
        self,
        op: OpDef,
        args: Sequence[Value],
        attrs: Attrs,
        types: Sequence[TensorType],
        regions: Sequence[Function] = (),
    ) -> tuple[Value, ...]:
        """Append without asking the type rule: for region ops, whose types the region gives."""
        instr = Instr(op, args, attrs, types, self.loc, regions)
        self._instrs.append(instr)
        return instr.results

    def append(self, instr: Instr) -> tuple[Value, ...]:
        """Reuse an instruction as it is."""
        self._instrs.append(instr)
        return instr.results

    def clear(self) -> None:
        """Forget the instructions; parameters stay."""
        self._instrs = []

    def rebuild(self, instr: Instr, args: Sequence[Value]) -> tuple[Value, ...]:
        """`instr` with new arguments, at its own line; the same instruction if none changed.

        The new arguments must have the types of the old: the type rule is not run again.
        """
        if tuple(args) == instr.args:  # values are equal only to themselves
            return self.append(instr)
        types = [r.type for r in instr.results]
        copy = Instr(instr.op, args, instr.attrs, types, instr.loc, instr.regions)
        return self.append(copy)

    def finish(self, results: Sequence[Result]) -> Function:
        return Function(self.name, tuple(self._params), tuple(self._instrs), tuple(results))
