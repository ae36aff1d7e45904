"""Modules that only change a shape or a size, or nothing."""

from __future__ import annotations

from treadle.ir.errors import ShapeError
from treadle.ir.types import shape_text
from treadle.nn import functional
from treadle.nn.functional.spatial import PerAxis
from treadle.nn.module import Module
from treadle.nn.options import Options
from treadle.tracer.errors import located
from treadle.tracer.promote import as_tensor
from treadle.tracer.tensor import Tensor


class Identity(Module):
    """x itself; arguments are taken and forgotten, as PyTorch's does."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Flatten(Module):
    """Axes `start_dim` to `end_dim` as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        super().__init__()
        self.start_dim = start_dim
        self.end_dim = end_dim

    def forward(self, x: Tensor) -> Tensor:
        """Raises ShapeError where there are no such axes."""
        x = as_tensor(x)
        first, last = (d % x.ndim if -x.ndim <= d < x.ndim else -1
                       for d in (self.start_dim, self.end_dim))  # fmt: skip
        if first < 0 or last < first:
            raise located(
                ShapeError(
                    f"Flatten({self.start_dim}, {self.end_dim}) does not fit a tensor of shape "
                    f"{shape_text(x.shape)}"
                )
            )
        size = 1
        for s in x.shape[first : last + 1]:
            size *= s
        return x.reshape((*x.shape[:first], size, *x.shape[last + 1 :]))

    def extra_repr(self) -> str:
        return f"start_dim={self.start_dim}, end_dim={self.end_dim}"


class Unflatten(Module):
    """Axis `dim` as several of sizes `unflattened_size`, one of which may be -1."""

    def __init__(self, dim: int, unflattened_size: tuple[int, ...]) -> None:
        super().__init__()
        self.dim = dim
        self.unflattened_size = tuple(unflattened_size)

    def forward(self, x: Tensor) -> Tensor:
        """Raises ShapeError where the sizes do not fit."""
        x = as_tensor(x)
        axis = self.dim % x.ndim
        return x.reshape((*x.shape[:axis], *self.unflattened_size, *x.shape[axis + 1 :]))

    def extra_repr(self) -> str:
        return f"dim={self.dim}, unflattened_size={self.unflattened_size}"


class Upsample(Options):
    """`functional.interpolate` to a `size` or by a `scale_factor`."""

    function = staticmethod(functional.interpolate)

    def __init__(
        self,
        size: PerAxis | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        recompute_scale_factor: bool | None = None,
    ) -> None:
        super().__init__(
            size=size,
            scale_factor=scale_factor,
            mode=mode,
            align_corners=align_corners,
            recompute_scale_factor=recompute_scale_factor,
        )
