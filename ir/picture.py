"""A Function as a picture: Graphviz's dot text, or an SVG that needs no other program.

One box an instruction, with operands, result types and the user's line; a fused kernel is a box
that holds its operations. Values carry the numbers that the printed text gives them. To keep the
picture readable, state (parameters, moments) is listed in the boxes that read and write it, a
constant number stands where it is used, and views between kernels are not drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field
from html import escape

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Loc, Value
from treadle.ir.op import ArrayData, attr_items
from treadle.ir.picture_layout import Layout, Point, arrange
from treadle.ir.printer import attr_text, value_names

# Pixels. The font is monospace; a column is a little wider than any such font's at this size.
_COLUMN, _ROW, _PAD = 7.5, 16.0, 8.0
_LONGEST_ATTR = 32
_MOST_STATES = 12  # reads or writes that a box lists

_FILL = {"param": "#e8f0fe", "op": "#f5f5f5", "kernel": "#fff4d6", "result": "#e6f4ea"}
_LINE = {"param": "#5b8def", "op": "#999999", "kernel": "#d99a00", "result": "#3d9a55"}
_INK = {"title": "#111111", "row": "#333333", "read": "#2558b8", "write": "#1e7a38", "loc": "#777"}


@dataclass(slots=True, eq=False)
class _Box:
    """One node: rows of (style, text), and the boxes that it takes values from."""

    kind: str  # param, op, kernel, result
    rows: list[tuple[str, str]]
    sources: list[_Box] = field(default_factory=list)
    instr: Instr | None = None

    @property
    def size(self) -> Point:
        columns = max(len(text) for _, text in self.rows)
        return columns * _COLUMN + 2 * _PAD, len(self.rows) * _ROW + 2 * _PAD


def to_dot(fn: Function) -> str:
    """The graph as Graphviz text: `dot -Tpng` draws it."""
    boxes = _Drawing(fn).boxes()
    number = {id(box): n for n, box in enumerate(boxes)}
    lines = [
        f'digraph "{_dot_escape(fn.name)}" {{',
        '  node [shape=box, fontname="monospace", fontsize=10, style="filled,rounded"];',
    ]
    for n, box in enumerate(boxes):
        label = "".join(f"{_dot_escape(text)}\\l" for _, text in box.rows)
        lines.append(f'  n{n} [label="{label}", fillcolor="{_FILL[box.kind]}"];')
    for n, box in enumerate(boxes):
        lines += [f"  n{number[id(s)]} -> n{n};" for s in box.sources]
    return "\n".join([*lines, "}"])


def to_svg(fn: Function, mark: Callable[[Instr], str] | None = None) -> str:
    """The graph as a self-contained SVG document. `mark` gives attributes for the group of an
    instruction's box, such as `data-kernel="3"`."""
    boxes = _Drawing(fn).boxes()
    number = {id(box): n for n, box in enumerate(boxes)}
    edges = [(number[id(s)], n) for n, box in enumerate(boxes) for s in box.sources]
    layout = arrange([box.size for box in boxes], edges)
    return "\n".join(
        [
            *_svg_head(fn.name, layout),
            *map(_edge, layout.routes),
            *(_marked(box, at, mark) for box, at in zip(boxes, layout.corners, strict=True)),
            "</svg>",
        ]
    )


