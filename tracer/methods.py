"""The methods of `Tensor` that stand for array functions, and those that change it in place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from treadle.ir.errors import ArgumentError
from treadle.tracer.operators import in_place

if TYPE_CHECKING:
    from treadle.tracer.tensor import Tensor

Axis = int | Sequence[int] | None


def _call(name: str, *args: Any, **kwargs: Any) -> Tensor:
    from treadle.tracer import api  # the array functions build on Tensor

    found: Tensor = getattr(api, name)(*args, **kwargs)
    return found


def _elementwise(name: str) -> Callable[[Any], Tensor]:
    def method(self: Any) -> Tensor:
        return _call(name, self)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Elementwise: `treadle.{name}(self)`."
    return method


def _reduction(name: str) -> Callable[..., Tensor]:
    def method(
        self: Any,
        axis: Axis = None,
        keepdims: bool = False,
        *,
        dtype: object = None,
        out: object = None,  # np.sum(tensor) calls this method with out=None
    ) -> Tensor:
        if out is not None:
            from treadle.tracer.errors import located

            raise located(ArgumentError(f"{name} makes a new tensor; it takes no `out`"))
        given = {} if dtype is None else {"dtype": dtype}
        return _call(name, self, axis=axis, keepdims=keepdims, **given)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`treadle.{name}(self, axis=axis, keepdims=keepdims)`."
    return method


def _along(name: str) -> Callable[..., Tensor]:
    def method(self: Any, axis: int = -1) -> Tensor:
        return _call(name, self, axis=axis)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"`treadle.{name}(self, axis=axis)`."
    return method


def _in_place(name: str, result: str) -> Callable[[Any, Any], Any]:
    def method(self: Any, other: Any) -> Any:
        # An operator on a tensor that stands for a float makes a new one, as floats do; a method
        # writes where it is told.
        if self.weak:
            return self.copy_(_call(result, self, other))
        return in_place(result, self, other)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Writes `treadle.{result}(self, other)` over `self`; returns `self`."
    return method


def _one_tuple(sizes: tuple[Any, ...]) -> Any:
    """`f(2, 3)` and `f((2, 3))` alike."""
    return sizes[0] if len(sizes) == 1 and not isinstance(sizes[0], int) else sizes


class Methods:
    """Array functions, as methods."""

    __slots__ = ()

    @property
    def _self(self) -> Tensor:
        return cast("Tensor", self)

    abs = _elementwise("abs")
    ceil = _elementwise("ceil")
    cos = _elementwise("cos")
    erf = _elementwise("erf")
    exp = _elementwise("exp")
    exp2 = _elementwise("exp2")
    expm1 = _elementwise("expm1")
    floor = _elementwise("floor")
    isfinite = _elementwise("isfinite")
    isinf = _elementwise("isinf")
    isnan = _elementwise("isnan")
    log = _elementwise("log")
    log1p = _elementwise("log1p")
    log2 = _elementwise("log2")
    logical_not = _elementwise("logical_not")
    relu = _elementwise("relu")
    round = _elementwise("round")
    rsqrt = _elementwise("rsqrt")
    sigmoid = _elementwise("sigmoid")
    sign = _elementwise("sign")
    sin = _elementwise("sin")
    sqrt = _elementwise("sqrt")
    square = _elementwise("square")
    tanh = _elementwise("tanh")

    all = _reduction("all")
    any = _reduction("any")
    max = _reduction("max")
    mean = _reduction("mean")
    min = _reduction("min")
    prod = _reduction("prod")
    sum = _reduction("sum")
    logsumexp = _reduction("logsumexp")

    softmax = _along("softmax")
    log_softmax = _along("log_softmax")

    add_ = _in_place("add_", "add")
    sub_ = _in_place("sub_", "subtract")
    mul_ = _in_place("mul_", "multiply")
    div_ = _in_place("div_", "divide")

    def var(self, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
        """The mean squared deviation, divided by the count less `correction`."""
        return _call("var", self, axis=axis, correction=correction, keepdims=keepdims)

    def std(self, axis: Axis = None, correction: float = 0.0, keepdims: bool = False) -> Tensor:
        """The square root of `var`."""
        return _call("std", self, axis=axis, correction=correction, keepdims=keepdims)

    def argmax(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The index of the first largest element, int64; of the flat tensor without `axis`."""
        return _call("argmax", self, axis=axis, keepdims=keepdims)

    def argmin(self, axis: int | None = None, keepdims: bool = False) -> Tensor:
        """The index of the first smallest element, int64; of the flat tensor without `axis`."""
        return _call("argmin", self, axis=axis, keepdims=keepdims)

    def cumsum(self, axis: int) -> Tensor:
        """Running sums along `axis`."""
        return _call("cumulative_sum", self, axis=axis)

    def cumprod(self, axis: int) -> Tensor:
        """Running products along `axis`."""
        return _call("cumulative_prod", self, axis=axis)

    def sort(self, axis: int = -1, descending: bool = False) -> Tensor:
        """The elements in order along `axis`; see `treadle.sort`."""
        return _call("sort", self, axis=axis, descending=descending)

    def argsort(self, axis: int = -1, descending: bool = False) -> Tensor:
        """The indices, int64, that sort `axis`."""
        return _call("argsort", self, axis=axis, descending=descending)

    def topk(self, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
        """The `k` largest (else smallest) elements along `axis` and their indices."""
        values, places = _call("topk", self, k, axis, largest)
        return values, places

    def clip(self, min: Any = None, max: Any = None) -> Tensor:
        """Elements limited to [min, max]."""
        return _call("clip", self, min, max)

    def matmul(self, other: Any) -> Tensor:
        """The matrix product `self @ other`."""
        return _call("matmul", self, other)

    # --- shapes ------------------------------------------------------------------------------

    def reshape(self, *shape: Any) -> Tensor:
        """The elements under another shape; one size may be -1. A view where possible."""
        return _call("reshape", self, _one_tuple(shape))

    view = reshape

    def flatten(self, start: int = 0, end: int = -1) -> Tensor:
        """Axes `start` to `end`, both included, as one. A view where possible."""
        from treadle.tracer.api.manipulation import flatten

        return flatten(self._self, start, end)

    def permute(self, *axes: Any) -> Tensor:
        """Axis i of the result is axis axes[i]. A view."""
        return _call("permute_dims", self, _one_tuple(axes))

    permute_dims = permute

    def transpose(self, axis1: int, axis2: int) -> Tensor:
        """Two axes exchanged. A view."""
        return _call("swapaxes", self, axis1, axis2)

    def squeeze(self, axis: Axis = None) -> Tensor:
        """Without the axes of size 1 (those named, or all). A view."""
        x = self._self
        if axis is None:
            axis = tuple(i for i, s in enumerate(x.shape) if s == 1)
        return _call("squeeze", x, axis=axis)

    def unsqueeze(self, axis: int) -> Tensor:
        """With a new axis of size 1 at `axis`. A view."""
        return _call("expand_dims", self, axis=axis)

    def expand(self, *shape: Any) -> Tensor:
        """Broadcast to `shape`. A read-only view."""
        return _call("broadcast_to", self, _one_tuple(shape))

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
        """The elements [.., i, .., i + offset, ..] of two axes, as a last axis in their place."""
        return _call("diagonal", self, offset, axis1, axis2)

    def unfold(self, axis: int, size: int, step: int) -> Tensor:
        """The windows of `size` elements along `axis`, every `step`, with a new last axis."""
        return _call("unfold", self, axis, size, step)

    @property
    def T(self) -> Tensor:
        """The axes in reverse order. A view."""
        return self.permute(*reversed(range(self._self.ndim)))

    @property
    def mT(self) -> Tensor:
        """The last two axes exchanged. A view. Raises ShapeError below rank 2."""
        return _call("matrix_transpose", self)

    # --- copies and writes -------------------------------------------------------------------

    def astype(self, dtype: object, copy: bool = True) -> Tensor:
        """The elements as `dtype`: floats are truncated towards zero and saturate, NaN gives 0,
        integers wrap. `copy=False` gives the tensor itself where the dtype is its own."""
        return _call("astype", self, dtype, copy)

    def clone(self) -> Tensor:
        """A copy with storage of its own; gradients flow through it."""
        from treadle.tracer.create import clone

        return clone(self._self)

    def copy_(self, source: Any) -> Any:
        """Write `source`, cast and broadcast, into this tensor; returns it."""
        from treadle.tracer.errors import located_errors
        from treadle.tracer.execute import check_writable, copy_into
        from treadle.tracer.indexing import as_value

        with located_errors():
            check_writable(self._self)
            copy_into(self._self, as_value(source, self._self))
        return self

    def fill_(self, value: Any) -> Any:
        """Write one number into every element; returns the tensor."""
        return self.copy_(value)

    def zero_(self) -> Any:
        """Write zeros; returns the tensor."""
        return self.copy_(0)
