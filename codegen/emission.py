"""What the emitters of one module share: the module, its fault sites, functions made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from treadle.codegen.llvm import Module
from treadle.codegen.target import Target
from treadle.ir.graph import Loc


@dataclass(frozen=True, slots=True)
class FaultSite:
    """A place where a run can fail: how the error begins, and the user's line."""

    message: str
    loc: Loc | None


@dataclass(slots=True)
class Emission:
    """The state of writing one module."""

    module: Module
    target: Target
    faults: list[FaultSite] = field(default_factory=list)
    made: set[str] = field(default_factory=set)

    def once(self, name: str, write: Callable[[str], None]) -> str:
        """Write the module function `name` unless it is there already."""
        if name not in self.made:
            self.made.add(name)
            write(name)
        return name

    def fault_site(self, message: str, loc: Loc | None) -> int:
        """The number of a new fault site."""
        self.faults.append(FaultSite(message, loc))
        return len(self.faults) - 1
