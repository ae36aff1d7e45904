"""A long life: many compilations, or many calls, and the resident memory meanwhile.

    python -m treadle.bench.soak compiles               # 10,000 programs, each another one
    python -m treadle.bench.soak calls                  # 1,000,000 calls
    python -m treadle.bench.soak calls --count 5000 --json now.json --picture now.png

`compiles`: functions of five kinds, each compiled once, called until its call path without Python
is made as well, and dropped. `calls`: a few functions for ever, on each of the ways that a call can
take. The memory is read at 200 moments and is the system's number for the whole process; it counts
as flat where the highest of the last quarter lies no more than `SLACK_KIB` above the highest of the
second quarter (the first one is for what is kept on purpose, and for the allocators). Exit code 1
where it is not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, Final

from treadle import set_explain
from treadle.bench.resident import resident_kib
from treadle.bench.soak_work import calls, compiles
from treadle.runtime import knobs

Turn = Callable[[int], int]  # the number of a turn -> how many compilations or calls it made

KINDS: Final[dict[str, tuple[Callable[[], Turn], int]]] = {
    "compiles": (compiles, 10_000),
    "calls": (calls, 1_000_000),
}
SAMPLES: Final = 200
SLACK_KIB: Final = 4096


@dataclass(slots=True)
class Curve:
    """Resident KiB after so many compilations or calls."""

    kind: str
    done: list[int] = field(default_factory=list)
    kib: list[int] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def growth_kib(self) -> int:
        """The highest of the last quarter above the highest of the second."""
        quarter = max(len(self.kib) // 4, 1)
        return max(self.kib[-quarter:]) - max(self.kib[quarter : 2 * quarter] or self.kib[:1])

    @property
    def is_flat(self) -> bool:
        return self.growth_kib <= SLACK_KIB


def soak(kind: str, count: int, progress: Callable[[str], None] = lambda text: None) -> Curve:
    """Do the work `count` times. Raises OSError where the system does not tell sizes."""
    if resident_kib() is None:
        raise OSError("this system does not tell the resident memory of a process")
    turn, curve = KINDS[kind][0](), Curve(kind)
    started = perf_counter()
    done = turns = 0
    while done < count:
        done += turn(turns)
        turns += 1
        if done >= (len(curve.done) + 1) * count / SAMPLES:
            curve.done.append(done)
            curve.kib.append(resident_kib() or 0)
            progress(f"{kind}: {done:,} of {count:,}, {curve.kib[-1] / 1024:.1f} MiB")
    curve.seconds = perf_counter() - started
    return curve


def table(curve: Curve, rows: int = 10) -> str:
    """The curve as text, `rows` pieces with the lowest and highest size of each."""
    lines = [f"{curve.kind:>10}  {'lowest MiB':>10}  {'highest MiB':>11}"]
    step = max(-(-len(curve.kib) // rows), 1)
    for at in range(0, len(curve.kib), step):
        piece = curve.kib[at : at + step]
        done = curve.done[min(at + step, len(curve.done)) - 1]
        lines.append(f"{done:>10,}  {min(piece) / 1024:>10.1f}  {max(piece) / 1024:>11.1f}")
    lines.append(
        f"{'flat' if curve.is_flat else 'GROWS'}: the last quarter's highest is "
        f"{curve.growth_kib / 1024:+.1f} MiB from the second's; {curve.seconds:.0f} s"
    )
    return "\n".join(lines)


def draw(curves: Sequence[Curve], path: Path) -> None:
    """The curves as a picture (needs matplotlib)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, grid = plt.subplots(
        1, len(curves), figsize=(5 * len(curves), 3), layout="constrained", squeeze=False
    )
    for axes, curve in zip(grid[0], curves, strict=True):
        axes.plot(curve.done, [kib / 1024 for kib in curve.kib], linewidth=1)
        axes.set_ylim(0, 1.25 * max(curve.kib) / 1024)
        axes.ticklabel_format(axis="x", style="plain")
        axes.set_xlabel(curve.kind)
        axes.set_ylabel("resident MiB")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def read(file: Path) -> dict[str, Curve]:
    """The curves that a file holds, by kind; none where it is missing."""
    if not file.is_file():
        return {}
    found = json.loads(file.read_text("utf-8"))
    return {kind: Curve(**curve) for kind, curve in found["curves"].items()}


def save(curves: dict[str, Curve], file: Path) -> None:
    found: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "curves": {kind: asdict(curve) for kind, curve in curves.items()},
    }
    file.write_text(json.dumps(found) + "\n", "utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="soak", description="memory over a long life")
    parser.add_argument("kind", nargs="*", help=f"of {', '.join(KINDS)}; default: both")
    parser.add_argument("--count", type=int, help="how many; default: 10,000 or 1,000,000")
    parser.add_argument("--json", type=Path, help="add the curves to this file")
    parser.add_argument("--table", type=Path, help="write the tables of --json to this file")
    parser.add_argument("--picture", type=Path, help="draw the curves (needs matplotlib)")
    args = parser.parse_args(argv)
    unknown = sorted(set(args.kind) - set(KINDS))
    if unknown:
        parser.error(f"{unknown[0]!r} is none of {', '.join(KINDS)}")
    knobs.write("TREADLE_CACHE", "0")  # what comes from the disk is not compiled
    set_explain(False)
    curves = {kind: soak(kind, args.count or KINDS[kind][1], _told) for kind in args.kind or KINDS}
    for curve in curves.values():
        print(table(curve))
    shown = (read(args.json) if args.json else {}) | curves
    if args.json:
        save(shown, args.json)
    if args.table:
        args.table.write_text("\n\n".join(map(table, shown.values())) + "\n", "utf-8")
    if args.picture:
        draw(list(shown.values()), args.picture)
    return 0 if all(curve.is_flat for curve in curves.values()) else 1


def _told(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
