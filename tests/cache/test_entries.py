"""One process and its disk cache: damaged entries, strange directories, room."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import treadle
from treadle.cli import main
from treadle.ir.op import ArrayData
from treadle.ir.types import float32, int64
from treadle.runtime import cache, cache_folder, driver, knobs
from treadle.runtime.cache_entry import Damaged, check, decode, encode
from treadle.runtime.interface import Interface

KEY = "5a" * 32
INTERFACE = Interface(
    entry="entry",
    params=2,
    results=(((3, 4), float32), ((), int64)),
    in_place=((0, 1),),
    constants=(ArrayData.of(np.arange(5.0)), ArrayData.of(np.ones((2, 2), bool))),
    workspace=128,
    scratch=64,
    parallel=True,
    cycles=7,
    given=1,
    prints=("x = {}",),
    objects=(5, 2),
)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """The cache switched on, in a directory of its own, the notice not given yet."""
    knobs.write("TREADLE_CACHE", "1")
    knobs.write("TREADLE_CACHE_DIR", str(tmp_path / "kept"))
    state = cache._state
    before = (state.told, state.total)
    state.told, state.total = False, None
    yield tmp_path / "kept"
    state.told, state.total = before
    for name in ("TREADLE_CACHE", "TREADLE_CACHE_DIR", "TREADLE_CACHE_MB", "TREADLE_VERIFY"):
        knobs.write(name, None)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the programs that were compiled and not found."""
    names: list[str] = []
    original = driver._compiled

    def count(key, fn, options, target):
        names.append(fn.name)
        return original(key, fn, options, target)

    monkeypatch.setattr(driver, "_compiled", count)
    return names


def call(shift: float = 1.0) -> None:
    """A program of its own for each `shift`, in a function that is new each time."""
    x = treadle.tensor(np.arange(4, dtype=np.float32))
    found = treadle.jit(lambda x: x * 2 + int(shift))(x)
    assert np.array_equal(np.asarray(found), np.arange(4) * 2 + int(shift))


def files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.treadle"))


def test_what_is_written_is_read(directory: Path) -> None:
    cache.keep(KEY, b"object code", INTERFACE)
    assert cache.fetch(KEY) == (b"object code", INTERFACE)
    cache.keep(KEY, b"other code", None)
    assert cache.fetch(KEY) == (b"other code", None)


@pytest.mark.parametrize("word", ["0", "off", "OFF", "no", "false"])
def test_the_cache_is_off_by_any_of_the_usual_words(directory: Path, word: str) -> None:
    knobs.write("TREADLE_CACHE", word)
    call(77.0)
    assert not directory.exists()


def test_any_flipped_bit_is_found() -> None:
    data = encode(KEY, b"object code" * 40, INTERFACE)
    check(KEY, data)
    rng = random.Random(0)
    places = [*range(120), *(rng.randrange(len(data)) for _ in range(400)), len(data) - 1]
    for place in places:
        wrong = bytearray(data)
        wrong[place] ^= 1 << rng.randrange(8)
        with pytest.raises(Damaged):
            decode(KEY, bytes(wrong))


def test_any_truncation_and_any_tail_is_found() -> None:
    data = encode(KEY, b"object code", INTERFACE)
    for size in range(len(data)):
        with pytest.raises(Damaged):
            decode(KEY, data[:size])
    with pytest.raises(Damaged):
        decode(KEY, data + b"\0")


