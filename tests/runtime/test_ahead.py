"""What every product needs is compiled on another thread, apart from the program that needs it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import treadle
from treadle import TensorType, float32, float64
from treadle.codegen.library import library, wanted
from treadle.codegen.target import named
from treadle.ir.builder import Builder
from treadle.ir.errors import CompileError
from treadle.ir.graph import Function, Result
from treadle.runtime import ahead, knobs
from treadle.runtime.lower import compile_stages
from treadle.tracer.backend import CompileOptions

PLAIN = CompileOptions()


@pytest.fixture(autouse=True)
def nothing_begun() -> Iterator[None]:
    ahead._begun.clear()
    yield
    ahead._begun.clear()


def product(n: int, dtype: treadle.DType = float32) -> Function:
    b = Builder("product")
    x, y = (b.param(TensorType(dtype, (n, n)), name) for name in "xy")
    return b.finish([Result(b.call("matmul", x, y), "out")])


def functions(text: str) -> dict[str, str]:
    found = re.findall(r"^define .*?^}$", text, re.M | re.S)
    return {re.search(r"@(\w+)", f)[1]: f for f in found}  # type: ignore[index]


@pytest.mark.parametrize("dtype", [float32, float64])
@pytest.mark.parametrize("name", ["sse2", "avx2", "avx512", "neon"])
def test_the_functions_of_the_library_are_those_that_a_program_would_have(
    name: str, dtype: treadle.DType
) -> None:
    target = named(name)
    module = library(target, dtype)
    fn = product(64, dtype)
    alone = compile_stages(fn, PLAIN, target).emitted
    linked = compile_stages(fn, PLAIN, target, module).emitted
    assert alone.apart is None and linked.apart is not None
    assert functions(linked.ir) == functions(alone.ir)
    own = set(functions(linked.apart))
    assert own.isdisjoint(functions(str(module))) and "treadle_entry" in own
    assert set(functions(alone.ir)) == own | set(functions(str(module)))


def test_a_program_links_what_was_compiled_ahead_and_finds_it_on_disk_again(
    tmp_path: Path,
) -> None:
    knobs.write("TREADLE_CACHE", "1")
    knobs.write("TREADLE_CACHE_DIR", str(tmp_path / "kept"))
    try:
        x = np.random.default_rng(0).standard_normal((48, 48), np.float32)
        step = treadle.jit(lambda x, y: treadle.matmul(x, y))
        first = step(x, x).numpy()
        assert len(ahead._begun) == 1 and len(_objects(step)) == 2
        treadle.clear_cache()
        ahead._begun.clear()
        again = step(x, x).numpy()
        assert not ahead._begun and len(_objects(step)) == 2  # it came from the disk
        np.testing.assert_array_equal(again, first)
        np.testing.assert_allclose(first, x @ x, rtol=1e-4, atol=1e-5)
    finally:
        knobs.write("TREADLE_CACHE", None)
        knobs.write("TREADLE_CACHE_DIR", None)


def _objects(step: treadle.Jitted) -> tuple[int, ...]:
    return step.specializations[0].executable.interface.objects  # type: ignore[attr-defined]


def test_only_a_program_that_is_sure_to_need_it_begins_it() -> None:
    target = named("sse2")
    assert wanted(product(8)) is None  # a few loops
    assert ahead.begun(product(8), PLAIN, target) is None
    assert ahead.begun(product(64), CompileOptions(contract=True), target) is None
    begun = ahead.begun(product(64), PLAIN, target)
    assert begun is not None and ahead.begun(product(99), PLAIN, target) is begun
    assert begun.object().startswith(b"\x7fELF") or sys.platform != "linux"


def test_what_fails_on_the_other_thread_is_told_to_who_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(ir: str, target: object) -> None:
        raise CompileError("no")

    monkeypatch.setattr(ahead, "compile_object", refuse)
    begun = ahead.begun(product(64), PLAIN, named("sse2"))
    assert begun is not None
    with pytest.raises(CompileError, match="no"):
        begun.object()


def test_python_s_threads_take_turns_as_before_when_it_is_done() -> None:
    before = sys.getswitchinterval()
    begun = ahead.begun(product(64), PLAIN, named("sse2"))
    assert begun is not None
    begun.join()
    assert sys.getswitchinterval() == before
