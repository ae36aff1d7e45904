"""`Tensor`: an n-dimensional array that can be traced and differentiated.

A tensor is a cell (storage that its views share), a chain of index maps (which elements of the
storage it shows, and how), and a history (where its values come from). What it computes is in
`treadle.tracer.api`; this file holds what a tensor is, and how it leads out to NumPy and Python.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import DTypeError, GradientError, ShapeError, TraceError
from treadle.ir.types import DType, TensorType, shape_text
from treadle.tracer.cell import Cell
from treadle.tracer.errors import leak_error, located, located_errors
from treadle.tracer.history import Edge, History
from treadle.tracer.methods import Methods
from treadle.tracer.modes import modes
from treadle.tracer.operators import Operators
from treadle.tracer.views import Maps, numpy_view

Array = npt.NDArray[Any]


class Tensor(Operators, Methods):
    """An n-dimensional array of one dtype. `Tensor(data, dtype=None, requires_grad=False)` is
    `treadle.tensor`: a new tensor with a copy of the data.

    Basic indexing, `reshape`, `permute_dims` and the like give views: writes through a view are
    seen by its base and by every other view. `==` compares elements; tensors hash by identity.
    """

    __array_priority__ = 1000  # so that ndarray * tensor asks the tensor
    __slots__ = ("__weakref__", "_shown", "cell", "history", "maps", "shown_edge", "type", "weak")

    cell: Cell
    maps: Maps
    history: History
    type: TensorType
    weak: bool  # stands for a Python float: takes the dtype of the tensor beside it
    shown_edge: tuple[Edge, Edge] | None

    # The class of what is computed from tensors of this class: a facade's own, and for all others
    # `Tensor` (a Parameter plus one is no Parameter). See docs/decisions/0032.
    result_class: ClassVar[builtins.type[Tensor]]

    def __init__(
        self,
        cell: Any,
        maps: Any = (),
        history: History | None = None,
        type: TensorType | None = None,
        weak: bool = False,
        dtype: object = None,
        requires_grad: bool = False,
    ) -> None:
        """Internal where it is given a cell."""
        if not isinstance(cell, Cell):
            self._copy_of(cell, maps if dtype is None and maps != () else dtype, requires_grad)
            return
        self.cell = cell
        self.maps = maps
        self.history = History() if history is None else history
        self.type = cell.type if type is None else type
        self.weak = weak
        self.shown_edge = None
        self._shown: tuple[Array, Array] | None = None

    def _copy_of(self, data: Any, dtype: object, requires_grad: bool) -> None:
        """What `treadle.tensor` makes of `data`."""
        from treadle.tracer.create import tensor  # it builds on this module

        made = tensor(data, dtype, requires_grad)
        Tensor.__init__(self, made.cell, made.maps, made.history, made.type, made.weak)

    def array(self) -> Array:
        """The NumPy view of an eager tensor's storage. Internal: it may be written by others.

        Raises TraceError for a tensor that leaked out of its trace.
        """
        cell = self.cell
        if cell.home is not None:
            raise leak_error(self, cell.made_at, "outside of its trace")
        if not self.maps:
            return cell.buffer
        if self._shown is None or self._shown[0] is not cell.buffer:
            self._shown = (cell.buffer, numpy_view(cell.buffer, self.maps))
        return self._shown[1]

    # --- what it is --------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of each dimension."""
        return self.type.shape  # type: ignore[return-value]  # symbolic only in future traces

    @property
    def dtype(self) -> DType:
        """The element type."""
        return self.type.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.type.rank

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.type.size  # type: ignore[return-value]

    @property
    def is_traced(self) -> bool:
        """Whether the value is not known now: a trace runs, or the tensor leaked out of one."""
        return self.cell.home is not None or modes.trace is not None

    def __len__(self) -> int:
        if not self.type.shape:
            raise located(ShapeError("len() of a tensor of rank 0"))
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        """The sub-tensors along the first axis, as views."""
        if not self.type.shape:
            raise located(ShapeError("iteration over a tensor of rank 0"))
        return iter([self[i] for i in range(self.shape[0])])

    def __contains__(self, value: Any) -> bool:
        """Whether any element equals `value`."""
        return bool((self == value).any())

    def __hash__(self) -> int:
        return id(self)

    # --- indexing ----------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Tensor:
        """`x[key]`: a view for ints, slices, None and Ellipsis; a copy for integer or bool
        arrays. Raises IndexFault for an index out of range."""
        from treadle.tracer import indexing  # it builds on this module

        found: Tensor = indexing.getitem(self, key)
        return found

    def __setitem__(self, key: Any, value: Any) -> None:
        """`x[key] = value`: the value is cast to the dtype of `x` and broadcast."""
        from treadle.tracer import indexing

        indexing.setitem(self, key, value)

    # --- out to Python and NumPy -------------------------------------------------------------

    def _concrete(self, what: str, kind: str) -> Array:
        """The array; raises TraceError in a trace, telling what to do instead."""
        if modes.trace is not None:
            raise modes.trace.concrete_error(self, what, kind)
        return self.array()

    def _single(self, what: str, kind: str) -> Any:
        array = self._concrete(what, kind)
        if array.size != 1:
            raise located(
                ShapeError(
                    f"{what} needs a tensor of one element, found shape {shape_text(self.shape)}"
                )
            )
        return array.reshape(()).item()

    def item(self) -> bool | int | float:
        """The only element, as a Python number."""
        found: bool | int | float = self._single("item()", "float")
        return found

    def tolist(self) -> Any:
        """The elements as nested lists of Python numbers (a number for rank 0)."""
        return self._concrete("tolist()", "array").tolist()

    def __bool__(self) -> bool:
        return bool(self._single("bool()", "bool"))

    def __int__(self) -> int:
        return int(self._single("int()", "int"))

    def __float__(self) -> float:
        return float(self._single("float()", "float"))

    def __index__(self) -> int:
        if not self.dtype.is_integer:
            raise located(
                DTypeError(f"an index must be an integer, found a tensor of {self.dtype.name}")
            )
        return int(self._single("an index", "index"))

    def numpy(self) -> Array:
        """A read-only NumPy view. It keeps its values: while it (or a view of it) lives, writes
        to the tensor go to fresh memory."""
        self._concrete("numpy()", "array")
        return numpy_view(self.cell.export(), self.maps)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self._concrete("np.asarray()", "array")
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise ValueError(f"a view of a {self.dtype.name} tensor as {dtype} needs a copy")
            return array.astype(dtype)
        return array.copy() if copy else self.numpy()

    def __repr__(self) -> str:
        from treadle.tracer.show import show

        return show(self)

    def _repr_html_(self) -> str:
        from treadle.tracer.notebook import tensor_html

        return tensor_html(self)

    def __format__(self, spec: str) -> str:
        """A format for numbers applies to a single known element."""
        if spec and self.size == 1 and not self.is_traced:
            return format(self.item(), spec)
        return format(repr(self), "" if self.is_traced else spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        if not self.is_leaf:
            raise located(GradientError("deepcopy of a tensor with a history; copy x.detach()"))
        return self._rebuilt(self._concrete("deepcopy()", "array"))

    def _rebuilt(self, array: Array) -> Self:
        copy = type(self).__new__(type(self))
        Tensor.__init__(copy, Cell.of(np.array(array, order="C")))
        copy.history.requires_grad = self.history.requires_grad
        for name, value in getattr(self, "__dict__", {}).items():
            setattr(copy, name, value)
        return copy

    def __reduce__(self) -> tuple[Any, ...]:
        if not self.is_leaf:
            raise located(GradientError("pickle of a tensor with a history; use x.detach()"))
        array = np.array(self._concrete("pickle", "array"), order="C")
        state = getattr(self, "__dict__", None)
        return _restore, (type(self), array, self.history.requires_grad), state or None

    # --- differentiation ---------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        """Whether operations on this tensor are recorded for `backward()`."""
        if self.history.requires_grad:
            return self.type.dtype.is_float
        return modes.trace is not None and modes.trace.computed(self.history)

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    @property
    def is_leaf(self) -> bool:
        """True unless the tensor is the recorded result of an operation."""
        history = self.history
        if modes.trace is not None and modes.trace.computed(history):
            return False
        return not history.requires_grad or (history.leaf and len(self.maps) == history.depth)

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Ask for gradients with respect to this leaf (or no longer). Returns the tensor.

        Raises DTypeError unless it is float, GradientError for the result of an operation.
        """
        if not isinstance(requires_grad, (bool, np.bool_)):
            raise located(
                DTypeError(f"requires_grad must be a bool, found {type(requires_grad).__name__}")
            )
        if requires_grad == self.requires_grad and self.is_leaf:
            return self
        if requires_grad and not self.dtype.is_float:
            raise located(
                DTypeError(f"only float tensors can require grad, found {self.dtype.name}")
            )
        if not self.is_leaf:
            raise located(
                GradientError("requires_grad_() of the result of an operation; use x.detach()")
            )
        if modes.trace is not None and not modes.trace.owns(self):
            raise located(
                TraceError(
                    "requires_grad_() inside a jitted function of a tensor from outside; the flag "
                    "is part of the signature, so set it before the call"
                )
            )
        if len(self.maps) != self.history.depth:  # a view of an untracked tensor: a leaf by itself
            self.history = History(len(self.maps))
        self.history.requires_grad = bool(requires_grad)
        return self

    @property
    def grad(self) -> Tensor | None:
        """The gradient that `backward()` has accumulated in this leaf."""
        if len(self.maps) != self.history.depth:
            return None
        if modes.trace is not None:
            return modes.trace.grad_of(self.history)
        return self.history.grad

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise located(
                    DTypeError(f"grad must be a tensor or None, found {type(value).__name__}")
                )
            if value.type != self.type:
                raise located(ShapeError(f"grad of {self.type} cannot be of type {value.type}"))
            if len(self.maps) != self.history.depth:
                raise located(GradientError("a view has no grad of its own; set that of its base"))
        if modes.trace is not None:
            modes.trace.set_grad(self.history, value)
        else:
            self.history.grad = value

    def backward(self, gradient: Tensor | None = None, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor to `.grad` of every leaf that it was computed from.

        `gradient`: the cotangent, of this tensor's type; 1 for a single element. The history's
        saved values are freed unless `retain_graph`. Raises GradientError where there is nothing
        to differentiate, and where a value that is needed was changed in place.
        """
        from treadle.tracer import tape  # it builds on this module

        with located_errors():
            if modes.trace is not None:
                tape.check_root(self, gradient)
                modes.trace.backward(self, gradient, retain_graph)
            else:
                tape.backward(self, gradient, retain_graph)

    def detach(self) -> Tensor:
        """The same storage without history: no gradient flows through it."""
        history = History(len(self.maps))
        if modes.trace is not None:
            modes.trace.detached.add(history)
        found = Tensor(self.cell, self.maps, history, self.type, self.weak)
        return as_result_of(found, self)


Tensor.result_class = Tensor


def as_result_of(made: Tensor, x: Tensor) -> Tensor:
    """`made`, a tensor that nobody else has yet, as what is computed from `x`."""
    if x.result_class is not Tensor:
        made.__class__ = x.result_class
    return made


def _restore(cls: type[Tensor], array: Array, requires_grad: bool) -> Tensor:
    found = cls.__new__(cls)
    Tensor.__init__(found, Cell.of(array))
    found.history.requires_grad = requires_grad
    return found
