"""What the emitters of one module share: the module, its fault sites, functions made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

from treadle.codegen.llvm import I1, I64, PTR, VOID, FunctionWriter, Module, Type, Val
from treadle.codegen.target import Target
from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Loc
from treadle.ir.types import TensorType


@dataclass(frozen=True, slots=True)
class FaultSite:
    """A place where a run can fail: how the error begins, and the user's line. The value that
    comes with a fault is an index out of range; at a check of a condition of shape `checked` it is
    the position of the first false element."""

    message: str
    loc: Loc | None
    checked: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class HostCall:
    """A place where code calls Python. `op` says what for; `text`: the name, the format or the
    label; `number`: of a callback's function; types of what goes in and comes out."""

    op: str
    text: str
    number: int
    takes: tuple[TensorType, ...]
    gives: tuple[TensorType, ...]


@dataclass(slots=True)
class Emission:
    """The state of writing one module."""

    module: Module
    target: Target
    reassociate: bool = False
    contract: bool = False
    faults: list[FaultSite] = field(default_factory=list)
    host_calls: list[HostCall] = field(default_factory=list)
    made: dict[str, object] = field(default_factory=dict)  # by name: the code that writes it
    same: dict[str, str] = field(default_factory=dict)

    def once(self, name: str, write: Callable[[str], None]) -> str:
        """Write the module function `name` unless it, or the module's library, has it already.

        Two writers of one name are a mistake of ours, which would call a function by another's
        signature.
        """
        writer = getattr(write, "__code__", None)  # a method has its function's
        if name not in self.made:
            self.made[name] = writer
            if not self.module.take(name):
                write(name)
        elif self.made[name] is not writer:
            raise AssertionError(f"two functions are called {name}: {writer}, {self.made[name]}")
        return name

    def fault_site(
        self, message: str, loc: Loc | None, checked: tuple[int, ...] | None = None
    ) -> int:
        """The number of a fault site; one line's unrolled copies share one."""
        site = FaultSite(message, loc, checked)
        if site not in self.faults:
            self.faults.append(site)
        return self.faults.index(site)

    def host_call(self, call: HostCall) -> int:
        """The number of a place where code calls Python."""
        self.host_calls.append(call)
        return len(self.host_calls) - 1

    def merged(self, w: FunctionWriter) -> str:
        """The name of the first function that is the same as `w` but for its name; `w` itself is
        dropped where there is an earlier one."""
        text = str(w).replace(f"@{w.name}(", "@(", 1)
        name = self.same.setdefault(text, w.name)
        if name != w.name:
            self.module.drop(w)
        return name


def run_tiles(
    state: Emission, w: FunctionWriter, pool: Val, fn: Val, ctx: Val, tiles: Val, threads: Val
) -> None:
    """`fn(ctx, tile, slot)` for all tiles: on the pool, or here where `pool` is null."""
    name = state.once("run_tiles", lambda name: _write_run_tiles(state, name))
    w.call(name, VOID, [pool, fn, ctx, tiles, threads])


def _write_run_tiles(state: Emission, name: str) -> None:
    params: list[tuple[Type, str]] = [(PTR, "pool"), (PTR, "fn"), (PTR, "ctx")]
    params += [(I64, "tiles"), (I64, "threads")]
    w = state.module.function(name, VOID, params, internal=True)
    pool, fn, ctx, tiles, threads = w.args
    shared, alone = w.new_block("shared"), w.new_block("alone")
    w.cond_br(w.inst(I1, f"icmp eq {pool}, null"), alone, shared)
    w.start(shared)
    w.effect(f"call void {pool.ref}({fn}, {ctx}, {tiles}, {threads})")
    w.ret()
    w.start(alone)
    with w.loop(0, tiles, label="tile") as tile:
        w.effect(f"call void {fn.ref}({ctx}, {tile}, i64 0)")
    w.ret()
