"""`verify(fn, level)`: does a Function keep its promises? All faults are listed, with context.

Invariants at every level
  - SSA: each value is defined once, by a parameter or an earlier instruction of the same Function,
    before it is used; a result knows the instruction that made it.
  - Closed: a region uses only its own parameters and values.
  - An instruction's attributes are of its op's attribute class, and hold what it declares.
  - An instruction's result types are those of its op's type rule. An instruction with regions
    takes them from its regions instead: parameters as its operands, results as its results.
  - No two parameters have one path; no two state results have one path.
  - A loop, branch or remat and its regions fit together as `treadle.ir.control` says; its regions
    are at the level of the program around it.
TRACED: what the user wrote, before autodiff
  - No instruction that only fusion makes: fused, fused_table, a contract with an epilogue (one
    without is what a convolution is claimed as).
  - `gradient` has as many cotangents as outputs, each of its output's type, and takes derivatives
    with respect to results of `variable` only, of float dtype.
CORE: after autodiff and expansion
  - Besides: no composite, no `gradient`, no `variable`.
KERNELS: after fusion
  - Each instruction is at most one kernel: fused, fused_table, contract, an op that code generation
    claims whole, a reshape (a free view), or a constant of rank 1 or more.
  - The inside of a region is at CORE level and is a legal region (`treadle.ir.regions`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence

from treadle.ir.attr_types import wrong_attributes
from treadle.ir.custom import check_attached
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import TreadleError, VerifyError
from treadle.ir.graph import Function, Instr, Level, Value
from treadle.ir.op import NO_ATTRS, Trait
from treadle.ir.printer import print_function
from treadle.ir.scalar import Kernel

_KERNELS_ONLY = frozenset({"fused", "fused_table", "contract"})
_FREE = frozenset({"reshape", "const"})


@dataclass(frozen=True, slots=True)
class Fault:
    """One broken invariant; `instr` is None where it concerns the whole Function."""

    message: str
    instr: Instr | None = None

    def __str__(self) -> str:
        if self.instr is None:
            return self.message
        where = f" ; {self.instr.loc}" if self.instr.loc else ""
        return f"{self.instr.op.name}: {self.message}{where}"


def verify(fn: Function, level: Level) -> None:
    """Raise VerifyError listing every fault of `fn`, with its text."""
    faults = find_faults(fn, level)
    if faults:
        listed = "\n".join(f"  - {f}" for f in faults)
        raise VerifyError(
            f"@{fn.name} is not a legal function at level {level.name}:\n{listed}\n"
            f"{print_function(fn)}"
        )


def find_faults(fn: Function, level: Level) -> list[Fault]:
    """All faults of `fn` and of its regions at `level`."""
    faults: list[Fault] = []
    work: list[tuple[Function, Level]] = [(fn, level)]
    seen: set[tuple[Function, Level]] = set()  # instructions may share a region
    sound: set[Hashable] = set()
    while work:
        here, at = work.pop()
        if (here, at) in seen:
            continue
        seen.add((here, at))
        faults += _structure(here)
        faults += _paths(here)
        for instr in here.instrs:
            plain = instr.attrs is NO_ATTRS or not wrong_attributes(instr.attrs)
            kind = _kind(instr, at) if plain else None
            if kind is not None and kind in sound:
                continue
            found = [*_typing(instr), *_at_level(instr, at)]
            if not found:
                sound.add(kind)
            faults += found
            inner = Level.CORE if instr.op.name in _KERNELS_ONLY else at
            work.extend((region, inner) for region in instr.regions)
    return faults


def _kind(instr: Instr, level: Level) -> Hashable:
    """What instructions share that are sound if one of them is, provided that their attributes are
    well formed; None where regions, or what made the operands, count too."""
    op = instr.op
    if instr.regions or op.has(Trait.REGION) or op.name == "gradient":
        return None
    attrs = None if instr.attrs is NO_ATTRS else instr.attrs
    takes, gives = [a.type for a in instr.args], [r.type for r in instr.results]
    return id(op), level, attrs, tuple(takes), tuple(gives)


def _structure(fn: Function) -> Iterator[Fault]:
    defined: set[Value] = set()
    for param in fn.params:
        if param.value in defined:
            yield Fault(f"parameter {param.path!r} repeats a value")
        defined.add(param.value)
    for instr in fn.instrs:
        for number, arg in enumerate(instr.args):
            if arg not in defined:
                yield Fault(f"operand {number} ({arg!r}) is not defined before it is used", instr)
        for number, result in enumerate(instr.results):
            if result in defined:
                yield Fault(f"result {number} is defined twice", instr)
            if result.producer is not instr or result.index != number:
                yield Fault(f"result {number} does not know the instruction that made it", instr)
            defined.add(result)
    for out in fn.results:
        if out.value not in defined:
            yield Fault(f"result {out.path!r} is not defined in this function")


def _paths(fn: Function) -> Iterator[Fault]:
    for what, paths in (
        ("parameters", [p.path for p in fn.params]),
        ("state results", [r.path for r in fn.results if r.kind == "state"]),
    ):
        for path in sorted(p for p, count in Counter(paths).items() if count > 1):
            yield Fault(f"two {what} have the path {path!r}")


def _typing(instr: Instr) -> Iterator[Fault]:
    if not isinstance(instr.attrs, instr.op.attrs):
        expected, found = instr.op.attrs.__name__, type(instr.attrs).__name__
        yield Fault(f"attributes must be {expected}, found {found}", instr)
        return
    wrong = wrong_attributes(instr.attrs)
    if wrong:
        yield from (Fault(message, instr) for message in wrong)
        return
    if instr.regions or instr.op.has(Trait.CONTROL):
        yield from _region_types(instr)
        return
    types = [a.type for a in instr.args]
    found_types = tuple(r.type for r in instr.results)
    try:
        expected_types = instr.op.infer_types(instr.attrs, types)
    except TreadleError as error:
        yield Fault(f"the type rule refuses ({_listed(types)}): {error}", instr)
        return
    except TypeError as error:
        yield Fault(f"the type rule does not take {len(types)} operands: {error}", instr)
        return
    if expected_types != found_types:
        yield Fault(
            f"the type rule gives {_listed(expected_types)}, the instruction has "
            f"{_listed(found_types)}",
            instr,
        )


def _region_types(instr: Instr) -> Iterator[Fault]:
    if instr.op.has(Trait.CONTROL):
        from treadle.ir.control import check_control  # it needs the op table

        yield from (Fault(message, instr) for message in check_control(instr))
        return
    if instr.op.name == "attach_vjp":
        yield from (Fault(message, instr) for message in check_attached(instr))
        return
    if instr.op.name not in ("fused", "contract", "update"):
        return  # a table's region has the shapes of one flat instance; see check_region
    has_tail = instr.op.name == "contract" and len(instr.regions) == 2
    if len(instr.regions) != 1 and not has_tail:
        if instr.op.name == "update":
            yield Fault(f"needs one region, found {len(instr.regions)}", instr)
        return  # see check_region
    region = instr.regions[0]
    taken = [v.type for v in instr.args]
    if instr.op.name == "contract":
        try:
            taken[:2] = instr.op.infer_types(instr.attrs, taken[:2])
        except (TreadleError, TypeError) as error:
            yield Fault(f"the type rule refuses ({_listed(taken[:2])}): {error}", instr)
            return
    params, outputs = region.inputs, region.outputs
    if has_tail:
        tail = instr.regions[1]
        passed, outputs = outputs, (*outputs, *tail.outputs)
        taken[len(params) :] = [*(v.type for v in passed), *taken[len(params) :]]
        params = (*params, *tail.inputs)
    for what, expected, inner in (
        ("parameters", taken, params),
        ("results", [v.type for v in instr.results], outputs),
    ):
        found = [v.type for v in inner]
        if expected != found:
            yield Fault(
                f"its region's {what} are {_listed(found)}, expected {_listed(expected)}", instr
            )


def _at_level(instr: Instr, level: Level) -> Iterator[Fault]:
    op = instr.op
    if op.name in _KERNELS_ONLY:
        if level is not Level.KERNELS:
            if instr.regions or op.name != "contract":
                yield Fault(f"only fusion makes this; found at level {level.name}", instr)
        elif instr.regions:
            from treadle.ir.regions import check_region  # it needs the op table

            yield from (Fault(message, instr) for message in check_region(instr))
        return
    if level is Level.TRACED:
        if op.name == "gradient":
            yield from _gradient(instr)
        return
    if op.has(Trait.COMPOSITE) or op.name in ("gradient", "variable", "attach_vjp"):
        yield Fault(f"must be gone at level {level.name}", instr)
        return
    if level is Level.CORE:
        return
    is_kernel = isinstance(op.lower, Kernel) and op.name not in ("matmul", "update")
    if not is_kernel and op.name not in _FREE:
        yield Fault("must be inside a fused region at level KERNELS", instr)
    if op.name == "const" and instr.result.type.rank == 0:
        yield Fault("a constant of rank 0 belongs inside a region at level KERNELS", instr)


def _gradient(instr: Instr) -> Iterator[Fault]:
    outputs = getattr(instr.attrs, "outputs", 0)
    if len(instr.args) < 2 * outputs or outputs < 1:
        yield Fault(f"{len(instr.args)} operands cannot hold {outputs} outputs twice", instr)
        return
    for y, ct in zip(instr.args[:outputs], instr.args[outputs : 2 * outputs], strict=True):
        if y.type != ct.type:
            yield Fault(f"an output is {y.type}, its cotangent {ct.type}", instr)
    for x in instr.args[2 * outputs :]:
        made = x.producer.op.name if x.producer is not None else "a parameter"
        if made != "variable":
            yield Fault(f"differentiates by {made}, expected a result of variable", instr)
        if not x.type.dtype.is_float:
            yield Fault(f"differentiates by {x.type}, expected a float dtype", instr)


def _listed(types: Sequence[object]) -> str:
    return ", ".join(map(str, types)) or "nothing"
