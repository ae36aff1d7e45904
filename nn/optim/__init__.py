"""Optimisers, with PyTorch's names, arguments, defaults and formulas."""

from treadle.nn.optim.adam import Adam, AdamW
from treadle.nn.optim.optimizer import Optimizer
from treadle.nn.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
