"""The command line, as a user types it: what it prints, and what it says to mistakes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import run

from treadle import __version__
from treadle.cli import COMMANDS
from treadle.codegen.target import named
from treadle.runtime.stages import PLAN_STAGES

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = """\
import treadle

@treadle.jit
def weights(scores):
    e = treadle.exp(scores / 3)
    return e / treadle.sum(e, axis=1, keepdims=True)

if __name__ == "__main__":
    weights(treadle.zeros((4, 6)))
    raise SystemExit("the script must have been stopped at the call")
"""
STAGES = ("traced", "early_cse", "stabilize", "autodiff", "expand", "canonicalize", "fold", "cse")
STAGES += ("dce", "fuse", *PLAN_STAGES)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "user_script.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--version") == 0
    assert capsys.readouterr().out == f"treadle {__version__}\n"


@pytest.mark.parametrize("command", COMMANDS, ids=lambda c: c.name)
def test_help_gives_an_example(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command.name, "--help") == 0
    assert "example: treadle" in " ".join(capsys.readouterr().out.split())
    run("--help")
    assert command.example in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("dumb",), "did you mean dump"),
        (("bench", "sofmax"), "did you mean softmax"),
        (("bench", "--peers", "jaxx"), "did you mean jax"),
        (("opt", "--passes", "stabilise", "x.ir"), "did you mean stabilize"),
    ],
    ids=lambda w: " ".join(w) if isinstance(w, tuple) else None,
)
def test_a_mistyped_name_is_answered_with_the_nearest(
    words: tuple[str, ...], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == 2
    assert hint in capsys.readouterr().err


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_is_shown_with_lines_rules_times_and_width(
    stage: str, script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("dump", str(script), "--stage", stage) == 0
    out = capsys.readouterr().out
    for piece in ("vectors of", "; ms: early_cse", "softmax_of_quotient", "user_script.py:6"):
        assert piece in out


def test_argument_types_stand_in_for_a_call(
    script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"{script}:weights"
    assert run("dump", where, "--args", "f32[7, 5]", "--stage", "traced") == 0
    assert 'func @weights(%0: f32[7, 5] "scores")' in capsys.readouterr().out


def test_what_a_pass_changed_is_shown(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("dump", str(script), "--stage", "stabilize", "--diff") == 0
    out = capsys.readouterr().out
    assert "-  %4: f32[4, 1] = sum" in out
    assert "+  %3: f32[4, 6] = softmax" in out


@pytest.mark.parametrize(("form", "start"), [("dot", "digraph"), ("svg", "<svg")])
def test_a_picture_shows_kernels_and_shapes(
    form: str, start: str, script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("dump", str(script), "--format", form) == 0
    out = capsys.readouterr().out
    assert out.startswith(start)
    assert "fused" in out
    assert "f32[4, 6]" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dump", "{script}", "--stage", "stabilise"), "did you mean stabilize"),
        (("dump", "{script}:weight", "--args", "f32[2,2]"), "did you mean weights"),
        (("dump", "{script}.txt"), "no file"),
        (("dump", "{script}:weights", "--args", "f33[2]"), "f33"),
    ],
    ids=str,
)
def test_a_wrong_stage_function_file_or_type_is_said(
    words: tuple[str, ...], said: str, script: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*(w.format(script=script) for w in words)) != 0
    assert said in capsys.readouterr().err


def test_a_dumped_program_runs_through_chosen_passes(
    script: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("dump", str(script), "--stage", "traced")
    text = tmp_path / "weights.ir"
    text.write_text(capsys.readouterr().out, encoding="utf-8")
    assert run("opt", "--passes", "stabilize,dce", "--notes", str(text)) == 0
    out = capsys.readouterr().out
    assert "softmax(%2, axis=1)" in out
    assert "; stabilize:" in out
    assert run("dump", str(text), "--stage", "fuse") == 0


def test_malformed_text_is_an_error_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "bad.ir"
    text.write_text("func @f(%0: f33[2]) {\n  return %0\n}\n", encoding="utf-8")
    assert run("opt", str(text)) == 1
    assert "bad.ir:1:13: expected a dtype" in capsys.readouterr().err


def test_a_workload_is_measured_beside_a_peer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = tmp_path / "now.json"
    words = ("bench", "call", "--peers", "numpy", "--rounds", "1", "--seconds", "0.05")
    assert run(*words, "--json", str(saved)) == 0
    (row,) = json.loads(saved.read_text(encoding="utf-8"))["rows"]
    assert set(row["cells"]) == {"treadle", "numpy"}
    assert row["cells"]["treadle"]["p10"] > 0
    assert "best peer" in capsys.readouterr().out


def test_the_benchmark_can_be_held_to_avx2(tmp_path: Path) -> None:
    if not named("avx2").runs_here():
        pytest.skip("this machine has no AVX2")
    saved = tmp_path / "now.json"
    words = ("bench", "call", "--avx2", "--peers", "numpy", "--rounds", "1", "--seconds", "0.05")
    command = [sys.executable, "-m", "treadle", *words, "--json", str(saved)]
    subprocess.run(command, check=True, capture_output=True)
    assert json.loads(saved.read_text(encoding="utf-8"))["machine"]["target"] == "avx2"


def test_the_package_runs_from_the_root_of_a_clone() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-m", "treadle", "--version"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"treadle {__version__}\n"


def test_the_demo_learns(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("demo", "--epochs", "30") == 0
    assert "accuracy on the 360 held-out digits" in capsys.readouterr().out
