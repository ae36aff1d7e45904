"""Affinity and quota, read from a made-up file system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from treadle.runtime.cores import cpu_quota, usable_cores

V2 = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 25 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct"


def machine(root: Path, groups: str, mounts: str, files: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    (root / "proc/self/mountinfo").write_text(mounts + "\n")
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_2_takes_the_least_of_a_group_and_those_around_it(tmp_path: Path) -> None:
    files = {
        "a/b/cpu.max": "max 100000\n",
        "a/cpu.max": "350000 100000\n",
        "cpu.max": "800000 100000\n",
    }
    root = machine(tmp_path, "0::/a/b\n", V2.format(root="/"), files)
    assert cpu_quota(root) == 3.5


def test_version_1_divides_quota_by_period(tmp_path: Path) -> None:
    folder = "cpu,cpuacct/docker/x"
    files = {f"{folder}/cpu.cfs_quota_us": "150000", f"{folder}/cpu.cfs_period_us": "50000"}
    groups = "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n"
    root = machine(tmp_path, groups, V1.format(root="/"), files)
    assert cpu_quota(root) == 3


def test_a_container_sees_its_own_group_as_the_mounts_root(tmp_path: Path) -> None:
    root = machine(tmp_path, "0::/\n", V2.format(root="/pod/x"), {"cpu.max": "200000 100000"})
    assert cpu_quota(root) == 2


@pytest.mark.parametrize("text", ["max 100000", "-1 100000", ""])
def test_no_limit_is_none(tmp_path: Path, text: str) -> None:
    root = machine(tmp_path, "0::/\n", V2.format(root="/"), {"cpu.max": text})
    assert cpu_quota(root) is None


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert usable_cores(tmp_path) >= 1


@pytest.mark.parametrize(("quota", "cores"), [("50000", 1), ("250000", 2), ("9900000", 6)])
def test_cores_are_the_affinitys_within_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)), raising=False)
    root = machine(tmp_path, "0::/\n", V2.format(root="/"), {"cpu.max": f"{quota} 100000"})
    assert usable_cores(root) == cores
