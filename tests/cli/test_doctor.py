"""`treadle doctor`: what it tells, and what it finds amiss."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from treadle import __version__
from treadle.cli import doctor, main
from treadle.codegen.target import host, named
from treadle.runtime import knobs
from treadle.runtime.machine import Bandwidth, Machine, measure_machine

MACHINE = Machine(
    "a CPU", "host", 2, 100e9, 200e9, 40e9, 40e9,
    (Bandwidth(1 << 16, 1e11, 2e11, 1e11, 2e11), Bandwidth(1 << 26, 3e10, 4e10, 3e10, 4e10)),
)  # fmt: skip


@pytest.fixture(autouse=True)
def healthy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet machine without a quota, with a cache of its own."""
    monkeypatch.setattr(doctor, "cpu_quota", lambda: None)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0), raising=False)
    monkeypatch.setenv("TREADLE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TREADLE_NUM_THREADS", raising=False)
    monkeypatch.delenv("TREADLE_TARGET", raising=False)


def amiss() -> list[str]:
    return doctor.examine(lambda: MACHINE).amiss


def test_a_healthy_installation_has_nothing_amiss(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--no-measure"]) == 0
    out = capsys.readouterr().out
    told = {line.split("  ")[0].strip(): line for line in out.splitlines() if "  " in line}
    for what in ("treadle", "Python", "NumPy", "llvmlite", "LLVM", "CPU", "features", "vectors"):
        assert what in told
    assert __version__ in told["treadle"]
    assert str(host().vector_bytes * 8) in told["vectors"]
    assert told["compiles"].split()[-1] == "yes"
    for what in ("cores", "CPU quota", "threads", "thread pool", "cache", "cache size", "load"):
        assert what in told
    assert "FMA rate" not in told
    assert out.rstrip().endswith("nothing is amiss")


def test_rates_are_told() -> None:
    report = doctor.examine(lambda: MACHINE)
    told = dict(report.lines)
    assert told["FMA rate"] == "100 GFLOP/s on one core, 200 on all"
    assert told["memory"] == "read 40.0 GB/s, read and write 40.0 GB/s"
    assert told["data of 128 KiB"] == "read and write 200 GB/s"
    assert not report.amiss


def test_the_measurement_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(doctor, "measure_machine", lambda: asked.append(1) or measure_machine())
    assert main(["doctor"]) in (0, 1)
    assert asked


def test_cores_that_do_not_add_up_are_amiss() -> None:
    slow = replace(MACHINE, flops_all_cores=1.1 * MACHINE.flops_one_core)
    (text,) = doctor.examine(lambda: slow).amiss
    assert "1.1 times what one does" in text


@pytest.mark.skipif(host().vector_bytes <= 16, reason="this machine has no wider vectors")
def test_a_target_narrower_than_the_machine_is_amiss() -> None:
    knobs.write("TREADLE_TARGET", "sse2")
    try:
        (text,) = amiss()
        code = main(["doctor", "--no-measure"])
    finally:
        knobs.write("TREADLE_TARGET", None)
    assert "TREADLE_TARGET=sse2 uses vectors of 128 bits" in text
    assert code == 1


def test_a_target_of_another_machine_and_an_unknown_one_are_amiss() -> None:
    for name, said in (("neon" if host().is_x86 else "avx2", "cannot run"), ("mmx", "not known")):
        knobs.write("TREADLE_TARGET", name)
        try:
            found = amiss()
        finally:
            knobs.write("TREADLE_TARGET", None)
        assert any(said in text for text in found)


def test_a_quota_below_the_cores_is_amiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "cpu_quota", lambda: 0.5)
    (text,) = amiss()
    assert "quota of 0.5 cores is below" in text


def test_more_threads_than_cores_are_amiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "get_num_threads", lambda: 200)
    assert any("200 threads share" in text for text in amiss())


def test_a_busy_machine_is_amiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (99.0, 0.0, 0.0), raising=False)
    (text,) = amiss()
    assert "busy" in text


def test_a_cache_that_cannot_be_used_is_amiss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("", encoding="utf-8")
    monkeypatch.setenv("TREADLE_CACHE_DIR", str(file))
    (text,) = amiss()
    assert "is not a directory" in text


def test_a_cache_that_cannot_be_written_is_amiss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("TREADLE_CACHE_DIR", str(folder))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    (text,) = amiss()
    assert "cannot be written to" in text


def test_missing_llvm_is_amiss_and_the_rest_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> tuple[str, str]:
        raise ImportError("No module named 'llvmlite'")

    monkeypatch.setattr(doctor, "versions", missing)
    report = doctor.examine(lambda: MACHINE)
    assert any("llvmlite does not load" in text for text in report.amiss)
    assert "cache" in dict(report.lines)
    assert "FMA rate" not in dict(report.lines)


def test_wrong_results_are_amiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.np, "array_equal", lambda *_: False)
    assert any("other numbers than NumPy" in text for text in amiss())


def test_the_oldest_targets_are_reported_without_surprise() -> None:
    assert not list(doctor._about_target(host(), host()))
    assert all("TREADLE_TARGET" in t for t in doctor._about_target(named("sse2"), named("avx512")))


def test_a_room_of_the_cache_that_is_no_number_is_amiss(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TREADLE_CACHE_MB", "lots")
    (text,) = amiss()
    assert text == "no disk cache: TREADLE_CACHE_MB must be a whole number, found 'lots'"
    assert main(["cache", "info"]) == 2
    assert "TREADLE_CACHE_MB must be a whole number, found 'lots'" in capsys.readouterr().err


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads all")
def test_a_cache_that_cannot_be_read_is_amiss(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TREADLE_CACHE_DIR", str(tmp_path / "kept"))
    (tmp_path / "kept").mkdir(mode=0o000)
    assert any("cannot be read" in text for text in amiss())
