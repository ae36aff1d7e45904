"""A compilation that takes long is told; quick ones are silent."""

from __future__ import annotations

import time

import pytest

from treadle.ir.parser import parse_function
from treadle.runtime import knobs, progress

FN = parse_function(
    'func @step(%0: f32[4] "x") {\n  %1: f32[4] = exp(%0)  ; a.py:3\n  return %1 "out"\n}\n'
)


def test_a_slow_compilation_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.01)
    with progress.progress(FN):
        deadline = time.monotonic() + 60
        told = ""
        while "compiling" not in told and time.monotonic() < deadline:
            time.sleep(0.01)
            told += capsys.readouterr().err
    assert "treadle: compiling step (a.py:3), 1 ops ..." in told
    assert "treadle: compiled step (a.py:3) in" in capsys.readouterr().err


def test_a_quick_compilation_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.progress(FN):
        pass
    assert not capsys.readouterr().err


def test_the_line_can_be_switched_off(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "PATIENCE", 0.0)
    knobs.write("TREADLE_PROGRESS", "0")
    try:
        with progress.progress(FN):
            time.sleep(0.05)
    finally:
        knobs.write("TREADLE_PROGRESS", None)
    assert not capsys.readouterr().err
