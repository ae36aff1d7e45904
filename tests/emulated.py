"""`make test-arm`: the code generation tests on an aarch64 Python, emulated by qemu.

Everything is unpacked into build/arm, nothing is installed: qemu and an aarch64 Python from
Debian's packages (by apt-get with lists and a cache of its own), NumPy and the rest as wheels.
Where a part is missing, the script says which and ends with status 2. Arguments are handed to
pytest; by default the whole of tests/codegen runs, which takes some ten minutes.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / "build" / "arm"
EMULATOR: Final = "qemu-aarch64-static"
WHEELS: Final = ("numpy", "llvmlite", "pytest", "hypothesis", "mpmath")
PARTS: Final = ("tracer", "ir", "passes", "codegen", "runtime", "nn", "examples", "bench")


class Missing(Exception):
    """What `make test-arm` needs and did not find."""


def main() -> int:
    if platform.machine() in ("aarch64", "arm64"):
        print("this machine is aarch64 itself: `make tests` runs the NEON code")
        return 0
    try:
        command = prepared()
    except Missing as missing:
        print(f"make test-arm cannot run here: {missing}", file=sys.stderr)
        return 2
    what = sys.argv[1:] or ["tests/codegen"]
    options = ["-m", "pytest", "-p", "no:cacheprovider", "-q", *what]
    return subprocess.run([*command, *options], cwd=ROOT).returncode


def prepared() -> list[str]:
    """The command that starts the emulated Python. What is unpacked already is kept."""
    root, site = BUILD / "root", BUILD / "site"
    emulator = _emulator()
    if not root.is_dir():
        _unpack_python(root)
    pythons = sorted((root / "usr" / "bin").glob("python3.[0-9]*"))
    if not pythons:
        raise Missing(f"there is no Python in {root}; remove {BUILD} and try again")
    python = pythons[-1]
    if not site.is_dir():
        _unpack_wheels(site, python.name.removeprefix("python"))
    _link_package(BUILD / "package" / "treadle")
    path = f"PYTHONPATH={site}:{BUILD / 'package'}"
    quiet = "PYTHONDONTWRITEBYTECODE=1"
    return [str(emulator), "-L", str(root), "-E", path, "-E", quiet, str(python)]


def _emulator() -> Path:
    installed = shutil.which(EMULATOR)
    if installed:
        return Path(installed)
    folder = BUILD / "qemu"
    if not folder.is_dir():
        _unpack(_downloaded("qemu-user-static", _apt("amd64"), needed=False), folder)
    return folder / "usr" / "bin" / EMULATOR


def _unpack_python(root: Path) -> None:
    _unpack(_downloaded("python3", _apt("arm64"), "libstdc++6"), root)


def _unpack_wheels(site: Path, python: str) -> None:
    pins = [f"{name}=={version(name)}" for name in WHEELS]
    platforms = [f"--platform=manylinux{p}_aarch64" for p in ("2014", "_2_27", "_2_28")]
    options = ["--quiet", "--only-binary=:all:", f"--python-version={python}", *platforms]
    partial = site.with_name("site.partial")
    _ask(
        [sys.executable, "-m", "pip", "install", *options, f"--target={partial}", *pins],
        f"the aarch64 wheels of {', '.join(pins)} do not install",
    )
    partial.rename(site)


def _link_package(folder: Path) -> None:
    """The package as users import it; see `typecheck` in the Makefile."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source in [*(ROOT / "treadle").glob("*.py"), *(ROOT / part for part in PARTS)]:
        (folder / source.name).symlink_to(source)
    (folder / "cli").symlink_to(ROOT / "treadle" / "cli")


# --- Debian's packages -------------------------------------------------------------------------


def _apt(architecture: str) -> list[str]:
    """apt-get for another architecture, with state of its own that holds no installed package."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Missing(f"there is no {tool}: qemu and the aarch64 Python are Debian's packages")
    state = BUILD / f"apt-{architecture}"
    for folder in ("lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    options = {
        "APT::Architecture": architecture,
        "APT::Architectures::": architecture,
        "APT::Install-Recommends": "false",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
        "Dir::State": str(state),
        "Dir::State::status": str(state / "status"),
        "Dir::Cache": str(state / "cache"),
    }
    return ["apt-get", "-qq", *(word for o in options.items() for word in ("-o", "=".join(o)))]


def _downloaded(package: str, apt: list[str], *more: str, needed: bool = True) -> list[Path]:
    """The files of packages, with all that they depend on if that is `needed`."""
    folder = BUILD / "packages" / package
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    complaint = f"Debian's package {package} cannot be had"
    _ask([*apt, "update"], complaint)
    if needed:
        cached = ["-o", f"Dir::Cache::archives={folder}"]
        (folder / "partial").mkdir()
        _ask([*apt, *cached, "install", "--yes", "--download-only", package, *more], complaint)
    else:
        _ask([*apt, "download", package], complaint, folder)
    return sorted(folder.glob("*.deb"))


def _unpack(files: list[Path], folder: Path) -> None:
    """Complete or not at all: a folder that is there is not made again."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for file in files:
        _ask(["dpkg-deb", "--extract", str(file), str(partial)], f"{file.name} does not unpack")
    partial.rename(folder)


def _ask(command: list[str], complaint: str, folder: Path = ROOT) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"{complaint}:\n{done.stderr.strip()[-600:]}")


if __name__ == "__main__":
    sys.exit(main())
