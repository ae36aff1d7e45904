"""Datasets, loaders and readers of files; the code is in `treadle.nn.data`."""

from treadle.nn.data import *  # noqa: F403  its names and no others
from treadle.nn.data import __all__ as __all__
