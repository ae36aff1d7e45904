"""How a loop or a branch runs: the plans of its regions, and the memory that they are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from treadle.ir.dataclass import dataclass
from treadle.ir.memory import ControlMemory

if TYPE_CHECKING:
    from treadle.codegen.plan import Plan


@dataclass(frozen=True, slots=True)
class ControlPlan:
    """A scan or switch: native code around the kernels of its regions, which run one by one as
    those of the program do. `times`: how often at most, None where nobody knows."""

    op: str
    regions: tuple[Plan, ...]
    memory: ControlMemory
    times: int | None

    @property
    def parallel(self) -> bool:
        """Whether more than one thread can be of use in a kernel inside."""
        return any(k.parallel for plan in self.regions for k in plan.kernels)

    @property
    def shared(self) -> int:
        """Bytes of scratch that all threads share, of the kernel that needs most."""
        return max((plan.shared for plan in self.regions), default=0)

    @property
    def scratch(self) -> int:
        """Bytes of scratch of each thread, of the kernel that needs most."""
        return max((plan.scratch for plan in self.regions), default=0)

    @property
    def work(self) -> int:
        """Cycles, as far as the kernels tell."""
        once = max((sum(_work(k.body) for k in plan.kernels) for plan in self.regions), default=0)
        return once * (1 if self.times is None else self.times)

    def __str__(self) -> str:
        head = f"{self.op}, at most {self.times} times" if self.op == "scan" else self.op
        if self.op == "scan" and self.times is None:
            head = "scan without a bound"
        if self.op == "scan":
            head += f", carries {self.memory.carries}"
        lines = [f"{head}, {self.memory.size} bytes of workspace"]
        for number, plan in enumerate(self.regions):
            if self.op != "scan":
                lines.append(f"  branch {number}")
            for kernel in plan.kernels:
                lines += [f"  {line}" for line in str(kernel).splitlines()]
        return "\n".join(lines)


_UNKNOWN = 1 << 20


def _work(body: object) -> int:
    tiling = getattr(body, "tiling", body)
    return int(getattr(tiling, "work", _UNKNOWN))
