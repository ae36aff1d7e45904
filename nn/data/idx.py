"""The IDX format, in which MNIST comes: a header that says dtype and shape, then the bytes.

Its source: http://yann.lecun.com/exdb/mnist, "The IDX file format". Files may be gzipped.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ArgumentError
from treadle.nn.data.dataset import TensorDataset
from treadle.nn.data.errors import DataError
from treadle.tracer.errors import located, located_errors

_DTYPES = {8: ">u1", 9: ">i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}


def read_idx(path: str | Path) -> npt.NDArray[Any]:
    """The array in an IDX file, gzipped or not, in this machine's byte order.

    Raises FileNotFoundError where there is no such file, DataError, which names it, where it is
    damaged or of another format.
    """
    with located_errors():
        return _parse(Path(path), _bytes(Path(path)))


def _bytes(path: Path) -> bytes:
    raw = path.read_bytes()
    if raw[:2] != b"\x1f\x8b":
        return raw
    try:
        return gzip.decompress(raw)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}") from None


def _parse(path: Path, raw: bytes) -> npt.NDArray[Any]:
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] not in _DTYPES:
        raise DataError(f"{path} is no IDX file: it begins with {raw[:4].hex() or 'nothing'}")
    dtype, rank = np.dtype(_DTYPES[raw[2]]), raw[3]
    start = 4 + 4 * rank
    if len(raw) < start:
        raise DataError(f"{path} is damaged: it ends inside its header")
    shape = tuple(int(n) for n in np.frombuffer(raw, ">i4", rank, 4))
    size = math.prod(shape) * dtype.itemsize
    if len(raw) != start + size:
        raise DataError(
            f"{path} is damaged: an array {shape} of {dtype.name} takes {start + size} bytes, "
            f"found {len(raw)}"
        )
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def mnist(folder: str | Path, split: str = "train") -> TensorDataset:
    """Images float32 [N, 1, 28, 28] in [0, 1] with labels int64 [N], of MNIST's files in `folder`.

    `split`: "train", or "test" for the files named t10k. Raises FileNotFoundError naming the files
    that were looked for, DataError for damaged ones.
    """
    if split not in ("train", "test"):
        raise located(ArgumentError(f"split must be 'train' or 'test', found {split!r}"))
    stem = "train" if split == "train" else "t10k"
    with located_errors():
        images = _parse_one(Path(folder), f"{stem}-images-idx3-ubyte")
        labels = _parse_one(Path(folder), f"{stem}-labels-idx1-ubyte")
        if images.ndim != 3 or labels.shape != images.shape[:1]:
            raise DataError(
                f"the images and labels in {folder} do not belong together: {images.shape} and "
                f"{labels.shape}"
            )
    pixels = (images.astype(np.float32) / 255)[:, None]
    return TensorDataset(pixels, labels.astype(np.int64))


def _parse_one(folder: Path, name: str) -> npt.NDArray[Any]:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return _parse(path, _bytes(path))
    raise FileNotFoundError(f"there is neither {folder / name} nor {name}.gz beside it")
