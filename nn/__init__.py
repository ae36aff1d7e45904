"""Networks: modules, parameters, initialisers; the optimisers are in `treadle.nn.optim`.

Names, arguments, defaults and `state_dict` keys are PyTorch's.
"""

from treadle.nn import functional, init, utils
from treadle.nn.activation import GELU, Flatten, Identity, ReLU, Sigmoid, SiLU, Softmax, Tanh
from treadle.nn.containers import ModuleList, Sequential
from treadle.nn.dropout import Dropout
from treadle.nn.linear import Linear
from treadle.nn.loss import (
    BCELoss,
    BCEWithLogitsLoss,
    CosineEmbeddingLoss,
    CosineSimilarity,
    CrossEntropyLoss,
    HuberLoss,
    KLDivLoss,
    L1Loss,
    MSELoss,
    NLLLoss,
    SmoothL1Loss,
)
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter

__all__ = [
    "GELU",
    "BCELoss",
    "BCEWithLogitsLoss",
    "CosineEmbeddingLoss",
    "CosineSimilarity",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "HuberLoss",
    "Identity",
    "KLDivLoss",
    "L1Loss",
    "Linear",
    "MSELoss",
    "Module",
    "ModuleList",
    "NLLLoss",
    "Parameter",
    "ReLU",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "SmoothL1Loss",
    "Softmax",
    "Tanh",
    "functional",
    "init",
    "utils",
]
