"""Convolutions as layers, with PyTorch's arguments, defaults and initial values."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import float32, shape_text
from treadle.nn import functional, init
from treadle.nn.deferred import Deferred
from treadle.nn.functional.spatial import Padding, PerAxis, pads_per_axis, per_axis
from treadle.nn.parameter import Parameter
from treadle.tracer import api
from treadle.tracer.api.arguments import option
from treadle.tracer.api.creation import as_int
from treadle.tracer.errors import located, located_errors
from treadle.tracer.promote import as_tensor
from treadle.tracer.tensor import Tensor

PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]
_MODES = ("zeros", "reflect", "replicate", "circular")


class _Convolution(Deferred):
    """What plain and transposed convolutions share: sizes, parameters, initial values."""

    rank: ClassVar[int]
    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis,
        padding: Padding,
        dilation: PerAxis,
        groups: int,
        bias: bool,
        padding_mode: str,
        dtype: object,
    ) -> None:
        super().__init__()
        with located_errors():
            self.kernel_size = per_axis("kernel_size", kernel_size, self.rank, 1)
            self.stride = per_axis("stride", stride, self.rank, 1)
            self.dilation = per_axis("dilation", dilation, self.rank, 1)
            self.padding = padding
            self.groups = as_int(groups, "groups")
            self.out_channels = as_int(out_channels, "out_channels")
            self.padding_mode = option("padding_mode", padding_mode, _MODES)
            self._check_channels("out_channels", self.out_channels)
        self.in_channels = in_channels
        self.has_bias = bias
        self._dtype = float32 if dtype is None else dtype
        if in_channels is None:
            self.wait()
        else:
            self.settle(in_channels)

    def _weight_shape(self, channels: int) -> tuple[int, ...]:
        raise NotImplementedError

    def _check_channels(self, name: str, size: int) -> None:
        if self.groups < 1 or size < 0 or size % self.groups:
            raise ArgumentError(
                f"{name} must be a multiple of groups, found {size} and groups={self.groups}"
            )

    def settle(self, size: int) -> None:
        """Make the parameters for inputs of `size` channels. Raises ArgumentError where the groups
        do not divide them."""
        with located_errors():
            self._check_channels("in_channels", as_int(size, "in_channels"))
        self.in_channels = size
        self.weight = Parameter(api.zeros(self._weight_shape(size), dtype=self._dtype))
        bias = Parameter(api.zeros(self.out_channels, dtype=self._dtype)) if self.has_bias else None
        self.bias = bias
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew: evenly in +-1/sqrt(fan_in), as PyTorch's."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init.fans(self.weight)
            bound = 1 / math.sqrt(fan_in) if fan_in else 0.0
            init.uniform_(self.bias, -bound, bound)

    def _checked(self, x: Tensor) -> Tensor:
        """Raises ShapeError unless x is [N, C, ..] or [C, ..] of this layer's channels."""
        x = as_tensor(x)
        fits = x.ndim in (self.rank + 1, self.rank + 2)
        channels = x.shape[-self.rank - 1] if fits else None
        if self.waits and channels is not None:
            self.settle_by(channels)
        if channels is None or channels != self.in_channels:
            axes = ", ".join("HW"[-self.rank :]) if self.rank < 3 else "D, H, W"
            raise located(
                ShapeError(
                    f"{type(self).__name__} takes [N, {self.in_channels or 'C'}, {axes}], found "
                    f"shape {shape_text(x.shape)}"
                )
            )
        return x

    def extra_repr(self) -> str:
        parts = [str(self.in_channels), str(self.out_channels)]
        parts += [f"kernel_size={self.kernel_size}", f"stride={self.stride}"]
        plain = (0,) * self.rank
        if self.padding not in (0, plain):
            parts.append(f"padding={self.padding!r}")
        if self.dilation != (1,) * self.rank:
            parts.append(f"dilation={self.dilation}")
        if self.groups != 1:
            parts.append(f"groups={self.groups}")
        if not self.has_bias:
            parts.append("bias=False")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode!r}")
        return ", ".join(parts)


