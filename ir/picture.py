"""A Function as a picture: Graphviz's dot text, or an SVG that needs no other program.

Both show one box an instruction, with op, result types and the user's line; a fused kernel is a
box that holds its operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html import escape

from treadle.ir.graph import Function, Instr, Value
from treadle.ir.op import attr_items
from treadle.ir.printer import attr_text, value_names

# Sizes of the SVG, in pixels; the font is monospace, so a column has a fixed width.
_COLUMN, _ROW, _PAD, _GAP_X, _GAP_Y = 7.2, 16, 8, 24, 44
_LONGEST_ATTR = 32


@dataclass(slots=True)
class _Box:
    """One node: a title, lines below it, and the boxes that it takes values from."""

    kind: str  # param, op, kernel, result
    title: str
    rows: list[str]
    sources: list[_Box] = field(default_factory=list)
    layer: int = 0
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        return max(len(t) for t in (self.title, *self.rows)) * _COLUMN + 2 * _PAD

    @property
    def height(self) -> float:
        return (1 + len(self.rows)) * _ROW + 2 * _PAD


def to_dot(fn: Function) -> str:
    """The graph as Graphviz text: `dot -Tpng` draws it."""
    boxes = _boxes(fn)
    number = {id(box): n for n, box in enumerate(boxes)}
    lines = [
        f'digraph "{fn.name}" {{',
        '  node [shape=box, fontname="monospace", fontsize=10, style="filled,rounded"];',
    ]
    for box in boxes:
        rows = "".join(f"{_dot_escape(r)}\\l" for r in box.rows)
        label = f"{_dot_escape(box.title)}\\l{rows}"
        lines.append(f'  n{number[id(box)]} [label="{label}", fillcolor="{_FILL[box.kind]}"];')
    for box in boxes:
        lines += [f"  n{number[id(s)]} -> n{number[id(box)]};" for s in box.sources]
    return "\n".join([*lines, "}"])


def to_svg(fn: Function) -> str:
    """The graph as a self-contained SVG document."""
    boxes = _boxes(fn)
    width, height = _place(boxes)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" font-family="monospace" font-size="12">',
        f"<title>{escape(fn.name)}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]
    for box in boxes:
        parts += [_edge(source, box) for source in box.sources]
    parts += [_drawn(box) for box in boxes]
    return "\n".join([*parts, "</svg>"])


_FILL = {"param": "#e8f0fe", "op": "#f5f5f5", "kernel": "#fff4d6", "result": "#e6f4ea"}
_LINE = {"param": "#5b8def", "op": "#999999", "kernel": "#d99a00", "result": "#3d9a55"}


def _boxes(fn: Function) -> list[_Box]:
    names = value_names(fn)
    made: dict[Value, _Box] = {}
    boxes: list[_Box] = []
    for param in fn.params:
        what = "state " if param.kind == "state" else ""
        box = _Box("param", f"{what}{param.path}", [f"{names[param.value]}: {param.value.type}"])
        made[param.value] = box
        boxes.append(box)
    for instr in fn.instrs:
        box = _instr_box(instr, names)
        box.sources = _distinct(made[a] for a in instr.args if a in made)
        box.layer = 1 + max((s.layer for s in box.sources), default=-1)
        made.update(dict.fromkeys(instr.results, box))
        boxes.append(box)
    for result in fn.results:
        what = "state " if result.kind == "state" else ""
        box = _Box("result", f"{what}{result.path}", [names[result.value]])
        box.sources = [made[result.value]]
        box.layer = 1 + box.sources[0].layer
        boxes.append(box)
    return boxes


def _instr_box(instr: Instr, names: Mapping[Value, str]) -> _Box:
    results = [f"{names[r]}: {r.type}" for r in instr.results]
    where = [str(instr.loc)] if instr.loc is not None else []
    if not instr.regions:
        return _Box("op", _call_text(instr, names), results + where)
    rows = []
    for region in instr.regions:
        rows += [
            f"  {', '.join(f'{names[r]}: {r.type}' for r in i.results)} = {_call_text(i, names)}"
            for i in region.instrs
        ]
    title = f"{instr.op.name} {_attrs(instr)}"
    return _Box("kernel", title, rows + [f"-> {r}" for r in results] + where)


def _call_text(instr: Instr, names: Mapping[Value, str]) -> str:
    args = ", ".join(names[a] for a in instr.args)
    attrs = _attrs(instr)
    return f"{instr.op.name}({args})" + (f" {attrs}" if attrs else "")


def _attrs(instr: Instr) -> str:
    pieces = []
    for name, value in attr_items(instr.attrs):
        text = attr_text(value)
        if len(text) > _LONGEST_ATTR:
            text = text[:_LONGEST_ATTR] + "..."
        pieces.append(f"{name}={text}")
    return " ".join(pieces)


def _distinct(boxes: Iterable[_Box]) -> list[_Box]:
    return list({id(b): b for b in boxes}.values())


def _place(boxes: list[_Box]) -> tuple[float, float]:
    """Give each box its place: layers by longest path, ordered by the mean of their sources."""
    _sink_params(boxes)
    layers: dict[int, list[_Box]] = {}
    for box in boxes:
        layers.setdefault(box.layer, []).append(box)
    y, widest = float(_GAP_X), 0.0
    for number in sorted(layers):
        row = layers[number]
        row.sort(key=lambda b: sum(s.x for s in b.sources) / max(len(b.sources), 1))
        x = float(_GAP_X)
        for box in row:
            box.x, box.y = x, y
            x += box.width + _GAP_X
        widest = max(widest, x)
        y += max(b.height for b in row) + _GAP_Y
    for row in layers.values():
        shift = (widest - row[-1].x - row[-1].width - _GAP_X) / 2
        for box in row:
            box.x += shift
    return widest, y


def _sink_params(boxes: list[_Box]) -> None:
    """A parameter stands just above its first user, not at the top of the page."""
    first: dict[int, int] = {}
    for box in boxes:
        for source in box.sources:
            first[id(source)] = min(first.get(id(source), box.layer), box.layer)
    for box in boxes:
        if box.kind == "param":
            box.layer = first.get(id(box), 1) - 1


def _edge(source: _Box, box: _Box) -> str:
    x1, y1 = source.x + source.width / 2, source.y + source.height
    x2, y2 = box.x + box.width / 2, box.y
    bend = max((y2 - y1) / 2, 12)
    path = (
        f"M{x1:.0f},{y1:.0f} C{x1:.0f},{y1 + bend:.0f} {x2:.0f},{y2 - bend:.0f} {x2:.0f},{y2:.0f}"
    )
    return f'<path d="{path}" fill="none" stroke="#777777"/>'


def _drawn(box: _Box) -> str:
    lines = [
        f'<rect x="{box.x:.0f}" y="{box.y:.0f}" width="{box.width:.0f}" height="{box.height:.0f}" '
        f'rx="5" fill="{_FILL[box.kind]}" stroke="{_LINE[box.kind]}"/>'
    ]
    for n, text in enumerate((box.title, *box.rows)):
        weight = ' font-weight="bold"' if n == 0 else ""
        y = box.y + _PAD + (n + 0.8) * _ROW
        lines.append(
            f'<text x="{box.x + _PAD:.0f}" y="{y:.0f}"{weight} xml:space="preserve">'
            f"{escape(text)}</text>"
        )
    return "\n".join(lines)


def _dot_escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
