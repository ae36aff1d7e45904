"""The format of tests/golden/<pass>/*.ir: programs, each with what its pass makes of it.

A file holds cases. A case is a line `; case NAME`, prose in comments, the program, and what is
expected, which `pytest tests/passes/test_golden.py --bless` writes:

    ; case quotient
    ; The plain form.
    func @f(...) { ... }

    ; after stabilize, by softmax_of_quotient
    func @f(...) { ... }

or `; unchanged by stabilize`. The folder names the pass; a line `; passes: early_cse, stabilize`
in the prose names others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from treadle.ir.parser import parse_function
from treadle.ir.printer import print_function
from treadle.passes.manager import Record, run_pipeline
from treadle.passes.pipeline import find_pass, pipeline

GOLDEN = Path(__file__).parent / "golden"
_CASE = re.compile(r"^; case (\S+)$", re.MULTILINE)
_EXPECTED = re.compile(r"^; (?:after|unchanged by) ", re.MULTILINE)
_PASSES = re.compile(r"^; passes: (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Case:
    """One program of a golden file: `given` is its text with the prose, `expected` what follows."""

    file: Path
    name: str
    given: str
    expected: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(GOLDEN).with_suffix('')}:{self.name}"

    @property
    def passes(self) -> list[str]:
        named = _PASSES.search(self.given)
        if named is None:
            return [self.file.parent.name]
        return [name.strip() for name in named[1].split(",")]


def cases_of(file: Path) -> list[Case]:
    """The cases of a golden file, in order."""
    _, *parts = _CASE.split(file.read_text("utf-8"))
    cases = []
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        at = _EXPECTED.search(body)
        cut = at.start() if at else len(body)
        cases.append(Case(file, name, body[:cut].strip(), body[cut:].strip()))
    return cases


def all_cases() -> list[Case]:
    """Every case of every pass; other folders of tests/golden/ have tests of their own."""
    files = [file for p in pipeline() for file in sorted((GOLDEN / p.name).glob("*.ir"))]
    return [case for file in files for case in cases_of(file)]


def outcome(case: Case) -> str:
    """What the passes of `case` make of it now, in the text of its `expected` part."""
    before = parse_function(case.given, str(case))
    record = Record()
    after = run_pipeline(before, [find_pass(p) for p in case.passes], [record], verify="all")
    names = ", ".join(case.passes)
    if after is before:
        return f"; unchanged by {names}"
    rules = [note.name for step in record.steps for note in step.notes if note.kind == "rule"]
    by = f", by {', '.join(dict.fromkeys(rules))}" if rules else ""
    return f"; after {names}{by}\n{print_function(after)}"


def bless(file: Path) -> None:
    """Write into `file` what the passes make of its programs now."""
    head = _CASE.split(file.read_text("utf-8"))[0].strip()
    parts = [head] if head else []
    parts += [f"; case {c.name}\n{c.given}\n\n{outcome(c)}" for c in cases_of(file)]
    file.write_text("\n\n".join(parts) + "\n", "utf-8")
