"""Normalisation as layers, with PyTorch's arguments, defaults and `state_dict` keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import float32, int64, shape_text
from treadle.nn import functional
from treadle.nn.deferred import Deferred
from treadle.nn.parameter import Parameter
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.modes import no_grad
from treadle.tracer.promote import as_tensor
from treadle.tracer.tensor import Tensor


class _BatchNorm(Deferred):
    """Batch norm over axis 1 (Ioffe and Szegedy, 2015): see `functional.batch_norm`.

    In training mode the batch's statistics normalise, and the running ones follow them with
    `momentum` (None: their plain average over all batches); in evaluation the running ones do.
    """

    ranks: ClassVar[tuple[int, ...]]
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int | None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        dtype: object = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.has_bias = bias
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self._dtype = float32 if dtype is None else dtype
        if num_features is None:
            self.wait()
        else:
            self.settle(num_features)

    def settle(self, size: int) -> None:
        """Make parameters and statistics for `size` channels."""
        self.num_features = size
        kind = self._dtype
        self.weight = Parameter(api.ones(size, dtype=kind)) if self.affine else None
        shifted = self.affine and self.has_bias
        self.bias = Parameter(api.zeros(size, dtype=kind)) if shifted else None
        tracks = self.track_running_stats
        self.register_buffer("running_mean", api.zeros(size, dtype=kind) if tracks else None)
        self.register_buffer("running_var", api.ones(size, dtype=kind) if tracks else None)
        self.register_buffer("num_batches_tracked", api.zeros((), dtype=int64) if tracks else None)

    def forward(self, x: Tensor) -> Tensor:
        """Raises ShapeError for another rank or number of channels."""
        x = as_tensor(x)
        if self.waits and x.ndim in self.ranks:
            self.settle_by(x.shape[1])
        if x.ndim not in self.ranks or x.shape[1] != self.num_features:
            axes = " or ".join(f"{r} axes" for r in self.ranks)
            raise located(
                ShapeError(
                    f"{type(self).__name__} takes [N, {self.num_features or 'C'}, ..] of {axes}, "
                    f"found shape {shape_text(x.shape)}"
                )
            )
        if self.training and self.momentum is None and self.running_mean is not None:
            return self._averaged(x)
        by_batch = self.training or self.running_mean is None
        momentum = 0.0 if self.momentum is None else self.momentum
        mean, var = (self.running_mean, self.running_var) if self._uses_running() else (None, None)
        y = functional.batch_norm(
            x, mean, var, self.weight, self.bias, by_batch, momentum, self.eps
        )
        if self.training:
            self._count()
        return y

    def _count(self) -> None:
        """One batch more, once nothing can fail."""
        if self.num_batches_tracked is not None:
            with no_grad():
                self.num_batches_tracked.add_(1)

    def _uses_running(self) -> bool:
        return not self.training or self.track_running_stats

    def _averaged(self, x: Tensor) -> Tensor:
        """A training step whose running statistics become averages over all batches so far."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        old = [self.running_mean.clone(), self.running_var.clone()]
        y = functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, True, 1.0, self.eps
        )
        self._count()
        with no_grad():
            for now, before in zip((self.running_mean, self.running_var), old, strict=True):
                share = 1 / self.num_batches_tracked.astype(now.dtype)
                now.copy_(before + share * (now - before))
        return y

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, track_running_stats={self.track_running_stats}"
        )


class BatchNorm1d(_BatchNorm):
    __doc__ = f"{_BatchNorm.__doc__}\n    Inputs are [N, C] or [N, C, L].\n    "
    ranks = (2, 3)


class BatchNorm2d(_BatchNorm):
    __doc__ = f"{_BatchNorm.__doc__}\n    Inputs are [N, C, H, W].\n    "
    ranks = (4,)


class LazyBatchNorm1d(BatchNorm1d):
    """`BatchNorm1d` that takes its channels from the first input."""

    def __init__(self, **options: Any) -> None:
        super().__init__(None, **options)


class LazyBatchNorm2d(BatchNorm2d):
    """`BatchNorm2d` that takes its channels from the first input."""

    def __init__(self, **options: Any) -> None:
        super().__init__(None, **options)


