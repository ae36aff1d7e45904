"""One op, one definition.

`OpDef` holds everything that Treadle knows about an op: a line of maths, the type of its
attributes, the type rule, the NumPy reference (the truth that compiled code is compared to), the
derivative, the lowering or expansion, traits, and samples that the op-table test draws from.
`register` refuses a definition with a piece missing, so a missing rule is found at import.

Calling conventions, the same for every op (`a` is the attrs object):

    infer(a, *types)            -> TensorType, or a tuple of them for several results
    ref(a, *arrays)             -> array, or a tuple
    vjp(o, a, args, outs, cts)  -> a tuple with one cotangent or None (zero) per argument
    expand(o, a, *args)         -> value, or a tuple
    lower                       -> one of the forms in `treadle.ir.scalar`
    samples(rng)                -> Samples: legal inputs

`o` is an `Ops` (see `treadle.ir.builder`): rules written with it run while a pass rewrites IR and
while an eager backward walks its history, so there is one set of derivative rules.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import field, fields
from enum import Enum
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.scalar import Lowering, Scalar
from treadle.ir.types import DType, TensorType, dtype_of

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Attrs:
    """Base of an op's attributes: a frozen dataclass of ints, floats, bools, strings, None,
    DTypes, ArrayData, sizes, and tuples of these. As it stands: no attributes."""


NO_ATTRS: Final = Attrs()
_KNOWN_MOST: Final = 1024  # operand types that an op remembers


@dataclass(frozen=True, slots=True)
class ArrayData:
    """A constant array as a value: compared and hashed bit for bit, so NaN equals NaN and
    0.0 differs from -0.0."""

    dtype: DType
    shape: tuple[int, ...]
    data: bytes = field(repr=False)

    @staticmethod
    def of(array: Array) -> ArrayData:
        return ArrayData(dtype_of(array.dtype), array.shape, np.ascontiguousarray(array).tobytes())

    def array(self) -> Array:
        """A read-only NumPy array."""
        return np.frombuffer(self.data, self.dtype.dtype).reshape(self.shape)


class Trait(Enum):
    """What passes may know of an op. Fusion and rewrites read these; there is no second list."""

    ELEMENTWISE = "each result element depends on the operand elements at its own place"
    COMMUTATIVE = "op(x, y) is op(y, x), bit for bit"
    MONOTONE = "x <= y implies op(x) <= op(y)"
    MOVEMENT = "moves elements, computes nothing"
    REDUCTION = "combines the elements along attrs.axes"
    COMPOSITE = "expands into primitive ops"
    EXPENSIVE = "costs more to compute again than to store and load"
    CAN_FAULT = "a run can fail (an index out of range); writes that outlive the call come later"
    EFFECT = "kept even if its results are unused"
    BARRIER = "never merged, folded or looked through before autodiff"
    REGION = "a nested Function says what it computes and what types it has, not infer and ref"
    CONTROL = "its regions are programs at its own level: a loop's body, the branches of a choice"

    __hash__ = object.__hash__  # Enum's own is written in Python, and passes ask all the time


class _NotDifferentiable:
    """The derivative of an op that has none (comparisons, argmax, integers)."""

    def __repr__(self) -> str:
        return "NOT_DIFFERENTIABLE"


NOT_DIFFERENTIABLE: Final = _NotDifferentiable()


@dataclass(frozen=True, slots=True)
class Sample:
    """One legal call. `differentiable` is False where finite differences would mislead (kinks);
    `ulps` bounds |compiled - reference| in units of the result dtype (0: bit for bit), and
    `scale` widens it by that many units of the largest absolute operand product (reductions)."""

    args: tuple[Array, ...]
    attrs: Attrs = NO_ATTRS
    differentiable: bool = True
    ulps: float = 0.0
    scale: float = 0.0


@dataclass(frozen=True, kw_only=True)
class OpDef:
    """The definition of one op; see the head of this file for the calling conventions."""

    name: str
    maths: str
    infer: Callable[..., TensorType | tuple[TensorType, ...]]
    ref: Callable[..., Any]
    vjp: Callable[..., tuple[Any, ...]] | _NotDifferentiable
    samples: Callable[[np.random.Generator], Iterable[Sample]]
    attrs: type[Attrs] = Attrs
    lower: Lowering | None = None
    expand: Callable[..., Any] | None = None
    traits: frozenset[Trait] = frozenset()
    # What the type rule has said, where it has no attributes to look at.
    _known: dict[tuple[TensorType, ...], tuple[TensorType, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def has(self, trait: Trait) -> bool:
        return trait in self.traits

    @property
    def elementwise(self) -> bool:
        return Trait.ELEMENTWISE in self.traits

    def infer_types(self, attrs: Attrs, types: Iterable[TensorType]) -> tuple[TensorType, ...]:
        """The result types, always as a tuple. Raises ShapeError or DTypeError."""
        listed = tuple(types)
        known = self._known.get(listed) if attrs is NO_ATTRS else None
        if known is not None:
            return known
        try:
            found = self.infer(attrs, *listed)
        except TypeError as error:
            _check_operand_count(self, attrs, listed, error)
            raise
        given = found if isinstance(found, tuple) else (found,)
        if attrs is NO_ATTRS:
            if len(self._known) >= _KNOWN_MOST:
                self._known.clear()
            self._known[listed] = given
        return given

    def run_ref(self, attrs: Attrs, arrays: Iterable[Array]) -> tuple[Array, ...]:
        """The reference's results, always as a tuple of arrays. Float warnings are silent."""
        with np.errstate(all="ignore"):
            found = self.ref(attrs, *arrays)
        outs = found if isinstance(found, tuple) else (found,)
        return tuple(np.asarray(o) for o in outs)

    def __repr__(self) -> str:
        return f"<op {self.name}: {self.maths}>"

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def _check_operand_count(
    op: OpDef, attrs: Attrs, types: tuple[TensorType, ...], error: TypeError
) -> None:
    """Raise ShapeError if `error` came from a type rule that takes another number of operands.

    Asked only after a failure: binding a signature costs more than most type rules.
    """
    signature = inspect.signature(op.infer)
    try:
        signature.bind(attrs, *types)
    except TypeError:
        expected = len(signature.parameters) - 1
        raise ShapeError(f"{op.name} takes {expected} operand(s), found {len(types)}") from error


