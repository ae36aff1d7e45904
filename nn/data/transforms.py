"""What is done to an image before it becomes part of a batch.

Each is a function of an array [channels, height, width]: crops, flips and resizes of bytes (uint8),
`ToFloat`, then `Normalize`. Those that draw take their draws from the sample's own generator (see
`treadle.nn.data.randomness`), so that a batch is the same with any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ArgumentError, ShapeError
from treadle.nn.data.randomness import sample_generator
from treadle.tracer.errors import located

Array = npt.NDArray[Any]


class Compose:
    """One transform after the other."""

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


class ToFloat:
    """Bytes from 0 to 255 become float32 from 0 to 1."""

    def __call__(self, image: Array) -> Array:
        return image.astype(np.float32) / np.float32(255)


class Normalize:
    """(image - mean) / std, one number of each a channel or one for all. Takes floats."""

    def __init__(self, mean: float | Sequence[float], std: float | Sequence[float]) -> None:
        self.mean, self.std = (np.atleast_1d(np.asarray(v, np.float32)) for v in (mean, std))
        if (self.std <= 0).any():
            raise located(ArgumentError(f"std must be above 0, found {std}"))

    def __call__(self, image: Array) -> Array:
        for name, found in (("mean", self.mean), ("std", self.std)):
            if len(found) not in (1, image.shape[0]):
                raise ShapeError(
                    f"{name} has {len(found)} numbers for an image of {image.shape[0]} channels"
                )
        return (image - self.mean[:, None, None]) / self.std[:, None, None]


class Resize:
    """Bytes of another size: (height, width), or one number for the shorter side, which keeps the
    proportions. Needs Pillow."""

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = size

    def __call__(self, image: Array) -> Array:
        from treadle.nn.data.images import resized

        height, width = image.shape[1:]
        if isinstance(self.size, int):
            scale = self.size / min(height, width)
            wanted = (max(1, round(height * scale)), max(1, round(width * scale)))
        else:
            wanted = self.size
        return image if wanted == (height, width) else resized(image, *wanted)


class CenterCrop:
    """The middle `size` pixels: (height, width), or one number for both."""

    def __init__(self, size: int | tuple[int, int]) -> None:
        self.size = _both(size)

    def __call__(self, image: Array) -> Array:
        (height, width), (h, w) = image.shape[1:], self.size
        _check_fits(image, self.size)
        top, left = (height - h) // 2, (width - w) // 2
        return image[:, top : top + h, left : left + w]


class RandomCrop:
    """`size` pixels from a place that is drawn, after `padding` zeros on every side."""

    def __init__(self, size: int | tuple[int, int], padding: int = 0) -> None:
        self.size, self.padding = _both(size), padding

    def __call__(self, image: Array) -> Array:
        p = self.padding
        padded = np.pad(image, ((0, 0), (p, p), (p, p))) if p else image
        _check_fits(padded, self.size)
        rng = sample_generator()
        (height, width), (h, w) = padded.shape[1:], self.size
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        return padded[:, top : top + h, left : left + w]


class RandomHorizontalFlip:
    """Left and right exchanged with probability `p`."""

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise located(ArgumentError(f"p must be in [0, 1], found {p}"))
        self.p = p

    def __call__(self, image: Array) -> Array:
        flips = sample_generator().random() < self.p
        return np.ascontiguousarray(image[:, :, ::-1]) if flips else image


def _both(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _check_fits(image: Array, size: tuple[int, int]) -> None:
    if image.shape[1] < size[0] or image.shape[2] < size[1]:
        raise ShapeError(f"a crop of {size} does not fit into an image of {image.shape[1:]}")
