"""What the examples share: pictures that other readers read, a timed loop, a table, arguments."""

from __future__ import annotations

import argparse
import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from treadle.data import DataError, read_image
from treadle.examples import pictures, running


@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3), (1, 1)])
def test_a_written_picture_is_read_by_pillow(tmp_path: Path, shape: tuple[int, ...]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    path = pictures.save_picture(tmp_path / "new" / "picture.png", pixels)
    found = read_image(path, "RGB" if len(shape) == 3 else "L")
    expected = pixels.transpose(2, 0, 1) if len(shape) == 3 else pixels[None]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2)), np.zeros((2, 2, 2), np.uint8),
                                    np.zeros((0, 3), np.uint8)])  # fmt: skip
def test_what_is_no_picture_is_told(tmp_path: Path, pixels: Any) -> None:
    with pytest.raises(ValueError, match="a picture"):
        pictures.save_picture(tmp_path / "picture.png", pixels)


def test_a_grid_has_its_images_in_rows() -> None:
    images = np.stack([np.full((2, 3), n / 4) for n in range(5)])
    picture = pictures.grid(images, columns=3)
    assert picture.shape == (2 * 3 - 1, 3 * 4 - 1)
    assert [picture[r * 3, c * 4] for r in (0, 1) for c in (0, 1, 2)] == [0, 64, 128, 191, 255, 32]
    assert pictures.grid(images, zoom=2).shape == (2 * 5 - 1, 3 * 7 - 1)
    assert pictures.grid(np.zeros((1, 3, 4, 4))).shape == (4, 4, 3)
    with pytest.raises(ValueError, match="a grid takes images"):
        pictures.grid(np.zeros((0, 4, 4)))


def test_a_frame_has_its_colour_and_leaves_the_image() -> None:
    images = np.full((2, 1, 2, 2), 0.5, np.float32)
    found = pictures.framed(images, np.array([[1, 0, 0], [0, 1, 0]]))
    assert found.shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(found[1, :, 0, 0], [0, 1, 0])
    np.testing.assert_array_equal(found[0, :, 1:3, 1:3], 0.5)


def test_training_times_each_step_and_keeps_the_losses(capsys: Any) -> None:
    seen: list[int] = []

    def step(x: int) -> float:
        seen.append(x)
        return float(x)

    run = running.train("it", step, [(1,), (2,)], epochs=2)
    assert seen == [1, 2, 1, 2] and run.losses == (1.5, 1.5) and run.steps == 4
    assert 0 <= run.step <= run.seconds and run.first_step <= run.seconds
    assert "it, epoch 2/2: mean loss 1.5000" in capsys.readouterr().out
    with pytest.raises(ValueError, match="no batches"):
        running.train("it", step, [], epochs=1)


def test_without_tqdm_lines_say_how_far_it_is(capsys: Any, monkeypatch: Any) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any, **names: Any) -> Any:
        if name == "tqdm":
            raise ImportError(name)
        return found(name, *rest, **names)

    monkeypatch.setattr(builtins, "__import__", without)
    assert list(running.progress([1, 2], "going")) == [1, 2]
    assert capsys.readouterr().out == "going: 0 %\ngoing: 50 %\n"


def test_columns_stand_side_by_side() -> None:
    table = running.side_by_side(
        {"Treadle": {"a step": "1", "more": "2"}, "PyTorch": {"more": "3"}}
    )
    assert table.splitlines() == [
        "        Treadle  PyTorch",
        "a step        1         ",
        "more          2        3",
    ]


def test_wrong_arguments_and_files_are_a_line_and_an_exit_code(capsys: Any) -> None:
    parser = running.arguments("it", "about it", epochs=3)
    assert parser.parse_args([]).epochs == 3
    with pytest.raises(SystemExit), running.complaints(parser):
        raise DataError("a.png cannot be read")
    assert "error: a.png cannot be read" in capsys.readouterr().err
    for wrong in (["--epochs", "0"], ["--epochs", "x"], ["--peer", "numpy"]):
        with pytest.raises(SystemExit):
            parser.parse_args(wrong)
    with pytest.raises(argparse.ArgumentTypeError):
        running.count("-1")


def test_a_folder_for_pictures_is_made_before_anything_is_trained(
    tmp_path: Path, capsys: Any
) -> None:
    parser = running.arguments("it", "about it", epochs=3)
    assert parser.parse_args(["--out", str(tmp_path / "a" / "b")]).out.is_dir()
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SystemExit):
        parser.parse_args(["--out", str(tmp_path / "file" / "pictures")])
    assert "cannot be made" in capsys.readouterr().err


def test_a_missing_peer_is_told_with_what_to_install(monkeypatch: Any) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name, name="torch")

    monkeypatch.setattr(running, "import_module", missing)
    with pytest.raises(SystemExit, match=r"treadle\[torch\]"):
        running.torch_program("lenet")
