"""The disk cache between processes: what is found again, and what may go wrong meanwhile."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from cache_scripts import SCRIPT, environment_for, run_script


def entries(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.treadle"))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def said(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_second_process_compiles_nothing(tmp_path: Path, directory: Path) -> None:
    script = tmp_path / "user.py"
    assert said(run_script(script, directory)) == "compiled"
    kept = [(p.name, p.read_bytes()) for p in entries(directory)]
    assert said(run_script(script, directory)) == "kept"
    assert [(p.name, p.read_bytes()) for p in entries(directory)] == kept


def test_comments_and_names_do_not_count(tmp_path: Path, directory: Path) -> None:
    run_script(tmp_path / "user.py", directory)
    other = "# a comment\n\n" + SCRIPT.replace("step", "update").replace("table", "rows")
    assert said(run_script(tmp_path / "another_file.py", directory, other)) == "kept"


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("treadle.sum(x)", "treadle.mean(x)"),
        ("@treadle.jit", "@treadle.jit(reassociate=True)"),
        ("np.arange(12, dtype=np.float32).reshape(4, 3))\n", "np.zeros((4, 3), np.float32))\n"),
        ("np.array([1, 3])", "np.array([1, 3], np.int32)"),
    ],
)
def test_another_program_option_constant_or_type_is_compiled(
    was: str, now: str, tmp_path: Path, directory: Path
) -> None:
    run_script(tmp_path / "user.py", directory)
    changed = SCRIPT.replace(was, now).replace("assert np", "assert True or np")
    assert changed != SCRIPT
    assert said(run_script(tmp_path / "user.py", directory, changed)) == "compiled"


def test_another_target_is_compiled(tmp_path: Path, directory: Path) -> None:
    script = tmp_path / "user.py"
    assert said(run_script(script, directory)) == "compiled"
    if sys.platform == "linux":
        assert said(run_script(script, directory, TREADLE_TARGET="sse2")) == "compiled"
        assert said(run_script(script, directory, TREADLE_TARGET="sse2")) == "kept"


def test_an_error_of_kept_code_names_the_lines_of_this_file(
    tmp_path: Path, directory: Path
) -> None:
    run_script(tmp_path / "user.py", directory)
    wrong = "# moved\n# down\n" + SCRIPT.replace("[1, 3])))", "[1, 7])))", 1)
    wrong = wrong.replace("out = step", "print(bool(compiled)); out = step")
    done = run_script(tmp_path / "moved.py", directory, wrong)
    assert done.returncode == 1
    line = 1 + wrong.splitlines().index(
        "    return treadle.take(table, i, axis=0) * x + treadle.sum(x)"
    )
    assert f"moved.py:{line}" in done.stderr.splitlines()[-1]
    assert "7" in done.stderr.splitlines()[-1]


def test_stages_of_kept_code_are_made_when_asked_for(tmp_path: Path, directory: Path) -> None:
    asked = SCRIPT + "assert 'fused' in step.ir('fuse') and 'define' in step.ir('llvm')\n"
    assert said(run_script(tmp_path / "user.py", directory, asked)) == "compiled"
    assert said(run_script(tmp_path / "user.py", directory, asked)) == "kept"


def test_processes_that_compile_at_once_all_give_the_result(
    tmp_path: Path, directory: Path
) -> None:
    script = tmp_path / "user.py"
    script.write_text(SCRIPT, encoding="utf-8")
    running = [
        subprocess.Popen(
            [sys.executable, str(script)],
            env=environment_for(directory),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    ended = [(*p.communicate(timeout=200), p.returncode) for p in running]
    assert [code for _, _, code in ended] == [0] * 4, ended
    assert not any(err for _, err, _ in ended)
    assert Counter(p.suffix for p in directory.iterdir()) == {".treadle": len(entries(directory))}
    assert said(run_script(script, directory)) == "kept"


KILLED = """\
import os, signal, treadle
from treadle.runtime import cache
from pathlib import Path
plain = Path.replace
def killed(self, target):
    os.kill(os.getpid(), signal.SIGKILL)
Path.replace = killed
treadle.jit(lambda x: x * 2 + 1)(treadle.ones(4))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no signals to kill with")
def test_a_writer_that_is_killed_leaves_no_entry(tmp_path: Path, directory: Path) -> None:
    done = run_script(tmp_path / "killed.py", directory, KILLED)
    assert done.returncode == -signal.SIGKILL
    assert not entries(directory)
    whole = KILLED.replace("Path.replace = killed", "").replace("treadle.jit", "fn = treadle.jit")
    assert run_script(tmp_path / "killed.py", directory, whole).returncode == 0
    assert entries(directory)


def test_switched_off_it_writes_nothing(tmp_path: Path, directory: Path) -> None:
    done = run_script(tmp_path / "user.py", directory, TREADLE_CACHE="0")
    assert said(done) == "compiled"
    assert not directory.exists()
    assert not done.stderr


def test_without_a_home_there_is_one_notice(tmp_path: Path) -> None:
    lost = "from pathlib import Path\ndef home(): raise RuntimeError('no home')\nPath.home = home\n"
    done = run_script(
        tmp_path / "user.py", Path(), lost + SCRIPT, TREADLE_CACHE_DIR="", XDG_CACHE_HOME=""
    )
    assert said(done) == "compiled"
    assert done.stderr.count("treadle:") == 1
    assert "no home directory" in done.stderr


def test_a_directory_that_cannot_be_made_gives_one_notice(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    for directory in (blocked, blocked / "below"):
        done = run_script(tmp_path / "user.py", directory)
        assert said(done) == "compiled"
        assert done.stderr.count("treadle:") == 1