def test_an_entry_of_another_key_is_not_taken() -> None:
    with pytest.raises(Damaged, match="another program"):
        decode("00" * 32, encode(KEY, b"object code", INTERFACE))


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "foreign", "older", "directory"])
def test_a_damaged_entry_is_compiled_and_replaced(
    damage: str, directory: Path, compiled: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    call()
    (path,) = files(directory)
    whole = path.read_bytes()
    if damage == "flip":
        path.write_bytes(whole[:300] + bytes([whole[300] ^ 4]) + whole[301:])
    elif damage == "truncate":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "empty":
        path.write_bytes(b"")
    elif damage == "foreign":
        path.write_bytes(b"GIF89a" + os.urandom(400))
    elif damage == "older":
        path.write_bytes(b"TREADLE\x00" + whole[8:])
    else:
        path.unlink()
        path.symlink_to(path.parent / "elsewhere")
    call()
    call()
    assert len(compiled) == 2
    assert path.read_bytes() == whole
    assert not capsys.readouterr().err


def test_a_file_that_others_can_write_is_not_linked(directory: Path, compiled: list[str]) -> None:
    call()
    (path,) = files(directory)
    path.chmod(0o666)
    call()
    assert len(compiled) == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_directory_that_others_can_write_is_not_trusted(
    directory: Path, compiled: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    call()
    directory.chmod(0o777)
    call()
    call(2)
    assert len(compiled) == 3
    assert len(files(directory)) == 1
    assert capsys.readouterr().err.count("can be written to by other users") == 1


def test_a_directory_of_another_user_is_not_trusted(
    directory: Path,
    compiled: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    call()
    if os.geteuid() == 0:
        os.chown(directory, 12345, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
    call()
    assert len(compiled) == 2
    assert "belongs to user" in capsys.readouterr().err


def test_it_is_made_for_its_owner_alone(directory: Path) -> None:
    call()
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {p.stat().st_mode & 0o777 for p in files(directory)} == {0o600}


@pytest.mark.parametrize("code", [errno.EROFS, errno.ENOSPC, errno.EACCES])
def test_a_write_that_fails_is_told_once(
    code: int,
    directory: Path,
    compiled: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(where: Path, key: str, data: bytes) -> None:
        raise OSError(code, os.strerror(code), str(where))

    monkeypatch.setattr(cache, "_write", refuse)
    for _ in range(3):
        call()
    assert len(compiled) == 3
    assert capsys.readouterr().err.count(os.strerror(code)) == 1


def test_a_full_disk_leaves_no_half_of_an_entry(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(Path, "replace", full)
    call()
    assert list(directory.iterdir()) == []


def test_reading_works_where_times_cannot_be_set(
    directory: Path, compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call()

    def refuse(path: Path) -> None:
        raise OSError(errno.EROFS, "read only")

    monkeypatch.setattr(os, "utime", refuse)
    call()
    assert len(compiled) == 1


def test_what_was_not_used_for_longest_goes_first(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knobs, "cache_bytes", lambda: 10_000)
    keys = [f"{n:064x}" for n in range(6)]
    for n, key in enumerate(keys[:4]):
        cache.keep(key, bytes(2000), None)
        os.utime(directory / f"{key}.treadle", (n, n))
    assert cache.fetch(keys[0]) is not None  # used now: the newest
    cache.keep(keys[4], bytes(2000), None)
    assert [e.key for e in cache.entries()] == [keys[2], keys[3], keys[0], keys[4]]
    assert sum(e.size for e in cache.entries()) <= 10_000


def test_an_entry_that_would_fill_it_is_not_written(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(knobs, "cache_bytes", lambda: 10_000)
    cache.keep(KEY, bytes(5000), None)
    assert not directory.exists()


def test_what_killed_writers_left_is_removed(directory: Path) -> None:
    call()
    left = directory / ".0123.77.0.unfinished"
    left.write_bytes(b"half")
    call(3)
    assert left.exists()  # its writer may be at work
    os.utime(left, (0, 0))
    cache._state.total = None
    call(4)
    assert not left.exists()


def test_who_verifies_each_pass_runs_each_pass(directory: Path, compiled: list[str]) -> None:
    call()
    knobs.write("TREADLE_VERIFY", "all")
    call()
    assert len(compiled) == 2


def test_the_command_shows_checks_and_clears(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call()
    call(2)
    assert main(["cache", "info"]) == 0
    out = capsys.readouterr().out
    assert str(directory) in out
    assert "entries     2" in out
    assert main(["cache", "verify"]) == 0
    assert "2 of 2 entries are whole" in capsys.readouterr().out
    path = files(directory)[0]
    path.write_bytes(path.read_bytes()[:-1])
    assert main(["cache", "verify"]) == 1
    assert f"removed {path.name}" in capsys.readouterr().out
    assert main(["cache", "clear"]) == 0
    assert "removed 1 entries" in capsys.readouterr().out
    assert files(directory) == []
    assert main(["cache", "info"]) == 0


def test_the_command_says_why_there_is_no_cache(
    directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory.mkdir()
    directory.chmod(0o777)
    assert main(["cache", "info"]) == 2
    assert "can be written to by other users" in capsys.readouterr().err


def test_a_folder_is_found_without_being_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TREADLE_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder.folder() == Path("/somewhere/treadle")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder.folder() == Path.home() / ".cache" / "treadle"
