"""The tables by which the native call path knows one specialization of a jitted function.

The call path is one piece of native code for the whole process (`treadle.codegen.call`): it walks
tables of 64-bit words that Python has filled in. Pointers to Python objects in them are borrowed;
whoever fills in a table keeps the objects alive. This module says what stands where.

A guard is a row of records of `RECORD` words: an `Op` and up to five operands. Registers hold
borrowed references: those of constants are filled in beforehand, the rest by the guard.
"""

from __future__ import annotations

from enum import IntEnum, auto
from typing import Final

from treadle.ir.dataclass import dataclass

RECORD: Final = 6


class Op(IntEnum):
    """What a record of a guard does. `r`, `s`: numbers of registers; anything that does not hold
    is a miss."""

    END = 0  # everything holds
    SLOT = auto()  # r = what stands at byte `offset` of the object s, of exact type `type`
    EMPTY = auto()  # nothing stands at byte `offset` of the object s, of exact type `type`
    LOOKED_UP = auto()  # the attribute `name` of class `type` is found to be `object`
    DICT = auto()  # r = s[key], with the key's hash; s is of exact type `type`
    ABSENT = auto()  # `key`, with its hash, is not in s, which is of exact type `type`
    TUPLE = auto()  # r = s[index], s of exact type `type`, a tuple
    LIST = auto()  # the same of a list
    ATTRIBUTES = auto()  # r = the instance dictionary of s, which is of exact type `type`
    IS = auto()  # r is `object`
    ALIAS = auto()  # r is s
    TYPE = auto()  # r is of exact type `type`
    EQUAL = auto()  # r is `object`, or of its type `type` (int or str) and equal
    FLOAT = auto()  # r is a float with these bits
    SIZE = auto()  # the word at byte `offset` of r is `count`
    KEYS = auto()  # r is a dictionary with `count` keys, those at `address`, in that order
    COUNT = auto()  # r is a dictionary of `count` keys
    EMPTY_SET = auto()  # r is a set without elements
    TENSOR = auto()  # r is a tensor of the class, type and flags at `address`
    ARRAY = auto()  # r is a NumPy array of the dtype and shape at `address`
    BYTES = auto()  # and its content is the `count` bytes at `address`
    APART = auto()  # the cells of the `count` tensors in the registers at `address` differ
    VERSION = auto()  # where the dictionary r is of version `version`, go on `count` records later;
    # it is of exact type `type`
    REMEMBER = auto()  # all of these held: put the version of the dictionary r at `address`


class Word(IntEnum):
    """The head of a table."""

    BUSY = 0  # the table is in use, by this thread further out or by another one
    GRAD_MODE = auto()  # True or False
    ARGUMENTS = auto()  # how many there are
    REGISTERS = auto()  # their address; the arguments come first
    GUARD = auto()  # address of the records
    FETCHED = auto()  # address of the numbers of the registers that the call needs
    FETCHED_COUNT = auto()
    PYTHON = auto()  # takes the fetched values and does the rest; null: all is native
    HITS = auto()  # calls that were native to the end
    ENTRY = auto()  # address of the compiled function
    BUFFERS = auto()  # its first argument
    FAULT = auto()  # its fault record, two words
    FAULT_VALUE = auto()
    RELEASE = auto()  # not 0: other Python threads may run meanwhile
    PREPARE = auto()  # called before a run on several threads; null: none is needed
    PARAMS = auto()  # address of `Param` records
    PARAM_COUNT = auto()
    RESULTS = auto()  # address of `Result` records
    RESULT_COUNT = auto()
    CELLS = auto()  # of `Made` records: the storages that a call makes
    CELL_COUNT = auto()
    HISTORIES = auto()
    HISTORY_COUNT = auto()
    TENSORS = auto()
    TENSOR_COUNT = auto()
    WRITES = auto()  # of `Write` records
    WRITE_COUNT = auto()
    GRADS = auto()  # of `Grad` records
    GRAD_COUNT = auto()
    TREE = auto()  # of `Node` records: the result, children before parents
    TREE_COUNT = auto()
    LOCATE = auto()  # tells the user's line, where it is not that of the call before
    SITE_CODE = auto()  # the code object and instruction of that call, or null
    SITE_INSTRUCTION = auto()
    SITE = auto()  # and its line
    DROPPED = auto()  # address of room for references that are let go when all is done
    DROPPED_COUNT = auto()
    COUNT = auto()


class Param(IntEnum):
    """Where the address of a parameter comes from."""

    KIND = 0
    REGISTER = auto()
    OWNED = auto()  # the run overwrites it: nobody else may read it
    VALUE = auto()  # room for a float
    HELD = auto()  # room for a reference while other threads run
    SIZE = auto()


