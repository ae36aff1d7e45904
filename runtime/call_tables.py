"""The table of one specialization for the native call path: its guard, and what a call does.

A call that only reads storages, runs, writes storages and gradients, and returns tensors in tuples,
lists and dictionaries is native from end to end. Where it does more (it is recorded for a
`backward()` outside, prints, assigns attributes, returns other objects), the guard is native and
the rest is `Specialization.call`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import CodeType
from typing import Any, Final

import numpy as np

from treadle.codegen.call_table import (
    Grad,
    Made,
    Node,
    NodeKind,
    Param,
    ParamKind,
    Result,
    Word,
)  # fmt: skip
from treadle.runtime.blocks import LARGE, blocks
from treadle.runtime.call_guard import GuardRecords, guard_records
from treadle.runtime.call_layout import NotFound, objects, offset_of
from treadle.runtime.call_words import Words
from treadle.runtime.executable import NativeExecutable, data_pointer
from treadle.runtime.threads import get_num_threads, pool
from treadle.tracer.guards import GuardPlan
from treadle.tracer.location import is_inside, user_location
from treadle.tracer.pytree import TreeDef
from treadle.tracer.recipes import Assembled, Constant, Fresh, Known, Recipe
from treadle.tracer.specialization import Specialization
from treadle.tracer.tensor import Tensor

# A run of at least so many cycles (some 5 us) lets other Python threads go on meanwhile.
RELEASE: Final = 20_000
_KINDS: Final = {
    "cell": ParamKind.TENSOR, "view": ParamKind.TENSOR, "array": ParamKind.ARRAY,
    "float": ParamKind.FLOAT,
}  # fmt: skip


class Call:
    """One specialization as the native call path knows it.

    `table` is an array whose first words are those of `Word`; it refers to what `kept` holds.
    """

    __slots__ = ("_block", "_executable", "_site", "_threads", "kept", "table")

    def __init__(self, words: Words, spec: Specialization) -> None:
        self.table = words.finish()
        self.kept = words.kept
        self._executable = spec.executable
        self._threads = spec.threads
        self._block: Any = None
        self._site: tuple[CodeType, Any] | None = None

    @property
    def hits(self) -> int:
        """Calls that were native from end to end."""
        return int(self.table[Word.HITS])

    def __getitem__(self, word: Word) -> int:
        return int(self.table[word])

    def locate(self) -> Any:
        """The user's line. It is kept for the next call from the same instruction, where that is
        the user's own."""
        found = user_location()
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code in _BETWEEN:
            frame = frame.f_back
        if not is_inside(frame.f_code.co_filename):
            self._site = frame.f_code, found
            self.table[Word.SITE_CODE] = id(frame.f_code)
            self.table[Word.SITE_INSTRUCTION] = int(frame.f_lasti)
            self.table[Word.SITE] = id(found)
        return found

    def prepare(self) -> None:
        """The workspace, the pool and the number of threads of the next run."""
        executable = self._executable
        assert isinstance(executable, NativeExecutable)
        interface = executable.interface
        count = (self._threads or get_num_threads()) if interface.parallel else 1
        nbytes = interface.workspace + count * interface.scratch
        if self._block is None or self._block.nbytes < nbytes:
            self._block = blocks.workspace(nbytes)
        last = (self[Word.BUFFERS] - int(self.table.ctypes.data)) // 8
        last += interface.params + len(executable.results)
        last += len(executable.constant_pointers)
        self.table[last] = data_pointer(self._block) or 0
        self.table[last + 1] = pool().parallel if count > 1 else 0
        self.table[last + 2] = count


# Functions of this package between the user's frame and native code; filled in with the path.
_BETWEEN: Final[set[CodeType]] = set()


def stands_between(code: CodeType) -> None:
    """Frames of that code lie between the user's call and the native call path."""
    _BETWEEN.add(code)


def call_of(spec: Specialization, plan: GuardPlan, arguments: int) -> Call | None:
    """The table of a specialization; None where its guard needs Python code."""
    words = Words()
    head = words.reserve(Word.COUNT)
    records = guard_records(plan, arguments, words)
    if records is None:
        return None
    writer = _Writer(spec, words, head, records)
    writer.guard()
    try:
        native = writer.native()
    except NotFound:
        native = False
    if not native:
        words.set(head + Word.PYTHON, words.object(spec.call))
    call = Call(words, spec)
    if native:
        for word, function in ((Word.LOCATE, call.locate), (Word.PREPARE, call.prepare)):
            call.kept.append(function)
            call.table[word] = id(function)
        if not writer.prepares:
            call.prepare()
            call.table[Word.PREPARE] = 0
    return call


