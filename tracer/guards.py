"""Guards: one generated Python function that checks everything that shaped a trace.

    match(roots) -> [what was asked for] or None

`roots` are the values bound to the parameters. The source is written from the items of a `Tree`,
a line or two an item and no calls where there is a way without, because it runs at every call, and
few statements, because Python takes longer to compile a guard than to trace a small function:

    v0 = roots[0]
    if type(v0) is not c0: return None
    v1 = v0.__dict__
    if len(v1) != 3 or v1['steps'] is not c1 or v1['train'] is not True: return None
    v4 = v1['lr']
    if type(v4) is not float or v4 != c2: return None
    ...
    return [v7, v9]

Any difference gives None; `treadle.tracer.signature` finds out, slowly, which one it was.
"""

from __future__ import annotations

import marshal
import math
import struct
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from treadle.ir.types import DType, TensorType
from treadle.tracer.items import Item, Tree, is_plain
from treadle.tracer.names import is_treadle
from treadle.tracer.pytree import container_of
from treadle.tracer.tensor import Tensor

Match = Callable[[Sequence[Any]], "list[Any] | None"]
LARGE_ARRAY = 1 << 24  # bytes; the content of a larger array is compared by a digest, not a copy


class GuardPlan:
    """What to check and what to return.

    `fetch`: items whose values the call needs, in order. `any_view`: tensors that may be any view
    (they are passed as contiguous copies). `read_grads`: `.grad` items that the trace read.
    `apart`: tensors whose storages must be pairwise different. `only_read_by_trace`: captured
    arrays whose content no Python or NumPy code has seen.
    """

    def __init__(
        self,
        tree: Tree,
        fetch: Sequence[Item],
        any_view: set[int],
        read_grads: set[int],
        apart: Sequence[Item],
        only_read_by_trace: set[int],
    ) -> None:
        self.tree = tree
        self.fetch = fetch
        self.any_view = any_view
        self.read_grads = read_grads
        self.apart = apart
        self.only_read_by_trace = only_read_by_trace
        self.fetched = {item.number for item in fetch}

    def checked(self, item: Item) -> bool:
        """Whether a difference of this item makes the call another one."""
        if item.step.how == "grad":
            return item.number in self.read_grads
        return item.guarded or item.number in self.fetched

    def checks_content(self, array: Item) -> bool:
        """Whether the content of a NumPy array may have shaped the trace."""
        return not array.argument and array.number not in self.only_read_by_trace

    def needed(self) -> list[Item]:
        """The items that appear in the guard: those that are checked, and the ways to them."""
        wanted: set[int] = set()
        for item in reversed(self.tree.items):
            if item.number in wanted or self.checked(item) or item.number in self.fetched:
                wanted.add(item.number)
                for other in (item.parent, item.of):
                    if other is not None:
                        wanted.add(other.number)
        return [item for item in self.tree.items if item.number in wanted]


def compile_guard(plan: GuardPlan) -> Match:
    """The guard as a function."""
    writer = _Writer(plan)
    source = writer.source()
    scope = writer.constants
    exec(compile(source, "<treadle guard>", "exec"), scope)
    match: Match = scope["match"]
    return match


