"""The example on a folder of images learns generated ones, and says what is wrong with a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.data import DataLoader, read_image
from treadle.examples import cats_dogs, pictures
from treadle.examples.cats_dogs import Augmented, build_model, load, main, prepared, write_images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("images")
    write_images(made, each=24)
    return made


def test_it_reads_a_folder_trains_and_writes_a_picture(
    folder: Path, tmp_path: Path, capsys: Any
) -> None:
    asked = ["--data", str(folder), "--epochs", "2", "--batch", "16", "--out", str(tmp_path)]
    assert main(asked) == 0
    out = capsys.readouterr().out
    assert "48 images for training, 24 held out" in out and "(16, 64, 8, 8)" in out
    assert read_image(tmp_path / "cats_dogs.png").shape == (3, 73, 443)


def test_the_loss_falls(folder: Path) -> None:
    images = load(folder)
    data = Augmented(images.train_x, images.train_y, prepared(images)[0])
    treadle.manual_seed(0)
    loader = DataLoader(data, 16, shuffle=True, seed=0, drop_last=True)
    run = cats_dogs.train(build_model(2), loader, 6, show=False)
    assert run.steps == 18 and min(run.losses[-2:]) < run.losses[0]


def test_images_are_made_of_one_size_and_normalised(folder: Path) -> None:
    images = load(folder)
    assert images.train_x.shape == (48, 3, 32, 32) and images.train_x.dtype == np.uint8
    assert images.classes == ["rings", "stripes"] and images.test_y.sum() == 12
    judged = np.stack([prepared(images)[1](image) for image in images.train_x])
    np.testing.assert_allclose(judged.mean(axis=(0, 2, 3)), 0, atol=1e-3)
    np.testing.assert_allclose(judged.std(axis=(0, 2, 3)), 1, atol=0.02)


def test_a_folder_without_parts_has_a_tenth_held_out(folder: Path) -> None:
    images = load(folder / "train")
    assert (len(images.train_x), len(images.test_x)) == (44, 4)
    assert images.classes == ["rings", "stripes"]


def test_what_is_wrong_with_a_folder_is_told(folder: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    for n in range(2):
        (tmp_path / "train" / "cat" / f"{n}.png").write_bytes(b"nothing")
    (tmp_path / "one").mkdir()
    pictures.save_picture(tmp_path / "one" / "cat.0.png", np.zeros((2, 2), np.uint8))
    (tmp_path / "test").symlink_to(folder / "test")
    for wrong, told in (
        (tmp_path / "absent", "there is no folder"),
        (tmp_path, "in test"),
        (tmp_path / "one", "one image"),
        (tmp_path / "train", "cannot be read as an image"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["--data", str(wrong)])
        assert ended.value.code == 2 and told in capsys.readouterr().err
