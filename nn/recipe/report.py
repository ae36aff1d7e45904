"""What `check` found: findings with a severity, the facts behind them, and how both are shown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from treadle.ir.dataclass import dataclass

Severity = Literal["error", "warning", "note"]
_ORDER: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, or looks so.

    code      its kind, such as "dead-units": what `ignore=` takes
    severity  error: it cannot work so; warning: it is likely a mistake; note: good to know
    message   what was found
    layer     the path of the layer in the model, "" where it is none
    line      the user's line, `file:line`, "" where there is none
    fix       what to do
    """

    code: str
    severity: Severity
    message: str
    layer: str = ""
    line: str = ""
    fix: str = ""

    def __str__(self) -> str:
        where = ", ".join(
            part for part in (self.layer and f"layer {self.layer}", self.line) if part
        )
        lines = [f"{self.severity}: {self.code}" + (f" ({where})" if where else "")]
        lines.append(f"  {self.message}")
        if self.fix:
            lines.append(f"  -> {self.fix}")
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Section:
    """One stage of the recipe: its title, what it saw, and the seconds that it took."""

    title: str
    text: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Report:
    """The result of `treadle.nn.check`; `print` it.

    findings  the worst first
    sections  what each stage saw, in the order in which they ran
    skipped   the stages that did not run, each with the reason
    seconds   what the whole took
    """

    model: str
    findings: tuple[Finding, ...]
    sections: tuple[Section, ...]
    skipped: tuple[str, ...]
    seconds: float
    samples: Any = field(default=None, repr=False)

    @property
    def ok(self) -> bool:
        """Whether there is neither an error nor a warning."""
        return all(f.severity == "note" for f in self.findings)

    @property
    def codes(self) -> tuple[str, ...]:
        """The kinds of the findings."""
        return tuple(f.code for f in self.findings)

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def find(self, code: str) -> tuple[Finding, ...]:
        """The findings of one kind."""
        return tuple(f for f in self.findings if f.code == code)

    @property
    def summary(self) -> str:
        """One line: how many findings of each severity."""
        counts = [(s, sum(f.severity == s for f in self.findings)) for s in _ORDER]
        said = ", ".join(f"{n} {s}{'s' * (n > 1)}" for s, n in counts if n)
        return f"check of {self.model}: {said or 'nothing found'} ({self.seconds:.1f} s)"

    def __str__(self) -> str:
        parts = [self.summary, *map(str, self.findings)]
        parts += [f"--- {s.title} ({s.seconds:.1f} s)\n{s.text}" for s in self.sections]
        if self.skipped:
            parts.append("--- skipped\n" + "\n".join(self.skipped))
        return "\n\n".join(parts)

    def picture(self, path: str | Path | None = None) -> bytes:
        """A grid of the samples with their targets as a PNG, written to `path` if that is given.

        Needs matplotlib (`pip install treadle[plot]`). Raises TreadleError where it is missing,
        ArgumentError where the inputs are no images.
        """
        from treadle.nn.recipe.picture import grid

        found = grid(self.samples)
        if path is not None:
            Path(path).write_bytes(found)
        return found

    def _repr_html_(self) -> str:
        from treadle.nn.recipe.page import report_html

        return report_html(self)


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The worst first; those of one severity in the order in which they were found, each once."""
    return tuple(sorted(dict.fromkeys(findings), key=lambda f: _ORDER.index(f.severity)))