class _Writer:
    """Writes the source; constants become globals of the generated function."""

    def __init__(self, plan: GuardPlan) -> None:
        self.plan = plan
        self.constants: dict[str, Any] = {
            "dumps": marshal.dumps, "pack": struct.pack, "float64": "<d", "filled": _filled,
            "digest": digest, "content": content,
        }  # fmt: skip
        self._names: dict[int, str] = {}
        self._kept: list[Any] = []
        self._used: set[int] = set()  # numbers of items that others are reached through
        self._conditions: list[str] = []
        self.lines: list[str] = []

    def constant(self, value: Any) -> str:
        name = self._names.get(id(value))
        if name is None:
            name = self._names[id(value)] = f"c{len(self._names)}"
            self._kept.append(value)  # its id must stay its own
            self.constants[name] = value
        return name

    def source(self) -> str:
        needed = self.plan.needed()
        for item in needed:
            self._used.update(x.number for x in (item.parent, item.of) if x is not None)
        for item in needed:
            self.emit(item)
        self.shared()
        self.join()
        body = "\n".join(f"        {line}" for line in self.lines) or "        pass"
        fetched = ", ".join(f"v{item.number}" for item in self.plan.fetch)
        return (
            f"def match(roots):\n    try:\n{body}\n        return [{fetched}]\n"
            "    except (AttributeError, KeyError, IndexError, TypeError, ValueError):\n"
            "        return None\n"
        )

    def fail_if(self, condition: str) -> None:
        self._conditions.append(condition)

    def assign(self, names: str, value: str) -> None:
        self.join()
        self.lines.append(f"{names} = {value}")

    def join(self) -> None:
        """One statement for all conditions since the last one."""
        if self._conditions:
            self.lines.append(f"if {' or '.join(self._conditions)}: return None")
            self._conditions.clear()

    def emit(self, item: Item) -> None:
        v = f"v{item.number}"
        if item.kind == "absent":
            self.fail_if(self.present(item))
            return
        if self.is_looked_at_once(item):
            v = self.access(item)
        else:
            self.assign(v, self.access(item))
        if self.plan.checked(item):
            getattr(self, f"check_{item.kind}")(item, v)

    def is_looked_at_once(self, item: Item) -> bool:
        """Whether its value appears in one condition and nowhere else."""
        if item.number in self._used or not self.plan.checked(item):
            return False
        if item.number in self.plan.fetched:
            return False
        x = item.value
        singleton = item.kind == "scalar" and (x is None or x is True or x is False)
        return singleton or item.kind in ("same", "alias")

    def access(self, item: Item) -> str:
        how, key = item.step.how, item.step.key
        p = f"v{item.parent.number}" if item.parent is not None else ""
        if how == "root":
            return f"roots[{key}]"
        if how == "const":
            return self.constant(key)
        if how == "item":
            return f"{p}[{self.literal(key)}]"
        if how == "attr":
            return f"{p}.{key}"
        if how == "apply":
            return f"{self.constant(key)}({p})"
        if how == "closure":
            return f"{p}.__closure__[{key}].cell_contents"
        if how == "cell":
            return f"{self.constant(key)}.cell_contents"
        return f"{p}parts[{key}]" if how == "part" else f"{p}.history.grad"

    def present(self, item: Item) -> str:
        """The condition under which something that was absent is there."""
        if item.step.how == "cell":
            return f"filled({self.constant(item.step.key)})"
        p = f"v{item.parent.number}" if item.parent is not None else ""
        if item.step.how == "closure":
            return f"filled({p}.__closure__[{item.step.key}])"
        if item.step.how == "attr":
            return f"hasattr({p}, {item.step.key!r})"
        return f"{item.step.key!r} in {p}"

    def literal(self, key: Any) -> str:
        """A key as source where that is exact, else a constant."""
        return repr(key) if type(key) in (str, int, bool, type(None)) else self.constant(key)

    def shared(self) -> None:
        """Storages that were one must be one, and those that were several, several."""
        first: dict[int, Item] = {}
        for item in self.plan.needed():
            if item.kind != "tensor" or not self.plan.checked(item):
                continue
            other = first.setdefault(id(item.value.cell), item)
            if other is not item:
                self.fail_if(f"v{item.number}.cell is not v{other.number}.cell")
        apart = list({id(i.value.cell): i for i in self.plan.apart}.values())
        if len(apart) > 1:
            ids = ", ".join(f"id(v{item.number}.cell)" for item in apart)
            self.fail_if(f"len({{{ids}}}) != {len(apart)}")

    # --- one check a kind --------------------------------------------------------------------

    def check_tensor(self, item: Item, v: str) -> None:
        x: Tensor = item.value
        type_ = self.constant(x.type)
        self.fail_if(f"type({v}) is not {self.constant(type(x))}")
        self.fail_if(f"{v}.type is not {type_} and {v}.type != {type_}")
        history = x.history
        if not x.weak and not history.requires_grad:
            maps = f"{v}.maps or " if not x.maps and item.number not in self.plan.any_view else ""
            self.fail_if(f"{maps}{v}.weak or {v}.history.requires_grad")
        else:
            self.fail_if(f"{v}.weak is not {x.weak}")
            self.fail_if(f"{v}.history.requires_grad is not {history.requires_grad}")
            self.fail_if(f"{v}.history.leaf is not {history.leaf}")
            self.fail_if(f"{v}.history.depth != {history.depth}")
            self.fail_if(f"{v}.history.variable is not {history.variable}")
            if history.variable:
                self.fail_if(f"{v}.history.open is not {history.open}")
        if item.number in self.plan.any_view:
            return
        if x.maps or x.weak or history.requires_grad:
            self.fail_if(f"{v}.maps != {self.constant(x.maps)}" if x.maps else f"{v}.maps")

    def check_array(self, item: Item, v: str) -> None:
        x: np.ndarray[Any, Any] = item.value
        if self.plan.checks_content(item):
            self.array_content(x, v)
            return
        dtype = self.constant(x.dtype)
        self.fail_if(f"type({v}) is not {self.constant(type(x))} or {v}.shape != {x.shape}")
        self.fail_if(f"{v}.dtype is not {dtype} and {v}.dtype != {dtype}")

    def array_content(self, x: np.ndarray[Any, Any], v: str) -> None:
        """An array that is no parameter: NumPy may have read it while the function was traced."""
        self.check_same_type(x, v)
        self.fail_if(f"{v}.shape != {x.shape} or {v}.dtype != {self.constant(x.dtype)}")
        if x.dtype.hasobject:
            return  # its elements are walked into
        if x.nbytes <= LARGE_ARRAY:
            self.fail_if(f"content({v}) != {self.constant(content(x))}")
        else:
            self.fail_if(f"digest({v}) != {self.constant(digest(x))}")

    def check_same_type(self, x: Any, v: str) -> None:
        self.fail_if(f"type({v}) is not {self.constant(type(x))}")

    def check_input(self, item: Item, v: str) -> None:
        self.check_same_type(item.value, v)

    def check_scalar(self, item: Item, v: str) -> None:
        x = item.value
        if x is None or x is True or x is False:
            self.fail_if(f"{v} is not {x}")
        elif type(x) is float and (x == 0 or not math.isfinite(x)):  # -0.0 is not 0.0, NaN is NaN
            bits = self.constant(struct.pack("<d", x))
            self.fail_if(f"type({v}) is not float or pack(float64, {v}) != {bits}")
        else:
            self.fail_if(f"type({v}) is not {type(x).__name__} or {v} != {self.constant(x)}")

    def check_value(self, item: Item, v: str) -> None:
        x = item.value
        known, cls = self.constant(x), self.constant(type(x))
        if isinstance(x, np.generic):
            different = f"{v}.tobytes() != {self.constant(x.tobytes())}"
        elif isinstance(x, (bytes, DType, TensorType)):
            different = f"{v} != {known}"
        else:  # equal is not alike: Decimal("1.0") == Decimal("1.00"), 0j == -0j
            different = f"repr({v}) != {self.constant(repr(x))}"
        self.fail_if(f"{v} is not {known} and (type({v}) is not {cls} or {different})")

    def check_data(self, item: Item, v: str) -> None:
        data = self.constant(marshal.dumps(item.value, 0))
        self.check_same_type(item.value, v)
        self.fail_if(f"dumps({v}, 0) != {data}")

    def check_list(self, item: Item, v: str) -> None:
        cls = self.constant(type(item.value))
        self.fail_if(f"type({v}) is not {cls} or len({v}) != {len(item.value)}")

    check_tuple = check_deque = check_list

    def check_dict(self, item: Item, v: str) -> None:
        self.check_same_type(item.value, v)
        keys = list(item.value)
        if all(type(k) is str for k in keys):
            self.fail_if(f"[*{v}] != {self.constant(keys)}")
        elif all(map(is_plain, keys)):  # 1 == True == 1.0, and they print differently
            self.fail_if(f"repr([*{v}]) != {self.constant(repr(keys))}")
        else:
            self._kept.append(keys)
            self.fail_if(f"[*map(id, {v})] != {self.constant([id(k) for k in keys])}")
            self.constants[f"kept{item.number}"] = keys

    def check_set(self, item: Item, v: str) -> None:
        """The order counts: equal sets may be walked in different orders."""
        self.check_same_type(item.value, v)
        if all(map(is_plain, item.value)):
            self.fail_if(f"repr([*{v}]) != {self.constant(repr([*item.value]))}")
        else:
            self.fail_if(f"len({v}) != {len(item.value)}")

    def check_tree(self, item: Item, v: str) -> None:
        self.check_same_type(item.value, v)
        if any(child.step.how == "part" for child in item.children):
            container = container_of(type(item.value))
            assert container is not None
            children, rest = container.parts(item.value)
            self.assign(f"{v}parts, {v}rest", f"{self.constant(container.parts)}({v})")
            self.fail_if(f"len({v}parts) != {len(children)} or {v}rest != {self.constant(rest)}")

    def check_object(self, item: Item, v: str) -> None:
        self.check_same_type(item.value, v)

    check_method = check_partial = check_object

    def check_attrs(self, item: Item, v: str) -> None:
        """Where all are checked one by one, their number is enough."""
        seen = sum(child.step.how == "item" for child in item.children)
        if seen == len(item.value) and not self.plan.tree.everything:
            self.fail_if(f"len({v}) != {seen}")
        else:
            self.fail_if(f"[*{v}] != {self.constant([*item.value])}")

    def check_names(self, item: Item, v: str) -> None:
        """A module's globals are one dictionary for ever. A class may get an attribute that hides
        one of its bases, or other bases."""
        cls = item.owner
        if cls is None or is_treadle(cls.__module__):
            return
        self.fail_if(f"len({v}) != {len(item.value)}")
        if len(cls.__mro__) > 2:
            self.fail_if(f"{self.constant(cls)}.__mro__ is not {self.constant(cls.__mro__)}")

    def check_open(self, item: Item, v: str) -> None:
        """It leads on."""

    def check_function(self, item: Item, v: str) -> None:
        self.fail_if(f"{v}.__code__ is not {self.constant(item.value.__code__)}")
        if item.step.how != "const":  # a function's own globals are the same for ever
            self.fail_if(f"{v}.__globals__ is not {self.constant(item.value.__globals__)}")

    def check_same(self, item: Item, v: str) -> None:
        self.fail_if(f"{v} is not {self.constant(item.value)}")

    def check_alias(self, item: Item, v: str) -> None:
        assert item.of is not None
        self.fail_if(f"{v} is not v{item.of.number}")


content = np.ndarray.tobytes  # not that of a subclass, which may do more than read


def digest(x: np.ndarray[Any, Any]) -> bytes:
    """A fingerprint of an array's content."""
    flat = np.ascontiguousarray(np.asarray(x)).reshape(-1)
    return blake2b(flat.view(np.uint8).data, digest_size=16).digest()


def _filled(cell: Any) -> bool:
    """Whether a closure cell has a content."""
    try:
        cell.cell_contents  # noqa: B018  reading it is the question
    except ValueError:
        return False
    return True
