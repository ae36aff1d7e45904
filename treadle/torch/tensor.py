"""`torch.Tensor`: a tensor with PyTorch's methods.

It is a subclass of `treadle.Tensor`, and so is what is computed from it (see
docs/decisions/0032-the-facade-is-a-subclass.md). The methods that are functions as well are
attached by `treadle.torch.methods`; here is what only a method can be.
"""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np

from treadle.ir.errors import ArgumentError, DTypeError
from treadle.ir.types import DType, dtype_of, float32, shape_text
from treadle.nn.parameter import Parameter as _Parameter
from treadle.torch.device import CPU, checked_device, device, no_cuda
from treadle.torch.names import missing
from treadle.tracer import api
from treadle.tracer.cell import Cell
from treadle.tracer.create import tensor as _tensor
from treadle.tracer.errors import located
from treadle.tracer.modes import no_grad
from treadle.tracer.tensor import Tensor as _Tensor


class Size(tuple[int, ...]):
    """A shape, with its number of elements."""

    __slots__ = ()

    def numel(self) -> int:
        """The product of the sizes."""
        count = 1
        for size in self:
            count *= size
        return count

    def __repr__(self) -> str:
        return f"torch.Size({list(self)})"


class _Count(int):
    """The number of elements, as `x.size` is elsewhere in Treadle; called, PyTorch's `x.size()`."""

    shape: tuple[int, ...]

    def __call__(self, dim: int | None = None) -> Any:
        return Size(self.shape) if dim is None else self.shape[dim]


