"""Targets: widths, what runs here, and code for machines that are not this one."""

from __future__ import annotations

import pytest

from treadle.codegen.llvm import F32, I64, PTR, Module, vec
from treadle.codegen.target import NAMES, Target, host, named
from treadle.ir.errors import CompileError
from treadle.ir.types import bool_, float32, float64
from treadle.runtime.native import assembly, load


@pytest.mark.parametrize(
    ("name", "lanes"), [("sse2", (4, 2)), ("avx2", (8, 4)), ("avx512", (16, 8)), ("neon", (4, 2))]
)
def test_each_family_has_its_vector_width(name: str, lanes: tuple[int, int]) -> None:
    target = named(name)
    assert (target.lanes(float32), target.lanes(float64)) == lanes
    assert target.lanes(bool_) == target.vector_bytes


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="sse2, avx2, avx512, neon"):
        named("mmx")


def test_the_host_runs_here_and_is_as_wide_as_the_widest_family_that_does() -> None:
    assert host().runs_here()
    families = [named(n) for n in NAMES if named(n).runs_here()]
    assert families
    assert host().vector_bytes == max(f.vector_bytes for f in families)


def test_a_target_is_a_value_that_can_be_part_of_a_cache_key() -> None:
    assert named("avx2") == named("avx2")
    assert len({named(n) for n in NAMES}) == len(NAMES)


def _muladd(target: Target) -> str:
    module = Module(target)
    w = module.function("muladd", I64, [(PTR, "x")])
    type = vec(F32, target.lanes(float32))
    x = w.load(type, w.args[0])
    w.store(w.muladd(x, x, x), w.args[0])
    w.ret(0)
    return str(module)


@pytest.mark.parametrize(
    ("name", "expected", "absent"),
    [
        ("sse2", "mulps", "fmadd"),
        ("avx2", "vfmadd", "zmm"),
        ("avx512", "zmm", "mulps"),
        ("neon", "fmla", "fmul"),
    ],
)
def test_code_uses_the_instructions_of_its_family(name: str, expected: str, absent: str) -> None:
    text = assembly(_muladd(named(name)), named(name))
    assert expected in text
    assert absent not in text


def test_code_that_cannot_run_here_is_not_loaded() -> None:
    foreign = next(named(n) for n in ("neon", "sse2") if named(n).arch != host().arch)
    assert not foreign.runs_here()
    with pytest.raises(CompileError, match="cannot run on this machine"):
        load(_muladd(foreign), foreign)