class LayerNorm(Deferred):
    """(x - mean) / sqrt(var + eps) * weight + bias over the last axes, which have the sizes
    `normalized_shape` (Ba, Kiros and Hinton, 2016; None: the first input's last axis): see
    `functional.layer_norm`."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int] | None,
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: object = None,
    ) -> None:
        super().__init__()
        self.eps, self.elementwise_affine, self.has_bias = eps, elementwise_affine, bias
        self._dtype = float32 if dtype is None else dtype
        self.normalized_shape: tuple[int, ...] = ()
        self.weight, self.bias = None, None
        if normalized_shape is None:
            self.wait()
        else:
            self._make(_shape(normalized_shape))

    def settle(self, size: int) -> None:
        """Make the parameters for a last axis of `size`."""
        self._make((size,))

    def _make(self, shape: tuple[int, ...]) -> None:
        self.normalized_shape, kind, affine = shape, self._dtype, self.elementwise_affine
        self.weight = Parameter(api.ones(shape, dtype=kind)) if affine else None
        self.bias = Parameter(api.zeros(shape, dtype=kind)) if affine and self.has_bias else None

    def forward(self, x: Tensor) -> Tensor:
        x = as_tensor(x)
        if self.waits and x.ndim:
            self.settle_by(x.shape[-1])
        return functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        affine = self.elementwise_affine
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}"


class RMSNorm(Deferred):
    """x / sqrt(mean(x^2) + eps) * weight over the last axes (Zhang and Sennrich, 2019): see
    `functional.rms_norm`. `eps` None is the dtype's epsilon, `normalized_shape` None the first
    input's last axis."""

    weight: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int] | None,
        eps: float | None = None,
        elementwise_affine: bool = True,
        dtype: object = None,
    ) -> None:
        super().__init__()
        self.eps, self.elementwise_affine = eps, elementwise_affine
        self._dtype = float32 if dtype is None else dtype
        self.normalized_shape: tuple[int, ...] = ()
        self.weight = None
        if normalized_shape is None:
            self.wait()
        else:
            self._make(_shape(normalized_shape))

    def settle(self, size: int) -> None:
        """Make the parameter for a last axis of `size`."""
        self._make((size,))

    def _make(self, shape: tuple[int, ...]) -> None:
        self.normalized_shape = shape
        ones = api.ones(shape, dtype=self._dtype)
        self.weight = Parameter(ones) if self.elementwise_affine else None

    def forward(self, x: Tensor) -> Tensor:
        x = as_tensor(x)
        if self.waits and x.ndim:
            self.settle_by(x.shape[-1])
        return functional.rms_norm(x, self.normalized_shape, self.weight, self.eps)

    def extra_repr(self) -> str:
        affine = self.elementwise_affine
        return f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={affine}"


class GroupNorm(Deferred):
    """Each sample's channels in `num_groups` runs, each normalised by itself (Wu and He, 2018):
    see `functional.group_norm`. `num_channels` None is the first input's."""

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        num_groups: int,
        num_channels: int | None,
        eps: float = 1e-5,
        affine: bool = True,
        dtype: object = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.has_bias = bias
        self.num_groups, self.num_channels = num_groups, num_channels
        self.eps, self.affine = eps, affine
        self._dtype = float32 if dtype is None else dtype
        self.weight, self.bias = None, None
        if num_channels is None:
            self.wait()
        else:
            self.settle(num_channels)

    def settle(self, size: int) -> None:
        """Make the parameters for `size` channels. Raises ArgumentError where the groups do not
        divide them."""
        if self.num_groups < 1 or size % self.num_groups:
            raise located(
                ArgumentError(
                    f"num_channels must be a multiple of num_groups, found {size} and "
                    f"{self.num_groups}"
                )
            )
        self.num_channels, kind = size, self._dtype
        self.weight = Parameter(api.ones(size, dtype=kind)) if self.affine else None
        shifted = self.affine and self.has_bias
        self.bias = Parameter(api.zeros(size, dtype=kind)) if shifted else None

    def forward(self, x: Tensor) -> Tensor:
        x = as_tensor(x)
        if self.waits and x.ndim > 1:
            self.settle_by(x.shape[1])
        return functional.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


def _shape(sizes: int | Sequence[int]) -> tuple[int, ...]:
    return (sizes,) if isinstance(sizes, int) else tuple(sizes)
