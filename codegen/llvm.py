"""A writer of LLVM IR as text: typed values, one method an instruction, loops that read as loops.

    module = Module(target)
    w = module.function("scale", I64, [(PTR, "bufs"), (PTR, "fault")])
    x = w.load(PTR, w.args[0])
    with w.loop(0, n, 16) as i:
        v = w.load(vec(F32, 16), w.gep(x, i, F32), align=4)
        w.store(w.fmul(v, 2.0), w.gep(x, i, F32), align=4)
    w.ret(0)
    text = str(module)

Text, because building and printing llvmlite's objects costs several times more than LLVM's own
parsing. Nothing here folds or simplifies: the code generator of LLVM does that within a basic
block. Floating-point instructions carry no fast-math flags unless the caller passes some.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import field

from treadle.codegen.llvm_instructions import Instructions, Operand
from treadle.codegen.llvm_types import (
    F32,
    F64,
    I1,
    I8,
    I16,
    I32,
    I64,
    I128,
    NULL,
    PTR,
    VOID,
    Type,
    Val,
    float_const,
    float_text,
    int_const,
    lane_const,
    memory_type,
    register_type,
    vec,
    wrapped,
)
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass

__all__ = [
    "F32",
    "F64",
    "I1",
    "I8",
    "I16",
    "I32",
    "I64",
    "I128",
    "NULL",
    "PTR",
    "VOID",
    "Block",
    "FunctionWriter",
    "Loop",
    "Module",
    "Operand",
    "Type",
    "Val",
    "float_const",
    "int_const",
    "lane_const",
    "memory_type",
    "register_type",
    "vec",
]  # fmt: skip

_METADATA = '!0 = !{i32 1}\n!1 = !{!"branch_weights", i32 1, i32 2000}\n'


@dataclass(slots=True)
class Module:
    """LLVM IR in the making: functions, constants in memory, each declaration once.

    Functions of the module `library`, which is compiled apart, are called as the module's own.
    """

    target: Target
    library: Module | None = None
    _functions: list[FunctionWriter] = field(default_factory=list)
    _globals: dict[str, str] = field(default_factory=dict)
    _declared: dict[str, str] = field(default_factory=dict)
    _taken: dict[str, FunctionWriter] = field(default_factory=dict)

    def function(
        self,
        name: str,
        result: Type,
        params: Sequence[tuple[Type, str]],
        *,
        internal: bool = False,
        attributes: str = "nounwind",
    ) -> FunctionWriter:
        """A new function, ready to be written from its entry block on.

        `internal`: not visible outside the module. `params` are types with readable names.
        """
        writer = FunctionWriter(self, name, result, params, internal, attributes)
        self._functions.append(writer)
        return writer

    def drop(self, writer: FunctionWriter) -> None:
        """Take a function out again: it turned out to be the same as an earlier one."""
        self._functions.remove(writer)

    def take(self, name: str) -> bool:
        """Whether the library has the function `name`, which may be called from then on."""
        found = self.library._function(name) if self.library is not None else None
        if found is not None:
            self._taken[name] = found
        return found is not None

    @property
    def has_taken(self) -> bool:
        """Whether the library's code must be linked with the module's."""
        return bool(self._taken)

    def declare(self, name: str, result: Type, params: Sequence[Type]) -> None:
        """Declare a function of the process or an intrinsic; repeats are dropped."""
        if name not in self._declared:
            listed = ", ".join(p.text for p in params)
            self._declared[name] = f"declare {result.text} @{name}({listed})"

    def has_function(self, name: str) -> bool:
        """Whether a function of that name is defined, or being written."""
        return self._function(name) is not None

    def _function(self, name: str) -> FunctionWriter | None:
        return next((f for f in self._functions if f.name == name), None)

    def has_global(self, name: str) -> bool:
        """Whether a constant of that name was made already."""
        return name in self._globals

    def constant(self, name: str, type_text: str, value_text: str, align: int = 64) -> Val:
        """A private constant in read-only memory, made once; the value is its address."""
        if name not in self._globals:
            self._globals[name] = (
                f"@{name} = private unnamed_addr constant {type_text} {value_text}, align {align}"
            )
        return Val(f"@{name}", PTR)

    def table(self, name: str, elem: Type, values: Sequence[int] | Sequence[float]) -> Val:
        """A private constant array of integers or floats; the value is its address."""
        if elem.is_float:
            items = [f"{elem.text} {float_text(v, elem.elem)}" for v in values]
        else:
            items = [f"{elem.text} {wrapped(int(v), elem.bits)}" for v in values]
        return self.constant(name, f"[{len(items)} x {elem.text}]", f"[{', '.join(items)}]")

    def variable(self, name: str, type_text: str, initial: str = "zeroinitializer") -> Val:
        """A private variable in memory; the value is its address."""
        self._globals[name] = f"@{name} = internal global {type_text} {initial}, align 64"
        return Val(f"@{name}", PTR)

    def __str__(self) -> str:
        """All of it, with the library where that is needed."""
        functions = list(map(str, self._functions))
        if self.library is None or not self._taken:
            return self._text(self._globals, functions, self._declared)
        functions += map(str, self.library._functions)
        declared = self._declared | self.library._declared
        return self._text(self._globals | self.library._globals, functions, declared)

    def apart(self) -> str:
        """The module without the library."""
        declared = {name: f.declaration() for name, f in self._taken.items()}
        return self._text(self._globals, map(str, self._functions), self._declared | declared)

    def opened(self) -> str:
        """The module with functions that others may call: as a library."""
        functions = (str(f).replace("define internal ", "define ", 1) for f in self._functions)
        return self._text(self._globals, functions, self._declared)

    def _text(
        self, constants: dict[str, str], functions: Iterable[str], declared: dict[str, str]
    ) -> str:
        head = f'target triple = "{self.target.triple}"'
        return "\n".join([head, *constants.values(), *functions, *declared.values(), _METADATA])


@dataclass(frozen=True, slots=True)
class Block:
    """A basic block, by its label."""

    name: str


@dataclass(slots=True)
class Loop:
    """A loop while its body is written.

    `index` is the counter, `carried` the values that the iteration starts with. The body sets
    `next` to the values for the following one. After the loop `results` holds the last of them
    (the initial ones where no iteration ran).
    """

    index: Val
    carried: tuple[Val, ...]
    next: Sequence[Val] = ()
    results: tuple[Val, ...] = ()


class FunctionWriter(Instructions):
    """Writes one function, instruction after instruction, into its current block."""

    def __init__(
        self,
        module: Module,
        name: str,
        result: Type,
        params: Sequence[tuple[Type, str]],
        internal: bool,
        attributes: str,
    ) -> None:
        super().__init__(module.target, module.declare)
        self.module = module
        self.name = name
        self.result = result
        self.args = tuple(Val(f"%{label}", type) for type, label in params)
        self.block = Block("entry")
        self._linkage = "internal " if internal else ""
        self._attributes = attributes

    def __str__(self) -> str:
        params = ", ".join(str(a) for a in self.args)
        head = f"\ndefine {self._linkage}{self.result.text} @{self.name}({params})"
        body = "\n".join([*self._allocas, *self._lines])
        return f"{head} {self._attributes} {{\nentry:\n{body}\n}}\n"

    def declaration(self) -> str:
        """What a module says that calls the function of another one."""
        params = ", ".join(a.type.text for a in self.args)
        return f"declare {self.result.text} @{self.name}({params}) {self._attributes}"

    # --- control flow ------------------------------------------------------------------------

    def new_block(self, label: str) -> Block:
        """A block to branch to; `start` it once."""
        self._count += 1
        return Block(f"{label}.{self._count}")

    def start(self, block: Block) -> None:
        """Write into `block` from here on. The block before must have ended with a branch."""
        self._lines.append(f"{block.name}:")
        self.block = block

    def br(self, to: Block) -> None:
        self.effect(f"br label %{to.name}")

    def cond_br(self, cond: Val, then: Block, other: Block, unlikely: bool = False) -> None:
        """`unlikely`: the first block is laid out of the way."""
        hint = ", !prof !1" if unlikely else ""
        self.effect(f"br {cond}, label %{then.name}, label %{other.name}{hint}")

    def ret(self, x: Operand | None = None) -> None:
        if x is None:
            self.effect("ret void")
        else:
            self.effect(f"ret {self._as(x, self.result)}")

    def phi(self, type: Type, incoming: Sequence[tuple[Val, Block]]) -> Val:
        """The value that belongs to the block which control came from; first in its block."""
        pairs = ", ".join(f"[ {v.ref}, %{b.name} ]" for v, b in incoming)
        return self.inst(type, f"phi {type.text} {pairs}")

    @contextmanager
    def if_(self, cond: Val, label: str = "if", unlikely: bool = False) -> Iterator[None]:
        """The body runs where `cond`, an i1 scalar, is true."""
        then, after = self.new_block(label), self.new_block(f"{label}.end")
        self.cond_br(cond, then, after, unlikely)
        self.start(then)
        yield
        self.br(after)
        self.start(after)

    def branch(
        self,
        cond: Val,
        then: Callable[[], Sequence[Val]],
        other: Callable[[], Sequence[Val]],
        label: str = "if",
        unlikely: bool = False,
    ) -> tuple[Val, ...]:
        """The values of one of two pieces of code, of which only that one runs."""
        yes, no = self.new_block(f"{label}.then"), self.new_block(f"{label}.else")
        after = self.new_block(f"{label}.end")
        self.cond_br(cond, yes, no, unlikely)
        ends: list[tuple[Sequence[Val], Block]] = []
        for block, code in ((yes, then), (no, other)):
            self.start(block)
            values = code()
            ends.append((values, self.block))
            self.br(after)
        self.start(after)
        (xs, from_yes), (ys, from_no) = ends
        pairs = zip(xs, ys, strict=True)
        return tuple(self.phi(x.type, [(x, from_yes), (y, from_no)]) for x, y in pairs)

    def while_(
        self,
        initial: Sequence[Val],
        go_on: Callable[[Sequence[Val]], Val],
        body: Callable[[Sequence[Val]], Sequence[Val]],
        label: str = "while",
    ) -> tuple[Val, ...]:
        """`body` maps the carried values to the next ones as long as `go_on` of them is true."""
        head, inside = self.new_block(label), self.new_block(f"{label}.body")
        after, before = self.new_block(f"{label}.end"), self.block
        self.br(head)
        self.start(head)
        carried, holes = self._open_phis([v.type for v in initial])
        self.cond_br(go_on(carried), inside, after)
        self.start(inside)
        following = body(carried)
        self._close_phis(holes, carried, initial, before, following, self.block)
        self.br(head)
        self.start(after)
        return tuple(carried)

    @contextmanager
    def loop(self, start: Operand, stop: Operand, step: int = 1, label: str = "i") -> Iterator[Val]:
        """`for i in range(start, stop, step)` with i64 bounds and a positive step; yields i."""
        with self.carry(start, stop, step, (), label) as loop:
            yield loop.index

    @contextmanager
    def carry(
        self,
        start: Operand,
        stop: Operand,
        step: int,
        initial: Sequence[Val],
        label: str = "i",
    ) -> Iterator[Loop]:
        """A loop that carries values in registers from one iteration to the next; see `Loop`.

        It is tested at its end, behind a guard where the bounds are not two constants of which
        the first is smaller: the shape that LLVM's strength reduction wants.
        """
        first, last = self._as(start, I64), self._as(stop, I64)
        body, after = self.new_block(label), self.new_block(f"{label}.end")
        before, runs = self.block, _at_least_once(start, stop)
        if runs:
            self.br(body)
        else:
            self.cond_br(self.icmp("slt", first, last), body, after)
        self.start(body)
        phis, holes = self._open_phis([I64, *(v.type for v in initial)], label)
        loop = Loop(phis[0], tuple(phis[1:]))
        yield loop
        if len(loop.next) != len(initial):
            raise ValueError(
                f"loop {label}: {len(initial)} values are carried, next has {len(loop.next)}"
            )
        end = self.block
        index = self.inst(I64, f"add nsw i64 {loop.index.ref}, {step}", f"{label}.next")
        following = (index, *loop.next)
        self._close_phis(holes, phis, (first, *initial), before, following, end)
        self.cond_br(self.icmp("slt", index, last), body, after)
        self.start(after)
        loop.results = tuple(loop.next)
        if not runs:
            pairs = zip(initial, loop.next, strict=True)
            loop.results = tuple(self.phi(v.type, [(v, before), (n, end)]) for v, n in pairs)

    def _open_phis(self, types: Sequence[Type], label: str = "v") -> tuple[list[Val], int]:
        """Phis whose second source is not written yet, and the line of the first."""
        at = len(self._lines)
        return [self.inst(t, "", label if k == 0 else "c") for k, t in enumerate(types)], at

    def _close_phis(
        self,
        at: int,
        phis: Sequence[Val],
        initial: Sequence[Val],
        before: Block,
        following: Sequence[Val],
        end: Block,
    ) -> None:
        rows = zip(phis, initial, following, strict=True)
        for k, (phi, old, new) in enumerate(rows):
            self._lines[at + k] = (
                f"  {phi.ref} = phi {phi.type.text} "
                f"[ {old.ref}, %{before.name} ], [ {new.ref}, %{end.name} ]"
            )


def _at_least_once(start: Operand, stop: Operand) -> bool:
    return not isinstance(start, Val) and not isinstance(stop, Val) and start < stop
