"""From the items of a guard to the records that the native call path walks.

The same checks as those of the generated Python function in `treadle.tracer.guards`, one for one,
or stricter ones where strictness is cheaper (identity for equality): what these turn down is looked
at again by the Python function. Some things cannot be checked without running Python code (a
property, an array in another layout, what an opaque object prints): `guard_records` gives None for
a guard with any of these, and its calls take the path through Python.

A table is one NumPy array of words. It refers to Python objects by address, and to parts of itself;
`Words` keeps the former alive and puts in the latter when the table is complete.
"""

from __future__ import annotations

import gc
import itertools
import struct
import types
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from treadle.codegen.call_table import RECORD, Op, TensorFact
from treadle.ir.dataclass import dataclass
from treadle.runtime.call_fields import (
    FIELDS,
    NotNative,
    contents_offset,
    field_offset,
    found_in_class,
    has_plain_dict,
)
from treadle.runtime.call_layout import NotFound, objects, slot_offset, tensor_slots
from treadle.runtime.call_words import Words
from treadle.tracer.guards import GuardPlan, content
from treadle.tracer.history import History
from treadle.tracer.items import Item
from treadle.tracer.names import is_treadle
from treadle.tracer.tensor import Tensor
from treadle.tracer.walk import instance_dict


@dataclass(slots=True)
class GuardRecords:
    """`records` and `registers`: their positions in the words; `fetched`: a register for each
    value that the call needs."""

    records: int
    registers: int
    arguments: int
    fetched: list[int]


def guard_records(plan: GuardPlan, arguments: int, into: Words) -> GuardRecords | None:
    """The guard of `plan` as records in `into`; None where it needs Python."""
    try:
        return _Writer(plan, arguments, into).write()
    except (NotNative, NotFound):
        return None


