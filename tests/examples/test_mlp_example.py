"""The example on the shipped digits: it draws what it read, and says when it reads too little."""

from __future__ import annotations

from typing import Any

import numpy as np

from treadle.examples.mlp_digits import drawn, main


def test_one_epoch_is_too_few_and_the_exit_code_says_so(capsys: Any) -> None:
    assert main(["--epochs", "1"]) == 1
    out = capsys.readouterr().out
    assert "the accuracy is below 97%" in out and "read as" in out


def test_digits_are_drawn_side_by_side_over_what_they_are_read_as() -> None:
    images = np.zeros((2, 64), np.float32)
    images[1, -1] = 1
    lines = drawn(images, np.array([3, 4]), np.array([3, 9])).splitlines()
    assert len(lines) == 9 and len(lines[0]) == 2 * 16 + 2
    assert lines[7].endswith("@@") and lines[6].strip() == ""
    assert lines[8].split("  ")[-1].strip() == "read as 9, is 4" and "read as 3" in lines[8]
