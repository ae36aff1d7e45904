"""Normalisation: batch_norm, group_norm, instance_norm, layer_norm, rms_norm."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import shape_text
from treadle.tracer import api
from treadle.tracer.api.arguments import added_number, array_function, as_float_tensor, flag, real
from treadle.tracer.api.creation import as_int
from treadle.tracer.execute import apply
from treadle.tracer.modes import no_grad
from treadle.tracer.promote import Operand, promote
from treadle.tracer.tensor import Tensor

layer_norm = api.layer_norm


@array_function
def batch_norm(
    input: Operand,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Operand | None = None,
    bias: Operand | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) * weight + bias for each channel: axis 1 of `input`, which has
    two axes or more.

    `training`: mean and variance (not corrected) are those of the batch, over all other axes, and
    the running statistics, where there are any, are changed in place to (1 - momentum) times
    themselves plus `momentum` times the batch's mean and corrected variance. Otherwise the running
    statistics are what is normalised with. All four have shape [channels]; `weight` and `bias`
    None are 1 and 0.

    Raises ShapeError for shapes that do not fit, or a training batch of one value a channel,
    or none;
    ArgumentError where statistics are missing, or one of the two, or for an eps below 0.
    """
    x = as_float_tensor(input)
    if x.ndim < 2:
        raise ShapeError(f"batch_norm needs an input [batch, channels, ..], found {x.type}")
    channels, added = x.shape[1], added_number("eps", eps)
    for name, given in (
        ("running_mean", running_mean), ("running_var", running_var),
        ("weight", weight), ("bias", bias),
    ):  # fmt: skip
        _check_channels("batch_norm", name, given, channels)
    if (running_mean is None) != (running_var is None):
        raise ArgumentError("batch_norm needs running_mean and running_var, or neither of them")
    if not flag("training", training):
        if running_mean is None or running_var is None:
            raise ArgumentError("batch_norm needs running statistics where training is False")
        return _by_statistics(x, running_mean, running_var, weight, bias, added)
    if x.size // max(channels, 1) <= 1 and channels:
        raise ShapeError(
            f"batch_norm needs more than one value a channel in training, found {x.type}"
        )
    if running_mean is not None and running_var is not None:
        _update(x, running_mean, running_var, real("momentum", momentum))
    scale = api.ones((channels,), dtype=x.dtype) if weight is None else weight
    shift = api.zeros((channels,), dtype=x.dtype) if bias is None else bias
    return apply("batch_norm", *promote(x, scale, shift), axis=1, eps=added)


def _check_channels(of: str, name: str, given: Any, channels: int) -> None:
    if given is not None and tuple(np.shape(given)) != (channels,):
        raise ShapeError(
            f"the {name} of {of} must have shape {shape_text((channels,))}, found "
            f"{shape_text(np.shape(given))}"
        )


def _wide(per_channel: Operand, rank: int) -> Tensor:
    """One number a channel, in a shape that broadcasts to the input."""
    return api.reshape(per_channel, (-1, *(1 for _ in range(rank - 2))))


def _by_statistics(
    x: Tensor, mean: Tensor, var: Tensor, weight: Operand | None, bias: Operand | None, eps: float
) -> Tensor:
    scale = apply("rsqrt", var + eps)
    if weight is not None:
        scale = scale * weight
    found = (x - _wide(mean, x.ndim)) * _wide(scale, x.ndim)
    return found if bias is None else found + _wide(bias, x.ndim)


def _update(x: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float) -> None:
    """As the op computes them, so that value numbering leaves one of each."""
    axes = tuple(i for i in range(x.ndim) if i != 1)
    with no_grad():
        mean = apply("mean", x, axes=axes, keepdims=True)
        off = x - mean
        var = apply("mean", off * off, axes=axes, keepdims=True)
        count = x.size // max(x.shape[1], 1)
        for state, found in ((running_mean, mean), (running_var, var * (count / (count - 1)))):
            here = api.reshape(found, state.shape)
            state.copy_(state * (1 - momentum) + here * momentum)


