"""What notebooks show of tensors, modules and programs: small, escaped, and nothing is changed."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn

_VOID = {"br", "img", "rect", "path", "line", "polyline", "polygon", "circle", "ellipse"}


class Page(HTMLParser):
    """Checks that every tag is closed, and keeps the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: set[str] = set()
        self.feed(html)
        assert self.open == []
        assert not self.tags & {"script", "link", "iframe", "img"}

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        assert not any(name in ("src", "href", "onclick") for name, _ in attrs)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_tensors_are_tables_that_are_cut() -> None:
    x = treadle.tensor(np.arange(6.0).reshape(2, 3), requires_grad=True)
    page = Page(x._repr_html_())
    assert "Tensor f64[2, 3], requires_grad" in page.text and "table" in page.tags
    long = treadle.zeros((1000, 1000))
    html = long._repr_html_()
    assert len(html) < 4000 and html.count("<tr>") == 9 and "…" in Page(html).text
    row = Page(treadle.arange(1000)._repr_html_())
    assert "999" in row.text and "i64[1000]" in row.text
    assert len(treadle.zeros((50, 50, 50))._repr_html_()) < 4000


@pytest.mark.parametrize("x", [
    np.float32(3.5), np.zeros((0, 4)), np.array([True]), np.zeros((2, 0, 3), np.int64), np.nan,
])  # fmt: skip
def test_tensors_of_odd_shapes_are_shown(x: Any) -> None:
    assert str(treadle.tensor(x).type) in Page(treadle.tensor(x)._repr_html_()).text


def test_showing_changes_nothing_and_pins_nothing() -> None:
    x = treadle.tensor([1.0, 2.0])
    before = x.cell.version
    x._repr_html_()
    assert x.cell.version == before and not x.cell.pinned


def test_a_traced_tensor_tells_its_type_and_line() -> None:
    seen: list[str] = []

    @treadle.jit
    def f(x: Any, y: Any) -> Any:
        z = x * y
        seen.append(z._repr_html_())
        seen.append(outside._repr_html_())
        return z

    outside = treadle.ones(3)
    f(treadle.ones(3), treadle.ones(3))
    page = Page(seen[0])
    assert "traced tensor f32[3]" in page.text and "test_html.py:" in page.text
    assert "&lt;traced" in seen[0]
    Page(seen[1])


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Sequential(nn.Conv2d(None, 4, 3), nn.ReLU())
        self.head = nn.Linear(4, 2).requires_grad_(False)
        self.again = self.head

    def extra_repr(self) -> str:
        return "<b>own</b>"


def test_modules_are_trees_with_counts_and_stay_as_they_are() -> None:
    model = Own()
    before = {path: dict(m.__dict__) for path, m in model.named_modules()}
    html = model._repr_html_()
    page = Page(html)
    assert "Own(<b>own</b>) - 10 parameters" in page.text and "<b>own" not in html
    assert "waits for its first input" in page.text
    assert "weight: f32[2, 4], frozen" in page.text
    assert {path: dict(m.__dict__) for path, m in model.named_modules()} == before


def test_a_module_that_holds_itself_ends() -> None:
    model = nn.Linear(2, 2)
    model.me = model
    assert "me: ..." in Page(model._repr_html_()).text


def test_programs_are_text_and_a_picture_and_are_not_compiled() -> None:
    graph = treadle.trace(lambda x: treadle.exp(x) + 1, ["f32[3]"])
    page = Page(graph._repr_html_())
    assert "exp" in page.text and "svg" in page.tags and graph._compiled == {}
    assert graph._repr_html_() == graph.function._repr_html_()

    def many(x: Any) -> Any:
        for _ in range(300):
            x = treadle.exp(x)
        return x

    html = treadle.trace(many, ["f32[3]"])._repr_html_()
    assert "more lines" in Page(html).text and "<svg" not in html
    assert Page(treadle.trace(lambda x: x, ["f32[3]"])._repr_html_()).text
