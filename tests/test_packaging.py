"""The wheel holds the whole package and nothing else."""

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from treadle import __version__

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PARTS = ("tracer", "ir", "passes", "codegen", "runtime", "nn", "examples", "bench")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files in the wheel that `pip install .` makes."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "tree"
    copy.mkdir()
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", str(copy), "--no-deps", "--quiet"]
    subprocess.run([*command, "--no-build-isolation", "-w", str(folder)], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_module_under_one_name(names: set[str]) -> None:
    for part in PARTS:
        for path in (ROOT / part).rglob("*.py"):
            assert f"treadle/{path.relative_to(ROOT)}" in names
    assert {n.split("/")[0].split("-")[0] for n in names} == {"treadle"}
    assert [n for n in names if "test" in n.lower()] == ["treadle/testing.py"]


def test_the_wheel_holds_types_and_data(names: set[str]) -> None:
    assert "treadle/py.typed" in names
    assert "treadle/cli/page.html" in names
    assert "treadle/examples/data/digits.csv.gz" in names
    assert "treadle/examples/data/README.md" in names


def test_the_version_is_said_once() -> None:
    assert PROJECT["project"]["version"] == __version__
