"""`treadle profile`: a script's function is profiled at its first call, or with given types."""

import json
from pathlib import Path

import pytest
from command_line import run

from treadle.runtime.machine import Bandwidth, Machine

MACHINE = Machine(
    "a CPU", "host", 2, 100e9, 200e9, 40e9, 40e9, (Bandwidth(1 << 16, 1e11, 2e11, 1e11, 2e11),)
)
SCRIPT = """\
import treadle

@treadle.jit
def weights(scores):
    e = treadle.exp(scores / 3)
    return e / treadle.sum(e, axis=1, keepdims=True)

class Model:
    def __init__(self):
        self.scale = treadle.tensor([2.0])

    @treadle.jit
    def step(self, x):
        self.scale += 1
        return x * self.scale

if __name__ == "__main__":
    Model().step(treadle.zeros((4, 6)))
    weights(treadle.zeros((40, 60)))
    raise SystemExit("the script must have been stopped at the call")
"""


@pytest.fixture(autouse=True)
def known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treadle.runtime.profile.measured_machine", lambda: MACHINE)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "user_script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def test_the_first_call_is_profiled_and_the_script_stops_there(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("profile", f"{script}:weights", "--repeat", "3", "--threads", "1") == 0
    out = capsys.readouterr().out
    assert "@weights" in out
    assert "the least of 3" in out
    assert "1 thread," in out
    assert "user_script.py:6" in out or "user_script.py:5, 6" in out


def test_the_first_jitted_call_is_taken_where_no_function_is_named(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("profile", str(script)) == 0
    assert "@step" in capsys.readouterr().out


def test_types_stand_in_for_a_call(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("profile", f"{script}:weights", "--args", "f32[70, 50]") == 0
    assert "@weights" in capsys.readouterr().out


def test_timeline_and_picture_are_written(script: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    trace, picture = tmp_path / "step.json", tmp_path / "step.png"
    words = ("--trace", str(trace), "--roofline", str(picture), "--repeat", "2")
    assert run("profile", f"{script}:weights", *words) == 0
    names = [e["name"] for e in json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]]
    assert "step" in names
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{script}:weight",), "did you mean weights"),
        (("{script}.ir",), "no data"),
        (("{script}", "--threads", "300"), "at most 256"),
        (("{script}", "--repeat", "0"), "at least 1"),
        (("{script}", "--trace", "/no/such/folder/t.json"), "no folder"),
        (("{script}", "--roofline", "{script}.odd"), "was not drawn"),
    ],
    ids=str,
)
def test_mistakes_are_said(
    words: tuple[str, ...], said: str, script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("profile", *(w.format(script=script) for w in words)) != 0
    assert said in capsys.readouterr().err
