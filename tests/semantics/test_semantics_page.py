"""docs/semantics.md names a test for each promise; the tests exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "semantics.md"


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8")))
    assert len(named) > 100
    sources = (path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    defined = {name for text in sources for name in re.findall(r"^def (test_\w+)", text, re.M)}
    assert named - defined == set()


def test_every_test_of_semantics_is_named_by_the_page() -> None:
    page = PAGE.read_text("utf-8")
    own = ("test_faults", "test_integers", "test_safe_gradients", "test_masked_softmax")
    for name in own:
        text = (ROOT / "tests" / "semantics" / f"{name}.py").read_text("utf-8")
        promises = re.findall(r"^def (test_\w+)", text, re.M)
        assert promises
        missing = [p for p in promises if p not in page]
        assert len(missing) <= len(promises) // 3, missing
