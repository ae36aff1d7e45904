"""The LeNet example learns the shipped digits in a few steps and reads MNIST's files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np

from treadle.examples.lenet import Images, load, main, train


def test_it_learns_the_shipped_digits(capsys: Any) -> None:
    images = load(None)
    few = Images(images.train_x[:640], images.train_y[:640], images.test_x, images.test_y)
    report = train(few, 10, show=False)
    assert report.steps == 100 and report.accuracy > 0.8


def test_it_reads_mnist_and_prints_a_table(tmp_path: Path, capsys: Any) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 1128).astype(np.uint8)
    images = rng.integers(0, 256, (1128, 28, 28)).astype(np.uint8)
    for name, array, code in (("images-idx3", images, 3), ("labels-idx1", labels, 1)):
        header = struct.pack(f">HBB{array.ndim}i", 0, 8, code, *array.shape)
        (tmp_path / f"t10k-{name}-ubyte").write_bytes(header + array.tobytes())
    assert main(["--data", str(tmp_path), "--epochs", "1"]) == 0
    out = capsys.readouterr().out
    assert "accuracy on 1000 held-out images" in out and "2 steps in" in out
