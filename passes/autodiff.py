"""`gradient` instructions become the instructions that compute them; `variable` goes.

    %1: f32[8] = variable(%0)
    %2: f32[8] = sin(%1)                       %1: f32[8] = sin(%0)
    %3: f32[8] = gradient(%2, %ct, %1)   ->    %2: f32[8] = cos(%0)
    return %3                                  %3: f32[8] = mul(%ct, %2)

Reverse mode. Each `gradient` is expanded where it stands, in program order, so that an inner one
is ordinary instructions by the time that an outer one differentiates them: higher orders need
nothing more. A loop or branch is differentiated as a whole (`passes/control_grad.py`); of a loop
that has to keep more for its derivative a larger one takes the place.

Only instructions on a path from the variables to the outputs are visited, backwards; each op's
`vjp` says what reaches its operands, and what reaches one value from several users is added, last
user first. Derivatives stand on the line of what they differentiate, with the role "backward".
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.ir.builder import Builder
from treadle.ir.custom import attached, followed_args
from treadle.ir.errors import GradientError
from treadle.ir.graph import Function, Instr, Level, Loc, Value
from treadle.ir.op import NOT_DIFFERENTIABLE, Trait
from treadle.passes import dce
from treadle.passes.copier import Copier, Shared
from treadle.passes.custom_grad import custom_cotangents
from treadle.passes.inline import with_instrs
from treadle.passes.manager import Pass, PassContext

Larger = list[tuple[Instr, Instr]]

_IDENTITIES = frozenset({"variable", "stop_gradient"})


def run(fn: Function, ctx: PassContext) -> Function:
    """`fn` without `gradient`, `variable` and `stop_gradient`, and without what derivative rules
    computed for operands that nobody differentiates by.

    Raises GradientError for a derivative by an integer, or by something that is not a variable.
    """
    expanded = _drop_identities(_expand_gradients(fn, ctx))
    return expanded if expanded is fn else dce.sweep(expanded)


def _expand_gradients(fn: Function, ctx: PassContext) -> Function:
    copier = Copier(fn)
    regions = Shared(lambda region: _expand_gradients(region, ctx))
    for instr in fn.instrs:
        if instr.op.name != "gradient":
            copier.keep(instr, regions.of(instr))
            continue
        current = copier.renewed(instr)
        outputs: int = getattr(instr.attrs, "outputs")  # noqa: B009  the op's file owns the class
        ys, cts = current.args[:outputs], current.args[outputs : 2 * outputs]
        xs = current.args[2 * outputs :]
        larger: Larger = []
        found = differentiate(copier.builder, ys, cts, xs, instr.loc, larger)
        if larger:
            known = with_instrs(copier.builder, larger)
            copier.moved(known)
            found = [known.get(v, v) for v in found]
        ctx.fired("expand_gradient", instr.loc, f"{len(ys)} outputs by {len(xs)} variables")
        for old, new in zip(instr.results, found, strict=True):
            copier.replace(old, new)
    return copier.finish()


def differentiate(
    b: Builder,
    ys: Sequence[Value],
    cts: Sequence[Value],
    xs: Sequence[Value],
    loc: Loc | None,
    larger: Larger | None = None,
) -> list[Value]:
    """One value per variable of `xs`: the sum over ys of cts times d y / d x, of x's type.

    Emits into `b`, which holds everything between. A variable that no y depends on gets zeros.
    To `larger` are added pairs of loops, the second to stand in the place of the first; where it is
    not given, loops are differentiated beside each other.
    """
    for x in xs:
        _check_variable(x, loc)
    total = sweep_back(b, ys, cts, xs, loc, [] if larger is None else larger)
    with b.at(_backward(loc)):
        return [total[x] if x in total else b.zeros_like(x) for x in xs]


def sweep_back(
    b: Builder,
    ys: Sequence[Value],
    cts: Sequence[Value],
    xs: Sequence[Value],
    loc: Loc | None,
    larger: Larger,
) -> dict[Value, Value]:
    """As `differentiate`, by any float values: what reaches them, where something does."""
    path, moving = between(b.instrs, xs)
    total: dict[Value, Value] = {}
    with b.at(_backward(loc)):
        for y, ct in zip(ys, cts, strict=True):
            if y in moving:
                _accumulate(b, total, y, ct)
    for instr in reversed(path):
        if instr.op.vjp is NOT_DIFFERENTIABLE or not any(r in total for r in instr.results):
            continue
        with b.at(_backward(instr.loc or loc)):
            if instr.op.has(Trait.CONTROL):
                from treadle.passes.control_grad import control_cotangents  # it sweeps regions

                found = control_cotangents(b, instr, total, moving, larger)
            elif instr.op.name == "attach_vjp":
                found = custom_cotangents(b, instr, total, moving)
            else:
                found = _cotangents(b, instr, total)
            for arg, ct in found:
                if arg in moving:
                    _accumulate(b, total, arg, ct)
    return total


def _check_variable(x: Value, loc: Loc | None) -> None:
    where = f" at {loc}" if loc is not None else ""
    if not x.type.dtype.is_float:
        raise GradientError(f"a derivative by {x.type}{where}: only floats have derivatives")
    if x.producer is None or x.producer.op.name != "variable":
        raise GradientError(f"a derivative by {x!r}{where}: expected a result of `variable`")


def between(instrs: Sequence[Instr], xs: Sequence[Value]) -> tuple[list[Instr], set[Value]]:
    """The instructions that the variables reach, in order, and the values that move with them."""
    moving = set(xs)
    path: list[Instr] = []
    for instr in instrs[_first_maker(instrs, xs) :]:
        if instr.op.name == "stop_gradient" or moving.isdisjoint(followed_args(instr)):
            continue
        floats = [r for r in instr.results if r.type.dtype.is_float]
        if floats:
            moving.update(floats)
            path.append(instr)
    return path, moving


def _first_maker(instrs: Sequence[Instr], xs: Sequence[Value]) -> int:
    """Where the earliest of the variables is made; what stands before cannot depend on them."""
    missing = {x.producer for x in xs}
    at = len(instrs)
    while missing and at > 0:
        at -= 1
        missing.discard(instrs[at])
    return at


def _cotangents(b: Builder, instr: Instr, total: dict[Value, Value]) -> list[tuple[Value, Value]]:
    cts = tuple(total[r] if r in total else b.zeros_like(r) for r in instr.results)
    assert callable(instr.op.vjp)
    found = instr.op.vjp(b, instr.attrs, instr.args, instr.results, cts)
    return [
        (arg, _fit(b, instr, arg, ct))
        for arg, ct in zip(instr.args, found, strict=True)
        if ct is not None
    ]


def _fit(b: Builder, instr: Instr, arg: Value, ct: Value) -> Value:
    """A cotangent as `arg` needs it: elementwise rules give the shape of the result."""
    if instr.op.elementwise and ct.type.shape != arg.type.shape:
        ct = b.unbroadcast(ct, arg.type.shape)
    if ct.type != arg.type:
        raise GradientError(
            f"the derivative rule of {instr.op.name} gives {ct.type} for an operand {arg.type}"
        )
    return ct


def _accumulate(b: Builder, total: dict[Value, Value], value: Value, ct: Value) -> None:
    total[value] = b.add(total[value], ct) if value in total else ct


def _backward(loc: Loc | None) -> Loc | None:
    return None if loc is None else Loc(loc.file, loc.line, "backward")


def _drop_identities(fn: Function) -> Function:
    """They mean something to differentiation only."""
    copier = Copier(fn)
    regions = Shared(_drop_identities)
    for instr in fn.instrs:
        if instr.op.name in _IDENTITIES:
            copier.replace(instr.result, copier.of(instr.args[0]))
        elif instr.op.name == "attach_vjp":
            copier.leave_out()
            for result, output in zip(instr.results, attached(instr).outputs, strict=True):
                copier.replace(result, copier.of(output))
        else:
            copier.keep(instr, regions.of(instr))
    return copier.finish()


PASS = Pass("autodiff", run, requires=Level.TRACED, ensures=Level.TRACED)
