"""The native walk over a guard: does a specialization fit this call, and what does the call need?

    i1 treadle_guard(ptr registers, ptr records)

goes from record to record (`treadle.codegen.call_table`) and ends at the first one that does not
hold. Nothing that it does can run Python code or let another thread in: it reads memory, looks up
keys by identity and hash, and compares objects of exact builtin types. So borrowed references stay
valid from the first record to the last, and no guard can be half old, half new.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.codegen.call_table import RECORD, Context, Layout, Op, TensorFact
from treadle.codegen.llvm import (
    I1,
    I32,
    I64,
    NULL,
    PTR,
    VOID,
    Block,
    FunctionWriter,
    Module,
    Type,
    Val,
)

GUARD = "treadle_guard"
_SAME_TYPE = "treadle_same_type"
_SAME_SHAPE = "treadle_same_shape"
_EQUAL = 2  # Py_EQ


def word(w: FunctionWriter, base: Val, index: int, type: Type = PTR) -> Val:
    """The word at position `index` of a record or table."""
    return w.load(type, w.gep(base, 8 * index), align=8)


def at(w: FunctionWriter, base: Val, offset: int, type: Type = PTR) -> Val:
    """What stands at byte `offset` of an object."""
    return w.load(type, w.gep(base, offset), align=8)


def is_null(w: FunctionWriter, x: Val) -> Val:
    return w.icmp("eq", x, NULL)


class Exits:
    """Leaves to one block wherever a condition does not hold."""

    def __init__(self, w: FunctionWriter, block: Block) -> None:
        self.w, self.block = w, block

    def unless(self, condition: Val) -> None:
        go_on = self.w.new_block("on")
        self.w.cond_br(condition, go_on, self.block)
        self.w.start(go_on)

    def unless_same(self, x: Val, y: Val | int) -> None:
        self.unless(self.w.icmp("eq", x, y))

    def if_null(self, x: Val) -> None:
        self.unless(self.w.icmp("ne", x, NULL))


def write_guard(module: Module, layout: Layout, context: Val) -> None:
    """Add `treadle_guard` and what it calls to `module`."""
    _write_same_shape(module, layout, context)
    _write_same_type(module, layout, context)
    _Guard(module, layout, context).write()


def _write_same_shape(module: Module, layout: Layout, context: Val) -> None:
    """Whether a tuple holds exactly these sizes."""
    params = [(PTR, "tuple"), (I64, "rank"), (PTR, "sizes")]
    w = module.function(_SAME_SHAPE, I1, params, internal=True)
    found, rank, sizes = w.args
    objects = layout.objects
    different = w.new_block("different")
    exits = Exits(w, different)
    exits.unless_same(at(w, found, objects.type), word(w, context, Context.TUPLE))
    exits.unless_same(at(w, found, objects.size, I64), rank)
    with w.loop(0, rank, label="axis") as axis:
        size = w.load(PTR, w.gep(w.gep(found, objects.tuple_items), axis, PTR), align=8)
        exits.unless_same(at(w, size, objects.type), word(w, context, Context.INT))
        value = w.external("PyLong_AsLongLong", I64, [size])
        exits.unless_same(value, w.load(I64, w.gep(sizes, axis, I64), align=8))
    w.ret(1)
    w.start(different)
    w.ret(0)


def _write_same_type(module: Module, layout: Layout, context: Val) -> None:
    """Whether a TensorType is equal to the one of a record, though another object."""
    w = module.function(_SAME_TYPE, I1, [(PTR, "type"), (PTR, "fact")], internal=True)
    found, fact = w.args
    different = w.new_block("different")
    exits = Exits(w, different)
    exits.unless_same(
        at(w, found, layout.objects.type),
        at(w, word(w, fact, TensorFact.TYPE), layout.objects.type),
    )
    fields = instance_dict(w, found)
    exits.if_null(fields)
    dtype = _looked_up(w, fields, context, Context.DTYPE_NAME)
    exits.unless_same(dtype, word(w, fact, TensorFact.DTYPE))
    shape = _looked_up(w, fields, context, Context.SHAPE_NAME)
    exits.if_null(shape)
    rank, sizes = word(w, fact, TensorFact.RANK, I64), word(w, fact, TensorFact.SHAPE)
    w.ret(w.call(_SAME_SHAPE, I1, [shape, rank, sizes]))
    w.start(different)
    w.ret(0)


def _looked_up(w: FunctionWriter, fields: Val, context: Val, name: Context) -> Val:
    return lookup(w, fields, word(w, context, name), word(w, context, name + 1, I64))


def lookup(w: FunctionWriter, dictionary: Val, key: Val, hashed: Val) -> Val:
    """The value of a key, borrowed; null where it is not there."""
    return w.external("_PyDict_GetItem_KnownHash", PTR, [dictionary, key, hashed])


def instance_dict(w: FunctionWriter, x: Val) -> Val:
    """The dictionary of an instance, borrowed: the instance itself keeps it from now on."""
    found = w.external("PyObject_GenericGetDict", PTR, [x, NULL])
    w.external("Py_DecRef", VOID, [found])
    return found


class _Guard:
    """Writes the loop over the records, and one block for each `Op`."""

    def __init__(self, module: Module, layout: Layout, context: Val) -> None:
        params = [(PTR, "registers"), (PTR, "records")]
        self.w = w = module.function(GUARD, I1, params, internal=True)
        self.registers, self.records = w.args
        self.layout, self.objects, self.context = layout, layout.objects, context
        self.miss, self.next = w.new_block("miss"), w.new_block("next")
        self.exits = Exits(w, self.miss)
        self.here = self.records

    def write(self) -> None:
        w = self.w
        head, unknown = w.new_block("head"), w.new_block("unknown")
        entry = w.block
        w.br(head)
        w.start(head)
        self.here = w.inst(
            PTR, f"phi ptr [ %records, %{entry.name} ], [ %following, %{self.next.name} ]"
        )
        blocks = {op: w.new_block(op.name.lower()) for op in Op}
        cases = " ".join(f"i64 {op.value}, label %{b.name}" for op, b in blocks.items())
        code = word(w, self.here, 0, I64)
        w.effect(f"switch i64 {code.ref}, label %{unknown.name} [ {cases} ]")
        jumps: list[tuple[Val, Block]] = []
        for op, block in blocks.items():
            w.start(block)
            if op is Op.END:
                w.ret(1)
                continue
            jump = getattr(self, f"write_{op.name.lower()}")() or w.int(1)
            jumps.append((jump, w.block))
            w.br(self.next)
        w.start(self.next)
        pairs = ", ".join(f"[ {v.ref}, %{b.name} ]" for v, b in jumps)
        w.effect(f"%jump = phi i64 {pairs}")
        w.effect(f"%bytes = mul i64 %jump, {8 * RECORD}")
        w.effect(f"%following = getelementptr i8, ptr {self.here.ref}, i64 %bytes")
        w.br(head)
        w.start(unknown)
        w.br(self.miss)
        w.start(self.miss)
        w.ret(0)

    # --- operands ----------------------------------------------------------------------------

    def number(self, operand: int) -> Val:
        return word(self.w, self.here, 1 + operand, I64)

    def pointer(self, operand: int) -> Val:
        return word(self.w, self.here, 1 + operand)

    def register(self, operand: int) -> Val:
        """The object in the register that an operand names."""
        return self.numbered(self.number(operand))

    def numbered(self, number: Val) -> Val:
        return self.w.load(PTR, self.w.gep(self.registers, number, PTR), align=8)

    def put(self, x: Val) -> None:
        """Into the register that the first operand names."""
        self.w.store(x, self.w.gep(self.registers, self.number(0), PTR), align=8)

    def type_of(self, x: Val) -> Val:
        return at(self.w, x, self.objects.type)

    def typed(self, operand: int, type_operand: int) -> Val:
        """The object in a register, which must be of an exact type."""
        x = self.register(operand)
        self.exits.unless_same(self.type_of(x), self.pointer(type_operand))
        return x

    # --- getting things ----------------------------------------------------------------------

    def write_slot(self) -> None:
        x = self.typed(1, 3)
        found = self.w.load(PTR, self.w.gep(x, self.number(2)), align=8)
        self.exits.if_null(found)
        self.put(found)

    def write_empty(self) -> None:
        x = self.typed(1, 3)
        found = self.w.load(PTR, self.w.gep(x, self.number(2)), align=8)
        self.exits.unless(is_null(self.w, found))

    def write_looked_up(self) -> None:
        found = self.w.external("_PyType_Lookup", PTR, [self.pointer(0), self.pointer(1)])
        self.exits.unless_same(found, self.pointer(2))

    def write_dict(self) -> None:
        found = lookup(self.w, self.typed(1, 4), self.pointer(2), self.number(3))
        self.exits.if_null(found)
        self.put(found)

    def write_absent(self) -> None:
        found = lookup(self.w, self.typed(1, 4), self.pointer(2), self.number(3))
        self.exits.unless(is_null(self.w, found))

    def element(self, items: Callable[[Val], Val]) -> None:
        x = self.typed(1, 3)
        index = self.number(2)
        self.exits.unless(self.w.icmp("ult", index, at(self.w, x, self.objects.size, I64)))
        self.put(self.w.load(PTR, self.w.gep(items(x), index, PTR), align=8))

    def write_tuple(self) -> None:
        self.element(lambda x: self.w.gep(x, self.objects.tuple_items))

    def write_list(self) -> None:
        self.element(lambda x: at(self.w, x, self.objects.list_items))

    def write_attributes(self) -> None:
        found = instance_dict(self.w, self.typed(1, 3))
        self.exits.if_null(found)
        self.put(found)

    # --- comparing ---------------------------------------------------------------------------

    def write_is(self) -> None:
        self.exits.unless_same(self.register(0), self.pointer(1))

    def write_alias(self) -> None:
        self.exits.unless_same(self.register(0), self.register(1))

    def write_type(self) -> None:
        self.exits.unless_same(self.type_of(self.register(0)), self.pointer(1))

    def write_equal(self) -> None:
        w, x, known = self.w, self.register(0), self.pointer(1)
        other = w.new_block("other")
        same = w.icmp("eq", x, known)
        done = w.new_block("done")
        w.cond_br(same, done, other)
        w.start(other)
        self.exits.unless_same(self.type_of(x), self.pointer(2))
        self.exits.unless(self.equal(x, known))
        w.br(done)
        w.start(done)

    def equal(self, x: Val, y: Val) -> Val:
        """Whether two objects of one exact builtin type, int or str, are equal."""
        how = Val(str(_EQUAL), I32)
        found = self.w.external("PyObject_RichCompareBool", I32, [x, y, how])
        return self.w.icmp("eq", found, 1)

    def write_float(self) -> None:
        x = self.register(0)
        self.exits.unless_same(self.type_of(x), word(self.w, self.context, Context.FLOAT))
        self.exits.unless_same(at(self.w, x, self.objects.float_value, I64), self.number(1))

    def write_size(self) -> None:
        found = self.w.load(I64, self.w.gep(self.register(0), self.number(1)), align=8)
        self.exits.unless_same(found, self.number(2))

    def write_keys(self) -> None:
        w = self.w
        dictionary, count, keys = self.register(0), self.number(1), self.pointer(2)
        self.exits.unless_same(w.external("PyDict_Size", I64, [dictionary]), count)
        position, key, value = w.alloca(I64), w.alloca(PTR), w.alloca(PTR)
        w.store(w.int(0), position)
        text = word(w, self.context, Context.STR)
        with w.loop(0, count, label="key") as n:
            w.external("PyDict_Next", I32, [dictionary, position, key, value])
            found, known = w.load(PTR, key), w.load(PTR, w.gep(keys, n, PTR), align=8)
            with w.if_(w.icmp("ne", found, known), "other"):
                self.exits.unless_same(self.type_of(found), text)
                self.exits.unless_same(self.type_of(known), text)
                self.exits.unless(self.equal(found, known))

    def write_count(self) -> None:
        found = self.w.external("PyDict_Size", I64, [self.register(0)])
        self.exits.unless_same(found, self.number(1))

    def write_empty_set(self) -> None:
        self.exits.unless_same(self.w.external("PySet_Size", I64, [self.register(0)]), 0)

    # --- tensors and arrays ------------------------------------------------------------------

    def write_tensor(self) -> None:
        w, slots = self.w, self.layout.tensors
        x, fact = self.register(0), self.pointer(1)
        self.exits.unless_same(self.type_of(x), word(w, fact, TensorFact.CLASS))
        type_ = at(w, x, slots.type)
        with w.if_(w.icmp("ne", type_, word(w, fact, TensorFact.TYPE)), "type"):
            self.exits.unless(w.call(_SAME_TYPE, I1, [type_, fact]))
        self.maps(at(w, x, slots.maps), word(w, fact, TensorFact.MAPS))
        history, weak = at(w, x, slots.history), at(w, x, slots.weak)
        false = word(w, self.context, Context.FALSE)
        full = w.icmp("ne", word(w, fact, TensorFact.FLAGS, I64), 0)
        full_block, brief, done = w.new_block("full"), w.new_block("brief"), w.new_block("done")
        w.cond_br(full, full_block, brief)
        w.start(brief)
        self.exits.unless_same(weak, false)
        self.exits.unless_same(at(w, history, slots.requires_grad), false)
        w.br(done)
        w.start(full_block)
        self.exits.unless_same(weak, word(w, fact, TensorFact.WEAK))
        known: Sequence[tuple[int, TensorFact]] = (
            (slots.requires_grad, TensorFact.REQUIRES_GRAD), (slots.leaf, TensorFact.LEAF),
            (slots.depth, TensorFact.DEPTH), (slots.variable, TensorFact.VARIABLE),
        )  # fmt: skip
        for offset, expected in known:
            self.exits.unless_same(at(w, history, offset), word(w, fact, expected))
        open_ = word(w, fact, TensorFact.OPEN)
        with w.if_(w.icmp("ne", open_, NULL), "open"):
            self.exits.unless_same(at(w, history, slots.open), open_)
        w.br(done)
        w.start(done)

    def maps(self, found: Val, expected: Val) -> None:
        """The chain of index maps: any, none, or the very tuple."""
        w = self.w
        how = w.cast("ptrtoint", expected, I64)
        with w.if_(w.icmp("eq", how, 1), "none"):
            self.exits.unless_same(at(w, found, self.objects.size, I64), 0)
        with w.if_(w.icmp("ugt", how, 1), "same"):
            self.exits.unless_same(found, expected)

    def write_array(self) -> None:
        w, objects = self.w, self.objects
        x, shape = self.typed(0, 1), self.pointer(3)
        self.exits.unless_same(at(w, x, objects.array_dtype), self.pointer(2))
        rank = w.cast("zext", at(w, x, objects.array_rank, I32), I64)
        self.exits.unless_same(rank, self.number(4))
        sizes = at(w, x, objects.array_shape)
        with w.loop(0, rank, label="axis") as axis:
            found = w.load(I64, w.gep(sizes, axis, I64), align=8)
            self.exits.unless_same(found, w.load(I64, w.gep(shape, axis, I64), align=8))

    def write_bytes(self) -> None:
        w = self.w
        x = self.register(0)
        self.exits.unless(contiguous(w, x, self.layout))
        data = at(w, x, self.objects.array_data)
        found = w.external("memcmp", I32, [data, self.pointer(2), self.number(1)])
        self.exits.unless_same(found, 0)

    def write_apart(self) -> None:
        """No two of the tensors share their storage: a hash table of the cells' addresses."""
        w = self.w
        count, numbers, table, bits = (
            self.number(0), self.pointer(1), self.pointer(2), self.number(3),
        )  # fmt: skip
        size = w.shl(w.int(1), bits)
        w.external("memset", PTR, [table, Val("0", I32), w.mul(size, 8)])
        shift = w.sub(w.int(64), bits)
        with w.loop(0, count, label="tensor") as n:
            x = self.numbered(w.load(I64, w.gep(numbers, n, I64), align=8))
            cell = w.cast("ptrtoint", at(w, x, self.layout.tensors.cell), I64)
            first = w.lshr(w.mul(cell, _GOLDEN), shift)
            (place,) = w.while_(
                [first],
                lambda seen: w.icmp("ne", self._held(table, seen[0]), 0),
                lambda seen: [self._following(table, seen[0], cell, size)],
                "probe",
            )
            w.store(cell, w.gep(table, place, I64), align=8)

    def _held(self, table: Val, place: Val) -> Val:
        return self.w.load(I64, self.w.gep(table, place, I64), align=8)

    def _following(self, table: Val, place: Val, cell: Val, size: Val) -> Val:
        w = self.w
        self.exits.unless(w.icmp("ne", self._held(table, place), cell))
        return w.and_(w.add(place, 1), w.sub(size, 1))

    def write_version(self) -> Val:
        """The records that follow get values out of a dictionary: with the same version they got
        the same ones the last time, which are still in their registers."""
        w = self.w
        x = self.typed(0, 3)
        if self.objects.dict_version < 0:
            return w.int(1)
        found = at(w, x, self.objects.dict_version, I64)
        same = w.icmp("eq", found, self.number(1))
        return w.select(same, self.number(2), w.int(1))

    def write_remember(self) -> None:
        if self.objects.dict_version >= 0:
            found = at(self.w, self.register(0), self.objects.dict_version, I64)
            self.w.store(found, self.pointer(1), align=8)


_GOLDEN = -7046029254386353131  # 2**64 / the golden ratio, as a signed number


def contiguous(w: FunctionWriter, array: Val, layout: Layout) -> Val:
    """Whether an array is C-contiguous and aligned."""
    flags = at(w, array, layout.objects.array_flags, I32)
    return w.icmp("eq", w.and_(flags, _CONTIGUOUS | _ALIGNED), _CONTIGUOUS | _ALIGNED)


# NumPy's flags of arrays.
_CONTIGUOUS, _ALIGNED, WRITEABLE = 0x1, 0x100, 0x400