class _Drawing:
    """The boxes of a Function, and what stands in them."""

    def __init__(self, fn: Function) -> None:
        self.fn = fn
        self.names = dict(value_names(fn))
        self.origin = _origins(fn)  # what a view between kernels is a view of
        for value, root in self.origin.items():
            self.names[value] = self.names[root]
        kept = {self.root(v) for v in fn.outputs}
        self.states = {
            p.value: p.path for p in fn.params if p.kind == "state" and p.value not in kept
        }
        self.inlined = _inline_numbers(fn, self.names)
        self.writes: dict[Value, list[str]] = {}
        for result in fn.results:
            if result.kind == "state" and self.root(result.value).producer is not None:
                self.writes.setdefault(self.root(result.value), []).append(result.path)

    def root(self, value: Value) -> Value:
        return self.origin.get(value, value)

    def boxes(self) -> list[_Box]:
        """All boxes, each behind those that it takes from."""
        made: dict[Value, _Box] = {}
        boxes = []
        for param in self.fn.params:
            if param.value not in self.states:
                what = "state " if param.kind == "state" else ""
                typed = f"{self.names[param.value]}: {param.value.type}"
                made[param.value] = _Box("param", [("title", what + param.path), ("row", typed)])
                boxes.append(made[param.value])
        for instr in self.fn.instrs:
            if instr in self.inlined:
                continue
            if instr.results and self.root(instr.results[0]) is not instr.results[0]:
                continue
            kind = "kernel" if instr.regions else "op"
            box = _Box(kind, list(self._rows(instr)), instr=instr)
            box.sources = _distinct(made[r] for a in instr.args if (r := self.root(a)) in made)
            made.update(dict.fromkeys(instr.results, box))
            boxes.append(box)
        for result in self.fn.results:
            root = self.root(result.value)
            if result.path in self.writes.get(root, ()):
                continue
            typed = f"{self.names[root]}: {result.value.type}"
            what = "state " if result.kind == "state" else ""
            rows = [("title", what + result.path), ("row", typed)]
            boxes.append(_Box("result", rows, [made[root]]))
        return boxes

    def _rows(self, instr: Instr) -> Iterator[tuple[str, str]]:
        if instr.op.name == "contract" and instr.regions:  # a product with an epilogue
            yield "title", f"contract {instr.regions[0].name}"
            left, right = (self.names[a] for a in instr.args[:2])
            yield "row", f"  product = contract({left}, {right}, {_attrs(instr)})"
        elif instr.regions:
            yield "title", f"{instr.op.name} {instr.regions[0].name}"
            yield "row", _attrs(instr)
        else:
            yield "title", self._call(instr)
        read = [a for a in dict.fromkeys(map(self.root, instr.args)) if a in self.states]
        rows = [f"reads {self.names[a]}: {a.type} {self.states[a]}" for a in read]
        yield from (("read", row) for row in _at_most(_MOST_STATES, rows))
        for region in instr.regions:
            yield from (("row", "  " + row) for row in self._region(instr, region))
        arrow = "-> " if instr.regions else ""
        yield from (("row", f"{arrow}{self.names[r]}: {r.type}") for r in instr.results)
        rows = [
            f"writes {self.names[r]} to {p}" for r in instr.results for p in self.writes.get(r, ())
        ]
        yield from (("write", row) for row in _at_most(_MOST_STATES, rows))
        if lines := _lines(instr):
            yield "loc", lines

    def _region(self, instr: Instr, region: Function) -> Iterator[str]:
        """A line an operation; parameters under their names outside, where there is one such."""
        inputs = region.inputs[1:] if instr.op.name == "contract" else region.inputs
        outside = instr.args[len(instr.args) - len(inputs) :]
        if instr.op.name == "fused_table":  # runs for several instances: none of them stands for it
            outside = ()
        self.names |= {p.value: p.path for p in region.params}
        self.names |= dict(zip(inputs, (self.names[a] for a in outside), strict=False))
        hidden = _inline_numbers(region, self.names)
        for inner in region.instrs:
            if inner not in hidden:
                results = ", ".join(f"{self.names[r]}: {r.type}" for r in inner.results)
                yield f"{results} = {self._call(inner)}"

    def _call(self, instr: Instr) -> str:
        args = ", ".join([*(self.names[a] for a in instr.args), _attrs(instr)])
        return f"{instr.op.name}({args.removesuffix(', ')})"


def _origins(fn: Function) -> dict[Value, Value]:
    """For each view at the level of kernels: the value whose elements it shows."""
    if not any(i.regions or i.op.name == "contract" for i in fn.instrs):
        return {}
    found: dict[Value, Value] = {}
    for instr in fn.instrs:
        if instr.op.name == "reshape":
            found[instr.result] = found.get(instr.args[0], instr.args[0])
    return found