@array_function
def group_norm(
    input: Operand,
    num_groups: int,
    weight: Operand | None = None,
    bias: Operand | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) for each image and each of `num_groups` groups of neighbouring
    channels (axis 1), times `weight` plus `bias` of shape [channels].

    Raises ShapeError where the groups do not divide the channels, or for shapes that do not fit,
    ArgumentError for an eps below 0.
    """
    x = as_float_tensor(input)
    if x.ndim < 2:
        raise ShapeError(f"group_norm needs an input [batch, channels, ..], found {x.type}")
    channels, groups = x.shape[1], as_int(num_groups, "num_groups")
    if groups < 1 or channels % groups:
        raise ShapeError(
            f"group_norm needs num_groups that divide the {channels} channels, found {groups}"
        )
    for name, given in (("weight", weight), ("bias", bias)):
        _check_channels("group_norm", name, given, channels)
    parts = api.reshape(x, (x.shape[0], groups, channels // groups, *x.shape[2:]))
    axes = tuple(range(2, parts.ndim))
    found = api.reshape(
        apply("layer_norm", parts, axes=axes, eps=added_number("eps", eps)), x.shape
    )
    return _affine(found, weight, bias)


@array_function
def instance_norm(
    input: Operand,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Operand | None = None,
    bias: Operand | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """(x - mean) / sqrt(var + eps) for each image and channel, times `weight` plus `bias` of shape
    [channels]; `input` is [batch, channels, ..] with three axes or more.

    With running statistics, these follow the mean over the images of their statistics (the variance
    corrected) by `momentum`, in place; they are what is normalised with unless `use_input_stats`.

    Raises ShapeError for shapes that do not fit, or one value an image and channel; ArgumentError
    for an eps below 0, or where statistics are missing, or one of the two.
    """
    x, added = as_float_tensor(input), added_number("eps", eps)
    if x.ndim < 3:
        raise ShapeError(f"instance_norm needs an input [batch, channels, ..], found {x.type}")
    for name, given in (
        ("running_mean", running_mean), ("running_var", running_var),
        ("weight", weight), ("bias", bias),
    ):  # fmt: skip
        _check_channels("instance_norm", name, given, x.shape[1])
    if (running_mean is None) != (running_var is None):
        raise ArgumentError("instance_norm needs running_mean and running_var, or neither of them")
    if not flag("use_input_stats", use_input_stats):
        if running_mean is None or running_var is None:
            raise ArgumentError("instance_norm needs running statistics or use_input_stats")
        return _by_statistics(x, running_mean, running_var, weight, bias, added)
    axes = tuple(range(2, x.ndim))
    count = math.prod(x.shape[2:])
    if count <= 1:
        raise ShapeError(f"instance_norm needs more than one value a channel, found {x.type}")
    if running_mean is not None and running_var is not None:
        _follow(x, axes, running_mean, running_var, real("momentum", momentum))
    return _affine(apply("layer_norm", x, axes=axes, eps=added), weight, bias)


def _follow(
    x: Tensor, axes: tuple[int, ...], running_mean: Tensor, running_var: Tensor, momentum: float
) -> None:
    with no_grad():
        found = api.mean(x, axis=axes), api.var(x, axis=axes, correction=1)
        for state, of_images in zip((running_mean, running_var), found, strict=True):
            state.copy_(state * (1 - momentum) + api.mean(of_images, axis=0) * momentum)


def _affine(x: Tensor, weight: Operand | None, bias: Operand | None) -> Tensor:
    if weight is not None:
        x = x * _wide(weight, x.ndim)
    return x if bias is None else x + _wide(bias, x.ndim)


@array_function
def rms_norm(
    input: Operand,
    normalized_shape: int | Sequence[int],
    weight: Operand | None = None,
    eps: float | None = None,
) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimensions, which are `normalized_shape`, times
    `weight` of that shape. `eps` None is the spacing of the dtype at 1.

    Raises ShapeError where the shapes differ from that, ArgumentError for an eps below 0.
    """
    x = as_float_tensor(input)
    listed = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
    expected = tuple(as_int(s, "a size of normalized_shape") for s in listed)
    if not expected or x.shape[-len(expected) :] != expected:
        raise ShapeError(
            f"rms_norm over {shape_text(expected)} needs a tensor whose last dimensions are "
            f"these, found shape {shape_text(x.shape)}"
        )
    if weight is not None and tuple(np.shape(weight)) != expected:
        raise ShapeError(
            f"the weight of rms_norm must have shape {shape_text(expected)}, found "
            f"{shape_text(np.shape(weight))}"
        )
    added = float(np.finfo(x.dtype.dtype).eps) if eps is None else added_number("eps", eps)
    axes = tuple(range(x.ndim - len(expected), x.ndim))
    squares = apply("mean", x * x, axes=axes, keepdims=True)
    found = x * apply("rsqrt", squares + added)
    return found if weight is None else found * weight
