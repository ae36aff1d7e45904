"""The driver of local rewrites: small named rules, indexed by the op at which they start.

A rule is a function `(b, i) -> value | tuple of values | None`: it looks at instruction `i` and
upwards through `value.producer`, and either returns None or emits into the Builder `b` what
replaces the results of `i`, of the same types. Its docstring is the identity that it applies.

    from treadle.ir.builder import Builder
    from treadle.ir.graph import Instr, Value
    from treadle.passes.canonicalize import RULES
    from treadle.passes.rewrite import made_by

    @RULES.rule("sin")
    def sin_of_neg(b: Builder, i: Instr) -> Value | None:
        '''sin(-x) = -sin(x)'''
        inner = made_by(i.args[0], "neg")
        return b.neg(b.call("sin", inner.args[0])) if inner else None

Such a file, once imported, takes part in every later compilation.

What a rule emits is matched again, so rules compose; a budget per instruction of the program ends
rules that undo each other, with a note that names the last one. One walk, forward, without
recursion: a rule always sees operands that are rewritten already.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from treadle.ir.builder import Builder
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import VerifyError
from treadle.ir.graph import Function, Instr, Value
from treadle.passes import dce
from treadle.passes.copier import Copier, Shared
from treadle.passes.manager import PassContext

Replacement = Value | tuple[Value, ...] | None
RuleFn = Callable[[Builder, Instr], Replacement]

BUDGET = 256  # firings that one instruction of the program may set off


@dataclass(frozen=True, slots=True)
class Rule:
    """A local rewrite: where it starts, what it does, and the identity it rests on."""

    name: str
    ops: tuple[str, ...]
    apply: RuleFn
    identity: str


class RuleSet:
    """The rules of one pass, by op, in the order in which they are tried."""

    def __init__(self) -> None:
        self._by_op: dict[str, list[Rule]] = {}

    def rule(self, *ops: str) -> Callable[[RuleFn], RuleFn]:
        """Decorator: add a function as a rule that starts at any of `ops`.

        Raises ValueError for a function without a docstring, or a name that is taken.
        """

        def add(fn: RuleFn) -> RuleFn:
            self.add(Rule(fn.__name__, ops, fn, (fn.__doc__ or "").strip()))
            return fn

        return add

    def add(self, rule: Rule) -> None:
        if not rule.identity:
            raise ValueError(f"rule {rule.name!r} needs a docstring: the identity that it applies")
        if any(r.name == rule.name for r in self):
            raise ValueError(f"there is a rule {rule.name!r} already")
        for op in rule.ops:
            self._by_op.setdefault(op, []).append(rule)

    def remove(self, name: str) -> None:
        """Take the rule called `name` out again."""
        for rules in self._by_op.values():
            rules[:] = [r for r in rules if r.name != name]

    def of(self, op: str) -> Sequence[Rule]:
        """The rules that start at `op`."""
        return self._by_op.get(op, ())

    def __iter__(self) -> Iterator[Rule]:
        seen = {r.name: r for rules in self._by_op.values() for r in rules}
        return iter(seen.values())


@dataclass(slots=True)
class _Frame:
    """Instructions still to be visited, and what their last values stand for."""

    instrs: Iterator[Instr]
    old: tuple[Value, ...] = ()
    new: tuple[Value, ...] = ()


RulesOf = Callable[[Instr], Sequence[Rule]]


def rewrite(
    fn: Function, rules: RulesOf, ctx: PassContext, unchanged: RulesOf | None = None
) -> Function:
    """`fn` with `rules(instr)` applied everywhere, regions included, until none fires.

    `unchanged` takes the place of `rules` for instructions of `fn` with all that they depend on as
    it was: where others are known not to fire. What the rules made unused is left out. `fn` itself
    where no rule fired. Raises VerifyError naming a rule whose replacement has another type.
    """
    copier = Copier(fn)
    regions = Shared(lambda region: rewrite(region, rules, ctx, unchanged))
    if unchanged is None:
        unchanged = rules
    stack = [_Frame(iter(fn.instrs))]
    firings = fired_ever = 0
    while stack:
        frame = stack[-1]
        instr = next(frame.instrs, None)
        if instr is None:
            stack.pop()
            for old, new in zip(frame.old, frame.new, strict=True):
                copier.replace(old, new)
            continue
        current = copier.renewed(instr, regions.of(instr))
        if len(stack) == 1:
            firings = 0
            candidates = unchanged(current) if current is instr else rules(current)
        else:
            candidates = rules(current) if firings < BUDGET else ()
        emitted = _first_match(candidates, current, ctx) if candidates else None
        if emitted is None:
            copier.put(instr, current)
            continue
        firings += 1
        fired_ever += 1
        if firings == BUDGET:
            ctx.reason("budget", instr.loc, f"{ctx.rules[-1].name} stopped after {BUDGET} firings")
        instrs, values = emitted
        stack.append(_Frame(iter(instrs), instr.results, values))
    done = copier.finish()
    return dce.sweep(done) if fired_ever else done


def _first_match(
    rules: Sequence[Rule], instr: Instr, ctx: PassContext
) -> tuple[Sequence[Instr], tuple[Value, ...]] | None:
    b = Builder(loc=instr.loc)
    for rule in rules:
        found = rule.apply(b, instr)
        if found is None:
            if b.instrs:  # what a rule emitted before it gave up
                b.clear()
            continue
        values = found if isinstance(found, tuple) else (found,)
        expected, got = [r.type for r in instr.results], [v.type for v in values]
        if expected != got:
            raise VerifyError(
                f"rule {rule.name!r} replaced {instr.op.name} of type {expected} by {got}"
                + (f" at {instr.loc}" if instr.loc else "")
            )
        ctx.fired(rule.name, instr.loc, rule.identity.splitlines()[0])
        return b.instrs, values
    return None


def made_by(value: Value, *ops: str) -> Instr | None:
    """The instruction that made `value`, if it is one of `ops`."""
    made = value.producer
    return made if made is not None and made.op.name in ops else None
