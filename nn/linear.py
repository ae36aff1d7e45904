"""`Linear`: y = x W^T + b."""

from __future__ import annotations

import math

from treadle.ir.errors import DTypeError, ShapeError
from treadle.ir.types import float32, shape_text
from treadle.nn import init
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tracer import api
from treadle.tracer.errors import located
from treadle.tracer.promote import as_tensor
from treadle.tracer.tensor import Tensor


class Linear(Module):
    """y = x W^T + b for x [..., in_features]; W [out_features, in_features], b [out_features].

    Both start evenly in +-1/sqrt(in_features), as PyTorch's do (kaiming_uniform_ with a = sqrt(5)).
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: object = None
    ) -> None:
        super().__init__()
        for name, size in (("in_features", in_features), ("out_features", out_features)):
            if not isinstance(size, int) or isinstance(size, bool) or size < 0:
                raise located(ShapeError(f"{name} must be a size, found {size!r:.60}"))
        self.in_features = in_features
        self.out_features = out_features
        if not isinstance(bias, bool):
            raise located(DTypeError(f"bias must be a bool, found {bias!r:.60}"))
        kind = float32 if dtype is None else dtype
        self.weight = Parameter(api.zeros((out_features, in_features), dtype=kind))
        self.bias = Parameter(api.zeros(out_features, dtype=kind)) if bias else None
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
            f"bias={self.bias is not None}"
        )
