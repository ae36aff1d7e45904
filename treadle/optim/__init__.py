"""The optimisers, under the name that PyTorch's users expect; the code is in `treadle.nn.optim`."""

from treadle.nn.optim import (
    SGD,
    Adagrad,
    Adam,
    AdamW,
    ExponentialMovingAverage,
    Lion,
    Optimizer,
    RMSprop,
    lr_scheduler,
)

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