def _inline_numbers(fn: Function, names: dict[Value, str]) -> set[Instr]:
    """Name each constant number by its value; returns the instructions that need no line."""
    hidden = set()
    for instr in fn.instrs:
        data = getattr(instr.attrs, "data", None)
        if isinstance(data, ArrayData) and data.shape == () and instr.result not in fn.outputs:
            names[instr.result] = str(data.array()[()])
            hidden.add(instr)
    return hidden


def _attrs(instr: Instr) -> str:
    pieces = []
    for name, value in attr_items(instr.attrs):
        text = attr_text(value)
        if len(text) > _LONGEST_ATTR:
            text = text[:_LONGEST_ATTR] + "..."
        pieces.append(f"{name}={text}")
    return ", ".join(pieces)


def _lines(instr: Instr) -> str:
    """The user's lines that an instruction comes from, each file named once."""
    locs = [instr.loc] if instr.loc is not None else []
    locs += [i.loc for region in instr.regions for i in region.instrs if i.loc is not None]
    by_file: dict[tuple[str, str], dict[int, None]] = {}
    for loc in locs:
        by_file.setdefault((loc.file, loc.role), {})[loc.line] = None
    return ", ".join(_loc_text(*key, sorted(lines)) for key, lines in by_file.items())


def _loc_text(file: str, role: str, lines: Sequence[int]) -> str:
    first = str(Loc(file, lines[0]))
    rest = "".join(f", {line}" for line in lines[1:])
    return f"{first}{rest}" + (f" ({role})" if role else "")


def _at_most(count: int, rows: Sequence[str]) -> Sequence[str]:
    if len(rows) <= count:
        return rows
    return [*rows[:count], f"and {len(rows) - count} more"]


def _distinct(boxes: Iterable[_Box]) -> list[_Box]:
    return list({id(b): b for b in boxes}.values())


# --- SVG -----------------------------------------------------------------------------------------


def _svg_head(name: str, layout: Layout) -> list[str]:
    size: Mapping[str, str] = {"w": f"{layout.width:.0f}", "h": f"{layout.height:.0f}"}
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size["w"]}" height="{size["h"]}" '
        f'viewBox="0 0 {size["w"]} {size["h"]}" font-size="12" '
        'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace">',
        f"<title>{escape(name)}</title>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto"><path d="M0,0 L8,4 L0,8 z" fill="#777"/></marker></defs>',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
    ]


def _edge(route: Sequence[Point]) -> str:
    """A curve from layer to layer, straight down within one (see `Layout`)."""
    (x, y), *rest = route
    path = [f"M{x:.0f},{y:.0f}"]
    for n, (to_x, to_y) in enumerate(rest):
        if n % 2 == 0:  # within a layer
            path.append(f"L{to_x:.0f},{to_y:.0f}")
        else:
            half = (y + to_y) / 2
            path.append(f"C{x:.0f},{half:.0f} {to_x:.0f},{half:.0f} {to_x:.0f},{to_y:.0f}")
        x, y = to_x, to_y
    return f'<path d="{" ".join(path)}" fill="none" stroke="#777" marker-end="url(#tip)"/>'


def _marked(box: _Box, corner: Point, mark: Callable[[Instr], str] | None) -> str:
    drawn = _drawn(box, corner)
    if mark is None or box.instr is None:
        return drawn
    return f"<g {mark(box.instr)}>\n{drawn}\n</g>"


def _drawn(box: _Box, corner: Point) -> str:
    (x, y), (width, height) = corner, box.size
    lines = [
        f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" '
        f'rx="5" fill="{_FILL[box.kind]}" stroke="{_LINE[box.kind]}"/>'
    ]
    for n, (style, text) in enumerate(box.rows):
        weight = ' font-weight="bold"' if style == "title" else ""
        lines.append(
            f'<text x="{x + _PAD:.0f}" y="{y + _PAD + (n + 0.8) * _ROW:.0f}" '
            f'fill="{_INK[style]}"{weight} xml:space="preserve">{escape(text)}</text>'
        )
    return "\n".join(lines)


def _dot_escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
