"""The disk cache is killed, damaged, raced for and starved, for real: nobody ends by a signal, each
result is right, and at most one line is said."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cache_scripts import SCRIPT, environment_for, run_script

from treadle.runtime.cache_entry import check

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "kept"


def entries(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.treadle"))


def all_whole(directory: Path) -> bool:
    for path in entries(directory):
        check(path.name.removesuffix(".treadle"), path.read_bytes())
    return True


def start(path: Path, directory: Path, text: str, **more: str) -> subprocess.Popen[str]:
    path.write_text(text, encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, str(path)],
        env=environment_for(directory, **more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# --- killed ----------------------------------------------------------------------------------

WRITES = """\
import os
from treadle.runtime import cache
print("begun", flush=True)
while True:
    cache.keep(os.urandom(32).hex(), os.urandom(300_000), None)
"""


def test_writers_that_are_killed_leave_whole_entries_alone(tmp_path: Path, directory: Path) -> None:
    rng = random.Random(3)
    for _ in range(8):
        writer = start(tmp_path / "writer.py", directory, WRITES, TREADLE_CACHE_MB="8")
        assert writer.stdout is not None
        assert writer.stdout.readline() == "begun\n"
        time.sleep(0.02 + 0.1 * rng.random())
        writer.kill()
        writer.communicate()
        assert writer.returncode == -signal.SIGKILL
        assert all_whole(directory)
    assert entries(directory)
    assert sum(p.stat().st_size for p in entries(directory)) <= 9e6
    for left in directory.glob(".*"):
        os.utime(left, (0, 0))
    assert run_script(tmp_path / "user.py", directory).stdout.strip() == "compiled"
    assert not list(directory.glob(".*"))


# --- damaged ---------------------------------------------------------------------------------

# Where the pieces of an entry begin (see `cache_entry`), or how far in they are.
REGIONS = {
    "magic": 3,
    "version": 7,
    "checksum": 20,
    "key": 50,
    "length of the interface": 72,
    "length of the code": 80,
    "interface": 90,
    "code": 0.5,
    "end of the code": 0.9,
    "last byte": 1.0,
}


@pytest.mark.parametrize("region", REGIONS)
def test_damage_in_any_region_is_compiled_away(
    region: str, tmp_path: Path, directory: Path
) -> None:
    """In every entry of a program: its own code, the thread pool, the call path."""
    text = SCRIPT.replace(
        "out = step", "for _ in range(6): step(x, treadle.tensor(np.array([1, 3])))\nout = step"
    )
    script = tmp_path / "user.py"
    assert run_script(script, directory, text).stdout.strip() == "compiled"
    whole = {path: path.read_bytes() for path in entries(directory)}
    assert len(whole) >= 2
    for path, data in whole.items():
        at = REGIONS[region]
        place = at if isinstance(at, int) else min(int(at * len(data)), len(data) - 1)
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
    done = run_script(script, directory, text)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "compiled", "")
    assert {path: path.read_bytes() for path in entries(directory)} == whole


def test_a_file_of_gigabytes_under_the_name_of_an_entry_is_not_read(
    tmp_path: Path, directory: Path
) -> None:
    script = tmp_path / "user.py"
    run_script(script, directory)
    for path in entries(directory):
        os.truncate(path, 1 << 42)
    done = run_script(script, directory)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "compiled", "")
    assert run_script(script, directory).stdout.strip() == "kept"


def test_a_pipe_and_a_folder_under_the_names_of_entries_do_no_harm(
    tmp_path: Path, directory: Path
) -> None:
    script = tmp_path / "user.py"
    run_script(script, directory)
    (path,) = entries(directory)
    path.unlink()
    os.mkfifo(path)
    assert run_script(script, directory).stdout.strip() == "compiled"
    assert run_script(script, directory).stdout.strip() == "kept"
    path.unlink()
    path.mkdir()
    done = run_script(script, directory)
    assert done.stdout.strip() == "compiled"
    assert done.stderr.count("treadle:") == 1


# --- raced for -------------------------------------------------------------------------------

RACER = """\
import sys
import numpy as np
import treadle
from treadle.runtime import knobs
knobs.cache_bytes = lambda: 60_000  # a handful of entries: they drive each other out
treadle.set_explain(False)
x = treadle.tensor(np.arange(6, dtype=np.float32))
for turn in range(25):
    k = (turn * 7 + int(sys.argv[1])) % 9
    found = treadle.jit(lambda x: treadle.exp(x * 0) * k + x)(x)
    assert np.array_equal(found.numpy(), np.arange(6) + k), (k, found)
