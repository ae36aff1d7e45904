"""Adaptive pools: windows that make a result of a given size.

Where the sizes divide, all windows are equal and lie side by side. Elsewhere neighbours overlap by
an element and differ in length by one: a mean is a weighted sum along each axis, of a maximum the
elements of each window are looked up, the last one again where it is shorter than the longest.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ShapeError
from treadle.ir.op import ArrayData
from treadle.ir.types import shape_text
from treadle.nn.functional.spatial import (
    batched,
    element_numbers,
    float_input,
    output_size,
    pool_windows,
)
from treadle.tracer import api
from treadle.tracer.api.arguments import flag
from treadle.tracer.execute import apply, apply_multi
from treadle.tracer.tensor import Tensor

Array = npt.NDArray[Any]


class _Spans(NamedTuple):
    """The windows along one axis: where each begins and ends."""

    begin: Array
    end: Array

    @property
    def longest(self) -> int:
        return int((self.end - self.begin).max())

    def elements(self) -> Array:
        """[windows, longest]: the numbers of each window's elements, the last one again where a
        window is shorter."""
        steps = self.begin[:, None] + np.arange(self.longest)
        return np.asarray(np.minimum(steps, self.end[:, None] - 1))


def _spans(size: int, count: int) -> _Spans:
    p = np.arange(count)
    return _Spans(p * size // count, -(-(p + 1) * size // count))


def _prepared(name: str, rank: int, input: Any, size: Any) -> tuple[Tensor, tuple[int, ...], bool]:
    x, alone = batched(name, float_input(name, input), rank)
    if 0 in x.shape[2:]:
        raise ShapeError(f"{name}: input {shape_text(x.shape)} has a spatial axis without elements")
    return x, output_size(size, x.shape[2:]), alone


def _resampled(x: Tensor, axis: int, index: Array, weights: Array) -> Tensor:
    tables = {"index": ArrayData.of(index), "weights": ArrayData.of(weights)}
    return apply("resample", x, axis=axis, **tables)


def adaptive_avg_pool(name: str, rank: int, input: Any, size: Any) -> Tensor:
    """See `pooling.adaptive_avg_pool2d`."""
    x, counts, alone = _prepared(name, rank, input, size)
    y = _mean_of_equal(x, counts)
    for axis, (old, new) in enumerate(zip(x.shape[2:], counts, strict=True), 2):
        if old % new:
            span = _spans(old, new)
            length = (span.end - span.begin)[:, None]
            weights = np.where(np.arange(span.longest) < length, 1 / length, 0.0)
            y = _resampled(y, axis, span.elements(), weights)
    found = y.clone() if y is x else y
    return api.squeeze(found, axis=0) if alone else found


def _mean_of_equal(x: Tensor, counts: tuple[int, ...]) -> Tensor:
    """The means along the axes that the windows divide evenly."""
    shape: list[int] = list(x.shape[:2])
    axes = []
    for size, count in zip(x.shape[2:], counts, strict=True):
        divides = size % count == 0 and size != count
        shape += [count, size // count] if divides else [size]
        if divides:
            axes.append(len(shape) - 1)
    if not axes:
        return x
    return api.mean(api.reshape(x, cast(Any, tuple(shape))), axis=tuple(axes))


def _looked_up(x: Tensor, counts: tuple[int, ...]) -> tuple[Tensor, list[_Spans]]:
    """`x` with the elements of all windows side by side, windows * longest along each axis."""
    spans = [_spans(size, count) for size, count in zip(x.shape[2:], counts, strict=True)]
    for axis, (size, span) in enumerate(zip(x.shape[2:], spans, strict=True), 2):
        elements = span.elements().reshape(-1, 1)
        if not np.array_equal(elements[:, 0], np.arange(size)):
            x = _resampled(x, axis, elements, np.ones(elements.shape))
    return x, spans


def adaptive_max_pool(
    name: str, rank: int, input: Any, size: Any, return_indices: Any
) -> Tensor | tuple[Tensor, Tensor]:
    """See `pooling.adaptive_max_pool2d`."""
    x, counts, alone = _prepared(name, rank, input, size)
    plane = x.shape[2:]
    x, spans = _looked_up(x, counts)
    kernel = tuple(span.longest for span in spans)
    none, ones = ((0, 0),) * rank, (1,) * rank
    windows = pool_windows(kernel, kernel, none, ones)
    y, taps = apply_multi("max_pool", x, **windows)
    found = [y]
    if flag("return_indices", return_indices):
        elements = [span.elements().reshape(-1) for span in spans]
        found.append(element_numbers(taps, plane, windows, elements))
    found = [api.squeeze(v, axis=0) if alone else v for v in found]
    return found[0] if len(found) == 1 else (found[0], found[1])
