"""Networks: modules, parameters, initialisers; the optimisers are in `treadle.nn.optim`.

Names, arguments, defaults and `state_dict` keys are PyTorch's.
"""

from treadle.nn import functional, init
from treadle.nn.activation import GELU, Flatten, Identity, ReLU, Sigmoid, SiLU, Softmax, Tanh
from treadle.nn.containers import ModuleList, Sequential
from treadle.nn.linear import Linear
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter

__all__ = [
    "GELU",
    "Flatten",
    "Identity",
    "Linear",
    "Module",
    "ModuleList",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "functional",
    "init",
]