"""


def test_processes_that_read_write_drive_out_and_clear_at_once(
    tmp_path: Path, directory: Path
) -> None:
    script = tmp_path / "racer.py"
    script.write_text(RACER, encoding="utf-8")
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = [
        subprocess.Popen(
            [sys.executable, str(script), str(n)], env=environment_for(directory), **pipes
        )
        for n in range(3)
    ]
    for action in ("clear", "info", "verify") * 2:
        command = [sys.executable, "-m", "treadle", "cache", action]
        done = subprocess.run(
            command, env=environment_for(directory), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, ""), done
    for racer in running:
        out, err = racer.communicate(timeout=200)
        assert (racer.returncode, out, err) == (0, "", "")
    assert all_whole(directory)
    assert not list(directory.glob(".*"))


# --- starved ---------------------------------------------------------------------------------


def test_a_limit_on_the_size_of_files_gives_one_notice(tmp_path: Path, directory: Path) -> None:
    script = tmp_path / "user.py"
    script.write_text(SCRIPT, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        env=environment_for(directory, PYTHONDONTWRITEBYTECODE="1"),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700)),
    )
    assert (done.returncode, done.stdout.strip()) == (0, "compiled")
    assert done.stderr.count("treadle:") == 1
    assert "too large" in done.stderr
    assert list(directory.iterdir()) == []


def _on_a_disk(tmp_path: Path, disk: Path, mounted: str) -> subprocess.CompletedProcess[str]:
    """Run the shell lines `mounted` where a disk of 64 KiB is mounted; skip where none can be."""
    disk.mkdir()
    (tmp_path / "user.py").write_text(SCRIPT, encoding="utf-8")
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare to mount a small disk with")
    inside = f"mount -t tmpfs -o size=64k,mode=700 none {disk} || exit 77\n{mounted}"
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside],
        env=environment_for(disk, PYTHON=sys.executable, SCRIPT=str(tmp_path / "user.py")),
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"no small disk can be mounted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done


def test_a_full_disk_gives_one_notice_and_no_half_of_an_entry(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    lines = f"""
        head -c 62000 /dev/zero > {disk}/filling
        "$PYTHON" "$SCRIPT" && ls -A {disk}
        rm {disk}/filling
        "$PYTHON" "$SCRIPT" && "$PYTHON" "$SCRIPT"
    """
    done = _on_a_disk(tmp_path, disk, lines)
    assert done.stdout.split() == ["compiled", "filling", "compiled", "kept"]
    assert done.stderr.count("treadle:") == 1
    assert "No space left" in done.stderr


def test_a_disk_that_cannot_be_written_is_read(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    lines = f"""
        "$PYTHON" "$SCRIPT"
        mount -o remount,ro {disk} || exit 77
        "$PYTHON" "$SCRIPT"
        sed -i 's/sum(x)/mean(x) * 3/' "$SCRIPT"
        "$PYTHON" "$SCRIPT"
        "$PYTHON" -m treadle cache info
        "$PYTHON" -m treadle cache clear; test $? = 2
    """
    done = _on_a_disk(tmp_path, disk, lines)
    assert done.stdout.split()[:3] == ["compiled", "kept", "compiled"]
    assert "entries     1" in done.stdout
    notice, refusal = done.stderr.strip().splitlines()
    assert notice.startswith("treadle: ") and "Read-only" in notice
    assert refusal.startswith("treadle cache: ") and "cannot be removed: Read-only" in refusal


AS_NOBODY = """\
import contextlib, io, os, sys
import numpy as np
import treadle
from treadle.cli import main
from treadle.runtime import knobs

knobs.write("TREADLE_CACHE", "0")
x = treadle.tensor(np.ones(3, np.float32))
for _ in range(6):
    treadle.jit(lambda x: x + 1)(x)  # everything is imported
main(["cache", "info"])
if os.geteuid() == 0:
    os.seteuid(65534)
knobs.write("TREADLE_CACHE", None)
for k in (2, 3):
    assert np.array_equal(treadle.jit(lambda x: x * k)(x).numpy(), np.full(3, k, np.float32))
sys.exit(main(["cache", sys.argv[1] if len(sys.argv) > 1 else "info"]))
"""


def let_others_in(folder: Path) -> None:
    """pytest's folders, and those of its processes, are their user's alone."""
    outer = (p for p in folder.parents if p.name.startswith(("pytest-", "popen-")))
    for each in (folder, *outer):
        each.chmod(0o755)


@pytest.mark.parametrize(
    ("mode", "owner", "says"),
    [
        (0o700, "other", "belongs to user"),
        (0o000, "own", "Permission denied"),
        (0o500, "own", "Permission denied"),
        (0o770, "own", "can be written to by other users"),
    ],
)
def test_rights_that_are_missing_or_too_wide_give_one_notice(
    mode: int, owner: str, says: str, tmp_path: Path
) -> None:
    if os.geteuid() != 0 and owner == "other":
        pytest.skip("only root can give a folder away")
    let_others_in(tmp_path)
    directory = tmp_path / "kept"
    directory.mkdir(mode=0o700)
    if os.geteuid() == 0:
        os.chown(directory, 12345 if owner == "other" else 65534, -1)
    directory.chmod(mode)
    done = run_script(tmp_path / "user.py", directory, AS_NOBODY)
    directory.chmod(0o700)
    assert done.stderr.count("treadle:") == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert list(directory.iterdir()) == []


def test_a_home_that_is_not_there_and_cannot_be_made_gives_one_notice(tmp_path: Path) -> None:
    let_others_in(tmp_path)
    home = tmp_path / "gone" / "user"
    done = run_script(
        tmp_path / "user.py", Path(), AS_NOBODY,
        TREADLE_CACHE_DIR="", XDG_CACHE_HOME="", HOME=str(home),
    )  # fmt: skip
    if os.geteuid() != 0:
        pytest.skip("this user can make folders there")
    assert (done.returncode, done.stderr.count("treadle:")) == (0, 1), done.stderr
    assert "cannot be made: Permission denied" in done.stderr
