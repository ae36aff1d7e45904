"""Samples become a batch: arrays are stacked, containers keep their form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from treadle.ir.errors import DTypeError, ShapeError
from treadle.nn.data.dataset import as_array
from treadle.tracer.create import tensor
from treadle.tracer.tensor import Tensor


def stacked(samples: Sequence[Any]) -> Any:
    """As `default_collate`, with NumPy arrays in the place of tensors.

    Raises ShapeError where the samples' shapes differ, DTypeError for what is no number.
    """
    first = samples[0]
    if isinstance(first, (str, bytes)):
        return list(samples)
    if isinstance(first, Mapping):
        return {key: stacked([s[key] for s in samples]) for key in first}
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*(stacked(part) for part in zip(*samples, strict=True)))
    if isinstance(first, (tuple, list)):
        if len({len(s) for s in samples}) > 1:
            raise ShapeError(f"samples of {sorted({len(s) for s in samples})} parts make no batch")
        return tuple(stacked(part) for part in zip(*samples, strict=True))
    arrays = [as_array(s) for s in samples]
    shapes = {a.shape for a in arrays}
    if len(shapes) > 1:
        listed = ", ".join(map(str, sorted(shapes)[:4]))
        raise ShapeError(
            f"samples of different shapes make no batch, found {listed}: bring them to one, or "
            "give the loader a collate_fn"
        )
    if any(a.dtype == object for a in arrays):
        raise DTypeError(
            f"samples of type {type(first).__name__} make no batch: give the loader a collate_fn"
        )
    return np.stack(arrays)


def as_tensors(batch: Any) -> Any:
    """The arrays of a batch as tensors; other leaves as they are."""
    if isinstance(batch, np.ndarray):
        return tensor(batch)
    if isinstance(batch, Tensor) or not isinstance(batch, (Mapping, tuple, list)):
        return batch
    if isinstance(batch, Mapping):
        return {key: as_tensors(value) for key, value in batch.items()}
    parts = [as_tensors(value) for value in batch]
    if isinstance(batch, tuple):
        return type(batch)(*parts) if hasattr(batch, "_fields") else tuple(parts)
    return parts


def default_collate(samples: Sequence[Any]) -> Any:
    """A batch of samples: numbers, arrays and tensors are stacked along a new first axis into
    tensors; tuples, lists (as tuples), named tuples and dicts of these likewise; strings are
    listed.

    A Python float becomes float64, an int int64, as in NumPy and PyTorch. Raises ShapeError where
    the samples' shapes differ.
    """
    return as_tensors(stacked(samples))
