"""A roofline picture: what each kernel reaches, and what the machine allows.

Across: operations for each byte read or written. Up: operations a second. A kernel lies below the
slope of the bandwidth that feeds it and below the level of the FMA rate; the distance is what
could be gained. Needs matplotlib.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from treadle.runtime.profile_report import KernelTime, Profile

_GIGA: Final = 1e9
_NAMED: Final = 8  # kernels that are named in the picture, those that take longest
_SMALLEST, _LARGEST = 30.0, 600.0  # areas of the dots, in square points


def draw(profile: Profile, path: Path) -> None:
    """Write the picture; its kind is that of the suffix. Raises ImportError, which says what to
    install, without matplotlib; ValueError for a suffix that it does not know."""
    try:
        from matplotlib.collections import PathCollection
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError(
            "a roofline picture needs matplotlib: pip install 'treadle[plot]'"
        ) from None
    shown = [r for r in profile.rows if r.work.flops and r.work.moved and r.seconds]
    figure = Figure(figsize=(10, 5.5), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xscale("log")
    axes.set_yscale("log")
    _draw_limits(axes, profile, shown)
    _draw_kernels(axes, profile, shown)
    axes.set_xlabel("operations for each byte read or written")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(_title(profile, len(profile.rows) - len(shown)), fontsize=9)
    axes.grid(True, which="major", alpha=0.3)
    legend = axes.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([_SMALLEST])
    figure.savefig(path, dpi=140)


def _title(profile: Profile, left_out: int) -> str:
    threads = f"{profile.threads} thread" + ("s" if profile.threads > 1 else "")
    text = f"@{profile.name}: {profile.seconds * 1e3:.3g} ms a step, {threads}"
    return text + (f"; {left_out} kernels without arithmetic are not shown" if left_out else "")


def _intensity(row: KernelTime) -> float:
    return row.work.flops / row.work.moved


def _draw_limits(axes: Any, profile: Profile, shown: list[KernelTime]) -> None:
    """The FMA rate, and the bandwidth of memory and of each size of data that was measured."""
    machine, threads = profile.machine, profile.threads
    top = machine.flop_rate(threads) / _GIGA
    low = min([0.05, *map(_intensity, shown)]) / 2
    high = max([100.0, *map(_intensity, shown)]) * 2
    axes.plot([low, high], [top, top], color="black", linewidth=1.2, label=f"FMA {top:.0f} GFLOP/s")
    for n, near in enumerate(reversed(machine.bandwidths)):
        rate = min(threads * near.moved_one, near.moved_all) / _GIGA
        size = (
            f"{2 * near.data / 1024:.0f} KiB" if near.data < 1 << 20 else f"{near.data >> 19} MiB"
        )
        knee = top / rate
        axes.plot(
            [low, knee], [low * rate, top], color="black", linewidth=1, alpha=1 - 0.2 * n,
            linestyle=("-", "--", "-.", ":")[n % 4], label=f"{size}: {rate:.0f} GB/s",
        )  # fmt: skip
    axes.set_xlim(low, high)


def _draw_kernels(axes: Any, profile: Profile, shown: list[KernelTime]) -> None:
    """A dot a kernel, its area the share of the time; the longest are named."""
    longest = sorted(shown, key=lambda r: r.seconds, reverse=True)
    whole = profile.seconds or 1.0
    for n, row in enumerate(longest):
        x, y = _intensity(row), row.flop_rate / _GIGA
        area = max(_SMALLEST, _LARGEST * row.seconds / whole)
        named = n < _NAMED
        axes.scatter(
            [x], [y], s=area, color=f"C{n}" if named else "0.6", alpha=0.7, edgecolors="none",
            label=f"{row.kernel} {row.seconds / whole:.0%}" if named else None,
        )  # fmt: skip
        if named:
            text = row.kernel.split("_")[0]
            axes.annotate(text, (x, y), fontsize=7, ha="center", va="center")
