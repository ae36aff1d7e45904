"""Convolutions: conv and its two derivatives, conv_input_grad and conv_weight_grad.

The three are partial derivatives of one trilinear form of an input x [N, C, *S], a weight
w [O, C/groups, *K] and a cotangent g [N, O, *P] of the result,

    T(x, w, g) = sum over n, o, c, p, k of  x[n, c, p * stride + k * dilation - low]
                                            * w[o, c, k] * g[n, o, p],

where c runs over the channels of o's group and x is 0 outside: conv is dT/dg, conv_input_grad dT/dx
(which is the transposed convolution as well), conv_weight_grad dT/dw. So each has the other two as
its derivatives, and derivatives of any order need no further op. `ops/convolution_taps` writes them
as matrix products.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

import numpy as np

from treadle.ir.builder import Ops
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ShapeError
from treadle.ir.op import Array, Attrs, OpDef, Sample, Trait, register
from treadle.ir.ops.convolution_taps import expand_conv, expand_input_grad, expand_weight_grad
from treadle.ir.ops.linalg import wide_product
from treadle.ir.ops.movement import int_sizes
from treadle.ir.ops.rules import Values, check_count, check_dtype, check_same_dtype
from treadle.ir.ops.windows import Pads, check_windows, window_counts
from treadle.ir.types import FLOATS, Shape, TensorType, shape_text, type_of_array


@dataclass(frozen=True, slots=True)
class ConvAttrs(Attrs):
    """For each spatial axis: the stride, the pads (low, high), and the distance of two taps.
    Input and output channels fall into `groups` equal runs that meet their own kind only."""

    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1


@dataclass(frozen=True, slots=True)
class ConvGradAttrs(Attrs):
    """As ConvAttrs; `size`: the spatial sizes of what the result is the derivative by."""

    size: Shape
    stride: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    dilation: tuple[int, ...]
    groups: int = 1


# --- type rules --------------------------------------------------------------------------------


def _check_operands(name: str, a: Any, types: Sequence[TensorType]) -> int:
    """The number of spatial axes. Raises DTypeError or ShapeError."""
    check_count(name, types, 2)
    for t in types:
        check_dtype(name, t, FLOATS)
    check_same_dtype(name, types)
    rank = types[0].rank - 2
    if rank < 1 or types[1].rank != rank + 2:
        listed = " and ".join(shape_text(t.shape) for t in types)
        raise ShapeError(
            f"{name} needs two operands of one rank, two axes and one spatial axis or more each, "
            f"found shapes {listed}"
        )
    check_windows(name, rank, a.stride, a.padding, a.dilation)
    if a.groups < 1:
        raise ShapeError(f"{name}: groups must be at least 1, found {a.groups}")
    return rank


def _check_channels(name: str, a: Any, inputs: Any, weight: Sequence[Any]) -> None:
    """Raise ShapeError unless `inputs` channels and a weight [O, C/groups, ..] fit the groups."""
    outputs, of_group = weight[:2]
    if isinstance(outputs, int) and outputs % a.groups:
        raise ShapeError(
            f"{name}: groups={a.groups} does not divide the {outputs} output channels of the "
            f"weight {shape_text(weight)}"
        )
    if inputs != of_group * a.groups:
        each = f" in each of {a.groups} groups" if a.groups > 1 else ""
        raise ShapeError(
            f"{name}: the weight {shape_text(weight)} takes {of_group} input channels{each}, "
            f"found an input of {inputs} channels"
        )


def _infer_conv(a: ConvAttrs, *types: TensorType) -> TensorType:
    _check_operands("conv", a, types)
    x, w = types
    _check_channels("conv", a, x.shape[1], w.shape)
    counts = window_counts("conv", x.shape[2:], w.shape[2:], a.stride, a.padding, a.dilation)
    return x.with_shape((x.shape[0], w.shape[0], *counts))


def _check_size(name: str, a: ConvGradAttrs, rank: int) -> None:
    if len(a.size) != rank or any(isinstance(s, int) and s < 0 for s in a.size):
        raise ShapeError(
            f"{name}: size needs {rank} numbers of at least 0, one a spatial axis, found "
            f"{shape_text(a.size)}"
        )


def _check_counts(name: str, a: ConvGradAttrs, sizes: Any, taps: Any, g: TensorType) -> None:
    """Raise ShapeError unless `g` has one element for each window."""
    counts = window_counts(name, sizes, taps, a.stride, a.padding, a.dilation)
    if counts != g.shape[2:]:
        raise ShapeError(
            f"{name}: a kernel of size {shape_text(taps)} has {shape_text(counts)} windows over an "
            f"input of size {shape_text(sizes)}, found a cotangent of size "
            f"{shape_text(g.shape[2:])}"
        )


def _infer_input_grad(a: ConvGradAttrs, *types: TensorType) -> TensorType:
    name = "conv_input_grad"
    rank = _check_operands(name, a, types)
    g, w = types
    _check_size(name, a, rank)
    _check_channels(name, a, w.shape[1] * a.groups, w.shape)
    if g.shape[1] != w.shape[0]:
        raise ShapeError(
            f"{name}: the cotangent {shape_text(g.shape)} needs the {w.shape[0]} output channels "
            f"of the weight {shape_text(w.shape)}, found {g.shape[1]}"
        )
    _check_counts(name, a, a.size, w.shape[2:], g)
    return g.with_shape((g.shape[0], w.shape[1] * a.groups, *a.size))


def _infer_weight_grad(a: ConvGradAttrs, *types: TensorType) -> TensorType:
    name = "conv_weight_grad"
    rank = _check_operands(name, a, types)
    x, g = types
    _check_size(name, a, rank)
    inputs, outputs = x.shape[1], g.shape[1]
    for what, channels in (("input", inputs), ("output", outputs)):
        if not isinstance(channels, int) or channels % a.groups:
            raise ShapeError(
                f"{name}: groups={a.groups} does not divide the {channels} {what} channels"
            )
    if x.shape[0] != g.shape[0]:
        raise ShapeError(
            f"{name}: input {shape_text(x.shape)} and cotangent {shape_text(g.shape)} must have "
            "the same batch size"
        )
    _check_counts(name, a, x.shape[2:], a.size, g)
    assert isinstance(inputs, int)
    return x.with_shape((outputs, inputs // a.groups, *a.size))


# --- references --------------------------------------------------------------------------------
#
# One product a tap, summed in the wider dtype and rounded once.


def _padded(x: Array, padding: Pads) -> Array:
    return np.pad(x, ((0, 0), (0, 0), *padding))


def _tap_slices(a: Any, tap: Sequence[int], counts: Sequence[int]) -> tuple[Any, ...]:
    """Where in the padded input each window has this tap."""
    steps = zip(tap, counts, a.stride, a.dilation, strict=True)
    return (..., *(slice(k * d, k * d + (n - 1) * s + 1, s) for k, n, s, d in steps))


def _grouped(x: Array, groups: int, axis: int) -> Array:
    """The channels along `axis` as two axes, group and channel of the group."""
    shape = (*x.shape[:axis], groups, x.shape[axis] // groups, *x.shape[axis + 1 :])
    return x.reshape(shape)


def _rows(x: Array, groups: int) -> Array:
    """[N, C, *S] as [N, groups, C/groups, elements]."""
    split = _grouped(x, groups, 1)
    return split.reshape(*split.shape[:3], int(np.prod(x.shape[2:], dtype=np.int64)))


def _ref_conv(a: ConvAttrs, x: Array, w: Array) -> Array:
    shape = _infer_conv(a, type_of_array(x), type_of_array(w)).static_shape
    wide = wide_product(x.dtype)
    inputs, weight = _padded(x.astype(wide), a.padding), _grouped(w.astype(wide), a.groups, 0)
    found = np.zeros(_rows(np.empty(shape, bool), a.groups).shape, wide)
    for tap in np.ndindex(w.shape[2:]):
        part = inputs[_tap_slices(a, tap, shape[2:])]
        found += np.matmul(weight[(..., *tap)], _rows(part, a.groups))
    return found.reshape(shape).astype(x.dtype)


def _ref_input_grad(a: ConvGradAttrs, g: Array, w: Array) -> Array:
    wide = wide_product(g.dtype)
    size = int_sizes(a.size, "conv_input_grad's size")
    channels = w.shape[1] * a.groups
    rows, weight = _rows(g.astype(wide), a.groups), _grouped(w.astype(wide), a.groups, 0)
    inside: tuple[Any, ...] = tuple(
        slice(low, low + n) for (low, _), n in zip(a.padding, size, strict=True)
    )
    whole = [low + n + high for (low, high), n in zip(a.padding, size, strict=True)]
    found = np.zeros((g.shape[0], channels, *whole), wide)
    for tap in np.ndindex(w.shape[2:]):
        part = np.matmul(np.swapaxes(weight[(..., *tap)], -1, -2), rows)
        found[_tap_slices(a, tap, g.shape[2:])] += part.reshape(len(g), channels, *g.shape[2:])
    return np.asarray(found[(..., *inside)]).astype(g.dtype)


def _ref_weight_grad(a: ConvGradAttrs, x: Array, g: Array) -> Array:
    wide = wide_product(x.dtype)
    size = int_sizes(a.size, "conv_weight_grad's size")
    inputs, rows = _padded(x.astype(wide), a.padding), _rows(g.astype(wide), a.groups)
    found = np.zeros((g.shape[1], x.shape[1] // a.groups, *size), wide)
    for tap in np.ndindex(size):
        part = _rows(inputs[_tap_slices(a, tap, g.shape[2:])], a.groups)
        summed = np.matmul(rows, np.swapaxes(part, -1, -2)).sum(0)
        found[(..., *tap)] = summed.reshape(found.shape[:2])
    return found.astype(x.dtype)


# --- derivatives -------------------------------------------------------------------------------


def _call(o: Ops[Any], name: str, a: Any, x: Any, y: Any, size: Shape | None = None) -> Any:
    """The op called `name` over the same windows."""
    sized = {} if size is None else {"size": size}
    return o.call(
        name, x, y, **sized,
        stride=a.stride, padding=a.padding, dilation=a.dilation, groups=a.groups,
    )  # fmt: skip


def _vjp_conv(o: Ops[Any], a: ConvAttrs, args: Values, outs: Values, cts: Values) -> Any:
    (x, w), (g,) = args, cts
    dx = _call(o, "conv_input_grad", a, g, w, o.type_of(x).shape[2:])
    return dx, _call(o, "conv_weight_grad", a, x, g, o.type_of(w).shape[2:])


def _vjp_input_grad(o: Ops[Any], a: ConvGradAttrs, args: Values, outs: Values, cts: Values) -> Any:
    (g, w), (x,) = args, cts
    dw = _call(o, "conv_weight_grad", a, x, g, o.type_of(w).shape[2:])
    return _call(o, "conv", a, x, w), dw


def _vjp_weight_grad(o: Ops[Any], a: ConvGradAttrs, args: Values, outs: Values, cts: Values) -> Any:
    (x, g), (w,) = args, cts
    dx = _call(o, "conv_input_grad", a, g, w, o.type_of(x).shape[2:])
    return dx, _call(o, "conv", a, x, w)


# --- samples -----------------------------------------------------------------------------------

_Case = tuple[tuple[int, ...], tuple[int, ...], ConvAttrs]


def _case(
    x: tuple[int, ...],
    w: tuple[int, ...],
    stride: int | tuple[int, ...] = 1,
    padding: int | Pads = 0,
    dilation: int | tuple[int, ...] = 1,
    groups: int = 1,
) -> _Case:
    rank = len(x) - 2
    pads = ((padding, padding),) * rank if isinstance(padding, int) else padding
    steps = [(n,) * rank if isinstance(n, int) else n for n in (stride, dilation)]
    return x, w, ConvAttrs(steps[0], pads, steps[1], groups)


# Small ones, whose derivatives are compared with finite differences: (input, weight, windows).
_EXACT: tuple[_Case, ...] = (
    _case((2, 2, 5), (3, 2, 3)),
    _case((1, 2, 6), (2, 2, 2), stride=2, padding=((1, 0),)),
    _case((2, 4, 4), (4, 2, 2), dilation=2, padding=1, groups=2),
    _case((1, 3, 4), (3, 1, 3), padding=1, groups=3),
    _case((1, 2, 5), (4, 1, 2), stride=3, padding=((0, 2),), groups=2),
    _case((1, 2, 4, 3), (2, 2, 3, 2), padding=((1, 0), (0, 1))),
    _case((2, 1, 4, 5), (2, 1, 2, 2), stride=(2, 1), dilation=(1, 2)),
    _case((1, 1, 2, 2, 2), (1, 1, 2, 1, 2), padding=1, stride=2),
    _case((1, 1, 0), (1, 1, 1), padding=1),
)

# Sizes around vector widths, and the shapes of real layers in small.
_LARGER: tuple[_Case, ...] = (
    *(_case((2, 3, n), (5, 3, 3), padding=1) for n in (1, 7, 8, 9, 15, 16, 17, 33)),
    *(_case((2, n, 6, 6), (n, n, 3, 3), padding=1) for n in (1, 4, 17)),
    _case((2, 16, 9, 9), (32, 16, 3, 3), stride=2, padding=1),
    _case((1, 8, 9, 10), (8, 8, 1, 1), stride=2),
    _case((2, 8, 7, 7), (8, 1, 3, 3), padding=1, groups=8),
    _case((2, 4, 7, 8), (8, 1, 3, 2), stride=2, padding=((1, 2), (0, 1)), groups=4),
    _case((1, 3, 17, 17), (4, 3, 7, 7), stride=3, padding=3),
    _case((2, 6, 9, 8), (4, 3, 3, 3), dilation=(2, 3), padding=2, groups=2),
    _case((0, 3, 5, 5), (4, 3, 3, 3), padding=1),
    _case((2, 0, 5), (4, 0, 3)),
    _case((2, 3, 4), (0, 3, 3)),
)


def _sample_arrays(
    rng: np.random.Generator, case: _Case, dtype: Any
) -> tuple[Array, Array, Array, ConvAttrs]:
    """An input, a weight, a cotangent, and the windows."""
    x_shape, w_shape, a = case
    counts = window_counts("conv", x_shape[2:], w_shape[2:], a.stride, a.padding, a.dilation)
    g_shape = (x_shape[0], w_shape[0], *int_sizes(counts, "counts"))
    x, w, g = (rng.standard_normal(s).astype(dtype) for s in (x_shape, w_shape, g_shape))
    return x, w, g, a


def _samples(which: str) -> Any:
    """Samples of the op called `which`, which takes two of input, weight and cotangent."""

    def samples(rng: np.random.Generator) -> Iterable[Sample]:
        listed = [*product(_EXACT, (np.float64, np.float32)), *product(_LARGER, (np.float32,))]
        for case, dtype in listed:
            x, w, g, a = _sample_arrays(rng, case, dtype)
            windows = (a.stride, a.padding, a.dilation, a.groups)
            exact = dtype is np.float64
            if which == "conv":
                yield Sample((x, w), a, exact, ulps=4, scale=16)
            elif which == "conv_input_grad":
                yield Sample((g, w), ConvGradAttrs(x.shape[2:], *windows), exact, 4, 16)
            else:
                yield Sample((x, g), ConvGradAttrs(w.shape[2:], *windows), exact, 4, 16)

    return samples


COMPOSITE = frozenset({Trait.COMPOSITE, Trait.EXPENSIVE})

CONV = register(
    OpDef(
        name="conv",
        maths="y[n, o, p] = sum over c, k of x[n, c, p * stride + k * dilation - low] w[o, c, k]",
        attrs=ConvAttrs,
        infer=_infer_conv,
        ref=_ref_conv,
        vjp=_vjp_conv,
        expand=expand_conv,
        traits=COMPOSITE,
        samples=_samples("conv"),
    )
)

CONV_INPUT_GRAD = register(
    OpDef(
        name="conv_input_grad",
        maths="x[n, c, p * stride + k * dilation - low] += g[n, o, p] w[o, c, k] for all o, p, k",
        attrs=ConvGradAttrs,
        infer=_infer_input_grad,
        ref=_ref_input_grad,
        vjp=_vjp_input_grad,
        expand=expand_input_grad,
        traits=COMPOSITE,
        samples=_samples("conv_input_grad"),
    )
)

CONV_WEIGHT_GRAD = register(
    OpDef(
        name="conv_weight_grad",
        maths="w[o, c, k] = sum over n, p of x[n, c, p * stride + k * dilation - low] g[n, o, p]",
        attrs=ConvGradAttrs,
        infer=_infer_weight_grad,
        ref=_ref_weight_grad,
        vjp=_vjp_weight_grad,
        expand=expand_weight_grad,
        traits=COMPOSITE,
        samples=_samples("conv_weight_grad"),
    )
)
