"""`Linear`: y = x W^T + b."""

from __future__ import annotations

import math

from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.types import float32, shape_text
from treadle.nn import init
from treadle.nn.deferred import Deferred
from treadle.nn.parameter import Parameter
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.promote import as_tensor
from treadle.tracer.tensor import Tensor


class Linear(Deferred):
    """y = x W^T + b for x [..., in_features]; W [out_features, in_features], b [out_features].

    `in_features` None is taken from the first input. Both start evenly in +-1/sqrt(in_features), as
    PyTorch's do (kaiming_uniform_ with a = sqrt(5)).
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int | None, out_features: int, bias: bool = True, dtype: object = None
    ) -> None:
        super().__init__()
        sizes = {"in_features": in_features, "out_features": out_features}
        for name, size in sizes.items():
            if name == "in_features" and size is None:
                continue
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise located(ShapeError(f"{name} must be a size, found {size!r:.60}"))
        if not isinstance(bias, bool):
            raise located(DTypeError(f"bias must be a bool, found {bias!r:.60}"))
        self.in_features = in_features
        self.out_features = out_features
        self.has_bias = bias
        self._dtype = float32 if dtype is None else dtype
        if in_features is None:
            self.wait()
        else:
            self.settle(in_features)

    def settle(self, size: int) -> None:
        """Make the parameters for inputs of `size` features."""
        self.in_features = size
        self.weight = Parameter(api.zeros((self.out_features, size), dtype=self._dtype))
        bias = Parameter(api.zeros(self.out_features, dtype=self._dtype)) if self.has_bias else None
        self.bias = bias
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values anew."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
            init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] to [..., out_features]; raises ShapeError for another last size."""
        x = as_tensor(x)
        if self.waits and x.ndim:
            self.settle_by(x.shape[-1])
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise located(
                ShapeError(
                    f"Linear takes [..., {self.in_features}], found shape {shape_text(x.shape)}"
                )
            )
        y = x @ self.weight.T
        return y if self.bias is None else y + self.bias

    def extra_repr(self) -> str:
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.has_bias}"
        )


class LazyLinear(Linear):
    """`Linear` that takes its input size from the first input."""

    def __init__(self, out_features: int, bias: bool = True, dtype: object = None) -> None:
        super().__init__(None, out_features, bias, dtype)
