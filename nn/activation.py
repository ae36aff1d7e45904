"""Activations as modules; what each computes stands at its function in `nn.functional`."""

from __future__ import annotations

from typing import Literal

from treadle.nn import functional
from treadle.nn.module import Module
from treadle.nn.options import NoOptions, Options
from treadle.nn.parameter import Parameter
from treadle.tracer import api
from treadle.tracer.tensor import Tensor


class ReLU(NoOptions):
    """max(x, 0)"""

    function = staticmethod(functional.relu)


class ReLU6(NoOptions):
    """min(max(x, 0), 6)"""

    function = staticmethod(functional.relu6)


class LeakyReLU(Options):
    """`functional.leaky_relu`"""

    function = staticmethod(functional.leaky_relu)

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__(negative_slope=negative_slope)


class PReLU(Module):
    """`functional.prelu`, whose weights are learned: one, or one for each of `num_parameters`
    channels."""

    weight: Parameter

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.num_parameters = num_parameters
        self.weight = Parameter(api.full((num_parameters,), init))

    def forward(self, input: Tensor) -> Tensor:
        return functional.prelu(input, self.weight)

    def extra_repr(self) -> str:
        return f"num_parameters={self.num_parameters}"


class ELU(Options):
    """`functional.elu`"""

    function = staticmethod(functional.elu)

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)


class CELU(Options):
    """`functional.celu`"""

    function = staticmethod(functional.celu)

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha=alpha)


class SELU(NoOptions):
    """`functional.selu`"""

    function = staticmethod(functional.selu)


class GELU(Options):
    """x times the normal distribution function at x, or its tanh approximation."""

    function = staticmethod(functional.gelu)

    def __init__(self, approximate: Literal["none", "tanh"] = "none") -> None:
        super().__init__(approximate=approximate)


class SiLU(NoOptions):
    """x * sigmoid(x)"""

    function = staticmethod(functional.silu)


class Mish(NoOptions):
    """`functional.mish`"""

    function = staticmethod(functional.mish)


class Sigmoid(NoOptions):
    """1 / (1 + exp(-x))"""

    function = staticmethod(functional.sigmoid)


class LogSigmoid(NoOptions):
    """`functional.logsigmoid`"""

    function = staticmethod(functional.logsigmoid)


class Hardsigmoid(NoOptions):
    """`functional.hardsigmoid`"""

    function = staticmethod(functional.hardsigmoid)


class Tanh(NoOptions):
    """`functional.tanh`"""

    function = staticmethod(functional.tanh)


class Hardtanh(Options):
    """`functional.hardtanh`"""

    function = staticmethod(functional.hardtanh)

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0) -> None:
        super().__init__(min_val=min_val, max_val=max_val)


class Hardswish(NoOptions):
    """`functional.hardswish`"""

    function = staticmethod(functional.hardswish)


class Softplus(Options):
    """`functional.softplus`"""

    function = staticmethod(functional.softplus)

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__(beta=beta, threshold=threshold)


class Softsign(NoOptions):
    """`functional.softsign`"""

    function = staticmethod(functional.softsign)


class Tanhshrink(NoOptions):
    """`functional.tanhshrink`"""

    function = staticmethod(functional.tanhshrink)


class Softmax(Options):
    """`functional.softmax`"""

    function = staticmethod(functional.softmax)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(dim=dim)


class Softmin(Options):
    """`functional.softmin`"""

    function = staticmethod(functional.softmin)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(dim=dim)


class LogSoftmax(Options):
    """`functional.log_softmax`"""

    function = staticmethod(functional.log_softmax)

    def __init__(self, dim: int | None = None) -> None:
        super().__init__(dim=dim)


class GLU(Options):
    """`functional.glu`"""

    function = staticmethod(functional.glu)

    def __init__(self, dim: int = -1) -> None:
        super().__init__(dim=dim)