class _Conv(_Convolution):
    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = 0,
        dilation: PerAxis = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        dtype: object = None,
    ) -> None:
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, dtype,
        )  # fmt: skip

    def _weight_shape(self, channels: int) -> tuple[int, ...]:
        return (self.out_channels, channels // self.groups, *self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, ..] to [N, out_channels, ..], or both without N."""
        x = self._checked(x)
        padding: Any = self.padding
        if self.padding_mode != "zeros":
            x, padding = self._padded(x), 0
        convolve = functional.conv1d if self.rank == 1 else functional.conv2d
        return convolve(x, self.weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _padded(self, x: Tensor) -> Tensor:
        """x with its edges continued as `padding_mode` says."""
        if self.padding == "valid":
            return x
        if self.padding == "same":
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            pairs = tuple((total // 2, total - total // 2) for total in totals)
        else:
            pairs = pads_per_axis("padding", self.padding, self.rank)
        flat = [n for pair in reversed(pairs) for n in pair]
        return functional.pad(x, flat, mode=self.padding_mode)


class Conv1d(_Conv):
    """`functional.conv1d` with a weight [out_channels, in_channels / groups, K] and a bias.

    `in_channels` None is taken from the first input. `padding_mode`: what stands beyond the edges.
    """

    rank = 1


class Conv2d(_Conv):
    """`functional.conv2d` with a weight [out_channels, in_channels / groups, KH, KW] and a bias.

    `in_channels` None is taken from the first input. `padding_mode`: what stands beyond the edges.
    """

    rank = 2


class _ConvTranspose(_Convolution):
    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: PerAxis,
        stride: PerAxis = 1,
        padding: Padding = 0,
        output_padding: PerAxis = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: PerAxis = 1,
        padding_mode: str = "zeros",
        dtype: object = None,
    ) -> None:
        self.output_padding = output_padding
        with located_errors():
            option("padding_mode", padding_mode, ("zeros",))
        super().__init__(
            in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            "zeros", dtype,
        )  # fmt: skip

    def _weight_shape(self, channels: int) -> tuple[int, ...]:
        return (channels, self.out_channels // self.groups, *self.kernel_size)

    def forward(self, x: Tensor) -> Tensor:
        """[N, in_channels, ..] to [N, out_channels, ..], or both without N."""
        x = self._checked(x)
        padding: Any = self.padding
        plain = self.rank == 1
        convolve = functional.conv_transpose1d if plain else functional.conv_transpose2d
        return convolve(
            x, self.weight, self.bias, self.stride, padding, self.output_padding, self.groups,
            self.dilation,
        )  # fmt: skip


class ConvTranspose1d(_ConvTranspose):
    """`functional.conv_transpose1d` with a weight [in_channels, out_channels / groups, K]."""

    rank = 1


class ConvTranspose2d(_ConvTranspose):
    """`functional.conv_transpose2d` with a weight [in_channels, out_channels / groups, KH, KW]."""

    rank = 2


class LazyConv1d(Conv1d):
    """`Conv1d` that takes its input channels from the first input."""

    def __init__(self, out_channels: int, kernel_size: PerAxis, **options: Any) -> None:
        super().__init__(None, out_channels, kernel_size, **options)


class LazyConv2d(Conv2d):
    """`Conv2d` that takes its input channels from the first input."""

    def __init__(self, out_channels: int, kernel_size: PerAxis, **options: Any) -> None:
        super().__init__(None, out_channels, kernel_size, **options)


class LazyConvTranspose1d(ConvTranspose1d):
    """`ConvTranspose1d` that takes its input channels from the first input."""

    def __init__(self, out_channels: int, kernel_size: PerAxis, **options: Any) -> None:
        super().__init__(None, out_channels, kernel_size, **options)


class LazyConvTranspose2d(ConvTranspose2d):
    """`ConvTranspose2d` that takes its input channels from the first input."""

    def __init__(self, out_channels: int, kernel_size: PerAxis, **options: Any) -> None:
        super().__init__(None, out_channels, kernel_size, **options)
