"""A run as a table, as JSON, as a picture, and beside an earlier run."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from treadle.bench.run import OURS, Cell, Run
from treadle.bench.workload import Work
from treadle.runtime.machine import Machine

_PACKAGES = ("treadle", "numpy", "llvmlite", "torch", "jax")


def limit_seconds(work: Work, machine: Machine) -> float:
    """The least time that `work` can take on `machine`, all cores busy."""
    return (
        work.flops / machine.flops_all_cores
        + work.bytes_moved / machine.bytes_moved
        + work.bytes_read / machine.bytes_read
    )


def to_json(run: Run) -> dict[str, Any]:
    """Everything that was measured, times in seconds."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {p: v for p in _PACKAGES if (v := _version(p))},
        "machine": run.machine.to_json(),
        "rows": [
            {
                "workload": w.name,
                "title": w.title,
                "limit": limit_seconds(w.work, run.machine),
                "cells": {
                    peer: _cell_json(run.cells[w.name, peer])
                    for peer in run.peers
                    if (w.name, peer) in run.cells
                },
            }
            for w in run.workloads
        ],
    }


def _cell_json(cell: Cell) -> dict[str, Any]:
    if cell.error:
        return {"error": cell.error}
    return {
        "p10": cell.p10,
        "median": cell.median,
        "spread": cell.spread,
        "steps": len(cell.times),
        "first": cell.first,
        "peak_kib": cell.peak_kib,
    }


def best_peer(row: dict[str, Any]) -> tuple[str, float] | None:
    """The fastest peer of a row, by 10th percentile."""
    times = {
        peer: cell["p10"]
        for peer, cell in row["cells"].items()
        if peer != OURS and cell.get("p10") is not None
    }
    if not times:
        return None
    name = min(times, key=times.__getitem__)
    return name, times[name]


def _smallest_peak(row: dict[str, Any]) -> str:
    """MiB that the most frugal peer's process grew by, after its imports."""
    peaks = [c["peak_kib"] for p, c in row["cells"].items() if p != OURS and "peak_kib" in c]
    return f"{min(peaks) / 1024:.0f}" if peaks else ""


def table(result: dict[str, Any]) -> str:
    """The run as text: 10th percentiles, ratio to the best peer, share of the limit, and the
    peak resident size above what it was after imports."""
    head = ["workload", "treadle", "median", "spread", "best peer", "", "ratio", "of limit"]
    head += ["MiB", "peers'"]
    lines = [head]
    for row in result["rows"]:
        ours = row["cells"].get(OURS, {})
        peer = best_peer(row)
        p10 = ours.get("p10")
        lines.append(
            [
                row["workload"],
                time_text(p10) if p10 else f"failed: {ours.get('error', 'did not run')}",
                time_text(ours["median"]) if p10 else "",
                f"{ours['spread']:.0%}" if p10 else "",
                time_text(peer[1]) if peer else "",
                peer[0] if peer else "",
                f"{peer[1] / p10:.2f}x" if peer and p10 else "",
                f"{row['limit'] / p10:.0%}" if p10 and row["limit"] > 0 else "",
                f"{ours['peak_kib'] / 1024:.0f}" if p10 else "",
                _smallest_peak(row),
            ]
        )
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    text = [
        "  ".join(c.ljust(w) if n == 0 else c.rjust(w) for n, (c, w) in enumerate(pairs)).rstrip()
        for pairs in (list(zip(line, widths, strict=True)) for line in lines)
    ]
    failed = [
        f"{row['workload']}: {peer} failed: {cell['error']}"
        for row in result["rows"]
        for peer, cell in row["cells"].items()
        if "error" in cell
    ]
    return "\n".join([Machine.from_json(result["machine"]).describe(), "", *text, *failed])


def compare(base: dict[str, Any], now: dict[str, Any]) -> str:
    """Ours now beside ours in an earlier result, each relative to the best peer of its own run."""
    before = {row["workload"]: row for row in base["rows"]}
    lines = []
    for row in now["rows"]:
        old = before.get(row["workload"])
        if old is None:
            lines.append(f"{row['workload']}: new")
            continue
        was, is_now = (r["cells"].get(OURS, {}).get("p10") for r in (old, row))
        if not was or not is_now:
            lines.append(f"{row['workload']}: no time in one of the runs")
            continue
        ratios = [
            peer[1] / own if peer else None
            for peer, own in ((best_peer(old), was), (best_peer(row), is_now))
        ]
        shown = " -> ".join(f"{r:.2f}x" if r else "-" for r in ratios)
        change = was / is_now
        lines.append(
            f"{row['workload']}: {time_text(was)} -> {time_text(is_now)} "
            f"({change:.2f} times as fast), ratio to the best peer {shown}"
        )
    return "\n".join(lines)


def draw(result: dict[str, Any], path: Path) -> None:
    """A bar chart of the ratios to the best peer (needs matplotlib)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = [
        (row["workload"], {p: c["p10"] for p, c in row["cells"].items() if c.get("p10")})
        for row in result["rows"]
    ]
    rows = [(name, cells) for name, cells in rows if OURS in cells and len(cells) > 1]
    peers = sorted({p for _, cells in rows for p in cells if p != OURS})
    height = 0.8 / max(len(peers), 1)
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.5 * len(rows)), layout="constrained")
    for n, peer in enumerate(peers):
        at = [y + n * height for y, (_, cells) in enumerate(rows) if peer in cells]
        ratios = [cells[peer] / cells[OURS] for _, cells in rows if peer in cells]
        axes.barh(at, ratios, height, label=peer)
    axes.axvline(1.0, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks([y + 0.4 - height / 2 for y in range(len(rows))], [name for name, _ in rows])
    axes.invert_yaxis()
    axes.set_xlabel("time of the peer / time of Treadle (10th percentiles; right of 1: faster)")
    axes.set_title(result["machine"]["name"], fontsize=9)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def save(result: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def time_text(seconds: float) -> str:
    """A time with three digits and its unit."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
