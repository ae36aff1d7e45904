"""Text as numbers: one token a character, and windows of tokens to learn from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from treadle.ir.errors import ArgumentError
from treadle.nn.data.dataset import Dataset, as_array
from treadle.nn.data.errors import DataError
from treadle.tracer.errors import located, located_errors


def read_text(path: str | Path) -> str:
    """The text of a UTF-8 file. Raises FileNotFoundError, or DataError where it is not UTF-8."""
    with located_errors():
        try:
            return Path(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None


class CharTokens:
    """The characters of a text as the numbers 0 to n - 1, in the order of their code points."""

    def __init__(self, text: Iterable[str]) -> None:
        self.characters = "".join(sorted(set(text)))
        self._numbers = {c: n for n, c in enumerate(self.characters)}

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """int64 [len(text)]. Raises ArgumentError for a character that has no number."""
        try:
            return np.array([self._numbers[c] for c in text], np.int64)
        except KeyError as error:
            raise located(ArgumentError(f"character {error.args[0]!r} has no token")) from None

    def decode(self, tokens: Any) -> str:
        """The text of tokens of any shape, read in order."""
        return "".join(self.characters[int(n)] for n in as_array(tokens).ravel())


class TokenWindows(Dataset):
    """Sample i: `length` tokens from place i * `stride` on, and the same one place further, both
    int64: what comes after each of them."""

    def __init__(self, tokens: Any, length: int, stride: int | None = None) -> None:
        self.tokens = as_array(tokens)
        self.length, self.stride = length, length if stride is None else stride
        if length < 1 or self.stride < 1:
            raise located(
                ArgumentError(f"length and stride must be at least 1, found {length} and {stride}")
            )
        if self.tokens.ndim != 1 or self.tokens.dtype.kind not in "iu":
            raise located(ArgumentError("tokens must be integers of rank 1"))

    def __len__(self) -> int:
        return max(0, (len(self.tokens) - 1 - self.length) // self.stride + 1)

    def __getitem__(self, index: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} windows")
        start = index % len(self) * self.stride
        window = self.tokens[start : start + self.length + 1].astype(np.int64)
        return window[:-1], window[1:]

    def rows(self, indices: Any) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """The windows of these numbers, stacked."""
        starts = np.asarray(indices, np.int64)[:, None] * self.stride
        places = starts + np.arange(self.length)
        return self.tokens[places].astype(np.int64), self.tokens[places + 1].astype(np.int64)
