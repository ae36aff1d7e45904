"""The schedules, under the name that PyTorch's users expect; the code is in
`treadle.nn.optim.lr_scheduler`."""

from treadle.nn.optim.lr_scheduler import *  # noqa: F403  its names and no others
from treadle.nn.optim.lr_scheduler import __all__ as __all__
