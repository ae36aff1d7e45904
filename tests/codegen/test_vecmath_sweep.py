"""All float32 inputs, sampled densely: bounds, the measure itself, and the page that shows it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from treadle.bench.accuracy import bound, ulps
from treadle.bench.accuracy_page import with_tables
from treadle.bench.sweep import FUNCTIONS, compared, patterns, sweep
from treadle.codegen.target import NAMES, named
from treadle.ir.op import Trait, all_ops
from treadle.ir.types import float32, float64

Array = npt.NDArray[Any]
ROOT = Path(__file__).resolve().parents[2]
HERE = [named(n) for n in NAMES if named(n).runs_here()]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_257th_float32_is_within_its_bound(name: str) -> None:
    for target, worst in sweep(name, HERE, stride=257).items():
        assert worst.error <= bound(name, float32, named(target)), (target, worst)


def test_the_compiled_measure_is_the_one_of_the_samples() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        got = rng.integers(0, 2**32, 4096, dtype=np.uint32).view(np.float32)
        scale = 1 + rng.uniform(-1, 1, 4096) * 2.0 ** rng.uniform(-30, -20)
        with np.errstate(invalid="ignore"):
            exact = got.astype(np.float64) * scale
        exact[np.isinf(got)] = np.inf  # the sign may differ: infinitely wrong
        expected = ulps(got, exact)
        finite = np.isfinite(expected)
        errors = np.where(finite, got, np.float32(1)), np.where(finite, exact, 1.0)
        assert compared(*errors).error == expected[finite].max()
        assert compared(got, exact).error == expected.max()


def test_a_sweep_finds_the_one_wrong_result() -> None:
    stride = 1001
    place = patterns(1_100_000, 1, stride)[0]

    def wrong_there(x: Array) -> Array:
        with np.errstate(all="ignore"):
            y = np.sqrt(x)
        return np.where(x == place, np.float32(1), y)

    found = sweep("sqrt", HERE[:1], {"wrong": wrong_there}, stride)
    assert found[HERE[0].name].error <= 0.5
    assert found["wrong"].error > 1e5
    assert found["wrong"].x == place


def test_the_inputs_of_a_sweep_are_bit_patterns() -> None:
    assert patterns(0x7F800000, 1, 1)[0] == np.inf
    assert patterns(3, 2, 5).view(np.uint32).tolist() == [15, 20]


def test_every_float_function_of_one_operand_is_swept() -> None:
    wanted = {
        op.name
        for op in all_ops()
        if {Trait.ELEMENTWISE, Trait.EXPENSIVE} <= set(op.traits) and op.name != "pow"
    }
    assert wanted <= {op for op, _ in FUNCTIONS.values()}


def test_the_page_shows_what_was_measured_and_that_is_within_the_bounds() -> None:
    found = json.loads((ROOT / "bench" / "results" / "ulp.json").read_text("utf-8"))
    page = (ROOT / "docs" / "accuracy.md").read_text("utf-8")
    assert with_tables(page, found) == page
    assert found["stride"] == 1
    for kind, dtype in (("float32", float32), ("float64", float64)):
        for name, row in found[kind].items():
            for target in set(row) & set(NAMES):
                assert float(row[target]["ulp"]) <= bound(name, dtype, named(target)), (
                    name,
                    target,
                )


def test_a_page_without_its_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="no lines"):
        with_tables("# Accuracy\n", {})
