"""Pools as modules; what each computes stands at its function in `nn.functional`."""

from __future__ import annotations

from treadle.nn import functional
from treadle.nn.functional.spatial import PerAxis
from treadle.nn.options import Options


class _MaxPool(Options):
    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        dilation: PerAxis = 1,
        return_indices: bool = False,
        ceil_mode: bool = False,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            dilation=dilation,
            return_indices=return_indices,
            ceil_mode=ceil_mode,
        )


class MaxPool1d(_MaxPool):
    """`functional.max_pool1d`"""

    function = staticmethod(functional.max_pool1d)


class MaxPool2d(_MaxPool):
    """`functional.max_pool2d`"""

    function = staticmethod(functional.max_pool2d)


class AvgPool1d(Options):
    """`functional.avg_pool1d`"""

    function = staticmethod(functional.avg_pool1d)

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )


class AvgPool2d(Options):
    """`functional.avg_pool2d`"""

    function = staticmethod(functional.avg_pool2d)

    def __init__(
        self,
        kernel_size: PerAxis,
        stride: PerAxis | None = None,
        padding: PerAxis = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
        divisor_override: int | None = None,
    ) -> None:
        super().__init__(
            kernel_size=kernel_size,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
            divisor_override=divisor_override,
        )


class AdaptiveAvgPool1d(Options):
    """`functional.adaptive_avg_pool1d`"""

    function = staticmethod(functional.adaptive_avg_pool1d)

    def __init__(self, output_size: int) -> None:
        super().__init__(output_size=output_size)


class AdaptiveAvgPool2d(Options):
    """`functional.adaptive_avg_pool2d`; None keeps an axis' size."""

    function = staticmethod(functional.adaptive_avg_pool2d)

    def __init__(self, output_size: int | tuple[int | None, int | None] | None) -> None:
        super().__init__(output_size=output_size)


class AdaptiveMaxPool1d(Options):
    """`functional.adaptive_max_pool1d`"""

    function = staticmethod(functional.adaptive_max_pool1d)

    def __init__(self, output_size: int, return_indices: bool = False) -> None:
        super().__init__(output_size=output_size, return_indices=return_indices)


class AdaptiveMaxPool2d(Options):
    """`functional.adaptive_max_pool2d`; None keeps an axis' size."""

    function = staticmethod(functional.adaptive_max_pool2d)

    def __init__(
        self,
        output_size: int | tuple[int | None, int | None] | None,
        return_indices: bool = False,
    ) -> None:
        super().__init__(output_size=output_size, return_indices=return_indices)
