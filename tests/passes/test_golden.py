"""Each pass makes of each golden program what tests/golden/ says; see golden_cases.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from golden_cases import Case, all_cases, bless, outcome

from treadle.ir.parser import parse_function
from treadle.ir.printer import print_function
from treadle.passes import canonicalize, stabilize
from treadle.passes.pipeline import pipeline
from treadle.passes.rewrite import RuleSet

CASES = all_cases()


@pytest.fixture(scope="module", autouse=True)
def blessed(request: pytest.FixtureRequest) -> None:
    """With --bless, write the files of the chosen cases (`-k stabilize` chooses)."""
    if request.config.getoption("--bless"):
        chosen = [getattr(item, "callspec", None) for item in request.session.items]
        for file in sorted(
            {spec.params["case"].file for spec in chosen if spec and "case" in spec.params}
        ):
            bless(file)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_pass_gives_the_golden_text(case: Case, request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--bless"):
        pytest.skip("blessed")
    assert case.expected, "nothing is expected yet: run with --bless and read what it wrote"
    assert outcome(case) == case.expected


@pytest.mark.parametrize("case", [c for c in CASES if "func" in c.expected], ids=str)
def test_golden_text_reads_back(case: Case) -> None:
    text = case.expected.partition("\n")[2]
    assert print_function(parse_function(text)) == text


def test_every_pass_has_golden_programs() -> None:
    tested = {name for case in CASES for name in case.passes}
    assert tested >= {p.name for p in pipeline()}


@pytest.mark.parametrize("rules", [canonicalize.RULES, stabilize.RULES], ids=["canon", "stabilize"])
def test_every_rule_has_a_golden_program(rules: RuleSet) -> None:
    shown = {name for case in CASES for name in case.expected.partition("\n")[0].split(", ")}
    fired = {name.removeprefix("by ") for name in shown}
    assert {rule.name for rule in rules} - fired == set()
