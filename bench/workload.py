"""What a workload is: one job, written once for each peer, and the least work that it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Step = Callable[[], Any]
Program = Callable[[], Step]

PEERS = ("numpy", "torch", "compile", "jax")
"""compile: torch.compile, which needs a C++ compiler at run time."""


@dataclass(frozen=True, slots=True)
class Work:
    """The least that a step must do: floating-point operations, bytes that must cross the memory
    bus (`bytes_moved`: read and written once), bytes that a reader only reads."""

    flops: float = 0.0
    bytes_moved: float = 0.0
    bytes_read: float = 0.0


@dataclass(frozen=True, slots=True)
class Workload:
    """`programs[peer]()` prepares (data, weights, compilation) and returns the step to time.

    A step returns when its results are there. With `own_clock` it returns the seconds that count,
    which it has measured in a process that it started. `on_request`: it takes long, and runs only
    where it is asked for by name.
    """

    name: str
    title: str
    work: Work
    programs: Mapping[str, Program] = field(repr=False)
    own_clock: bool = False
    on_request: bool = False


_REGISTRY: dict[str, Workload] = {}


def add(workload: Workload) -> Workload:
    """Put a workload into the suite; names are unique."""
    if workload.name in _REGISTRY:
        raise ValueError(f"there are two workloads called {workload.name!r}")
    _REGISTRY[workload.name] = workload
    return workload


def workloads() -> dict[str, Workload]:
    """All workloads by name, in the order of their suites."""
    import treadle.bench.suites  # noqa: F401  fills the registry; suites import this module

    return dict(_REGISTRY)
