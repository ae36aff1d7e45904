"""The optimisers, under the name that PyTorch's users expect; the code is in `treadle.nn.optim`."""

from treadle.nn.optim import SGD, Adam, AdamW, Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
