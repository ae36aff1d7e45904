"""Attention reads its operands and writes its results where they lie.

    %1: f32[2, 3, 9, 4] = permute(%0, perm=(0, 2, 1, 3))
    %2: .. = attention_forward(%1, ..)         ->   %2: .. = attention_forward(%0, .., views=(..))

Heads are mostly split from one array of [batch, row, head, feature] by reshapes, permutes and
slices, and the result is turned back and merged. The kernel takes any steps between heads and
between rows, as long as the features of a row are neighbours; so no copy of an operand has to be
made, and a result that is turned by its users is written in that order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from treadle.ir.dataclass import dataclass
from treadle.ir.graph import Function, Instr, Value, uses
from treadle.ir.ops.attention_kernels import View, strided_operands
from treadle.passes.copier import Copier

_LAYOUT = ("reshape", "permute", "slice", "broadcast_to")
_REACH = 32
_KERNELS = ("attention_forward", "attention_backward")


@dataclass(frozen=True, slots=True)
class _Seen:
    """Elements of a buffer: where they begin, and the size and step of each axis."""

    offset: int
    shape: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def has_rows(self) -> bool:
        """The elements of a row are neighbours."""
        return not self.shape or self.shape[-1] == 1 or self.steps[-1] == 1


def run(fn: Function) -> Function:
    """`fn` with the layout around attention kernels made part of them."""
    if not any(i.op.name in _KERNELS for i in fn.instrs):
        return fn
    users = uses(fn)
    turned: dict[Instr, Value] = {}
    copier = Copier(fn)
    for instr in fn.instrs:
        if instr in turned:
            copier.replace(instr.result, turned[instr])
        elif instr.op.name in _KERNELS:
            with copier.builder.at(instr.loc):
                _place(copier, instr, users, turned)
        else:
            copier.keep(instr)
    return copier.finish()


def _place(
    copier: Copier,
    instr: Instr,
    users: Mapping[Value, Sequence[Instr]],
    turned: dict[Instr, Value],
) -> None:
    """The kernel with views and orders; users that turn a result get it as it is written."""
    b = copier.builder
    current = copier.renewed(instr)
    args, views = list(current.args), []
    given: Any = current.attrs
    if given.views or given.orders:
        copier.put(instr, current)
        return
    for n in strided_operands(instr.op.name, len(args)):
        args[n], view = _viewed(args[n])
        views.append(view)
    strided = instr.results if instr.op.name == "attention_backward" else instr.results[:1]
    orders = tuple(_order(users.get(r, ())) for r in strided)
    attrs = replace(
        given,
        views=tuple(views) if any(views) else (),
        orders=orders if any(orders) else (),
    )
    found = b.emit(instr.op, args, attrs)
    for n, old in enumerate(instr.results):
        order = orders[n] if n < len(orders) else ()
        if not order:
            copier.replace(old, found[n])
            continue
        turned.update((u, found[n]) for u in users[old] if _perm(u) == order)
        inverse = [order.index(axis) for axis in range(len(order))]
        copier.replace(old, b.permute(found[n], inverse))


def _perm(user: Instr) -> tuple[int, ...]:
    attrs: Any = user.attrs
    return tuple(attrs.perm) if user.op.name == "permute" else ()


def _order(users: Sequence[Instr]) -> tuple[int, ...]:
    """How users turn a result: the same way, features last, all but kernels, which take any."""
    perms = {_perm(u) for u in users if u.op.name not in _KERNELS}
    if len(perms) != 1:
        return ()
    (perm,) = perms
    return perm if perm and perm[-1] == len(perm) - 1 else ()


# --- operands ----------------------------------------------------------------------------------


def _viewed(value: Value) -> tuple[Value, View]:
    """The earliest array of which `value` is a view with whole rows, and that view."""
    chain = [value]
    while len(chain) < _REACH:
        made = chain[-1].producer
        if made is None or made.op.name not in _LAYOUT:
            break
        chain.append(made.args[0])
    chain.reverse()
    for n, root in enumerate(chain[:-1]):
        seen = _through(root, chain[n + 1 :])
        if seen is not None and seen.has_rows:
            return root, ((seen.offset,), seen.shape, seen.steps)
    return value, ()


def _through(root: Value, chain: Sequence[Value]) -> _Seen | None:
    """The last value of `chain`, each a layout op of the one before, as a view of `root`."""
    seen: _Seen | None = _Seen(0, root.type.static_shape, _steps(root.type.static_shape))
    for value in chain:
        made = value.producer
        assert made is not None
        if seen is not None:
            seen = _step(seen, made)
    return seen


def _steps(shape: Sequence[int]) -> tuple[int, ...]:
    """Of a row-major array."""
    found: list[int] = []
    step = 1
    for size in reversed(shape):
        found.insert(0, step)
        step *= size
    return tuple(found)


def _step(seen: _Seen, made: Instr) -> _Seen | None:
    attrs: Any = made.attrs
    shape = made.result.type.static_shape
    if made.op.name == "permute":
        steps = tuple(seen.steps[axis] for axis in attrs.perm)
        return _Seen(seen.offset, shape, steps)
    if made.op.name == "slice":
        offset = sum(s * t for s, t in zip(attrs.starts, seen.steps, strict=True))
        steps = tuple(s * t for s, t in zip(attrs.steps, seen.steps, strict=True))
        return _Seen(seen.offset + offset, shape, steps)
    if made.op.name == "broadcast_to":
        extra = len(shape) - len(seen.shape)
        same = [
            0 if size != shape[extra + n] else seen.steps[n] for n, size in enumerate(seen.shape)
        ]
        return _Seen(seen.offset, shape, (*[0] * extra, *same))
    return _reshaped(seen, shape)


def _reshaped(seen: _Seen, shape: Sequence[int]) -> _Seen | None:
    """Axes are cut, or merged where their steps allow it; None where a copy would be needed."""
    if 0 in shape:
        return None
    old = [(n, s) for n, s in zip(seen.shape, seen.steps, strict=True) if n != 1]
    merged: list[tuple[int, int]] = []
    for size, step in old:
        if merged and merged[-1][1] == step * size:
            merged[-1] = (merged[-1][0] * size, step)
        else:
            merged.append((size, step))
    steps: list[int] = []
    left = list(reversed(merged))
    size, step = left.pop() if left else (1, 1)
    for new in shape:
        if new == 1:
            steps.append(size * step)
            continue
        if size == 1 and left:
            size, step = left.pop()
        if size % new:
            return None
        size //= new
        steps.append(size * step)
    return _Seen(seen.offset, tuple(shape), tuple(steps))