class Tensor(_Tensor):
    """PyTorch's tensor: `Tensor(data)` copies data as float32, `Tensor(2, 3)` has these sizes."""

    __slots__ = ()

    def __init__(self, *data: Any) -> None:
        if data and isinstance(data[0], Cell):
            _Tensor.__init__(self, *data)
            return
        sized = all(isinstance(d, (int, np.integer)) and not isinstance(d, bool) for d in data)
        if len(data) > 1 and not sized:
            raise located(DTypeError("Tensor takes data, or sizes; found several arguments"))
        made = api.zeros(data) if sized and data else _tensor(data[0] if data else [], float32)
        _Tensor.__init__(self, made.cell, made.maps, made.history, made.type)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise missing("a Tensor of treadle.torch", name, dir(type(self)))

    # --- what it is --------------------------------------------------------------------------

    @property
    def size(self) -> Any:
        """`x.size()` is the shape, `x.size(dim)` one of its sizes."""
        found = _Count(self.numel())
        found.shape = self.shape
        return found

    def stride(self, dim: int | None = None) -> Any:
        """The strides of a contiguous tensor of this shape, in elements."""
        strides = [1]
        for size in reversed(self.shape[1:]):
            strides.insert(0, strides[0] * size)
        found = tuple(strides[: self.ndim])
        return found if dim is None else found[dim]

    def numel(self) -> int:
        """The number of elements."""
        return int(self.type.size)  # type: ignore[arg-type]

    nelement = numel

    def dim(self) -> int:
        """The number of dimensions."""
        return self.ndim

    ndimension = dim

    def element_size(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return self.numel() * self.dtype.itemsize

    def is_floating_point(self) -> bool:
        return self.dtype.is_float

    def is_complex(self) -> bool:
        return False

    def is_contiguous(self, *, memory_format: Any = None) -> bool:
        """True: what Treadle computes with is contiguous wherever that matters."""
        return True

    def contiguous(self, *, memory_format: Any = None) -> Tensor:
        """The tensor itself."""
        return self

    @property
    def device(self) -> device:
        """The CPU."""
        return CPU

    is_cpu = True
    is_cuda = is_sparse = is_quantized = is_mps = is_meta = False

    def is_same_size(self, other: _Tensor) -> bool:
        """Whether both have one shape."""
        return self.shape == other.shape

    def is_signed(self) -> bool:
        """Whether the dtype has numbers below 0."""
        return self.dtype.name not in ("bool", "uint8", "uint32")

    def is_nonzero(self) -> bool:
        """Whether the only element is not 0."""
        return self.item() != 0

    # --- other dtypes and places -------------------------------------------------------------

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """`to(dtype)`, `to(device)`, `to(device, dtype)`, `to(other)`; the tensor itself where it
        is so already. Raises ArgumentError for a device that is not there."""
        dtype, copy = destination(args, kwargs)
        if dtype is None or dtype == self.dtype:
            return self.clone() if copy else self  # type: ignore[return-value]
        return self.astype(dtype)  # type: ignore[return-value]

    def type_as(self, other: _Tensor) -> Tensor:
        """With the dtype of `other`."""
        return self.to(other.dtype)

    def cpu(self) -> Tensor:
        """The tensor itself."""
        return self

    def cuda(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise no_cuda()

    def get_device(self) -> int:
        """-1: the CPU."""
        return -1

    def pin_memory(self) -> Tensor:
        """The tensor itself: nothing is copied to a device."""
        return self

    # --- data and gradients --------------------------------------------------------------------

    @property
    def data(self) -> Any:
        """The same storage without history."""
        return self.detach()

    @data.setter
    def data(self, value: Any) -> None:
        if tuple(np.shape(value)) != self.shape:
            raise located(
                ArgumentError(
                    f"x.data = y keeps the shape {shape_text(self.shape)}, found "
                    f"{shape_text(np.shape(value))}"
                )
            )
        with no_grad():
            self.copy_(value)

    def detach_(self) -> Tensor:
        """Forgets the history."""
        self.history = self.detach().history
        return self

    def numpy(self, *, force: bool = False) -> Any:
        """A read-only NumPy view."""
        return super().numpy()

    def backward(
        self,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """As `treadle.Tensor.backward`. For gradients with a history, or of chosen tensors, there
        is `torch.autograd.grad`."""
        if create_graph or inputs is not None:
            raise located(
                ArgumentError(
                    "backward() takes no create_graph or inputs; torch.autograd.grad(loss, inputs, "
                    "create_graph=True) gives these gradients"
                )
            )
        super().backward(gradient, bool(retain_graph))

    # --- new tensors of this dtype -------------------------------------------------------------

    def new_tensor(self, data: Any, dtype: Any = None, requires_grad: bool = False) -> Any:
        """`data`, with the dtype of this tensor."""
        return adopted(_tensor(data, dtype or self.dtype, requires_grad))

    def new_zeros(self, *size: Any, dtype: Any = None, device: Any = None) -> Any:
        return adopted(api.zeros(sizes(size), dtype=dtype or self.dtype))

    def new_ones(self, *size: Any, dtype: Any = None, device: Any = None) -> Any:
        return adopted(api.ones(sizes(size), dtype=dtype or self.dtype))

    def new_empty(self, *size: Any, dtype: Any = None, device: Any = None) -> Any:
        return adopted(api.zeros(sizes(size), dtype=dtype or self.dtype))

    def new_full(self, size: Any, fill_value: Any, dtype: Any = None, device: Any = None) -> Any:
        return adopted(api.full(sizes((size,)), fill_value, dtype=dtype or self.dtype))


Tensor.result_class = Tensor


class Parameter(_Parameter, Tensor):
    """A tensor that a module registers and an optimiser updates."""

    __slots__ = ()  # as many as Treadle's, whose objects become these

    def __init__(self, data: Any = (), requires_grad: bool = True) -> None:
        _Parameter.__init__(self, data, requires_grad)


def own(x: Any) -> Any:
    """A tensor that somebody else holds as the facade's: itself where it is one, else another
    object that shows the same storage, with the same history."""
    if not isinstance(x, _Tensor) or x.result_class is not _Tensor or x.weak:
        return x
    found = Tensor.__new__(Tensor)
    _Tensor.__init__(found, x.cell, x.maps, x.history, x.type)
    return found


def adopted(found: Any) -> Any:
    """What Treadle's own functions have made, as the facade's tensors; lists and tuples too."""
    if isinstance(found, _Tensor):
        if found.result_class is _Tensor and not found.weak:
            found.__class__ = Parameter if isinstance(found, _Parameter) else Tensor
    elif isinstance(found, (list, tuple)):
        for part in found:
            adopted(part)
    return found


def adopted_tree(found: Any) -> Any:
    """As `adopted`, in dictionaries too."""
    if isinstance(found, dict):
        for part in found.values():
            adopted_tree(part)
        return found
    if isinstance(found, (list, tuple)):
        for part in found:
            adopted_tree(part)
        return found
    return adopted(found)


def sizes(given: Sequence[Any]) -> tuple[int, ...]:
    """`f(2, 3)`, `f((2, 3))` and `f(torch.Size([2, 3]))` alike."""
    if len(given) == 1 and not isinstance(given[0], (int, np.integer, _Tensor)):
        return tuple(int(s) for s in given[0])
    return tuple(int(s) for s in given)


def destination(args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[DType | None, builtins.bool]:
    """(dtype, copy) of the arguments of `to`; devices are checked."""
    given = dict(kwargs)
    copy = builtins.bool(given.pop("copy", False))
    for ignored in ("non_blocking", "memory_format"):
        given.pop(ignored, None)
    found = given.pop("dtype", None)
    checked_device(given.pop("device", None))
    if given:
        raise located(ArgumentError(f"to() takes no {next(iter(given))!r}: dtype, device, copy"))
    for arg in args:
        if isinstance(arg, _Tensor):
            found = arg.dtype
        elif isinstance(arg, (str, device, int)) and not isinstance(arg, builtins.bool):
            checked_device(arg)
        elif arg is not None and not isinstance(arg, builtins.bool):
            found = arg
    return (None if found is None else _dtype(found)), copy


def _dtype(given: Any) -> DType:
    if given is builtins.float:
        raise located(DTypeError("float is Python's; write torch.float32 or torch.float64"))
    return dtype_of(given)
