"""Tests that leave the target open run for this machine and for each plainer family that it runs.

So one run of the suite holds SSE2 and AVX2 on every x86 machine, and AVX-512 where it is there.
What a machine cannot run is compiled and its assembly checked by `test_families.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from treadle.codegen.target import NAMES, host, named
from treadle.runtime import knobs

# Tests of these files that take no target (as `target`, `name` or `family`).
OPEN: Final = frozenset(
    {
        "test_broadcast_rows",
        "test_contract",
        "test_equal_kernels",
        "test_fused",
        "test_kernels",
        "test_lines",
        "test_module",
        "test_operands",
        "test_streaming",
        "test_sweeps",
    }
)
_TAKEN: Final = frozenset({"target", "name", "family"})
PLAINER: Final = [
    name
    for name in NAMES
    if named(name).runs_here() and named(name).vector_bytes < host().vector_bytes
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.module.__name__ in OPEN and _TAKEN.isdisjoint(metafunc.fixturenames):
        metafunc.parametrize("compiled_for", ["host", *PLAINER], indirect=True, scope="module")


@pytest.fixture(scope="module", autouse=True)
def compiled_for(request: pytest.FixtureRequest) -> Iterator[None]:
    """The target of what is compiled without naming one: the parameter's, if there is one."""
    before = knobs.read("TREADLE_TARGET")
    knobs.write("TREADLE_TARGET", getattr(request, "param", before))
    yield
    knobs.write("TREADLE_TARGET", before)
