"""The verifier tells what is wrong with a loop or branch; the text form reads back."""

from __future__ import annotations

import pytest

from treadle.ir.errors import VerifyError
from treadle.ir.graph import Level
from treadle.ir.parser import parse_function
from treadle.ir.printer import print_function
from treadle.ir.verifier import verify

LOOP = """func @f(%0: i64[] "n", %1: f32[3] "w", %2: f32[3] "c", %3: f32[5, 3] "xs") {
  %4: i64[], %5: f32[3], %6: f32[5, 3] = scan(%0, %1, %2, %3, consts=1, carries=1, length=5, reverse=False, steps=True, until=True) {
    func @body(%7: f32[3] "w", %8: f32[3] "c", %9: f32[3] "x") {
      %10: f32[3] = mul(%7, %8)
      %11: f32[] = sum(%10, axes=(0,), keepdims=False)
      %12: f32[] = const(data=f32[]{1.0})
      %13: bool[] = lt(%11, %12)
      return %13 "go on", %10 "c", %9 "y"
    }
  }
  return %4 "done", %5 "c", %6 "ys"
}"""  # noqa: E501  lines of IR
BRANCH = """func @f(%0: i64[] "i", %1: f32[3] "x") {
  %2: f32[3] = switch(%0, %1, branches=2) {
    func @a(%3: f32[3] "x") {
      return %3 "out"
    }
    func @b(%4: f32[3] "x") {
      %5: f32[3] = neg(%4)
      return %5 "out"
    }
  }
  return %2 "out"
}"""

WRONG = [
    (LOOP, "carries=1", "carries=2", "operands for 1 consts|carry 1 has types"),
    (LOOP, "length=5", "length=6", r"an array is f32\[5, 3\], its row f32\[3\], the length 6"),
    (LOOP, "length=5", "length=None", "takes and gives no arrays"),
    (LOOP, "reverse=False", "reverse=True", "a scan with `until` is not reversed"),
    (LOOP, "consts=1", "consts=-1", "counts must be at least 0"),
    (LOOP, 'return %13 "go on"', 'return %11 "go on"', "whether to go on is f32"),
    (LOOP, '%10 "c", %9 "y"', '%11 "c", %9 "y"', "carry 0 has types"),
    (LOOP, '%7: f32[3] "w"', '%7: f32[] "w"', "const 0 is"),
    (LOOP, '%0: i64[] "n"', '%0: f32[] "n"', "the number of steps is"),
    (BRANCH, "branches=2", "branches=3", "a region for each of 3 branches, found 2"),
    (BRANCH, '%0: i64[] "i"', '%0: i64[1] "i"', "the index, an integer of rank 0"),
    (BRANCH, '%4: f32[3] "x"', '%4: f64[3] "x"', "branch 1 has parameters"),
]


@pytest.mark.parametrize("text", [LOOP, BRANCH], ids=["loop", "branch"])
def test_the_text_of_regions_reads_back(text: str) -> None:
    fn = parse_function(text)
    verify(fn, Level.TRACED)
    verify(fn, Level.CORE)
    assert print_function(fn) == text


@pytest.mark.parametrize(("text", "old", "new", "fault"), WRONG, ids=[w[2] for w in WRONG])
def test_a_wrong_loop_or_branch_is_told(text: str, old: str, new: str, fault: str) -> None:
    assert old in text
    with pytest.raises(VerifyError, match=fault):
        verify(parse_function(text.replace(old, new)), Level.TRACED)
