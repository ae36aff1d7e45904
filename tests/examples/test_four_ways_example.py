"""The four ways give one number and one derivative, and the costs are printed and drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.examples import four_ways

V4, SLOPE = np.e * (np.e + 1), 2 * np.e**2 + np.e


@pytest.mark.parametrize("way", [four_ways.plain, four_ways.by_layers, four_ways.Program()])
@pytest.mark.parametrize("compiled", [False, True])
def test_each_way_gives_the_number_and_its_derivative(way: Any, compiled: bool) -> None:
    def total(x: Any) -> Any:
        return way(x).sum()

    run = treadle.value_and_grad(total)
    value, slope = (treadle.jit(run) if compiled else run)(treadle.tensor([1.0]))
    np.testing.assert_allclose([value.item(), slope.item()], [V4, SLOPE], rtol=1e-6)


def test_what_is_fetched_alone_leaves_the_rest_out() -> None:
    graph = treadle.trace(four_ways.declared)
    assert "mul" in str(graph) and "mul" not in str(graph.part("v3"))


def test_it_prints_the_ways_and_their_costs(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(four_ways, "_SECONDS", 0.001)
    assert four_ways.main(["--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.count("[10.107337]") == 5 and "[20.214674]" in out and "modules, jit" in out
    assert (tmp_path / "four_ways.png").stat().st_size > 1000
