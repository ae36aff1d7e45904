"""The measured part of docs/accuracy.md: tables of what `ulp` has found, between two markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from treadle.bench.accuracy import BOUNDS_OF_FORMULAS, bound
from treadle.codegen.target import named
from treadle.ir.scalar import MathName
from treadle.ir.types import DType, float32, float64

Found = Mapping[str, Any]

BEGIN: Final = "<!-- measured by `make ulp` -->\n"
END: Final = "<!-- end -->\n"

_TITLES: Final = {"numpy": "NumPy", "torch": "torch", "jax": "JAX"}
_ORDER: Final = ("sse2", "avx2", "avx512", "neon")
_COMPOSITES: Final = ("silu", "gelu", "gelu-tanh")


def with_tables(page: str, found: Found) -> str:
    """`page` with the tables between its markers replaced. Raises ValueError where it has none."""
    head, begun, rest = page.partition(BEGIN)
    _, ended, tail = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"the page has no lines {BEGIN.strip()!r} and {END.strip()!r}")
    return f"{head}{BEGIN}{tables(found)}{END}{tail}"


def tables(found: Found) -> str:
    """Markdown: float32, float64, the composites, and the peers."""
    names = [*get_args(MathName), "sqrt", "rsqrt"]
    parts = [
        "\n## float32\n",
        *_family_table(found["float32"], names, float32),
        "\n## float64\n",
        *_family_table(found["float64"], names, float64),
        "\n## float32 composites\n",
        *_composites(found["float32"]),
        "\n## float32 beside NumPy, torch and JAX\n",
        *_peers(found, "float32", [*names, *_COMPOSITES]),
        "\n## float64 beside NumPy, torch and JAX\n",
        *_peers(found, "float64", names),
    ]
    return "\n".join(parts) + "\n"


def _family_table(rows: Found, names: Sequence[str], dtype: DType) -> list[str]:
    present = [n for n in names if n in rows]
    targets = [t for t in _ORDER if any(t in rows[n] for n in present)]
    lines = _heads("function", "bound", "without FMA", *targets, "worst at")
    for name in present:
        row = rows[name]
        bounds = [f"{bound(name, dtype, named(t)):g}" for t in ("avx2", "sse2")]
        lines.append(_line(name, *bounds, *_cells(row, targets), _where(row, targets)))
    return lines


def _composites(rows: Found) -> list[str]:
    present = [n for n in _COMPOSITES if n in rows]
    targets = [t for t in _ORDER if any(t in rows[n] for n in present)]
    lines = _heads("function", "bound", *targets, "worst at")
    for name in present:
        cells = _cells(rows[name], targets)
        limit = f"{BOUNDS_OF_FORMULAS[name]:g}"
        lines.append(_line(name, limit, *cells, _where(rows[name], targets)))
    return lines


def _peers(found: Found, dtype: str, names: Sequence[str]) -> list[str]:
    peers = [p for p in _TITLES if p in found["versions"]]
    titles = [f"{_TITLES[p]} {found['versions'][p]}" for p in peers]
    lines = _heads("function", "Treadle", *titles)
    for name in names:
        row = found[dtype].get(name, {})
        if any(p in row for p in peers):
            ours = max((t for t in _ORDER if t in row), key=_ORDER.index)
            cells = [f"{_error(row, p)} at {_at(row[p])}" if p in row else "" for p in peers]
            lines.append(_line(name, _error(row, ours), *cells))
    return lines


def _heads(*titles: str) -> list[str]:
    return [_line(*titles), _line(*["---"] * len(titles))]


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Found, targets: Sequence[str]) -> list[str]:
    return [_error(row, t) if t in row else "" for t in targets]


def _where(row: Found, targets: Sequence[str]) -> str:
    """The input of the largest error of all targets."""
    return _at(row[max((t for t in targets if t in row), key=lambda t: float(row[t]["ulp"]))])


def _error(row: Found, who: str) -> str:
    error = float(row[who]["ulp"])
    return f"{error:.2f}" if error < 1000 else f"{error:.1e}"


def _at(cell: Found) -> str:
    return ", ".join(f"{float(x):.9g}" for x in cell["at"])
