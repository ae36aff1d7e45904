"""What code is generated for: a CPU family, its vector width and what is cheap on it.

A `Target` is plain data, part of every cache key. `host()` is this machine; `named(...)` gives the
families that are first class (SSE2, AVX2, AVX-512, NEON), which the tests compile for wherever
they run.
"""

from __future__ import annotations

import sys
from dataclasses import field
from functools import cache
from typing import Final

from treadle.ir.dataclass import dataclass
from treadle.ir.forking import no_fork
from treadle.ir.types import DType

NAMES: Final = ("sse2", "avx2", "avx512", "neon")

_X86_64_V3: Final = (
    "avx", "avx2", "bmi", "bmi2", "cx16", "f16c", "fma", "lzcnt", "movbe", "popcnt",
    "sse3", "sse4.1", "sse4.2", "ssse3",
)  # fmt: skip
_AVX512: Final = ("avx512bw", "avx512cd", "avx512dq", "avx512f", "avx512vl")


@dataclass(frozen=True, slots=True)
class Target:
    """A CPU that code is generated for.

    `features` is LLVM's comma-separated list (`+avx2,-sse4a`); `vector_bytes` the width that the
    emitters use and `registers` how many vectors of it the CPU names. `masked_memory`: masked loads
    and stores of any lane width cost about what plain ones do. `has_rounding`: floor, ceil and
    round to even are one vector instruction.
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bytes: int
    registers: int
    has_fma: bool
    masked_memory: bool
    has_gather: bool
    has_rounding: bool
    needs: tuple[str, ...] = field(default=(), repr=False)

    @property
    def arch(self) -> str:
        """The triple's first part, as LLVM spells it: `x86_64`, `aarch64`."""
        first = self.triple.split("-", 1)[0]
        return "aarch64" if first == "arm64" else first

    @property
    def is_x86(self) -> bool:
        return self.arch == "x86_64"

    def has(self, feature: str) -> bool:
        """Whether the CPU has the feature that LLVM calls so, such as `avx512dq`."""
        return feature in self.needs

    def lanes(self, dtype: DType) -> int:
        """How many elements of `dtype` one vector holds."""
        return self.vector_bytes // dtype.itemsize

    def runs_here(self) -> bool:
        """True where this machine has all instructions of this Target."""
        here = host()
        return self.arch == here.arch and set(self.needs) <= set(here.needs)

    def __str__(self) -> str:
        return f"{self.name} ({self.cpu}, {self.vector_bytes * 8}-bit vectors)"


@cache
def host() -> Target:
    """This machine. Loads LLVM at the first call, to ask it for the CPU's name and features."""
    with no_fork:
        import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    present = tuple(sorted(name for name, on in features.items() if on))
    return _of_features(
        "host",
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        features.flatten(),
        present,
    )


@cache
def named(name: str) -> Target:
    """One of the first-class families at its plainest: `sse2`, `avx2`, `avx512` or `neon`.

    Raises ValueError for another name.
    """
    if name == "sse2":
        return _of_features("sse2", _triple("x86_64"), "x86-64", "", ("sse2",))
    if name == "avx2":
        return _of_features("avx2", _triple("x86_64"), "x86-64-v3", "", ("sse2", *_X86_64_V3))
    if name == "avx512":
        needs = ("sse2", *_X86_64_V3, *_AVX512)
        # The plain v4 model asks for 256-bit vectors; explicit 512-bit ones stay whole even so.
        return _of_features("avx512", _triple("x86_64"), "x86-64-v4", "", needs)
    if name == "neon":
        return _of_features("neon", _triple("aarch64"), "generic", "+neon", ())
    raise ValueError(f"target {name!r} is not known; the names are {', '.join(NAMES)}")


def _triple(arch: str) -> str:
    """Object code must have this system's format, or it cannot be loaded here."""
    return f"{arch}-apple-darwin" if sys.platform == "darwin" else f"{arch}-unknown-linux-gnu"


def _of_features(
    name: str, triple: str, cpu: str, features: str, present: tuple[str, ...]
) -> Target:
    arch = triple.split("-", 1)[0]
    if arch in ("aarch64", "arm64"):
        return Target(
            name,
            triple,
            cpu,
            features,
            vector_bytes=16,
            registers=32,
            has_fma=True,
            masked_memory=False,
            has_gather=False,
            has_rounding=True,
            needs=present,
        )
    has = set(present)
    wide = set(_AVX512) <= has
    avx2 = "avx2" in has
    return Target(
        name,
        triple,
        cpu,
        features,
        vector_bytes=64 if wide else 32 if avx2 else 16,
        registers=32 if wide else 16,
        has_fma="fma" in has,
        masked_memory=wide,
        has_gather=avx2,
        has_rounding="sse4.1" in has,
        needs=present,
    )
