"""Pictures as PNG files, which Pillow writes: a grid of images, and any array of bytes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
GREEN, RED = (0.1, 0.7, 0.2), (0.9, 0.1, 0.1)
_CHANNELS = 1, 3  # grey, RGB


def save_picture(path: str | Path, pixels: Array) -> Path:
    """Write uint8 [height, width] (grey) or [height, width, 3] (RGB) as PNG, and give its path.

    A missing folder is made. Raises ValueError for another shape or dtype; without Pillow the
    program ends and says what to install.
    """
    pixels = np.asarray(pixels)
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or channels not in _CHANNELS:
        raise ValueError(
            f"a picture is uint8 [height, width] or [height, width, 3], found {pixels.dtype} "
            f"{list(pixels.shape)}"
        )
    height, width = pixels.shape[:2]
    if not height or not width:
        raise ValueError(f"a picture has pixels, found {list(pixels.shape)}")
    try:
        from PIL import Image
    except ImportError:
        sys.exit("pictures need Pillow, which is not installed: pip install 'treadle[demo]'")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels)).save(path, "PNG", optimize=True)
    return path


def save_grid(path: str | Path, images: Array, columns: int | None = None, zoom: int = 1) -> Path:
    """Images side by side: floats in [0, 1], [N, height, width] or [N, 1 or 3, height, width].

    `columns` images in a row, the nearest to a square by default; each pixel is drawn `zoom` times
    `zoom`. Values outside of [0, 1] are clipped. Raises ValueError without images.
    """
    return save_picture(path, grid(images, columns, zoom))


def grid(images: Array, columns: int | None = None, zoom: int = 1, gap: int = 1) -> Array:
    """The picture of `save_grid`: uint8 [height, width, 3], or [height, width] of grey images. Dark
    lines of `gap` pixels lie between the images."""
    images = np.asarray(images)
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or images.shape[1] not in _CHANNELS or not len(images):
        raise ValueError(
            f"a grid takes images [N, 1 or 3, height, width], found {list(images.shape)}"
        )
    shown = as_bytes(images.repeat(zoom, axis=2).repeat(zoom, axis=3))
    count, channels, height, width = shown.shape
    columns = columns or int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    canvas = np.full((channels, rows * (height + gap) - gap, columns * (width + gap) - gap), 32)
    for n, image in enumerate(shown):
        top, left = n // columns * (height + gap), n % columns * (width + gap)
        canvas[:, top : top + height, left : left + width] = image
    picture = canvas.astype(np.uint8).transpose(1, 2, 0)
    return picture[:, :, 0] if channels == 1 else picture


def as_bytes(values: Array) -> Array:
    """[0, 1] becomes 0 to 255, rounded; what lies outside is clipped, NaN is 0."""
    return np.asarray(np.nan_to_num(np.clip(values, 0, 1)) * 255 + 0.5).astype(np.uint8)


def framed(images: Array, colours: Array, width: int = 1) -> Array:
    """Images [N, 1 or 3, height, width] in [0, 1] with a frame each, of `colours` [N, 3] in [0, 1]:
    RGB, larger by `width` pixels on every side."""
    count, channels, height, across = images.shape
    found = np.empty((count, 3, height + 2 * width, across + 2 * width), np.float32)
    found[:] = np.asarray(colours, np.float32)[:, :, None, None]
    inner = images if channels == 3 else images.repeat(3, axis=1)
    found[:, :, width:-width, width:-width] = inner
    return found
