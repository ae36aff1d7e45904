"""A compilation as one self-contained HTML page: the user's lines beside every stage, linked.

Each line of a stage carries the keys of what it belongs to: `L3` is a line of the user's, `K1` a
kernel. The page (`page.html`) highlights whatever shares a key with what is pointed at. All text
goes through `html.escape`; the page loads nothing.
"""

from __future__ import annotations

import linecache
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Final

from treadle import __version__
from treadle.ir.graph import Function, Instr, Loc, walk
from treadle.ir.picture import to_svg
from treadle.ir.printer import printed_lines
from treadle.runtime.profile_report import time_text
from treadle.runtime.stages import PLAN_STAGES, Compilation

if TYPE_CHECKING:
    from treadle.runtime.profile_report import KernelTime, Profile

_OPEN: Final = ("traced", "plan", "asm")  # stages that are open at first, beside the last pass
_MOST_DRAWN: Final = 300  # kernels; a picture of more is slow to lay out and hard to read
_WHOLE_FILE: Final = 2000  # lines; of a longer file, what surrounds the linked ones
_AROUND: Final = 15
_LABEL: Final = re.compile(r"^_?([A-Za-z.$][\w.$]*):")
_DEFINE: Final = re.compile(r"^define .*?@([\w.$]+)\(")

Line = tuple[str, str]  # text, and its keys


def page(compilation: Compilation, profile: Profile | None = None) -> str:
    """The page of a compilation; with the times of a profile of the same function."""
    return _Page(compilation, profile).text()


