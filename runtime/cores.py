"""How many cores this process may use: its affinity, and the CPU quota of its control groups.

A container limited to two cores of 64 still sees 64; threads beyond its quota only get throttled.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_ROOT = Path("/")


def usable_cores(root: Path = _ROOT) -> int:
    """The cores that this process may run on, at most its quota rounded down, at least 1.

    `root` stands for the file system's root.
    """
    cores = float(_affinity())
    quota = cpu_quota(root)
    return max(1, int(cores if quota is None else min(cores, quota)))


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_quota(root: Path = _ROOT) -> float | None:
    """The least quota, in cores, of this process's control groups and those around them (version 1
    or 2); None where there is none."""
    found = [quota for folder in _folders(root) for quota in _quotas(folder)]
    return min(found, default=None)


def _quotas(folder: Path) -> Iterator[float]:
    """The quota that a control group's folder sets, if it does."""
    limits = [_words(folder / "cpu.max")]
    limits.append(_words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us"))
    for words in limits:
        if len(words) == 2 and words[0] != "max":
            quota, period = int(words[0]), int(words[1])
            if quota > 0 and period > 0:
                yield quota / period


def _words(path: Path) -> list[str]:
    """A small file's words; none where it cannot be read."""
    try:
        return path.read_text(encoding="ascii").split()
    except OSError:
        return []


def _folders(root: Path) -> Iterator[Path]:
    """The folders of the control groups that limit this process, innermost first."""
    groups = _groups(root)
    for kind, mount_root, point in _mounts(root):
        group = groups.get(kind)
        if group is None:
            continue
        # Inside a container the mount may show a part of the hierarchy, or the group's name may be
        # one that only the host knows; then the mount's own root is this process's group.
        inside = PurePosixPath("/")
        if group.is_relative_to(mount_root):
            inside = "/" / group.relative_to(mount_root)
        for part in (inside, *inside.parents):
            yield root / point.relative_to("/") / part.relative_to("/")


def _groups(root: Path) -> dict[str, PurePosixPath]:
    """This process's group in version 2 (`cgroup2`) and for the cpu controller of version 1."""
    found: dict[str, PurePosixPath] = {}
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            found["cgroup2"] = PurePosixPath(path)
        elif "cpu" in controllers.split(","):
            found["cgroup"] = PurePosixPath(path)
    return found


def _mounts(root: Path) -> Iterator[tuple[str, PurePosixPath, PurePosixPath]]:
    """(kind, root of the mount, mount point) where control groups are mounted."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, *rest) = before.split(), after.split() or [""]
        options = rest[-1].split(",") if rest else []
        if kind == "cgroup2" or (kind == "cgroup" and "cpu" in options):
            yield kind, PurePosixPath(fields[3]), PurePosixPath(fields[4])


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