class _Writer:
    """Writes records, in the order of the Python guard."""

    def __init__(self, plan: GuardPlan, arguments: int, into: Words) -> None:
        found = objects()
        if found is None:
            raise NotFound("the layout of objects")
        self.layout = found
        self.plan = plan
        self.words = into
        self.arguments = arguments
        self.records: list[list[int | _Inner | _InRecord]] = []
        self.children: dict[int, list[Item]] = {}  # what is looked up in an item, by its number
        self.done: set[int] = set()  # numbers of items that have nothing left to check
        self.registers: dict[int, int] = {}  # by item number
        self.constants: dict[int, int] = {}  # register: address
        self.numbers = itertools.count(arguments)

    def write(self) -> GuardRecords:
        needed = self.plan.needed()
        for item in needed:
            if item.step.how == "item" and item.parent is not None:
                self.children.setdefault(item.parent.number, []).append(item)
        for item in needed:
            self.item(item)
        self.shared()
        self.op(Op.END)
        into = self.words
        count = next(self.numbers)
        registers = into.reserve(count)
        for number, address in self.constants.items():
            into.set(registers + number, address)
        records = into.reserve(RECORD * len(self.records))
        for n, record in enumerate(self.records):
            for k, word in enumerate(record):
                place = records + RECORD * n + k
                if isinstance(word, _Inner):
                    into.point(place, word.position)
                elif isinstance(word, _InRecord):
                    into.point(place, records + RECORD * word.record + word.word)
                else:
                    into.set(place, word)
        fetched = [self.registers[item.number] for item in self.plan.fetch]
        return GuardRecords(records, registers, self.arguments, fetched)

    # --- records -----------------------------------------------------------------------------

    def op(self, op: Op, *operands: int | _Inner | _InRecord) -> None:
        self.records.append([int(op), *operands, *[0] * (RECORD - 1 - len(operands))])

    def object(self, x: Any) -> int:
        return self.words.object(x)

    def register(self, item: Item | None) -> int:
        assert item is not None
        return self.registers[item.number]

    def fresh(self, item: Item) -> int:
        number = self.registers[item.number] = next(self.numbers)
        return number

    def constant(self, item: Item, value: Any) -> None:
        if isinstance(value, types.MappingProxyType):  # of a class, which keeps its dictionary
            self.object(value)
            (value,) = gc.get_referents(value)
        self.constants[self.fresh(item)] = self.object(value)

    # --- how things are reached --------------------------------------------------------------

    def item(self, item: Item) -> None:
        if item.number in self.done:
            return
        if item.kind == "absent":
            self.absent(item)
            return
        if item.number not in self.registers:
            self.access(item)
        if self.looks_up(item):
            self.group(item)
        elif self.plan.checked(item):
            self.check(item)

    def check(self, item: Item) -> None:
        getattr(self, f"check_{item.kind}")(item, self.registers[item.number])

    def looks_up(self, item: Item) -> bool:
        """Whether an item is a dictionary whose content counts."""
        if not isinstance(item.value, _DICTS):
            return False
        compared = item.kind in ("attrs", "dict") and self.plan.checked(item)
        return compared or item.number in self.children

    def group(self, item: Item) -> None:
        """What a dictionary holds. All of it is known while the dictionary is the one that it was
        at the last call; only what is inside of the values is then looked at again."""
        r, value = self.register(item), item.value
        cls = dict if isinstance(value, types.MappingProxyType) else type(value)
        if item.kind == "names" and self.plan.checked(item):
            self.check(item)
        start = len(self.records)
        self.op(Op.VERSION, r, 0, 0, self.object(cls))
        if item.kind != "names" and self.plan.checked(item):
            self.keys(value, r)
        for child in self.children.get(item.number, ()):
            if child.kind == "absent":
                self.absent(child)
                self.done.add(child.number)
                continue
            self.access(child)
            if child.kind in _IMMUTABLE:
                if self.plan.checked(child):
                    self.check(child)
                self.done.add(child.number)
        self.op(Op.REMEMBER, r, _InRecord(start, 2))
        self.records[start][3] = len(self.records) - start

    def access(self, item: Item) -> None:
        how, key, parent = item.step.how, item.step.key, item.parent
        if how == "root":
            if key >= self.arguments:
                raise NotNative
            self.registers[item.number] = key
        elif how == "const":
            self.constant(item, key)
        elif how == "cell":
            self.field(item, next(self.numbers), key, "cell_contents", item.value, constant=True)
        elif how == "closure":
            self.closure(item, key)
        elif how == "item":
            assert parent is not None
            self.element(item, parent, key)
        elif how == "attr":
            assert parent is not None
            self.attribute(item, parent, key)
        elif how == "grad":
            assert parent is not None
            slots = tensor_slots()
            between, x = next(self.numbers), parent.value
            self.op(Op.SLOT, between, self.register(parent), slots.history, self.object(type(x)))
            self.op(Op.SLOT, self.fresh(item), between, slots.grad, self.object(History))
        elif how == "apply" and key is instance_dict and parent is not None:
            self.dictionary(item, parent)
        else:
            raise NotNative

    def field(
        self, item: Item | None, source: int, owner: Any, name: str, value: Any,
        constant: bool = False, into: int | None = None,
    ) -> None:  # fmt: skip
        """A field of an object of C code, by its place in objects of that class."""
        if constant:
            self.constants[source] = self.object(owner)
        if into is None:
            assert item is not None
            into = self.fresh(item)
        offset = field_offset(owner, name, value)
        self.op(Op.SLOT, into, source, offset, self.object(type(owner)))

    def closure(self, item: Item, number: int) -> None:
        parent = item.parent
        assert parent is not None
        fn = parent.value
        cells, cell = next(self.numbers), next(self.numbers)
        self.field(None, self.register(parent), fn, "__closure__", fn.__closure__, into=cells)
        self.op(Op.TUPLE, cell, cells, number, self.object(tuple))
        owner = fn.__closure__[number]
        self.field(item, cell, owner, "cell_contents", item.value)

    def element(self, item: Item, parent: Item, key: Any) -> None:
        source, value = self.register(parent), parent.value
        if isinstance(value, types.MappingProxyType):
            self.op(Op.DICT, self.fresh(item), source, *self.key(key), self.object(dict))
            return
        cls = self.object(type(value))
        if isinstance(value, dict) and type(value).__getitem__ is dict.__getitem__:
            self.op(Op.DICT, self.fresh(item), source, *self.key(key), cls)
        elif isinstance(value, list) and type(value).__getitem__ is list.__getitem__:
            self.op(Op.LIST, self.fresh(item), source, key, cls)
        elif isinstance(value, tuple) and type(value).__getitem__ is tuple.__getitem__:
            self.op(Op.TUPLE, self.fresh(item), source, key, cls)
        else:
            raise NotNative

    def key(self, key: Any) -> tuple[int, int]:
        """A key and its hash: what is looked up by them cannot run Python code where the class
        compares by identity or in C."""
        own = type(key)
        plain = own in (str, int, bool, float, type(None))
        if not plain and found_in_class(own, "__hash__") not in _BY_IDENTITY:
            raise NotNative
        return self.object(key), hash(key)

    def attribute(self, item: Item, parent: Item, name: str) -> None:
        owner = _value(parent)
        cls = type(owner)
        if name != "__dict__" and cls in FIELDS:
            self.field(item, self.register(parent), owner, name, item.value)
            return
        if found_in_class(cls, "__getattribute__") is not vars(object)["__getattribute__"]:
            raise NotNative
        if name == "__dict__":
            self.dictionary(item, parent)
            return
        found = found_in_class(cls, name)
        there = 0 if found is None else self.object(found)
        self.op(Op.LOOKED_UP, self.object(cls), self.object(name), there)
        if isinstance(found, types.MemberDescriptorType):
            offset = slot_offset(found, owner, item.value)
            self.op(Op.SLOT, self.fresh(item), self.register(parent), offset, self.object(cls))
            return
        own = getattr(owner, "__dict__", {})
        if hasattr(type(found), "__set__") or own.get(name) is not item.value:
            raise NotNative
        inside = self.dictionary(None, parent, own)
        self.op(Op.DICT, self.fresh(item), inside, *self.key(name), self.object(dict))

    def dictionary(self, item: Item | None, parent: Item, own: Any = None) -> int:
        """The attributes of an instance; their register."""
        owner = _value(parent)
        if not has_plain_dict(owner, own if item is None else item.value):
            raise NotNative
        into = next(self.numbers) if item is None else self.fresh(item)
        self.op(Op.ATTRIBUTES, into, self.register(parent), 0, self.object(type(owner)))
        return into

    def absent(self, item: Item) -> None:
        how, key, parent = item.step.how, item.step.key, item.parent
        if how == "cell":
            cell = next(self.numbers)
            self.constants[cell] = self.object(key)
            self.op(Op.EMPTY, cell, cell, contents_offset(), self.object(types.CellType))
        elif how == "item" and parent is not None and isinstance(parent.value, _DICTS):
            proxy = isinstance(parent.value, types.MappingProxyType)
            register = self.register(parent)
            cls = self.object(dict if proxy else type(parent.value))
            self.op(Op.ABSENT, 0, register, *self.key(key), cls)
        else:
            raise NotNative

    # --- all together ------------------------------------------------------------------------

    def shared(self) -> None:
        """Storages that were one must be one, and those that were several, several."""
        first: dict[int, Item] = {}
        slots = tensor_slots()
        cells: dict[int, int] = {}

        def cell_of(item: Item) -> int:
            if item.number not in cells:
                cells[item.number] = next(self.numbers)
                owner = self.object(type(item.value))
                self.op(Op.SLOT, cells[item.number], self.register(item), slots.cell, owner)
            return cells[item.number]

        for item in self.plan.needed():
            if item.kind == "tensor" and self.plan.checked(item):
                other = first.setdefault(id(item.value.cell), item)
                if other is not item:
                    self.op(Op.ALIAS, cell_of(item), cell_of(other))
        apart = list({id(i.value.cell): i for i in self.plan.apart}.values())
        if len(apart) > 1:
            bits = (2 * len(apart)).bit_length()
            numbers = self.words.put([self.register(item) for item in apart])
            table = self.words.reserve(1 << bits)
            self.op(Op.APART, len(apart), _Inner(numbers), _Inner(table), bits)

    # --- one check a kind --------------------------------------------------------------------

    def check_tensor(self, item: Item, r: int) -> None:
        x: Tensor = item.value
        history, type_ = x.history, x.type
        full = x.weak or history.requires_grad
        fact = [0] * TensorFact.SIZE
        fact[TensorFact.CLASS] = self.object(type(x))
        fact[TensorFact.TYPE] = self.object(type_)
        fact[TensorFact.DTYPE] = self.object(type_.dtype)
        fact[TensorFact.RANK] = type_.rank
        if item.number not in self.plan.any_view:
            fact[TensorFact.MAPS] = self.object(x.maps) if x.maps else 1
        fact[TensorFact.FLAGS] = int(full)
        for field, value in (
            (TensorFact.WEAK, x.weak), (TensorFact.REQUIRES_GRAD, history.requires_grad),
            (TensorFact.LEAF, history.leaf), (TensorFact.DEPTH, history.depth),
            (TensorFact.VARIABLE, history.variable),
        ):  # fmt: skip
            fact[field] = self.object(value)
        if history.variable:
            fact[TensorFact.OPEN] = self.object(history.open)
        sizes = self.words.put(type_.static_shape)
        position = self.words.put(fact)
        self.words.point(position + TensorFact.SHAPE, sizes)
        self.op(Op.TENSOR, r, _Inner(position))

    def check_array(self, item: Item, r: int) -> None:
        x: npt.NDArray[Any] = item.value
        if type(x) is not np.ndarray or x.dtype.hasobject:
            raise NotNative
        sizes = self.words.put(x.shape)
        cls, dtype = self.object(np.ndarray), self.object(x.dtype)
        self.op(Op.ARRAY, r, cls, dtype, _Inner(sizes), x.ndim)
        if self.plan.checks_content(item):
            if x.nbytes > _COMPARED:
                raise NotNative
            data = np.frombuffer(content(x) or b"\0", np.uint8)
            self.object(data)
            self.op(Op.BYTES, r, x.nbytes, data.ctypes.data)

    def check_input(self, item: Item, r: int) -> None:
        self.exactly(item.value, r)

    def check_scalar(self, item: Item, r: int) -> None:
        x = item.value
        if x is None or x is True or x is False:
            self.op(Op.IS, r, self.object(x))
        elif type(x) is float:
            self.op(Op.FLOAT, r, struct.unpack("q", struct.pack("d", x))[0])
        else:
            self.op(Op.EQUAL, r, self.object(x), self.object(type(x)))

    def check_value(self, item: Item, r: int) -> None:
        self.op(Op.IS, r, self.object(item.value))

    def check_data(self, item: Item, r: int) -> None:
        raise NotNative

    def check_list(self, item: Item, r: int) -> None:
        self.exactly(item.value, r)
        if type(item.value).__len__ not in (list.__len__, tuple.__len__):
            raise NotNative
        self.op(Op.SIZE, r, self.layout.size, len(item.value))

    check_tuple = check_deque = check_list

    def check_dict(self, item: Item, r: int) -> None:
        self.exactly(item.value, r)
        self.keys(item.value, r)

    def keys(self, value: dict[Any, Any], r: int) -> None:
        if type(value).__iter__ is not dict.__iter__:
            raise NotNative  # an OrderedDict has an order of its own
        keys = [self.object(key) for key in value]
        self.op(Op.KEYS, r, len(keys), _Inner(self.words.put(keys)))

    def check_set(self, item: Item, r: int) -> None:
        """The same elements in the same order. Of others than an empty set, only as they are."""
        self.exactly(item.value, r)
        if item.value or type(item.value) not in (set, frozenset):
            raise NotNative
        self.op(Op.EMPTY_SET, r)

    def check_tree(self, item: Item, r: int) -> None:
        self.exactly(item.value, r)
        if any(child.step.how == "part" for child in item.children):
            raise NotNative

    def check_object(self, item: Item, r: int) -> None:
        self.exactly(item.value, r)

    check_method = check_partial = check_object

    def exactly(self, x: Any, r: int) -> None:
        self.op(Op.TYPE, r, self.object(type(x)))

    def check_attrs(self, item: Item, r: int) -> None:
        self.keys(item.value, r)

    def check_names(self, item: Item, r: int) -> None:
        cls = item.owner
        if cls is None or is_treadle(cls.__module__):
            return
        self.op(Op.COUNT, r, len(item.value))
        if len(cls.__mro__) > 2:
            order, owner = next(self.numbers), next(self.numbers)
            self.constants[owner] = self.object(cls)
            offset = slot_offset(vars(type)["__mro__"], cls, cls.__mro__)
            self.op(Op.SLOT, order, owner, offset, self.object(type(cls)))
            self.op(Op.IS, order, self.object(cls.__mro__))

    def check_open(self, item: Item, r: int) -> None:
        """It leads on."""

    def check_function(self, item: Item, r: int) -> None:
        fn = item.value
        for name in ("__code__", "__globals__"):
            found, known = next(self.numbers), getattr(fn, name)
            self.field(None, r, fn, name, known, into=found)
            self.op(Op.IS, found, self.object(known))
            if item.step.how == "const":
                break

    def check_same(self, item: Item, r: int) -> None:
        self.op(Op.IS, r, self.object(item.value))

    def check_alias(self, item: Item, r: int) -> None:
        self.op(Op.ALIAS, r, self.register(item.of))


_BY_IDENTITY: Final = (vars(object)["__hash__"], vars(Tensor)["__hash__"])
_DICTS: Final = (dict, types.MappingProxyType)
_COMPARED: Final = 1 << 20  # bytes of an array's content that are kept to compare with


@dataclass(frozen=True, slots=True)
class _Inner:
    """The address of a position in the words."""

    position: int


@dataclass(frozen=True, slots=True)
class _InRecord:
    """The address of a word of a record."""

    record: int
    word: int


# Kinds of items of which nothing can change but which object they are.
_IMMUTABLE: Final = frozenset({"scalar", "value", "same"})


def _value(item: Item) -> Any:
    """The object of an item; of a descriptor that leads on, it is not kept."""
    if item.kind == "open" and item.value is None and item.parent is not None:
        return item.parent.value[item.step.key]
    return item.value
