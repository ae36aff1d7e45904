"""What a pass is, and how a list of them is run.

A pass is a pure function from Function to Function in a frozen `Pass`. The manager verifies what
comes out, times it, and hands (pass, before, after, context) to observers: dumps, diffs and
reports are observers, never code inside a pass. A pass that changes nothing returns the Function
that it was given, the same object.

A pass of your own, in a file of your own:

    from treadle.ir.graph import Function, Level
    from treadle.passes.manager import Pass, PassContext
    from treadle.passes.pipeline import register_pass

    def run(fn: Function, ctx: PassContext) -> Function:
        for instr in fn.instrs:
            ctx.reason("seen", instr.loc, instr.op.name)
        return fn

    register_pass(Pass("census", run, requires=Level.TRACED, ensures=Level.TRACED), after="dce")

From then on it runs in every compilation, is verified, timed and dumped like the others.
A single rewrite rule needs less: see `treadle.passes.rewrite`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from time import perf_counter
from typing import Literal

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import VerifyError
from treadle.ir.graph import Function, Level, Loc
from treadle.ir.op import OpDef, Trait
from treadle.ir.printer import print_function
from treadle.ir.verifier import verify as verify_function


@dataclass(frozen=True, slots=True)
class Note:
    """Something a pass wants to tell. `kind` is "rule" where the rewrite rule `name` fired; any
    other kind says why something was not done ("not fused", "budget"), about the op `name`."""

    kind: str
    name: str
    loc: Loc | None
    text: str

    def __str__(self) -> str:
        where = f"{self.loc}: " if self.loc is not None else ""
        said = f": {self.text}" if self.text else ""
        return f"{where}{self.name}{said}" if self.kind == "rule" else f"{where}{self.kind}{said}"


@dataclass(slots=True)
class PassContext:
    """Handed to one run of one pass: where it leaves its notes. `after`: the name of the pass that
    has just run on the program."""

    pass_name: str = ""
    after: str = ""
    notes: list[Note] = field(default_factory=list)
    milliseconds: float = 0.0

    def fired(self, rule: str, loc: Loc | None, text: str = "") -> None:
        """The rewrite rule called `rule` fired at `loc`."""
        self.notes.append(Note("rule", rule, loc, text))

    def reason(self, kind: str, loc: Loc | None, text: str, name: str = "") -> None:
        """Why something was not done: `reason("not fused", loc, "a matmul lies between")`."""
        self.notes.append(Note(kind, name, loc, text))

    @property
    def rules(self) -> tuple[Note, ...]:
        """The notes of rules that fired, in order."""
        return tuple(n for n in self.notes if n.kind == "rule")

    @property
    def reasons(self) -> tuple[Note, ...]:
        """The notes that say why something was not done."""
        return tuple(n for n in self.notes if n.kind != "rule")


@dataclass(frozen=True, slots=True)
class Pass:
    """A named rewrite of a whole Function.

    `requires` is the least level that it can take; its result is at that of its operand or at
    `ensures`, whichever is further down.
    """

    name: str
    run: Callable[[Function, PassContext], Function]
    requires: Level
    ensures: Level


_KERNELS = frozenset({"fused", "fused_table", "contract"})  # with a region, what only fusion makes

Observer = Callable[[Pass, Function, Function, PassContext], None]
VerifyMode = Literal["levels", "all"]


@dataclass(frozen=True, slots=True)
class Step:
    """What `Record` keeps of one pass."""

    pass_: Pass
    before: Function
    after: Function
    notes: tuple[Note, ...]
    milliseconds: float


class Record:
    """An observer that keeps every step: `run_pipeline(fn, passes, [record])`."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def __call__(self, pass_: Pass, before: Function, after: Function, ctx: PassContext) -> None:
        self.steps.append(Step(pass_, before, after, tuple(ctx.notes), ctx.milliseconds))


def level_of(fn: Function) -> Level:
    """The level furthest down that the ops of `fn` allow."""
    ops: set[OpDef] = set()
    fused = False  # a contraction without an epilogue may be older than fusion
    work, seen = [fn], {fn}
    while work:
        here = work.pop()
        ops.update([i.op for i in here.instrs])
        fused = fused or any(i.regions and i.op.name in _KERNELS for i in here.instrs)
        inner = {region for i in here.instrs for region in i.regions} - seen
        seen |= inner
        work += inner
    if any(map(_is_traced_only, ops)):
        return Level.TRACED
    return Level.KERNELS if fused else Level.CORE


def _is_traced_only(op: OpDef) -> bool:
    return op.has(Trait.COMPOSITE) or op.has(Trait.BARRIER) or op.name == "gradient"


def run_pass(pass_: Pass, fn: Function, ctx: PassContext | None = None) -> Function:
    """`pass_` alone, not verified. An exception carries the program as a note."""
    ctx = ctx if ctx is not None else PassContext(pass_.name)
    started = perf_counter()
    try:
        after = pass_.run(fn, ctx)
    except Exception as error:
        error.add_note(_reproduction(pass_, fn))
        raise
    ctx.milliseconds = (perf_counter() - started) * 1e3
    return after


def run_pipeline(
    fn: Function,
    passes: Sequence[Pass],
    observers: Sequence[Observer] = (),
    verify: VerifyMode = "levels",
) -> Function:
    """`fn` after all of `passes`.

    It is verified at entry and wherever the level changes (`verify="levels"`), or after every
    pass that changed something (`"all"`). Raises VerifyError naming the pass, the faults and the
    program before that pass, as text that can be saved and run again; a pass that gets a program
    of too early a level is refused likewise.
    """
    level = Level.KERNELS if level_of(fn) is Level.KERNELS else Level.TRACED
    verify_function(fn, level)
    before = ""
    for pass_ in passes:
        if level < pass_.requires:
            level = _promoted(pass_, fn)
        ctx = PassContext(pass_.name, before)
        after = run_pass(pass_, fn, ctx)
        # a pass for an early level may bring its ops back into a program that had none left
        reached = pass_.ensures if pass_.ensures >= level else level_of(after)
        if reached != level or (verify == "all" and after is not fn):
            _check(pass_, fn, after, reached)
        for observe in observers:
            observe(pass_, fn, after, ctx)
        fn, level, before = after, reached, pass_.name
    return fn


def _promoted(pass_: Pass, fn: Function) -> Level:
    """The level of `fn` that `pass_` needs: a program without composites is CORE as it stands."""
    level = level_of(fn)
    if level < pass_.requires:
        raise VerifyError(
            f"pass {pass_.name!r} takes programs at level {pass_.requires.name}, "
            f"found {level.name}; run the passes before it first\n{_reproduction(pass_, fn)}"
        )
    verify_function(fn, level)
    return level


def _check(pass_: Pass, before: Function, after: Function, level: Level) -> None:
    try:
        verify_function(after, level)
    except VerifyError as error:
        raise VerifyError(
            f"pass {pass_.name!r} broke an invariant of level {level.name}\n{error}\n"
            f"{_reproduction(pass_, before)}"
        ) from None


def _reproduction(pass_: Pass, before: Function) -> str:
    return (
        f"; save as f.ir and run: treadle opt --passes {pass_.name} f.ir\n{print_function(before)}"
    )
