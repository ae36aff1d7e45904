"""Convolutions as sums of matrix products, one for each tap of the kernel.

This is what a convolution becomes that no kernel has claimed. Operands of the products are strided
slices of the padded input or cotangent, never all windows side by side, so that memory grows with
the input and not with the number of taps.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

from treadle.ir.builder import Ops
from treadle.ir.ops.movement import int_sizes
from treadle.ir.ops.windows import window_counts
from treadle.ir.types import Shape, Size, size_product

# --- conv --------------------------------------------------------------------------------------


def expand_conv(o: Ops[Any], a: Any, x: Any, w: Any) -> Any:
    """The sum over taps of w[:, :, tap] @ (the element of each window at this tap)."""
    (n, _, *size), (outputs, _, *kernel) = o.type_of(x).shape, o.type_of(w).shape
    taps = int_sizes(kernel, "the kernel's size")
    counts = window_counts("conv", size, taps, a.stride, a.padding, a.dilation)
    if _is_empty(o, x, w):
        return o.full((n, outputs, *counts), 0, o.type_of(x).dtype)
    inputs = _padded(o, x, a.padding)
    products = []
    for tap in _all(taps):
        part = _tap_of_windows(o, a, inputs, tap, counts)
        products.append(o.matmul(_weight_at(o, a, w, tap), _rows(o, part, a.groups)))
    return o.reshape(_sum(o, products), (n, outputs, *counts))


def _is_empty(o: Ops[Any], *operands: Any) -> bool:
    """Nothing is summed, or there is nothing to sum for: no product a tap for that."""
    return any(o.type_of(x).size == 0 for x in operands)


def _all(sizes: Sequence[int]) -> list[tuple[int, ...]]:
    return list(product(*(range(n) for n in sizes)))


def _sum(o: Ops[Any], terms: Sequence[Any]) -> Any:
    total = terms[0]
    for term in terms[1:]:
        total = o.add(total, term)
    return total


def _padded(o: Ops[Any], x: Any, padding: Sequence[tuple[int, int]]) -> Any:
    if not any(map(any, padding)):
        return x
    low, high = zip(*padding, strict=True)
    return o.call("pad", x, low=(0, 0, *low), high=(0, 0, *high), value=0)


def _tap_of_windows(
    o: Ops[Any], a: Any, inputs: Any, tap: Sequence[int], counts: Sequence[Size]
) -> Any:
    """[N, C, *counts]: what lies under this tap of each window."""
    starts = [k * d for k, d in zip(tap, a.dilation, strict=True)]
    return _slice(o, inputs, starts, a.stride, counts)


def _slice(
    o: Ops[Any], x: Any, starts: Sequence[int], steps: Sequence[int], counts: Sequence[Size]
) -> Any:
    """A slice along the spatial axes; `x` itself where it is all of it."""
    t = o.type_of(x)
    if not any(starts) and all(step == 1 for step in steps) and t.shape[2:] == tuple(counts):
        return x
    return o.call(
        "slice", x, starts=(0, 0, *starts), steps=(1, 1, *steps), shape=(*t.shape[:2], *counts)
    )


def _rows(o: Ops[Any], x: Any, groups: int) -> Any:
    """[N, C, *S] as [N, groups, C/groups, elements], without the second axis for one group."""
    n, channels, *size = o.type_of(x).shape
    return o.reshape(x, (n, *_split(channels, groups), size_product(size)))


def _split(channels: Size, groups: int) -> Shape:
    if groups == 1:
        return (channels,)
    assert isinstance(channels, int)
    return (groups, channels // groups)


def _weight_at(o: Ops[Any], a: Any, w: Any, tap: Sequence[int]) -> Any:
    """[groups, O/groups, C/groups] at one tap, without the first axis for one group."""
    outputs, inputs, *_ = o.type_of(w).shape
    part = _slice(o, w, tap, (1,) * len(tap), (1,) * len(tap))
    return o.reshape(part, (*_split(outputs, a.groups), inputs))


# --- conv_input_grad ---------------------------------------------------------------------------


class _Phase(NamedTuple):
    """Along one axis, the elements `q * stride + phase` of the input for q = 0, 1, ..: the taps
    that meet them, and which window, counted from q, has each tap there."""

    taps: tuple[int, ...]
    windows: tuple[int, ...]


def _phases(stride: int, low: int, dilation: int, taps: int) -> list[_Phase]:
    """Window p has tap k at element i where p * stride + k * dilation - low = i."""
    found = []
    for phase in range(stride):
        met = [k for k in range(taps) if (phase + low - k * dilation) % stride == 0]
        windows = tuple((phase + low - k * dilation) // stride for k in met)
        found.append(_Phase(tuple(met), windows))
    return found


def expand_input_grad(o: Ops[Any], a: Any, g: Any, w: Any) -> Any:
    """Elements of the input whose distance is a multiple of the stride meet the same taps, so each
    such phase is a sum over its taps of w[:, :, tap]^T @ (a slice of the padded cotangent); the
    phases are then laid between each other. No product with an inserted zero is made."""
    n, _, *counts = o.type_of(g).shape
    of_group, *kernel = o.type_of(w).shape[1:]
    channels = of_group * a.groups
    size = int_sizes(a.size, "the input's size")
    if 0 in size or _is_empty(o, g, w):
        return o.full((n, channels, *size), 0, o.type_of(g).dtype)
    axes = [
        _phases(step, low, dil, k)
        for step, (low, _), dil, k in zip(
            a.stride, a.padding, a.dilation, int_sizes(kernel, "the kernel's size"), strict=True
        )
    ]
    rows = tuple(-(-whole // step) for whole, step in zip(size, a.stride, strict=True))
    known = int_sizes(counts, "the cotangent's size")
    before, after = zip(
        *(_reach(*axis) for axis in zip(axes, rows, known, strict=True)), strict=True
    )
    padded = _padded(o, g, list(zip(before, after, strict=True)))
    parts = []
    for phases in product(*axes):
        part = _phase_sum(o, a, padded, w, phases, before, rows)
        if part is None:
            part = o.full((n, channels, *rows), 0, o.type_of(g).dtype)
        parts.append(o.reshape(part, (n, channels, *rows)))
    whole = _interleaved(o, parts, a.stride)
    return _slice(o, whole, (0,) * len(size), (1,) * len(size), size)


def _reach(phases: Sequence[_Phase], rows: int, count: int) -> tuple[int, int]:
    """How many windows before the first and behind the last are asked for along one axis."""
    windows = [p for phase in phases for p in phase.windows]
    return max(0, -min(windows)), max(0, max(windows) + rows - count)


def _phase_sum(
    o: Ops[Any], a: Any, g: Any, w: Any, phases: Sequence[_Phase], before: Sequence[int],
    rows: Sequence[int],
) -> Any:  # fmt: skip
    """[N, (groups,) C/groups, elements] of one phase; None where no tap meets it."""
    terms = []
    for at in _all([len(phase.taps) for phase in phases]):
        tap = [phase.taps[i] for phase, i in zip(phases, at, strict=True)]
        starts = [phase.windows[i] + low for phase, i, low in zip(phases, at, before, strict=True)]
        part = _slice(o, g, starts, (1,) * len(starts), rows)
        weight = o.transpose(_weight_at(o, a, w, tap))
        terms.append(o.matmul(weight, _rows(o, part, a.groups)))
    return _sum(o, terms) if terms else None


def _interleaved(o: Ops[Any], parts: Sequence[Any], stride: Sequence[int]) -> Any:
    """Phases of one shape [N, C, *rows], in row-major order, as [N, C, *(rows * stride)]: of axis
    after axis, from the last, the runs of phases become neighbours."""
    found = list(parts)
    for axis in reversed(range(len(stride))):
        step = stride[axis]
        runs = [found[i : i + step] for i in range(0, len(found), step)]
        found = [_joined(o, run, axis + 2) for run in runs]
    (whole,) = found
    return whole


def _joined(o: Ops[Any], parts: Sequence[Any], axis: int) -> Any:
    """Element q of part r becomes element q * len(parts) + r along `axis`."""
    if len(parts) == 1:
        return parts[0]
    shape = o.type_of(parts[0]).shape
    open_shape = (*shape[: axis + 1], 1, *shape[axis + 1 :])
    together = o.call("concat", *(o.reshape(p, open_shape) for p in parts), axis=axis + 1)
    size = shape[axis] * len(parts)
    return o.reshape(together, (*shape[:axis], size, *shape[axis + 1 :]))


# --- conv_weight_grad --------------------------------------------------------------------------


def expand_weight_grad(o: Ops[Any], a: Any, x: Any, g: Any) -> Any:
    """For each tap the product of the cotangent, [O, windows], with what lies under the tap,
    [windows, C], windows of the whole batch in one sum."""
    (_, outputs, *counts), channels = o.type_of(g).shape, o.type_of(x).shape[1]
    taps = int_sizes(a.size, "the kernel's size")
    if _is_empty(o, x, g):
        return o.full((outputs, channels // a.groups, *taps), 0, o.type_of(x).dtype)
    inputs = _padded(o, x, a.padding)
    left = _channels_first(o, g, a.groups)
    terms = []
    for tap in _all(taps):
        part = _tap_of_windows(o, a, inputs, tap, counts)
        terms.append(o.matmul(left, o.transpose(_channels_first(o, part, a.groups))))
    shape = (outputs, channels // a.groups)
    columns = [o.reshape(term, (*shape, 1)) for term in terms]
    whole = o.call("concat", *columns, axis=2) if len(columns) > 1 else columns[0]
    return o.reshape(whole, (*shape, *taps))


def _channels_first(o: Ops[Any], x: Any, groups: int) -> Any:
    """[N, C, *S] as [groups, C/groups, N * elements], without the first axis for one group."""
    n, channels, *size = o.type_of(x).shape
    turned = o.permute(x, (1, 0, *range(2, len(size) + 2)))
    return o.reshape(turned, (*_split(channels, groups), size_product([n, *size])))