@dataclass(slots=True)
class _Page:
    compilation: Compilation
    profile: Profile | None
    numbers: dict[tuple[str, int], int] = field(default_factory=dict)

    def text(self) -> str:
        c = self.compilation
        stages = "\n".join(self._stages())  # numbers the lines that the source then shows
        template = Template(files(__package__).joinpath("page.html").read_text("utf-8"))
        return template.substitute(
            title=escape(f"@{c.traced.name}: what it becomes"),
            about=self._about(),
            source="\n".join(self._source()),
            stages=stages,
        )

    def _about(self) -> str:
        target = self.compilation.target
        said = [f"treadle {__version__}, target {target}"]
        if self.profile is not None:
            said.append(
                f"{time_text(self.profile.seconds)} a step on {self.profile.threads} threads, "
                f"the least of {self.profile.repeat}"
            )
        said.append(
            "Point at a line to see what it became and where it came from; a click keeps it and "
            "brings it into view, Escape lets go."
        )
        return "\n".join(f"<p>{escape(text)}</p>" for text in said)

    # --- keys --------------------------------------------------------------------------------

    def _line_keys(self, locs: Iterable[Loc]) -> list[str]:
        found = {
            self.numbers.setdefault((loc.file, loc.line), len(self.numbers)): None for loc in locs
        }
        return [f"L{n}" for n in found]

    def _instr_keys(self, instr: Instr | None, kernel: int | None = None) -> str:
        keys = [] if instr is None else self._line_keys(_locs(instr))
        return " ".join(keys if kernel is None else [f"K{kernel}", *keys])

    def _kernels(self) -> dict[Instr, int]:
        """The number of each instruction that has a kernel."""
        c = self.compilation
        return {c.kernels.instrs[k.instr]: n for n, k in enumerate(c.plan.kernels)}

    # --- the source --------------------------------------------------------------------------

    def _source(self) -> Iterator[str]:
        by_file: dict[str, list[int]] = {}
        for file, line in self.numbers:
            by_file.setdefault(file, []).append(line)
        spent = self._seconds_of_lines()
        for file, lines in sorted(by_file.items(), key=lambda item: -len(item[1])):
            yield f"<h2>{escape(file)}</h2>\n<pre>"
            yield "".join(self._source_line(file, n, text, spent) for n, text in _text(file, lines))
            yield "</pre>"

    def _source_line(self, file: str, line: int, text: str, spent: Mapping[str, float]) -> str:
        body = f'<span class="no">{line}</span>{escape(text)}\n'
        number = self.numbers.get((file, line))
        if number is None:
            return f'<span class="l">{body}</span>'
        key = f"L{number}"
        heat = ""
        if key in spent and self.profile is not None:
            part = spent[key] / (self.profile.seconds or 1.0)
            heat = (
                f' style="box-shadow: inset 6px 0 rgba(var(--heat), {min(part, 1):.2f})"'
                f' title="takes part in kernels of {time_text(spent[key])}"'
            )
        return f'<span class="l" tabindex="0" data-l="{key}"{heat}>{body}</span>'

    def _seconds_of_lines(self) -> dict[str, float]:
        """The time of all kernels that a line takes part in."""
        found: dict[str, float] = {}
        for instr, row in self._rows():
            for key in self._line_keys(_locs(instr)):
                found[key] = found.get(key, 0.0) + row.seconds
        return found

    def _rows(self) -> Iterator[tuple[Instr, KernelTime]]:
        if self.profile is not None:
            yield from zip(self._kernels(), self.profile.rows, strict=True)

    # --- the stages --------------------------------------------------------------------------

    def _stages(self) -> Iterator[str]:
        c = self.compilation
        if self.profile is not None:
            yield _stage("times", "a row a kernel", self._times(self.profile), True)
        yield _stage("traced", "what the user wrote", self._function(c.traced), True)
        last = c.steps[-1].pass_.name if c.steps else ""
        for step in c.steps:
            name = step.pass_.name
            rules = sum(n.kind == "rule" for n in step.notes)
            said = f"{step.milliseconds:.2f} ms" + (f", {rules} rules fired" if rules else "")
            if step.after is step.before:
                yield _stage(name, f"{said}, changes nothing", "", False)
            else:
                yield _stage(name, said, self._function(step.after), name == last)
        yield _stage("kernels", "fused kernels and how they are connected", self._picture(), True)
        for name in PLAN_STAGES:
            yield _stage(name, _ABOUT[name], _pane(self._plan_stage(name)), name in _OPEN)

    def _function(self, fn: Function) -> str:
        kernels = self._kernels() if fn is self.compilation.kernels else {}
        inside = {i: n for instr, n in kernels.items() for r in instr.regions for i in walk(r)}
        numbers = kernels | inside
        return _pane(
            (text, self._instr_keys(instr, None if instr is None else numbers.get(instr)))
            for text, instr in printed_lines(fn)
        )

    def _picture(self) -> str:
        kernels = self._kernels()
        if len(kernels) > _MOST_DRAWN:
            return f"<p>{len(kernels)} kernels are too many for a picture.</p>"

        def mark(instr: Instr) -> str:
            keys = self._instr_keys(instr, kernels.get(instr))
            return f'data-l="{keys}"' if keys else ""

        return f'<div class="pane">{to_svg(self.compilation.kernels, mark)}</div>'

    def _plan_stage(self, name: str) -> list[Line]:
        c = self.compilation
        if name == "plan":
            found: list[Line] = [(str(c.plan).splitlines()[0], "")]
            for n, kernel in enumerate(c.plan.kernels):
                keys = self._instr_keys(c.kernels.instrs[kernel.instr], n)
                found += [(line, keys) for line in str(kernel).splitlines()]
            return found
        text = c.text(name)
        if name == "memory":
            return [(line, "") for line in text.splitlines()]
        return list(self._code(text, _DEFINE if name == "llvm" else _LABEL))

    def _code(self, text: str, head: re.Pattern[str]) -> Iterator[Line]:
        """Code with the keys of the kernels whose function it is in, a piece a function."""
        keys_of = self._functions()
        piece: list[str] = []
        keys = ""
        for line in text.splitlines():
            found = head.match(line)
            if found and not found[1].startswith((".", "L")):
                following = _of_function(found[1], keys_of)
                if piece and following != keys:
                    yield "\n".join(piece), keys
                    piece = []
                keys = following
            piece.append(line)
        yield "\n".join(piece), keys

    def _functions(self) -> dict[str, str]:
        """The keys of each function in the module; equal kernels share one."""
        c = self.compilation
        found: dict[str, dict[str, None]] = {}
        for n, (kernel, name) in enumerate(zip(c.plan.kernels, c.emitted.functions, strict=True)):
            keys = self._instr_keys(c.kernels.instrs[kernel.instr], n).split()
            found.setdefault(name, {}).update(dict.fromkeys(keys))
        return {name: " ".join(keys) for name, keys in found.items()}

    def _times(self, profile: Profile) -> str:
        heads = ("kernel", "us", "time", "GFLOP/s", "GB/s", "of limit", "by", "tiles", "lines")
        rows = ["<tr>" + "".join(f"<th>{h}</th>" for h in heads) + "</tr>"]
        whole = profile.seconds or 1.0
        for n, (instr, row) in enumerate(self._rows()):
            part = row.seconds / whole
            cells = (
                row.kernel, f"{row.seconds * 1e6:.1f}", f"{part:.0%}",
                f"{row.flop_rate / 1e9:.1f}", f"{row.byte_rate / 1e9:.1f}",
                profile.share_text(row), profile.limit(row)[1], row.tiles_text,
                ", ".join(f"{Path(x.file).name}:{x.line}" for x in _by_place(row.lines)),
            )  # fmt: skip
            bar = f'style="box-shadow: inset 6px 0 rgba(var(--heat), {min(part, 1):.2f})"'
            listed = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
            rows.append(f'<tr {bar} data-l="{self._instr_keys(instr, n)}">{listed}</tr>')
        return f'<div class="pane"><table>{"".join(rows)}</table></div>'


