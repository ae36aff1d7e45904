"""Tables of numbers: CSV, and NumPy's own files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ArgumentError
from treadle.nn.data.errors import DataError
from treadle.tracer.errors import located_errors


def read_csv(
    path: str | Path,
    columns: Sequence[str | int] | None = None,
    header: bool = True,
    dtype: npt.DTypeLike = np.float32,
    delimiter: str = ",",
) -> npt.NDArray[Any]:
    """The numbers of a CSV file, [rows, columns].

    `columns` picks some, by name (where there is a `header`) or by number, in that order. Raises
    FileNotFoundError; DataError, which names file, line and column, for what is no number, a row of
    another length, or an empty file; ArgumentError for a column that is not there.
    """
    with located_errors():
        path = Path(path)
        with path.open(newline="", encoding="utf-8") as file:
            try:
                rows = [(n, row) for n, row in enumerate(csv.reader(file, delimiter=delimiter), 1)
                        if row]  # fmt: skip
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(f"{path} is no CSV file: {error}") from None
        if not rows:
            raise DataError(f"{path} is empty")
        names = rows.pop(0)[1] if header else []
        width = len(names) if header else len(rows[0][1])
        picked = _picked(path, columns, names, width)
        found = np.empty((len(rows), len(picked)), dtype)
        for i, (line, row) in enumerate(rows):
            if len(row) != width:
                raise DataError(f"{path}, line {line}: expected {width} columns, found {len(row)}")
            for j, column in enumerate(picked):
                found[i, j] = _number(path, line, column, row[column])
        return found


def _picked(
    path: Path, columns: Sequence[str | int] | None, names: list[str], width: int
) -> list[int]:
    if columns is None:
        return list(range(width))
    found = []
    for column in columns:
        if isinstance(column, str):
            if column not in names:
                listed = ", ".join(names) or "no header"
                raise ArgumentError(f"{path} has no column {column!r}; it has {listed}")
            found.append(names.index(column))
        elif -width <= column < width:
            found.append(column % width)
        else:
            raise ArgumentError(f"{path} has {width} columns, found column {column}")
    return found


def _number(path: Path, line: int, column: int, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DataError(
            f"{path}, line {line}, column {column + 1}: expected a number, found {text[:40]!r}"
        ) from None


def read_npy(path: str | Path, mapped: bool = False) -> npt.NDArray[Any]:
    """The array of a `.npy` file; `mapped` reads its pages when they are used.

    Raises FileNotFoundError, and DataError, which names the file, where it is damaged or holds
    pickled objects.
    """
    with located_errors():
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}")
        try:
            found = np.load(path, mmap_mode="r" if mapped else None, allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise DataError(f"{path} is damaged or no .npy file: {error}") from None
        if not isinstance(found, np.ndarray):
            raise DataError(f"{path} holds several arrays (.npz); a .npy file holds one")
        return found
