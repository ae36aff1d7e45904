"""Recompiles are explained: one line says what differs and what to do; nothing falls back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn


@pytest.fixture(autouse=True)
def explained() -> Iterator[None]:
    treadle.set_explain(True)
    yield
    treadle.set_explain(True)


X = np.ones((2, 3), np.float32)
SCALE = 2


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.config = SimpleNamespace(depth=1, names=["a"])

    def forward(self, x: Any) -> Any:
        for _ in range(self.config.depth):
            x = self.layer(x) if self.training else x
        return x * len(self.config.names)


def test_the_line_names_the_file_the_path_old_and_new_and_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Model()
    table = np.arange(3.0)
    step = treadle.jit(lambda x, n=1: model(x) * SCALE * n * float(table.sum()))
    line = step.__wrapped__.__code__.co_firstlineno
    step(X)
    assert said(capsys) == ""
    changes: list[tuple[Any, str, str]] = [
        (lambda: step(X[:1]), "x.shape: (2, 3) -> (1, 3)", "pad or drop"),
        (lambda: step(X, 2), "n: 1 -> 2", "0-d tensor, or pass it as a float"),
        (lambda: (model.eval(), step(X)), "model.training: True -> False", "compiled once"),
        (lambda: (model.train(), setattr(model.config, "depth", 0), step(X)),
         "model.config.depth: 1 -> 0", "0-d tensor"),
        (lambda: (model.config.names.append("b"), step(X)),
         "len(model.config.names): 1 -> 2", "keep their size"),
        (lambda: (monkeypatch.setitem(globals(), "SCALE", 3), step(X)), "SCALE: 2 -> 3", "0-d"),
        (lambda: (table.__setitem__(0, 7), step(X)), "content of table: [0. 1. 2.]", "a tensor"),
    ]  # fmt: skip
    for change, expected, hint in changes:
        change()
        text = said(capsys)
        assert text.count("\n") == 1
        assert text.startswith(f"treadle: {Path(__file__).name}:{line} ")
        assert expected in text and hint in text
        step(X)
        said(capsys)


@pytest.mark.parametrize("switch", ["set_explain", "TREADLE_EXPLAIN"])
def test_the_line_can_be_switched_off(switch: str) -> None:
    program = (
        "import numpy as np, treadle\n"
        f"{'treadle.set_explain(False)' if switch == 'set_explain' else ''}\n"
        "f = treadle.jit(lambda x: x * 2)\n"
        "f(np.ones(2)), f(np.ones(3))\n"
    )
    for off in (True, False):
        environment = {"TREADLE_EXPLAIN": "0" if off and switch == "TREADLE_EXPLAIN" else "1"}
        source = program if off or switch != "set_explain" else program.replace("False", "True")
        run = subprocess.run(
            [sys.executable, "-c", source], env=environment, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert ("recompiled because" in run.stderr) is not off


def test_explain_lists_calls_compile_time_memory_reasons_and_guards() -> None:
    treadle.set_explain(False)
    model = Model()
    step = treadle.jit(lambda x: model(x))
    for _ in range(3):
        step(X)
    step(X[:1])
    text = step.explain()
    assert "2 specializations" in text
    first, second = text.split("  2. ")
    assert "1. 3 calls, compiled in 0." in first
    assert second.startswith("1 call, compiled in 0.")
    assert "because x.shape: (2, 3) -> (1, 3)" in second and "because" not in first
    assert "KiB of code" in text and "of workspace" in text
    for guard in ("model.training: True", "model.config.depth: 1", "x: ndarray (2, 3) float32"):
        assert guard in first
    one, two = step.specializations
    assert one.executable.code_bytes > 500 and two.executable.workspace_bytes >= 0


def test_the_budget_raises_with_the_line_and_what_keeps_changing() -> None:
    treadle.set_explain(False)
    counter = SimpleNamespace(n=0)

    @treadle.jit(max_specializations=3)
    def f(x: Any) -> Any:
        return x * counter.n

    for n in range(3):
        counter.n = n
        f(X)
    counter.n = 3
    with pytest.raises(treadle.TraceError, match=r"max_specializations .*counter\.n: . -> 3") as e:
        f(X)
    assert "test_recompilation.py" in str(e.value)
    counter.n = 1
    f(X)  # those that were compiled still serve


def test_numbers_that_are_made_to_change_compile_once(capsys: pytest.CaptureFixture[str]) -> None:
    model = nn.Linear(3, 2)
    optimizer = treadle.optim.Adam(model.parameters(), lr=0.1)
    rate = treadle.tensor(0.5)

    @treadle.jit
    def step(x: Any, scale: float) -> Any:
        optimizer.zero_grad()
        loss = (model(x) * scale * rate).sum()
        loss.backward()
        optimizer.step()
        return loss

    for n in range(5):
        optimizer.param_groups[0]["lr"] = 0.1 / (n + 1)
        with treadle.no_grad():
            rate.fill_(n * 0.1)
        step(X, 1.5 * n)
    assert len(step.specializations) == 1
    assert said(capsys) == ""


def test_nothing_falls_back_to_plain_python() -> None:
    def refused(x: Any) -> Any:
        return x * 2 if x.sum() > 0 else x

    for call in (treadle.jit(refused), treadle.grad(treadle.jit(refused))):
        with pytest.raises(treadle.TraceError, match=r"test_recompilation\.py"):
            call(treadle.tensor(X))