_ABOUT: Final = {
    "memory": "where each value lives",
    "plan": "loops, vector width, tiles of each kernel",
    "llvm": "what is given to LLVM",
    "asm": "machine code",
}


def _locs(instr: Instr) -> list[Loc]:
    """The lines that an instruction comes from, those of its regions included."""
    inside = [i.loc for region in instr.regions for i in walk(region)]
    return [loc for loc in (instr.loc, *inside) if loc is not None]


def _by_place(locs: Sequence[Loc]) -> list[Loc]:
    """Each line once, whatever its role."""
    return list({(x.file, x.line): x for x in locs}.values())


def _of_function(name: str, keys_of: Mapping[str, str]) -> str:
    """The keys of a function: those of the kernel that it is, or is a piece of."""
    if name in keys_of:
        return keys_of[name]
    return next((keys for kernel, keys in keys_of.items() if name.startswith(f"{kernel}_")), "")


def _text(file: str, lines: Sequence[int]) -> Iterator[tuple[int, str]]:
    """(number, text) of the lines to show: the whole file, what surrounds `lines` in a long one,
    or `lines` alone where there is no text."""
    text = linecache.getlines(file)
    if not text:
        yield from ((n, "") for n in sorted(lines))
        return
    near = {n for at in lines for n in range(at - _AROUND, at + _AROUND + 1)}
    for n, line in enumerate(text, 1):
        if len(text) <= _WHOLE_FILE or n in near:
            yield n, line.rstrip("\n")


def _pane(lines: Iterable[Line]) -> str:
    shown = (
        f'<span class="l" data-l="{keys}">{escape(text)}\n</span>'
        if keys
        else f'<span class="l">{escape(text)}\n</span>'
        for text, keys in lines
    )
    return f'<pre class="pane">{"".join(shown)}</pre>'


def _stage(name: str, about: str, body: str, is_open: bool) -> str:
    opened = " open" if is_open else ""
    return (
        f'<details id="{escape(name)}"{opened}><summary>{escape(name)}'
        f"<small>{escape(about)}</small></summary>\n{body}</details>"
    )
