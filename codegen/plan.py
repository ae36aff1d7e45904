"""The kernel plan: every decision that code generation takes, as frozen data that prints.

`plan_function` decides, once, for each instruction of a KERNELS-level function; the emitters only
obey. What is chosen and why stands in `plan_fused` (loops over regions) and `plan_contract`
(register tiles). Instructions of one structure (equal layers) are planned once, and say so: the
second and later ones run the first one's code.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import field, replace
from typing import Any, cast

from treadle.codegen.faults import can_fault
from treadle.codegen.plan_attention import AttentionPlan, plan_attention
from treadle.codegen.plan_channels import ChannelPlan, plan_channels
from treadle.codegen.plan_contract import ContractPlan, Variant, plan_contract
from treadle.codegen.plan_control import ControlPlan
from treadle.codegen.plan_convolution import convolution_of
from treadle.codegen.plan_depthwise import DepthwisePlan, plan_depthwise
from treadle.codegen.plan_fused import FusedPlan, plan_fused, step_work
from treadle.codegen.plan_lines import LinesPlan, plan_lines, works_by_lines
from treadle.codegen.plan_pixels import PixelPlan, plan_pixels
from treadle.codegen.plan_stream import far_results, streamed_results
from treadle.codegen.plan_tail import TailPlan, plan_tail
from treadle.codegen.plan_taps import TapPlan, plan_taps
from treadle.codegen.plan_tiles import GRAIN, tiles_for
from treadle.codegen.plan_window_loops import WindowLoopsPlan, plan_window_loops
from treadle.codegen.plan_winograd import WinogradPlan, plan_winograd
from treadle.codegen.regions import Region
from treadle.codegen.target import Target
from treadle.ir.control import is_control
from treadle.ir.dataclass import dataclass
from treadle.ir.errors import CompileError
from treadle.ir.graph import Function, Instr, Loc, walk
from treadle.ir.host import is_host_call
from treadle.ir.memory import MemoryPlan
from treadle.ir.regions import FLAT_LENGTH
from treadle.ir.structure import structure
from treadle.ir.types import TensorType

_FREE = frozenset({"reshape", "const"})
_ALIGN = 64


@dataclass(frozen=True, slots=True)
class SequentialPlan:
    """A kernel that runs in plain loops, in order: scatter, scatter_add, check."""

    op: str
    operands: tuple[TensorType, ...]

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.operands))
        return f"{self.op} of {listed}, in order"


@dataclass(frozen=True, slots=True)
class HostPlan:
    """A call of Python code, between kernels, on the calling thread."""

    op: str
    operands: tuple[TensorType, ...]

    def __str__(self) -> str:
        listed = ", ".join(map(str, self.operands)) or "nothing"
        return f"{self.op} of {listed}, in Python"


@dataclass(frozen=True, slots=True)
class TablePlan:
    """One map that runs over `count` sets of buffers, each with its own flat length.

    All of them lie one after the other at `places`, which leave gaps so that a tile of `chunk`
    elements of that line begins with a whole step of the loop.
    """

    count: int
    lengths: tuple[int, ...]
    body: FusedPlan
    places: tuple[int, ...]
    chunk: int
    work: int

    @property
    def tiles(self) -> int:
        """The pieces that may run at a time."""
        end = self.places[-1] + self.lengths[-1] if self.lengths else 0
        return max(-(-end // self.chunk), 1)

    def __str__(self) -> str:
        lengths = ", ".join(map(str, self.lengths))
        tiles = f"tiles {self.tiles} of {self.chunk} (some {self.work} cycles, grain {GRAIN})"
        return f"table of {self.count}, lengths {lengths}, {tiles}; {self.body}"


Product = (
    ContractPlan | ChannelPlan | PixelPlan | TapPlan | DepthwisePlan | WinogradPlan
    | WindowLoopsPlan
)  # fmt: skip
Body = (
    FusedPlan | TablePlan | Product | AttentionPlan | LinesPlan | SequentialPlan | HostPlan
    | ControlPlan
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class KernelPlan:
    """The kernel of one instruction, counted as in the Function; `lines` are the user's.

    `code`: the name of the first kernel whose code this one runs too, its own where there is none
    or where its code names its lines because it can fault.
    """

    instr: int
    name: str
    body: Body
    lines: tuple[Loc, ...]
    code: str

    @property
    def tiles(self) -> int:
        """The pieces that may run at a time."""
        if isinstance(self.body, (FusedPlan, Product, AttentionPlan)):
            return self.body.tiling.count
        return self.body.tiles if isinstance(self.body, (TablePlan, LinesPlan)) else 1

    @property
    def parallel(self) -> bool:
        """Whether more than one thread can be of use."""
        if isinstance(self.body, ControlPlan):
            return self.body.parallel
        return self.tiles > 1 or (isinstance(self.body, Product) and self.body.spread)

    @property
    def shared(self) -> int:
        """Bytes of workspace that the kernel uses for itself, whatever the threads."""
        return self.body.shared if isinstance(self.body, (Product, ControlPlan)) else 0

    @property
    def scratch(self) -> int:
        """Bytes of workspace that each thread uses for itself."""
        if isinstance(self.body, Product):
            return self.body.own
        if isinstance(self.body, LinesPlan):
            return self.body.own
        with_scratch = (FusedPlan, AttentionPlan, ControlPlan)
        return self.body.scratch if isinstance(self.body, with_scratch) else 0

    def __str__(self) -> str:
        where = f"  ; {', '.join(map(str, self.lines))}" if self.lines else ""
        what = self.body if self.code == self.name else f"the code of {self.code}"
        return f"{self.name}: {what}{where}"


@dataclass(frozen=True, slots=True)
class Plan:
    """All kernels of a function in order; bytes of scratch that each thread needs, and that all
    of them share."""

    target: Target
    kernels: tuple[KernelPlan, ...]
    scratch: int
    shared: int

    def __str__(self) -> str:
        head = (
            f"target {self.target}, {self.shared} bytes of shared scratch, {self.scratch} a thread"
        )
        return "\n".join([head, *map(str, self.kernels)]) + "\n"


def plan_function(
    fn: Function,
    memory: MemoryPlan,
    target: Target,
    prefix: str = "",
    tiles: set[Variant] | None = None,
    winograd: int = 0,
) -> Plan:
    """Decide how each instruction of a KERNELS-level function runs on `target`.

    `prefix`: of the kernels' names, in a region; `tiles`: register tiles that the module has;
    `winograd`: up to what size convolutions may compute squares of positions together.
    Raises CompileError for an instruction that has no kernel.
    """
    kernels: list[KernelPlan] = []
    kinds = _Kinds(fn, memory, target, prefix, set() if tiles is None else tiles, winograd)
    for number, instr in enumerate(fn.instrs):
        if instr.op.name in _FREE:
            continue
        kind = kinds.of(instr)
        name = f"{prefix}k{len(kernels)}_{kind.hint}"
        body, code = kinds.plan(number, kind, name)
        kernels.append(KernelPlan(number, name, body, _lines(instr), code))
    scratch = max((-(-k.scratch // _ALIGN) * _ALIGN for k in kernels), default=0)
    shared = max((-(-k.shared // _ALIGN) * _ALIGN for k in kernels), default=0)
    return Plan(target, tuple(kernels), scratch, shared)


@dataclass(slots=True)
class _Kind:
    """Instructions of one structure: how the first of them runs. `variants`: plan and code by what
    depends on where values live, which is how results are stored."""

    body: Body
    hint: str
    faults: bool
    variants: dict[Hashable, tuple[Body, str]] = field(default_factory=dict)


class _Kinds:
    """Plans each structure once: equal layers have equal kernels."""

    def __init__(
        self, fn: Function, memory: MemoryPlan, target: Target, prefix: str, tiles: set[Variant],
        winograd: int,
    ) -> None:  # fmt: skip
        self.fn, self.memory, self.target = fn, memory, target
        self.prefix, self.tiles, self.winograd = prefix, tiles, winograd
        self.found: dict[Hashable, _Kind] = {}
        self.read = {*fn.outputs, *(arg for instr in fn.instrs for arg in instr.args)}

    def of(self, instr: Instr) -> _Kind:
        """What `instr` is one of."""
        key = structure(instr)
        if key not in self.found:
            if is_control(instr):
                body: Body = self._control(instr)
            else:
                body = _plan_instr(instr, self.target, self.tiles, self.winograd)
            self.found[key] = _Kind(body, _hint(instr), can_fault(instr))
        return self.found[key]

    def _control(self, instr: Instr) -> ControlPlan:
        """Of a loop or branch: the plans of its regions."""
        inner = self.memory.inner[instr]
        start = f"{self.prefix}r{len(self.found)}"
        plans = [
            plan_function(region, memory, self.target, f"{start}b{n}_", self.tiles, self.winograd)
            for n, (region, memory) in enumerate(zip(instr.regions, inner.plans, strict=True))
        ]
        times = cast(Any, instr.attrs).length if instr.op.name == "scan" else 1
        return ControlPlan(instr.op.name, tuple(plans), inner, times)

    def plan(self, number: int, kind: _Kind, name: str) -> tuple[Body, str]:
        """Plan and code of the kernel `name` of the `number`-th instruction."""
        instr, body = self.fn.instrs[number], kind.body
        where: Hashable = None
        if isinstance(body, FusedPlan):
            where = far_results(self.fn, self.memory, number)
        elif isinstance(body, SequentialPlan):
            where = self._in_place(instr)
        elif isinstance(body, LinesPlan):
            where = self._in_place(instr), tuple(r in self.read for r in instr.results)
        if where not in kind.variants:
            if isinstance(body, FusedPlan):
                body = streaming(body, instr, cast(Any, where), self.target)
            elif isinstance(body, LinesPlan):
                body = replace(body, stored=cast(Any, where)[1])
            kind.variants[where] = body, name
        body, code = kind.variants[where]
        return body, name if kind.faults else code

    def _in_place(self, instr: Instr) -> bool:
        """Whether the only result takes the place of the first operand."""
        places = self.memory.places
        return tuple(places[r] for r in instr.results) == (places[instr.args[0]],)


def _plan_instr(instr: Instr, target: Target, tiles: set[Variant], winograd: int) -> Body:
    attrs = cast(Any, instr.attrs)
    if instr.op.name == "fused":
        return plan_fused(region_of(instr), target)
    if instr.op.name == "fused_table":
        return _plan_table(instr, target)
    if instr.op.name == "contract":
        left, right = (a.type for a in instr.args[:2])
        region = instr.regions[0] if instr.regions else None
        result = region.inputs[0].type if region else instr.result.type
        if "[" in attrs.spec:
            tail = plan_tail(instr, target)
            region = region if region and region.instrs else None  # else there is a tail alone
            return _plan_windows(attrs.spec, left, right, result, target, region, tail, winograd)
        return plan_contract(attrs.spec, left, right, result, target, tiles, region)
    if instr.op.name in ("attention_forward", "attention_backward"):
        return plan_attention(instr, target)
    if works_by_lines(instr):
        return plan_lines(instr, target)
    if instr.op.name in ("scatter", "scatter_add", "check"):
        return SequentialPlan(instr.op.name, tuple(a.type for a in instr.args))
    if is_host_call(instr):
        return HostPlan(instr.op.name, tuple(a.type for a in instr.args))
    raise CompileError(f"there is no kernel for {instr.op.name}, which fusion should have wrapped")


def _plan_windows(
    spec: str,
    left: TensorType,
    right: TensorType,
    result: TensorType,
    target: Target,
    region: Function | None,
    tail: TailPlan | None,
    winograd: int,
) -> Product:
    """By the kernel of its form; in plain loops where it has none."""
    what = convolution_of(spec, left, right, result) if result.dtype.is_float else None
    if what is not None and tail is not None:
        what = replace(what, grain=tail.lines)
    assert tail is None or (what is not None and what.form == "pixels"), "it takes no tail"
    if what is not None and what.form == "pixels":
        pixels = plan_pixels(what, result.dtype, target, region)
        channels = plan_channels(what, result.dtype, target, region)
        better = channels is not None and channels.beats(pixels, target)
        direct = channels if channels is not None and better else pixels
        found = plan_winograd(what, result.dtype, target, region, winograd, direct.cycles)
        return found or direct
    if what is not None and region is None and what.high.tap_step > 0 < what.wide.tap_step:
        depthwise = plan_depthwise(what, result.dtype, target)
        return depthwise or plan_taps(what, result.dtype, target)
    return plan_window_loops(spec, left, right, result, target, region)


def streaming(body: FusedPlan, instr: Instr, far: tuple[int, ...], target: Target) -> FusedPlan:
    """The plan with streaming stores for those of the results `far` that allow it."""
    if not far:
        return body
    streamed = streamed_results(region_of(instr), body.dims, body.lanes, target, far)
    return replace(body, streamed=streamed)


def _plan_table(instr: Instr, target: Target) -> TablePlan:
    region = region_of(instr)
    body = plan_fused(region, target)
    step = body.lanes * body.unroll
    lengths = table_lengths(instr)
    places: list[int] = []
    end = 0
    for length in lengths:
        places.append(end)
        end += -(-length // step) * step
    work = step_work(region, body.lanes, ()) * end // body.lanes
    chunk = -(-end // step // tiles_for(work)) * step
    return TablePlan(len(lengths), lengths, body, tuple(places), max(chunk, step), work)


def region_of(instr: Instr) -> Region:
    """The analysed region of a `fused` or `fused_table` instruction."""
    (inner,) = instr.regions
    if instr.op.name == "fused_table":
        return Region(inner, (FLAT_LENGTH,), ())
    attrs = cast(Any, instr.attrs)
    return Region(inner, tuple(attrs.space), tuple(attrs.reduced))


def table_lengths(instr: Instr) -> tuple[int, ...]:
    """The flat length of each instance of a `fused_table`, read off its results."""
    count = cast(Any, instr.attrs).count
    each = len(instr.results) // count if count else 0
    return tuple(instr.results[i * each].type.static_shape[0] for i in range(count))


def _hint(instr: Instr) -> str:
    """A readable part of a kernel's name."""
    text = "_".join(r.name for r in instr.regions) or instr.op.name
    if instr.op.name == "contract" and instr.regions:
        text = f"contract_{text}"
    return re.sub(r"\W+", "_", text)[:40]


def _lines(instr: Instr) -> tuple[Loc, ...]:
    """The user's lines that the kernel comes from, each once, at most eight."""
    found = [instr.loc] if instr.loc else []
    for region in instr.regions:
        found += [i.loc for i in walk(region) if i.loc]
    return tuple(dict.fromkeys(found))[:8]
