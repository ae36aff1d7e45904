"""One compilation, kept so that every stage of it can be shown.

A stage has its pass's name; besides there are `traced` (what the user wrote), `memory` (the memory
plan), `plan` (the kernel plan), `llvm` and `asm`. Text is made when it is asked for: a compilation
that nobody looks at prints nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import get_close_matches, unified_diff

from treadle.codegen.module import Emitted
from treadle.codegen.plan import Plan
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr
from treadle.ir.memory import MemoryPlan
from treadle.ir.printer import print_function
from treadle.passes.manager import Note, Step
from treadle.passes.memory import print_memory

PLAN_STAGES = ("memory", "plan", "llvm", "asm")


@dataclass(frozen=True, slots=True)
class Timing:
    """One line of the table of compile times."""

    name: str
    milliseconds: float


@dataclass(frozen=True, slots=True)
class Compilation:
    """Everything that a compilation made on its way, from the trace to machine code."""

    traced: Function
    steps: tuple[Step, ...]
    memory: MemoryPlan
    plan: Plan
    emitted: Emitted
    target: Target
    timings: tuple[Timing, ...]
    assembly: Callable[[], str]

    @property
    def kernels(self) -> Function:
        """The function after the last pass."""
        return self.steps[-1].after if self.steps else self.traced

    @property
    def core(self) -> Function:
        """The function at level CORE, with everything that can fail still in program order."""
        found = self.function("expand")
        assert found is not None
        return found

    def stages(self) -> tuple[str, ...]:
        """The names of all stages, in order."""
        return ("traced", *(s.pass_.name for s in self.steps), *PLAN_STAGES)

    def function(self, stage: str) -> Function | None:
        """The Function at `stage`; None where the stage is a plan or machine code.

        Raises KeyError naming the nearest stage.
        """
        if stage == "traced":
            return self.traced
        for step in self.steps:
            if step.pass_.name == stage:
                return step.after
        if stage in PLAN_STAGES:
            return None
        near = get_close_matches(stage, self.stages(), n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(self.stages())}"
        raise KeyError(f"there is no stage {stage!r}; {hint}")

    def text(self, stage: str) -> str:
        """What `stage` left, as text. Raises KeyError for an unknown stage."""
        fn = self.function(stage)
        if fn is not None and fn is self.kernels:
            remarks = self._remarks()
            return print_function(fn, comment=lambda instr: remarks.get(instr, ""))
        if fn is not None:
            return print_function(fn)
        if stage == "memory":
            return print_memory(self.kernels, self.memory)
        if stage == "plan":
            return str(self.plan)
        return self.emitted.ir if stage == "llvm" else self.assembly()

    def _remarks(self) -> dict[Instr, str]:
        """How each kernel runs, in a few words: `k0: rows, 16 lanes, tail none`."""
        return {
            self.kernels.instrs[k.instr]: f"{k.name.split('_')[0]}: {str(k.body).splitlines()[0]}"
            for k in self.plan.kernels
        }

    def diff(self, stage: str) -> str:
        """What the pass `stage` changed, as a unified diff of IR text; "" for no change.

        Raises KeyError where `stage` is not a pass.
        """
        step = next((s for s in self.steps if s.pass_.name == stage), None)
        if step is None:
            self.function(stage)
            raise KeyError(f"stage {stage!r} is not a pass: it has nothing to be compared with")
        return diff_of_step(step)

    def notes(self) -> Iterator[tuple[str, Note]]:
        """(pass, note) for each rule that fired and each reason why something was not done."""
        for step in self.steps:
            for note in step.notes:
                yield step.pass_.name, note


def diff_of_step(step: Step) -> str:
    """What a pass changed, as a unified diff of IR text; "" for no change."""
    before, after = (print_function(f).splitlines() for f in (step.before, step.after))
    name = step.pass_.name
    return "\n".join(unified_diff(before, after, f"before {name}", name, lineterm=""))
