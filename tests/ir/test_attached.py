"""What the verifier asks of `attach_vjp`, and what it means before autodiff."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from treadle.ir.graph import Level
from treadle.ir.interpreter import interpret
from treadle.ir.parser import parse_function
from treadle.ir.verifier import find_faults

TEXT = """\
func @f(%0: f32[4] "x", %1: f32[4] "w") {
  %2: f32[4] = mul(%0, %1)
  %3: f32[4] = attach_vjp(%2, %0, %1, outputs=1, inputs=1, label="times", order=0) {
    func @backward(%4: f32[4] "out0", %5: f32[4] "w", %6: f32[4] "ct0") {
      %7: f32[4] = mul(%6, %5)
      return %7 "d0"
    }
  }
  return %3 "y"
}
"""


def test_it_is_the_identity_on_its_outputs() -> None:
    fn = parse_function(TEXT)
    assert find_faults(fn, Level.TRACED) == []
    (y,) = interpret(fn, [np.full(4, 2.0, np.float32), np.full(4, 3.0, np.float32)])
    assert y.tolist() == [6.0] * 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.replace("outputs=1", "outputs=4"), "3 operands for 4 outputs and 1 inputs"),
        (lambda s: s.replace("inputs=1", "inputs=2"), "parameters must be outputs, residuals"),
        (lambda s: s.replace('%5: f32[4] "w", ', "").replace("%5", "%4"), "parameters must be"),
        (lambda s: s.replace('return %7 "d0"', "return"), "results must have the types of its in"),
    ],
    ids=["operands", "inputs", "parameters", "results"],
)
def test_parts_that_do_not_belong_together_are_found(
    change: Callable[[str], str], message: str
) -> None:
    faults = find_faults(parse_function(change(TEXT)), Level.TRACED)
    assert any(message in str(fault) for fault in faults), faults


def test_it_is_gone_behind_autodiff() -> None:
    faults = find_faults(parse_function(TEXT), Level.CORE)
    assert any("must be gone" in str(fault) for fault in faults)
