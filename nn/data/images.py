"""Folders of image files. Reading images needs Pillow (`pip install treadle[images]`)."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ArgumentError, TreadleError
from treadle.nn.data.dataset import Dataset
from treadle.nn.data.errors import DataError
from treadle.tracer.errors import located_errors

Array = npt.NDArray[Any]
SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read_image(path: str | Path, mode: Literal["RGB", "L"] = "RGB") -> Array:
    """An image as uint8 [channels, height, width]: 3 channels for "RGB", 1 for "L" (grey).

    Raises FileNotFoundError, and DataError, which names the file, where it cannot be read.
    """
    with located_errors():
        return _read(Path(path), mode)


def _read(path: Path, mode: str) -> Array:
    """As `read_image`; its errors name no line, which in a worker would be nobody's."""
    pillow = _pillow()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        with pillow.open(path) as image:
            pixels = np.asarray(image.convert(mode))
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from None
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


class ImageFolder(Dataset):
    """Images below `root` with their labels: (image, label).

    Labels are the names of the folders that the files lie in (`cat/7.png`) or, where images lie in
    `root` itself, what their names begin with (`cat.0.jpg`, `dog_12.jpg`); `classes` lists them in
    the order of the alphabet, and a label is a place in that list. `transform` gets uint8
    [channels, height, width] and gives the sample; see `treadle.data.transforms`.

    Raises FileNotFoundError where `root` is no folder, DataError where there are no images in it
    or a name gives no label.
    """

    def __init__(
        self,
        root: str | Path,
        transform: Callable[[Array], Any] | None = None,
        mode: Literal["RGB", "L"] = "RGB",
    ) -> None:
        with located_errors():
            if mode not in ("RGB", "L"):
                raise ArgumentError(f"mode must be 'RGB' or 'L', found {mode!r}")
            _pillow()
            self.root, self.transform, self.mode = Path(root), transform, mode
            found = _labelled(self.root)
            self.classes = sorted({label for _, label in found})
            numbers = {label: n for n, label in enumerate(self.classes)}
            self.samples = [(path, numbers[label]) for path, label in found]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        path, label = self.samples[index]
        image = _read(path, self.mode)
        return image if self.transform is None else self.transform(image), label


def _labelled(root: Path) -> list[tuple[Path, str]]:
    """(file, label), sorted by path."""
    if not root.is_dir():
        raise FileNotFoundError(f"there is no folder {root}")
    found = []
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in SUFFIXES or not path.is_file():
            continue
        inner = path.relative_to(root)
        if len(inner.parts) > 1:
            found.append((path, inner.parts[0]))
            continue
        named = re.match(r"([^\W\d_]+)[._-]?\d*", path.stem)
        if named is None:
            raise DataError(
                f"{path} has no label: put it in a folder of its class, or name it as in cat.0.jpg"
            )
        found.append((path, named.group(1)))
    if not found:
        raise DataError(f"there are no images below {root}")
    return found


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise TreadleError(
            "reading images needs Pillow, which is not installed: pip install 'treadle[images]'"
        ) from None
    return Image


def resized(image: Array, height: int, width: int) -> Array:
    """uint8 [channels, height, width] by Pillow's antialiased bilinear filter."""
    pillow = _pillow()
    planes = [
        np.asarray(pillow.fromarray(plane).resize((width, height), pillow.Resampling.BILINEAR))
        for plane in image
    ]
    return np.stack(planes)
