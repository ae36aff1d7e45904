"""The 1,797 handwritten digits that ship with the package (see data/README.md)."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt


class Digits(NamedTuple):
    """Images are float32 in [0, 1], one flat row of 64 pixels each; labels are int64."""

    train_x: npt.NDArray[Any]
    train_y: npt.NDArray[Any]
    test_x: npt.NDArray[Any]
    test_y: npt.NDArray[Any]


def load_digits(seed: int = 0) -> Digits:
    """All digits, shuffled with `seed`; the last fifth (360 images) is held out for test."""
    packed = files("treadle.examples").joinpath("data/digits.csv.gz").read_bytes()
    table = np.loadtxt(gzip.decompress(packed).decode().splitlines(), delimiter=",")
    table = np.random.default_rng(seed).permutation(table)
    images = (table[:, :64] / 16).astype(np.float32)
    labels = table[:, 64].astype(np.int64)
    cut = len(table) * 4 // 5
    return Digits(images[:cut], labels[:cut], images[cut:], labels[cut:])