_TABLE: dict[str, OpDef] = {}


def register(op: OpDef) -> OpDef:
    """Add `op` to the table and return it. Raises ValueError naming the missing piece."""
    missing = []
    if not op.name.isidentifier():
        missing.append(f"a name that is an identifier (found {op.name!r})")
    if not op.maths.strip():
        missing.append("a line of maths")
    attrs_type: Any = op.attrs
    if not issubclass(attrs_type, Attrs):
        missing.append("attrs: a frozen dataclass derived from Attrs")
    if op.lower is None and op.expand is None:
        missing.append("lower or expand")
    if op.elementwise and not (isinstance(op.lower, Scalar) or op.expand is not None):
        missing.append("lower=Scalar(...), which the ELEMENTWISE trait asks for")
    missing += [p for p in ("infer", "ref", "samples") if not callable(getattr(op, p))]
    if not (callable(op.vjp) or op.vjp is NOT_DIFFERENTIABLE):
        missing.append("vjp (or NOT_DIFFERENTIABLE)")
    if op.name in _TABLE and _TABLE[op.name] is not op:
        missing.append("a name of its own: it is registered already")
    if missing:
        raise ValueError(f"op {op.name!r} lacks {'; '.join(missing)}")
    _TABLE[op.name] = op
    return op


def unregister(name: str) -> None:
    """Take an op out of the table (a notebook defines its op again)."""
    _TABLE.pop(name, None)


def get_op(name: str) -> OpDef:
    """The op called `name`; raises KeyError naming the nearest names."""
    import treadle.ir.ops  # noqa: F401  fills the table; ops import this module

    if name not in _TABLE:
        from difflib import get_close_matches

        near = get_close_matches(name, _TABLE, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise KeyError(f"there is no op {name!r}{hint}")
    return _TABLE[name]


def all_ops() -> tuple[OpDef, ...]:
    """Every registered op, by name."""
    import treadle.ir.ops  # noqa: F401  fills the table

    return tuple(_TABLE[n] for n in sorted(_TABLE))


def can_fail(op: OpDef, attrs: Attrs) -> bool:
    """Whether a run of this op can record a fault. (An unchecked gather clamps instead.)"""
    return Trait.CAN_FAULT in op.traits and bool(getattr(attrs, "checked", True))


def must_run(op: OpDef, attrs: Attrs) -> bool:
    """Whether the op is kept even if its results are unused: it prints, or the caller must learn
    of its fault. Derivative rules make no op that can fail, so such an op is the user's."""
    if is_droppable(attrs):
        return False
    return Trait.EFFECT in op.traits or can_fail(op, attrs)


def is_droppable(attrs: Attrs) -> bool:
    """Whether an op with an effect has none with these attributes (a callback that is pure)."""
    return bool(getattr(attrs, "pure", False))


def attr_items(attrs: Attrs) -> tuple[tuple[str, Any], ...]:
    """Names and values of the attributes, in the order of their definition."""
    kind: Any = type(attrs)
    return tuple([(name, getattr(attrs, name)) for name in _names(kind)])


@cache
def _names(attrs: type[Any]) -> tuple[str, ...]:
    """The fields of a class of attributes; `fields` looks for them anew each time."""
    return tuple(f.name for f in fields(attrs))
