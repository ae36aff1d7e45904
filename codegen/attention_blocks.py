"""What attention's forward and backward kernels share: where a head lies, which keys a block of
queries looks at, its logits under the mask, and the products around them."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.attention_tiles import Columns, Finish, Tile, columns, in_rows, tile_function
from treadle.codegen.emission import Emission
from treadle.codegen.llvm import (
    I8,
    I32,
    VOID,
    FunctionWriter,
    Type,
    Val,
    lane_const,
    register_type,
    vec,
)
from treadle.codegen.plan_attention import AttentionPlan, Lay
from treadle.codegen.tiles import pack_function, zero
from treadle.codegen.vecmath_core import Maths
from treadle.codegen.vecmath_exp import exp_of_negative
from treadle.ir.dataclass import dataclass

NEG_INF = float("-inf")


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of features: where the first one begins, and the step to the next one."""

    base: Val
    step: int


class Block:
    """Writes pieces of a kernel; the methods are used in the order of the loops around them."""

    def __init__(
        self,
        state: Emission,
        w: FunctionWriter,
        plan: AttentionPlan,
        mask: Sequence[Val],
        scratch: Val,
    ) -> None:
        self.state, self.w, self.plan = state, w, plan
        self.elem = register_type(plan.dtype)
        self.row = vec(self.elem, plan.lanes)
        self.maths = Maths(w, self.row)
        self.mask = mask
        self.room: dict[str, Val] = {}
        at = 0
        for name, nbytes in plan.rooms.items():
            self.room[name] = w.gep(scratch, at)
            at += nbytes
        self.fill = w.const(NEG_INF, self.row)
        if len(mask) > 1:
            self.fill = w.splat(w.load(self.elem, mask[1]), plan.lanes)

    # --- places ------------------------------------------------------------------------------

    def at(self, base: Val, index: Val | int, step: int = 1) -> Val:
        """`base` plus `index` steps."""
        if isinstance(index, int):
            return self.w.gep(base, index * step, self.elem) if index * step else base
        return self.w.gep(base, self.w.mul(index, step) if step != 1 else index, self.elem)

    def indices(self, head: Val) -> list[Val]:
        """The head's index along each batch axis."""
        found: list[Val] = []
        for size in reversed(self.plan.batch):
            found.insert(0, self.w.urem(head, size))
            head = self.w.udiv(head, size)
        return found

    def head(self, base: Val, lay: Lay, indices: Sequence[Val]) -> Rows:
        """Where a head of an operand begins."""
        base = self.at(base, lay.offset)
        for index, step in zip(indices, lay.batch, strict=True):
            base = self.at(base, index, step) if step else base
        return Rows(base, lay.row)

    def set_head(self, indices: Sequence[Val]) -> None:
        """Where the head's mask begins."""
        mask = self.plan.mask
        if mask is None:
            return
        base = self.mask[0]
        for index, step in zip(indices, mask.batch, strict=True):
            if step:
                base = self.w.gep(base, self.w.mul(index, step), self._mask_elem)
        self.head_mask = base

    @property
    def _mask_elem(self) -> Type:
        assert self.plan.mask is not None
        return I8 if self.plan.mask.kind == "keep" else self.elem

    # --- a block of queries ------------------------------------------------------------------

    def set_queries(self, block: Val) -> None:
        """The block's first query, its number of queries, its mask."""
        w, plan = self.w, self.plan
        self.first = w.mul(block, plan.queries)
        self.rows = w.binary("llvm.smin", w.sub(w.int(plan.t), self.first), plan.queries)
        self.is_whole = w.icmp("eq", self.rows, plan.queries)
        if plan.mask is not None:
            self.block_mask = self.head_mask
            if plan.mask.query:
                self.block_mask = w.gep(self.head_mask, self.first, self._mask_elem)

    def pack(self, source: Rows, width: int, room: str) -> None:
        """The block's rows of `source` as [feature][query], 0 for queries that are not there."""
        w = self.w
        name = pack_function(self.state, self.plan.dtype)
        here = self.at(source.base, self.first, source.step)
        sizes = [w.int(n) for n in (width, source.step, 1, self.plan.queries)]
        w.call(name, VOID, [here, self.room[room], self.rows, *sizes])

    def keys(self) -> tuple[Val, Val]:
        """The keys that the block looks at: from a multiple of `key_rows` to another or to the
        last one; at least one. What the mask takes from all its queries at the ends is left out."""
        w, plan = self.w, self.plan
        low, high = w.int(0), w.int(plan.s)
        if plan.causal:
            high = w.binary("llvm.smin", w.add(self.first, self.rows), plan.s)
        if plan.mask is not None and plan.mask.kind == "keep":
            low, high = self._kept(low, high)
            low = w.mul(w.udiv(low, plan.key_rows), plan.key_rows)
        up = w.mul(w.udiv(w.add(high, plan.key_rows - 1), plan.key_rows), plan.key_rows)
        return low, w.binary("llvm.smin", up, plan.s)

    def _kept(self, low: Val, high: Val) -> tuple[Val, Val]:
        """Without the keys at both ends that no query keeps, if the fill is -inf. If that leaves
        none, the first one: its weights come out as 0."""
        w = self.w

        def is_unused(key: Val) -> Val:
            return w.not_(self._is_kept(key))

        def ends() -> Sequence[Val]:
            def above(v: Sequence[Val]) -> Val:
                last = w.binary("llvm.smax", w.sub(v[0], 1), 0)
                return w.and_(w.icmp("sgt", v[0], 0), is_unused(last))

            (top,) = w.while_([high], above, lambda v: [w.sub(v[0], 1)], "above")

            def below(v: Sequence[Val]) -> Val:
                here = w.binary("llvm.smin", v[0], self.plan.s - 1)
                return w.and_(w.icmp("slt", v[0], top), is_unused(here))

            (start,) = w.while_([low], below, lambda v: [w.add(v[0], 1)], "below")
            is_empty = w.icmp("eq", top, 0)
            return [w.select(is_empty, w.int(0), start), w.binary("llvm.smax", top, 1)]

        if len(self.mask) < 2:
            found = ends()
        else:
            fill = w.load(self.elem, self.mask[1])
            never = w.fcmp("oeq", fill, NEG_INF)
            found = w.branch(never, ends, lambda: [low, high], "trim")
        return found[0], found[1]

    def _is_kept(self, key: Val) -> Val:
        """Does any query of the block keep that key?"""
        w, plan = self.w, self.plan
        assert plan.mask is not None
        here = w.gep(self.block_mask, w.mul(key, plan.mask.key), I8)
        lanes = plan.queries if plan.mask.query else 1
        return w.any(w.icmp("ne", w.load(vec(I8, lanes), here), 0))

    # --- logits ------------------------------------------------------------------------------

    def logits(self, key: Val, raw: Sequence[Val]) -> tuple[list[Val], list[Val]]:
        """One key's logits from its products with the queries; where a bool mask keeps them."""
        w, plan = self.w, self.plan
        found = [w.fmul(x, plan.scale) for x in raw]
        kept: list[Val] = []
        if plan.mask is not None:
            given = self._mask_row(key, len(raw))
            if plan.mask.kind == "keep":
                kept = [w.icmp("ne", m, 0) for m in given]
                found = [w.select(m, x, self.fill) for m, x in zip(kept, found, strict=True)]
            else:
                found = [w.fadd(x, m) for x, m in zip(found, given, strict=True)]
        if plan.causal:
            ahead = w.splat(w.cast("trunc", w.sub(key, self.first), I32), plan.lanes)
            for v, x in enumerate(found):
                query = lane_const(range(v * plan.lanes, (v + 1) * plan.lanes), I32)
                found[v] = w.select(w.icmp("sge", query, ahead), x, NEG_INF)
        return found, kept

    def _mask_row(self, key: Val, count: int) -> list[Val]:
        w, plan = self.w, self.plan
        assert plan.mask is not None
        elem = self._mask_elem
        here = w.gep(self.block_mask, w.mul(key, plan.mask.key), elem)
        if not plan.mask.query:
            return [w.splat(w.load(elem, here), plan.lanes)] * count
        return [w.load(vec(elem, plan.lanes), w.gep(here, v * plan.lanes, elem))
                for v in range(count)]  # fmt: skip

    def load(self, base: Val, row: Val | int) -> list[Val]:
        """The vectors of one row of queries in scratch."""
        here = self.at(base, row, self.plan.queries)
        return [
            self.w.load(self.row, self.at(here, v * self.plan.lanes))
            for v in range(self.plan.vectors)
        ]

    def store(self, values: Sequence[Val], base: Val, row: Val | int) -> None:
        here = self.at(base, row, self.plan.queries)
        for v, value in enumerate(values):
            self.w.store(value, self.at(here, v * self.plan.lanes))

    def finite(self, tops: Sequence[Val]) -> list[Val]:
        """What is subtracted from logits: the maximum, but 0 where that is -inf."""
        w = self.w
        return [w.select(w.fcmp("oeq", m, NEG_INF), zero(self.row), m) for m in tops]

    def below(self, x: Val, top: Val) -> Val:
        """exp(x - top), and 1 where x is top (infinite, perhaps)."""
        w = self.w
        z = w.select(w.fcmp("oeq", x, top), zero(self.row), w.fsub(x, top))
        return exp_of_negative(self.maths, z)

    def inverse(self, totals: Sequence[Val]) -> list[Val]:
        """1 / total, and 0 for a row that sees nothing."""
        w = self.w
        one = w.const(1.0, self.row)
        return [w.select(w.fcmp("oeq", x, 0.0), zero(self.row), w.fdiv(one, x)) for x in totals]

    # --- products ----------------------------------------------------------------------------

    def by_queries(self, rows: Rows, first: Val, count: Val, width: int, right: str, to: str
                   ) -> None:  # fmt: skip
        """[key][query] = rows first to first + count of `rows`, times packed queries."""
        plan, w = self.plan, self.w
        lanes = Columns(tuple(range(0, plan.queries, plan.lanes)), plan.lanes)

        def tile(i: Val, m: int) -> None:
            a = self.at(rows.base, w.add(first, i), rows.step)
            c = self.at(self.room[to], i, plan.queries)
            kind = Tile(m, lanes, rows.step, 1, plan.queries, plan.queries, "set")
            self._call(kind, a, self.room[right], c, w.int(width), c)

        in_rows(w, count, plan.key_rows, [plan.s], tile)

    def from_keys(
        self, room: str, first: Val, count: Val, right: Rows, to: Rows, width: int, finish: Finish
    ) -> None:
        """Rows of queries of `to` from [key][query] times the rows of keys of `right`."""
        plan, w = self.plan, self.w
        b = self.at(right.base, first, right.step)
        ends = [plan.queries, plan.t % plan.queries]
        for group in columns(width, plan.lanes, plan.group):

            def tile(i: Val, m: int, group: Columns = group) -> None:
                c = self.at(to.base, w.add(self.first, i), to.step)
                kind = Tile(m, group, 1, plan.queries, right.step, to.step, finish)
                factors = self.at(self.room["factors"], i)
                self._call(kind, self.at(self.room[room], i), b, c, count, factors)

            in_rows(w, self.rows, plan.query_rows, ends, tile)

    def from_queries(
        self, room: str, first: Val, count: Val, right: Rows, to: Rows, width: int
    ) -> None:
        """Added to rows of keys of `to`: [key][query] times the block's rows of `right`."""
        plan, w = self.plan, self.w
        b = self.at(right.base, self.first, right.step)
        for group in columns(width, plan.lanes, plan.group):

            def tile(i: Val, m: int, group: Columns = group) -> None:
                c = self.at(to.base, w.add(first, i), to.step)
                kind = Tile(m, group, plan.queries, 1, right.step, to.step, "add")
                self._call(kind, self.at(self.room[room], i, plan.queries), b, c, self.rows, c)

            in_rows(w, count, plan.key_rows, [plan.s], tile)

    def _call(self, tile: Tile, a: Val, b: Val, c: Val, k: Val, factors: Val) -> None:
        name = tile_function(self.state, self.plan.dtype, tile)
        self.w.call(name, VOID, [a, b, c, k, factors])

    # --- rows of memory ----------------------------------------------------------------------

    def clear(self, rows: Rows, first: Val, count: Val, width: int) -> None:
        """Zeros in `count` rows."""
        w = self.w
        with w.loop(0, count, label="clear") as i:
            here = self.at(rows.base, w.add(first, i), rows.step)
            for group in columns(width, self.plan.lanes, self.plan.group):
                for start in group.starts:
                    w.store(zero(vec(self.elem, group.lanes)), self.at(here, start))

    def keep_row(self, values: Sequence[Val], to: Val) -> None:
        """One number for each of the block's queries."""
        w = self.w
        here = self.at(to, self.first)

        def whole() -> Sequence[Val]:
            for v, value in enumerate(values):
                w.store(value, self.at(here, v * self.plan.lanes))
            return ()

        def part() -> Sequence[Val]:
            self.store(values, self.room["factors"], 0)
            with w.loop(0, self.rows, label="query") as i:
                w.store(w.load(self.elem, self.at(self.room["factors"], i)), self.at(here, i))
            return ()

        w.branch(self.is_whole, whole, part, "keep")

    def take_row(self, source: Val) -> list[Val]:
        """One number for each of the block's queries, 0 for those that are not there."""
        w, room = self.w, self.room["factors"]
        here = self.at(source, self.first)

        def whole() -> Sequence[Val]:
            return [
                w.load(self.row, self.at(here, v * self.plan.lanes))
                for v in range(self.plan.vectors)
            ]

        def part() -> Sequence[Val]:
            self.store([zero(self.row)] * self.plan.vectors, room, 0)
            with w.loop(0, self.rows, label="query") as i:
                w.store(w.load(self.elem, self.at(here, i)), self.at(room, i))
            return self.load(room, 0)

        return list(w.branch(self.is_whole, whole, part, "take"))


def span(w: FunctionWriter, low: Val, high: Val, size: int) -> Val:
    """How many keys of a block that begins at `low` are left."""
    return w.binary("llvm.smin", w.sub(high, low), size)