class _Writer:
    """Fills in the head of a table."""

    def __init__(
        self, spec: Specialization, words: Words, head: int, records: GuardRecords
    ) -> None:
        self.spec, self.words, self.head, self.records = spec, words, head, records
        self.prepares = False

    def set(self, word: Word, value: int) -> None:
        self.words.set(self.head + word, value)

    def point(self, word: Word, position: int) -> None:
        self.words.point(self.head + word, position)

    def guard(self) -> None:
        records, words = self.records, self.words
        self.set(Word.GRAD_MODE, words.object(self.spec.grad_mode))
        self.set(Word.ARGUMENTS, records.arguments)
        self.point(Word.REGISTERS, records.registers)
        self.point(Word.GUARD, records.records)
        self.rows(Word.FETCHED, Word.FETCHED_COUNT, [[r] for r in records.fetched])

    def rows(self, first: Word, count: Word, rows: Sequence[Sequence[int]]) -> int:
        """A table of records; the position of the first."""
        position = self.words.put([word for row in rows for word in row])
        self.point(first, position)
        self.set(count, len(rows))
        return position

    def native(self) -> bool:
        """Everything behind the guard; False where that needs Python."""
        spec = self.spec
        executable = spec.executable
        if not isinstance(executable, NativeExecutable):
            return False
        if executable.interface.prints or executable.interface.host_calls:
            return False
        grads = [_alone(g.recipe) for g in spec.grads]
        if not spec.is_simple or any(isinstance(g, Assembled) for g in grads):
            return False
        if not all(map(_is_simple, [spec.output, *grads])):
            return False
        objects_ = objects()
        assert objects_ is not None
        templates = spec.templates()
        self.run(executable)
        self.made(templates)
        writes = [[self.register(w.position), w.result, 0] for w in spec.writes]
        self.rows(Word.WRITES, Word.WRITE_COUNT, writes)
        rows = [self.grad(g.fresh, g.position, g.recipe) for g in spec.grads]
        self.rows(Word.GRADS, Word.GRAD_COUNT, rows)
        self.tree(spec.output)
        self.point(Word.DROPPED, self.words.reserve(4 * len(writes) + len(grads) + 1))
        return True

    def register(self, position: int) -> int:
        """The register of a fetched value."""
        return self.records.fetched[position]

    def run(self, executable: NativeExecutable) -> None:
        spec, words = self.spec, self.words
        owned = {param for param, _ in executable.in_place}
        params = []
        for n, source in enumerate(spec.sources):
            row = [0] * Param.SIZE
            row[Param.KIND] = _KINDS[source.kind]
            row[Param.REGISTER] = self.register(source.position)
            row[Param.OWNED] = int(n in owned)
            params.append(row)
        self.rows(Word.PARAMS, Word.PARAM_COUNT, params)
        rows, shapes = [], []
        for result in executable.results:
            row = [0] * Result.SIZE
            row[Result.SHARED] = result if isinstance(result, int) else -1
            shapes.append(words.put([0] if isinstance(result, int) else result[0] or (0,)))
            if not isinstance(result, int):
                shape, dtype = result
                row[Result.DTYPE] = words.object(dtype)
                row[Result.RANK] = len(shape)
                if int(np.prod(shape)) * dtype.itemsize >= LARGE:
                    row[Result.MAKE] = words.object(_Empty(shape, dtype))
            rows.append(row)
        first = self.rows(Word.RESULTS, Word.RESULT_COUNT, rows)
        for n, shape_at in enumerate(shapes):
            words.point(first + n * Result.SIZE + Result.SHAPE, shape_at)
        pointers = executable.constant_pointers
        count = len(params) + len(rows) + len(pointers) + 3
        buffers = words.reserve(count)
        self.point(Word.BUFFERS, buffers)
        for n, pointer in enumerate(pointers):
            words.set(buffers + len(params) + len(rows) + n, pointer or 0)
        words.object(executable)
        self.set(Word.ENTRY, int(executable.entry_address))
        parallel = executable.interface.parallel
        self.prepares = parallel
        self.set(Word.RELEASE, int(parallel or executable.interface.cycles >= RELEASE))

    def made(self, templates: Sequence[Tensor]) -> None:
        """Storages, histories and tensors, from examples of them."""
        words, spec = self.words, self.spec
        cells = {id(x.cell): (x.cell, f.result) for x, f in zip(templates, spec.fresh, strict=True)}
        histories = {id(x.history): x.history for x in templates}
        rows: list[tuple[Word, Word, list[tuple[Any, tuple[str, ...], int, int]]]] = [
            (Word.CELLS, Word.CELL_COUNT, [(c, ("buffer",), r, 0) for c, r in cells.values()]),
            (Word.HISTORIES, Word.HISTORY_COUNT, [(h, (), 0, 0) for h in histories.values()]),
            (Word.TENSORS, Word.TENSOR_COUNT, [
                (x, ("cell", "history"), [*cells].index(id(x.cell)),
                 [*histories].index(id(x.history)))
                for x in templates
            ]),
        ]  # fmt: skip
        for first, count, examples in rows:
            slots = [self.slots(x, besides) for x, besides, _, _ in examples]
            made = []
            for (x, _, one, two), pairs in zip(examples, slots, strict=True):
                row = [0] * Made.SIZE
                row[Made.TYPE] = words.object(type(x))
                row[Made.SLOT_COUNT] = len(pairs) // 2
                row[Made.FIRST], row[Made.SECOND] = one, two
                made.append(row)
            at = self.rows(first, count, made)
            for n, pairs in enumerate(slots):
                words.point(at + n * Made.SIZE + Made.SLOTS, words.put(pairs))

    def slots(self, x: Any, besides: Sequence[str]) -> list[int]:
        """Offset and content of each slot of an example."""
        pairs = []
        for name in (name for cls in type(x).__mro__ for name in vars(cls).get("__slots__", ())):
            if name == "__weakref__" or name in besides:
                continue
            value = getattr(x, name)
            pairs += [offset_of(x, name), self.words.object(value)]
        return pairs

    def grad(self, fresh: bool, position: int, recipe: Recipe) -> list[int]:
        row = [0] * Grad.SIZE
        row[Grad.FRESH] = int(fresh)
        row[Grad.OWNER] = position if fresh else self.register(position)
        row[Grad.KIND], row[Grad.OPERAND] = self.leaf(recipe)
        return row

    def leaf(self, recipe: Recipe) -> tuple[int, int]:
        recipe = _alone(recipe)
        if isinstance(recipe, Fresh):
            return NodeKind.FRESH, recipe.position
        if isinstance(recipe, Known):
            return NodeKind.FETCHED, self.register(recipe.position)
        assert isinstance(recipe, Constant)
        return NodeKind.CONSTANT, self.words.object(recipe.value)

    def tree(self, output: Recipe) -> None:
        nodes: list[list[int]] = []
        lists: list[tuple[int, Node, list[int]]] = []  # (node, field, words)

        def node(kind: int, operand: int) -> int:
            row = [0] * Node.SIZE
            row[Node.KIND], row[Node.OPERAND] = kind, operand
            nodes.append(row)
            return len(nodes) - 1

        def build(tree: TreeDef, leaves: Any) -> int:
            if tree.is_leaf:
                return node(*self.leaf(next(leaves)))
            if tree.type is type(None):
                return node(NodeKind.CONSTANT, self.words.object(None))
            children = [build(child, leaves) for child in tree.children]
            made = node(_CONTAINERS[tree.type], len(children))
            lists.append((made, Node.CHILDREN, children))
            if tree.type is dict:
                lists.append((made, Node.KEYS, [self.words.object(k) for k in tree.meta]))
            return made

        if isinstance(output, Assembled):
            build(output.tree, iter(output.leaves))
        else:
            node(*self.leaf(output))
        at = self.rows(Word.TREE, Word.TREE_COUNT, nodes)
        for number, field, listed in lists:
            self.words.point(at + number * Node.SIZE + field, self.words.put(listed or [0]))


_CONTAINERS: Final[dict[type[Any] | None, NodeKind]] = {
    tuple: NodeKind.TUPLE,
    list: NodeKind.LIST,
    dict: NodeKind.DICT,
}


class _Empty:
    """Makes a large result."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._shape, self._dtype = shape, dtype

    def __call__(self) -> Any:
        return blocks.empty(self._shape, self._dtype)


def _alone(recipe: Recipe) -> Recipe:
    """What a tree without containers stands for."""
    if not isinstance(recipe, Assembled):
        return recipe
    if recipe.tree.type is type(None):
        return Constant(None)
    return recipe.leaves[0] if recipe.tree.is_leaf else recipe


def _is_simple(recipe: Recipe) -> bool:
    if isinstance(recipe, Assembled):
        return _is_plain_tree(recipe.tree) and all(map(_is_simple, recipe.leaves))
    return isinstance(recipe, (Constant, Known, Fresh))


def _is_plain_tree(tree: TreeDef) -> bool:
    if tree.is_leaf or tree.type is type(None):
        return True
    return tree.type in _CONTAINERS and all(map(_is_plain_tree, tree.children))
