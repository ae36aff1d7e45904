"""The LeNet example learns the shipped digits in a few steps and reads MNIST's files."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.data import read_image
from treadle.examples.lenet import Images, build_model, hardest, load, main, train


def write_mnist(folder: Path, count: int) -> None:
    """Files like MNIST's, of noise."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
    for name, array, code in (("images-idx3", images, 3), ("labels-idx1", labels, 1)):
        header = struct.pack(f">HBB{array.ndim}i", 0, 8, code, *array.shape)
        (folder / f"t10k-{name}-ubyte").write_bytes(header + array.tobytes())


def test_it_learns_the_shipped_digits() -> None:
    images = load(None)
    few = Images(images.train_x[:640], images.train_y[:640], images.test_x, images.test_y)
    treadle.manual_seed(0)
    model = build_model()
    nn.summary(model, (64, 1, 8, 8))
    run = train(model, few.loader(0), 10, show=False)
    assert run.steps == 100 and run.losses[-1] < run.losses[0] / 2
    found = nn.predict(model, [images.test_x]).argmax(axis=1)
    assert np.mean(found == images.test_y) > 0.8


def test_it_reads_mnist_and_prints_a_table(tmp_path: Path, capsys: Any) -> None:
    write_mnist(tmp_path, 1128)
    assert main(["--data", str(tmp_path), "--epochs", "1", "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "128 images for training, 1000 held out" in out and "held-out accuracy" in out
    assert read_image(tmp_path / "lenet.png").shape[0] == 3


@pytest.mark.parametrize("count", [None, 1000])
def test_a_folder_without_enough_images_is_told(
    tmp_path: Path, capsys: Any, count: int | None
) -> None:
    if count:
        write_mnist(tmp_path, count)
    with pytest.raises(SystemExit) as ended:
        main(["--data", str(tmp_path)])
    assert ended.value.code == 2 and str(tmp_path) in capsys.readouterr().err


def test_the_picture_begins_with_what_is_taken_for_another_digit(tmp_path: Path) -> None:
    images = load(None)
    logits = np.eye(10, dtype=np.float32)[images.test_y]
    wrong = int(np.argmax(images.test_y == 3))
    logits[wrong] = -logits[wrong]
    found = read_image(hardest(tmp_path / "p.png", images, logits))
    red, green = found[0] > 128, found[1] > 128
    assert (red & ~green)[0, 0] and not (red & ~green)[0, found.shape[2] // 2 :].any()
