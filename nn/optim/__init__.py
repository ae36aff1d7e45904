"""Optimisers and schedules, with PyTorch's names, arguments, defaults and formulas."""

from treadle.nn.optim import lr_scheduler
from treadle.nn.optim.adagrad import Adagrad
from treadle.nn.optim.adam import Adam, AdamW
from treadle.nn.optim.averaging import ExponentialMovingAverage
from treadle.nn.optim.lion import Lion
from treadle.nn.optim.optimizer import Optimizer
from treadle.nn.optim.rmsprop import RMSprop
from treadle.nn.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "ExponentialMovingAverage",
    "Lion",
    "Optimizer",
    "RMSprop",
    "lr_scheduler",
]