class ParamKind(IntEnum):
    TENSOR = 0  # the storage of a tensor
    ARRAY = auto()
    FLOAT = auto()


class Result(IntEnum):
    """Memory for one result of the run: that of a parameter, or a fresh array."""

    SHARED = 0  # the parameter's number; -1: a fresh one
    DTYPE = auto()
    RANK = auto()
    SHAPE = auto()  # address of the dimensions
    MAKE = auto()  # called to make a large one; null: NumPy makes it
    MADE = auto()  # room for the reference
    SIZE = auto()


class Made(IntEnum):
    """An object that each call makes: a copy of a template, a few of its slots apart."""

    TYPE = 0
    SLOTS = auto()  # address of pairs (offset, object)
    SLOT_COUNT = auto()
    FIRST = auto()  # of a cell: its result; of a tensor: its cell
    SECOND = auto()  # of a tensor: its history
    OBJECT = auto()  # room for the reference
    SIZE = auto()


class Write(IntEnum):
    """New content of the storage of the tensor in a register."""

    REGISTER = 0
    RESULT = auto()
    VERSION = auto()  # room for a reference
    SIZE = auto()


class Grad(IntEnum):
    """`.grad` of a tensor becomes what the operands say."""

    FRESH = 0  # the tensor is one that the call makes
    OWNER = auto()
    KIND = auto()
    OPERAND = auto()
    SIZE = auto()


class NodeKind(IntEnum):
    CONSTANT = 0
    FETCHED = auto()  # the value of a register
    FRESH = auto()  # a tensor that the call makes
    TUPLE = auto()  # of the nodes at CHILDREN
    LIST = auto()
    DICT = auto()  # the same, with the keys at KEYS


class Node(IntEnum):
    """A part of the result. OPERAND: an object, register, tensor, or number of children."""

    KIND = 0
    OPERAND = auto()
    CHILDREN = auto()  # address of their numbers
    KEYS = auto()
    MADE = auto()  # room for the reference
    SIZE = auto()


class TensorFact(IntEnum):
    """What the record of `Op.TENSOR` points to."""

    CLASS = 0
    TYPE = auto()
    DTYPE = auto()
    RANK = auto()
    SHAPE = auto()  # address of the dimensions
    MAPS = auto()  # 0: any; 1: none; else the very tuple
    FLAGS = auto()  # 0: neither weak nor requiring grad; 1: as the following words say
    WEAK = auto()
    REQUIRES_GRAD = auto()
    LEAF = auto()
    DEPTH = auto()
    VARIABLE = auto()
    OPEN = auto()  # 0: any
    SIZE = auto()


@dataclass(frozen=True, slots=True)
class TensorSlots:
    """Byte offsets of the slots of Tensor, Cell and History."""

    cell: int
    maps: int
    history: int
    type: int
    weak: int
    cell_buffer: int
    cell_home: int
    cell_version: int
    cell_written_at: int
    cell_export: int
    requires_grad: int
    leaf: int
    depth: int
    variable: int
    open: int
    grad: int


@dataclass(frozen=True, slots=True)
class ObjectLayout:
    """Byte offsets in CPython's and NumPy's objects, as they were found in this process."""

    type: int
    size: int  # of a tuple or list
    tuple_items: int
    list_items: int
    float_value: int
    array_data: int
    array_rank: int
    array_shape: int
    array_dtype: int
    array_flags: int
    dict_version: int  # -1: dictionaries have none


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything that the code of the call path must know about objects."""

    objects: ObjectLayout
    tensors: TensorSlots
    calls: int  # of a dispatcher: the tuple of its calls
    table: int  # of a call: the array that is its table
    disabled: int  # of the switches: how many `disable_jit` are entered


class Context(IntEnum):
    """Addresses that the code needs, filled in when it is loaded."""

    MISS = 0
    NONE = auto()
    MODES = auto()
    TRACE = auto()  # "trace"
    GRAD = auto()  # "grad"
    SWITCHES = auto()
    ZERO = auto()
    TRUE = auto()
    FALSE = auto()
    TUPLE = auto()
    LIST = auto()
    DICT = auto()
    INT = auto()
    STR = auto()
    FLOAT = auto()
    ARRAY = auto()
    DTYPE_NAME = auto()  # "dtype", and its hash
    DTYPE_HASH = auto()
    SHAPE_NAME = auto()
    SHAPE_HASH = auto()
    DISPATCH_CODE = auto()  # of the Python functions between the user's frame and this code
    BOUND_CODE = auto()
    NEW_ARRAY = auto()  # NumPy's PyArray_NewFromDescr
    COUNT = auto()
