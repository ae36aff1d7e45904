"""Which captured NumPy arrays only the traced program has read, and no Python or NumPy code.

The content of such an array is a run-time input; that of any other is guarded, for it may have
shaped the trace. NumPy reads memory unseen, so this is a proof from the code: every instruction
that loads the array by its name hands it to an instruction at which the trace took it in, or to one
that asks for what is guarded anyhow (`a.shape`, `a is None`). Where that cannot be shown, because
the array sits in a list, is an argument of another function or is reached by a computed name, the
content counts.
"""

from __future__ import annotations

import dis
import functools
import sys
from collections.abc import Collection, Iterator
from types import CodeType, FrameType
from typing import Final

from treadle.tracer.items import Item, Tree
from treadle.tracer.location import is_inside

Position = tuple[CodeType, int]  # a code object and the offset of an instruction in it

_LOADS: Final = frozenset(
    {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_ATTR", "LOAD_METHOD"}
    | {"LOAD_FROM_DICT_OR_DEREF", "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_SUPER_ATTR"}
)
_STORES: Final = frozenset(
    {"STORE_GLOBAL", "STORE_NAME", "STORE_DEREF", "STORE_ATTR", "DELETE_ATTR", "DELETE_GLOBAL"}
)
# Instructions that only put something on the stack, or do nothing to it.
_PUSHES: Final = frozenset(
    {"LOAD_FAST", "LOAD_FAST_CHECK", "LOAD_FAST_BORROW", "LOAD_CONST", "LOAD_SMALL_INT"}
    | {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "PUSH_NULL", "KW_NAMES", "PRECALL", "NOP"}
    | {"CACHE", "EXTENDED_ARG"}
)
# How many of the topmost values an instruction takes.
_TAKES: Final = {
    "BINARY_OP": 2, "COMPARE_OP": 2, "BINARY_SUBSCR": 2, "CONTAINS_OP": 2, "IS_OP": 2,
    "STORE_SUBSCR": 3, "UNARY_NEGATIVE": 1, "UNARY_NOT": 1, "UNARY_INVERT": 1, "LOAD_ATTR": 1,
    "LOAD_METHOD": 1, "POP_TOP": 1, "STORE_FAST": 1,
}  # fmt: skip
_CALLS: Final = {"CALL": 2, "CALL_KW": 3, "CALL_FUNCTION": 1, "CALL_METHOD": 2}  # besides arguments
_GUARDED: Final = frozenset({"shape", "dtype", "ndim", "size", "itemsize", "nbytes"})
_HARMLESS: Final = frozenset({"IS_OP", "POP_TOP"})


def here() -> Position | None:
    """The instruction of the user's code that is running."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if not is_inside(frame.f_code.co_filename):
            return frame.f_code, frame.f_lasti
        frame = frame.f_back
    return None


def only_read_by_trace(tree: Tree, array: Item, taken: Collection[Position]) -> bool:
    """Whether the trace alone read the content of `array`; `taken`: where it took arrays in."""
    if tree.everything:
        return False
    ways = [array, *(i for i in tree.items if i.kind == "alias" and i.of is array)]
    names = [_name_of(way) for way in ways]
    codes = list(_all_codes(tree))
    return all(name is not None and _is_covered(name, codes, taken) for name in names)


def _name_of(item: Item) -> str | None:
    """The name by which code loads the item; None where it is not loaded by name."""
    how, parent = item.step.how, item.parent
    if how in ("cell", "closure"):
        return item.path
    if how == "attr":
        return str(item.step.key)
    named = how == "item" and parent is not None and parent.kind in ("attrs", "names")
    return str(item.step.key) if named else None


def _all_codes(tree: Tree) -> Iterator[CodeType]:
    stack, seen = list(tree.codes), set(tree.codes)
    while stack:
        code = stack.pop()
        yield code
        for const in code.co_consts:
            if isinstance(const, CodeType) and const not in seen:
                seen.add(const)
                stack.append(const)


def _is_covered(name: str, codes: Collection[CodeType], taken: Collection[Position]) -> bool:
    for code in codes:
        if name not in code.co_names and name not in code.co_freevars + code.co_cellvars:
            continue
        body = _instructions(code)
        for n, instruction in enumerate(body):
            if instruction.argval != name:
                continue
            if instruction.opname in _STORES:
                return False
            if instruction.opname in _LOADS and not _is_taken(code, n, taken, frozenset()):
                return False
    return True


@functools.lru_cache(maxsize=1024)
def _instructions(code: CodeType) -> tuple[dis.Instruction, ...]:
    return tuple(dis.get_instructions(code))


def _is_taken(
    code: CodeType, load: int, taken: Collection[Position], followed: frozenset[str]
) -> bool:
    """Whether the value that instruction `load` puts on the stack goes into the trace only."""
    body = _instructions(code)
    above = 0  # values on top of it
    for instruction in body[load + 1 :]:
        name = instruction.opname
        if name in _PUSHES:
            above += dis.stack_effect(instruction.opcode, instruction.arg)
            continue
        if name.startswith("POP_JUMP") and name.endswith("NONE"):
            return above == 0
        takes = _CALLS[name] + (instruction.arg or 0) if name in _CALLS else _TAKES.get(name)
        if takes is None:
            return False
        if above >= takes:
            above += dis.stack_effect(instruction.opcode, instruction.arg, jump=False)
            continue
        if name == "STORE_FAST":
            return _local_is_taken(code, instruction.argval, taken, followed)
        harmless = name in _HARMLESS or (name == "LOAD_ATTR" and instruction.argval in _GUARDED)
        return harmless or (code, instruction.offset) in taken
    return False


def _local_is_taken(
    code: CodeType, variable: str, taken: Collection[Position], followed: frozenset[str]
) -> bool:
    """The same for a local variable that the value is stored in."""
    if variable in followed or variable in code.co_cellvars:
        return variable in followed
    followed |= {variable}
    for n, instruction in enumerate(_instructions(code)):
        names = instruction.argval if isinstance(instruction.argval, tuple) else ()
        if variable in names:  # an instruction for two variables at once
            return False
        loads = instruction.opname.startswith("LOAD_FAST") and instruction.argval == variable
        if loads and not _is_taken(code, n, taken, followed):
            return False
    return True
