"""ResNet-18 has torchvision's names and shapes, learns a batch, and reads folders and weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.examples.resnet import ResNet18, main


def test_names_and_shapes_are_torchvisions() -> None:
    state = ResNet18().state_dict()
    assert len(state) == 122
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.running_var": (128,),
        "layer4.1.bn2.num_batches_tracked": (),
        "fc.weight": (1000, 512),
    }
    assert {name: state[name].shape for name in shapes} == shapes
    assert sum(p.size for p in ResNet18().parameters()) == 11_689_512


def test_it_learns_a_folder_from_saved_weights(tmp_path: Path, capsys: Any) -> None:
    image = pytest.importorskip("PIL.Image")
    for label, colour in (("day", 230), ("night", 20)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for n in range(2):
            pixels = np.full((20, 30, 3), colour + n, np.uint8)
            image.fromarray(pixels).save(tmp_path / "images" / label / f"{n}.png")
    treadle.manual_seed(1)
    treadle.save_checkpoint(tmp_path / "weights.safetensors", model=ResNet18())
    words = ["--data", str(tmp_path / "images"), "--weights", str(tmp_path / "weights.safetensors")]
    words += ["--images", "4", "--size", "32", "--steps", "4", "--out", str(tmp_path)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "day" in out and "night" in out
    assert float(out.split("loss after training")[1].split()[0]) < 3
    assert (tmp_path / "resnet.png").stat().st_size > 1000


def test_weights_that_do_not_fit_are_told(tmp_path: Path, capsys: Any) -> None:
    treadle.save_checkpoint(tmp_path / "other.safetensors", model=treadle.nn.Linear(2, 2))
    with pytest.raises(SystemExit):
        main(["--weights", str(tmp_path / "other.safetensors")])
    assert "other.safetensors" in capsys.readouterr().err
