"""Why a function was compiled again, and what it has compiled: in words.

From the second compilation of a function on, one line on stderr names what differs from the
nearest of its specializations, and what to do about it. `report` lists all of them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from treadle.ir.errors import TraceError
from treadle.ir.watchers import watchers
from treadle.tracer.modes import modes
from treadle.tracer.signature import Difference, Facts, differences, reason
from treadle.tracer.specialization import Specialization

_SHOWN = 40  # facts of a guard that a report lists; a model has hundreds


class _Switch:
    on = True


def set_explain(on: bool) -> None:
    """Whether each recompilation is explained in a line on stderr (it is, by default)."""
    _Switch.on = bool(on)


def why(where: str, specializations: Sequence[Specialization], facts: Facts, limit: int) -> str:
    """Why a call with `facts` fits none of `specializations`; said on stderr. "" for the first.

    Raises TraceError where there are `limit` of them already.
    """
    if not specializations:
        return ""
    found = _nearest(specializations, facts)
    text = reason(found) or "something that the guard sees and words do not tell"
    hint = f" ({found[0].hint})" if found else ""
    if len(specializations) >= limit:
        raise TraceError(
            f"{where}: {len(specializations)} specializations are compiled already, "
            f"the most that max_specializations allows; this call differs by {text}{hint}"
        )
    if _Switch.on:
        print(f"treadle: {where}: recompiled because {text}{hint}", file=sys.stderr)
    return text


def _nearest(specializations: Sequence[Specialization], facts: Facts) -> list[Difference]:
    """The differences to the specialization that differs in the fewest facts."""
    best: list[Difference] | None = None
    for spec in specializations:
        found = differences(spec.facts, facts)
        if spec.grad_mode is not modes.grad:
            found.insert(0, Difference("grad mode", str(spec.grad_mode), str(modes.grad)))
        if not spec.fits_watchers:
            watched = ", ".join(filter(watchers.wanted, spec.names)) or "nothing"
            was = ", ".join(spec.watched) or "nothing"
            found.insert(0, Difference("what is watched", was, watched))
        if best is None or 0 < len(found) < len(best):
            best = found
    return best or []


def report(where: str, specializations: Sequence[Specialization]) -> str:
    """The specializations in the order in which they were made: calls, compile time, memory, why
    each was made, and what its guard asks for."""
    count = len(specializations)
    lines = [f"{where}: {count} specialization{'' if count == 1 else 's'}"]
    for number, spec in enumerate(sorted(specializations, key=lambda s: s.sequence), 1):
        executable = spec.executable
        calls = "1 call" if spec.hits == 1 else f"{spec.hits} calls"
        if spec.direct_hits:
            calls += f" ({spec.direct_hits} without Python)"
        lines.append(
            f"  {number}. {calls}, compiled in {executable.compile_seconds:.3f} s, "
            f"{_size(executable.code_bytes)} of code, "
            f"{_size(executable.workspace_bytes)} of workspace"
        )
        if spec.reason:
            lines.append(f"     because {spec.reason}")
        lines.append(f"     guarded by {len(spec.facts)} values")
        lines.append(f"       grad mode: {'on' if spec.grad_mode else 'off'}")
        shown = list(spec.facts.items())[:_SHOWN]
        lines += [f"       {path}: {' '.join(facts.values())}" for path, facts in shown]
        if len(spec.facts) > _SHOWN:
            lines.append(f"       and {len(spec.facts) - _SHOWN} more")
    return "\n".join(lines)


def _size(nbytes: int) -> str:
    if nbytes < 1024:
        return f"{nbytes} B"
    return f"{nbytes / 1024:.1f} KiB" if nbytes < 1 << 20 else f"{nbytes / (1 << 20):.1f} MiB"
