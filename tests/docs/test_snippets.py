"""Every Python snippet of the README and the documentation runs, page by page."""

import re
from pathlib import Path

import pytest

import treadle
from treadle.ir.op import unregister
from treadle.passes.canonicalize import RULES
from treadle.passes.pipeline import unregister_pass

ROOT = Path(__file__).resolve().parents[2]
SNIPPET = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)\)")
PAGES = [ROOT / "README.md", ROOT / "bench" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
WITH_CODE = [p for p in PAGES if SNIPPET.search(p.read_text(encoding="utf-8"))]


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", WITH_CODE, ids=name)
def test_snippets_run(page: Path) -> None:
    treadle.manual_seed(0)
    namespace: dict[str, object] = {"__name__": "page"}
    try:
        text = page.read_text(encoding="utf-8")
        for found in SNIPPET.finditer(text):
            above = "\n" * text.count("\n", 0, found.start(1))  # lines are those of the page
            exec(compile(above + found[1], str(page), "exec"), namespace)
    finally:  # what the page on extending has added
        unregister("cube")
        unregister_pass("count")
        RULES.remove("abs_of_neg")


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
