"""The program: `Value`, `Instr`, `Function`. Ordered, frozen SSA.

Nothing here has a setter. A pass makes a new Function (through `treadle.ir.builder`) and reuses
the instructions that it leaves alone. Values and instructions have identity: two equal `exp`
instructions are two instructions until `cse` says otherwise. A `Value` knows the `Instr` that
made it, so that a rewrite pattern can look upwards without a table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

from treadle.ir.dataclass import dataclass
from treadle.ir.types import TensorType

if TYPE_CHECKING:
    from treadle.ir.op import Attrs, OpDef


class Level(IntEnum):
    """How far down a Function is; the verifier checks each level's invariants."""

    TRACED = 0  # what the user wrote: composites, `gradient` and `variable` included
    CORE = 1  # after autodiff and expand: primitive ops only
    KERNELS = 2  # fused regions, contractions, views: one instruction, at most one kernel


@dataclass(frozen=True, slots=True)
class Loc:
    """A line of the user's program. `role` is "backward" on what autodiff made from that line."""

    file: str
    line: int
    role: str = ""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f" ({self.role})" if self.role else "")


class Value:
    """One SSA value: a type, and the instruction that made it (None for a parameter)."""

    __slots__ = ("index", "producer", "type")

    def __init__(self, type: TensorType, producer: Instr | None = None, index: int = 0) -> None:
        self.type = type
        self.producer = producer
        self.index = index

    def __repr__(self) -> str:
        made = self.producer.op.name if self.producer is not None else "param"
        return f"<Value {self.type} of {made}>"


class Instr:
    """One operation: `results = op(args, attrs) regions`, at the user's line `loc`."""

    __slots__ = ("args", "attrs", "loc", "op", "regions", "results")

    def __init__(
        self,
        op: OpDef,
        args: Sequence[Value],
        attrs: Attrs,
        types: Sequence[TensorType],
        loc: Loc | None = None,
        regions: Sequence[Function] = (),
    ) -> None:
        self.op = op
        self.args = tuple(args)
        self.attrs = attrs
        self.loc = loc
        self.regions = tuple(regions)
        # Most instructions have one result, and passes make very many.
        if len(types) == 1:
            self.results: tuple[Value, ...] = (Value(types[0], self),)
        else:
            self.results = tuple([Value(t, self, i) for i, t in enumerate(types)])

    @property
    def result(self) -> Value:
        """The only result."""
        (value,) = self.results
        return value

    def __repr__(self) -> str:
        types = ", ".join(str(r.type) for r in self.results)
        return f"<Instr {self.op.name} -> {types}>"


@dataclass(frozen=True, slots=True, eq=False)
class Param:
    """A parameter: an argument of the call, or state that the function reads from outside.

    `path` says where it is found: `x`, `batch['image']`, `self.fc1.weight`.
    """

    value: Value
    path: str
    kind: Literal["arg", "state"] = "arg"


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """What a call gives: part of the result, or a new value for the state at `path`.

    print: not the caller's; shown when the run is over, as the text `path` says. A text takes as
    many results, all with that path, as it has places for values, at least one.
    """

    value: Value
    path: str
    kind: Literal["out", "state", "print"] = "out"


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """A whole program, or the region of an instruction. Closed: it uses only its own values."""

    name: str
    params: tuple[Param, ...]
    instrs: tuple[Instr, ...]
    results: tuple[Result, ...]

    @property
    def inputs(self) -> tuple[Value, ...]:
        return tuple([p.value for p in self.params])

    @property
    def outputs(self) -> tuple[Value, ...]:
        return tuple([r.value for r in self.results])

    def __str__(self) -> str:
        from treadle.ir.printer import print_function  # the printer needs this module

        return print_function(self)

    def _repr_html_(self) -> str:
        from treadle.ir.notebook import function_html

        return function_html(self)


def uses(fn: Function) -> dict[Value, list[Instr]]:
    """For each value, the instructions of `fn` (not of nested regions) that take it, in order.

    A value that is used twice by one instruction lists it twice. Results are not included.
    """
    table: dict[Value, list[Instr]] = {}
    for instr in fn.instrs:
        for arg in instr.args:
            if arg in table:
                table[arg].append(instr)
            else:
                table[arg] = [instr]
    return table


def walk(fn: Function) -> Iterator[Instr]:
    """All instructions, those of nested regions after the one that holds them. Iterative."""
    stack = [iter(fn.instrs)]
    while stack:
        for instr in stack[-1]:
            yield instr
            if instr.regions:
                stack.extend(iter(region.instrs) for region in reversed(instr.regions))
                break
        else:
            stack.pop()
