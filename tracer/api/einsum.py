"""einsum: sums of products by letters, in matrix products where anything is summed."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import prod
from string import ascii_letters

from treadle.ir.dataclass import dataclass
from treadle.ir.errors import ArgumentError, ShapeError
from treadle.ir.types import shape_text
from treadle.tracer.api.arguments import array_function
from treadle.tracer.api.diagonals import diagonal
from treadle.tracer.api.manipulation import permute_dims, reshape
from treadle.tracer.execute import apply
from treadle.tracer.promote import Operand, as_tensor, promote
from treadle.tracer.tensor import Tensor

Labels = tuple[str, ...]  # a letter, or "...2" for the second axis from the end that dots stand for


@array_function
def einsum(spec: str, /, *operands: Operand) -> Tensor:
    """Einstein's sum: `einsum("bik,bkj->bij", x, y)`.

    Each operand has a letter an axis. Letters that the result lacks are summed, a letter twice in
    one operand takes its diagonal, and `...` stands for any further axes, which broadcast; so does
    an axis of size 1. Without `->` the result has, in alphabetical order, the letters that stand
    there once (behind the axes of the dots).

    More than two operands are contracted in pairs: each time the two whose product takes the
    fewest multiplications, of equals those with the smallest result, of these the first. What is
    summed in a pair is a matrix product; a transpose, a diagonal and a result's order of axes cost
    nothing of their own. Operands are promoted to one dtype.

    Raises ArgumentError for a spec that is not of that form, ShapeError for operands that do not
    fit it, DTypeError for sums of bools.
    """
    if not isinstance(spec, str):
        raise ArgumentError(f"einsum needs a spec such as 'ij,jk->ik', found {spec!r:.60}")
    if not operands:
        raise ArgumentError(f"einsum {spec!r} needs operands, found none")
    tensors = [as_tensor(t) for t in promote(*operands)]
    terms, out = _parsed(spec, [t.ndim for t in tensors])
    sizes = _sizes(spec, tensors, terms)
    parts = [_prepared(t, labels, sizes) for t, labels in zip(tensors, terms, strict=True)]
    while len(parts) > 1:
        i, j = _next_pair(parts, out, sizes)
        others = [p for n, p in enumerate(parts) if n not in (i, j)]
        pair = [_summed_alone(parts[n], [parts[i + j - n], *others], out) for n in (i, j)]
        parts = [*others, _product(pair[0], pair[1], _needed(others, out), sizes)]
    (last,) = parts
    return _ordered(_summed_alone(last, [], out), out).value


@dataclass(frozen=True, slots=True)
class _Part:
    """An operand, or a product of some, with a label for each axis."""

    value: Tensor
    labels: Labels


# --- the spec --------------------------------------------------------------------------------


def _parsed(spec: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    """The labels of each operand and of the result."""
    inputs, arrow, result = "".join(spec.split()).partition("->")
    written = inputs.split(",")
    if len(written) != len(ranks):
        raise ArgumentError(f"einsum {spec!r} has {len(written)} operands, found {len(ranks)}")
    terms = [_labels(spec, t, rank) for t, rank in zip(written, ranks, strict=True)]
    dots = max((sum(x.startswith(".") for x in t) for t in terms), default=0)
    used = {x for t in terms for x in t}
    if not arrow:
        counts = [x for t in terms for x in t]
        once = sorted(x for x in used if counts.count(x) == 1 and not x.startswith("."))
        return terms, (*_dots(dots), *once)
    out = _labels(spec, result, len(result.replace("...", "")) + dots * ("..." in result))
    if dots and "..." not in result and "..." in inputs:
        raise ArgumentError(f"einsum {spec!r}: the result needs '...' where the operands have it")
    unknown = sorted(set(out) - used)
    if unknown or len(set(out)) != len(out):
        what = f"{unknown[0]!r}, which no operand has" if unknown else "a letter twice"
        raise ArgumentError(f"einsum {spec!r}: the result has {what}")
    return terms, out


def _dots(count: int) -> Labels:
    return tuple(f"...{n}" for n in range(count, 0, -1))


def _labels(spec: str, term: str, rank: int) -> Labels:
    """A label for each of `rank` axes."""
    front, dots, back = term.partition("...")
    if any(c not in ascii_letters for c in front + back):
        raise ArgumentError(
            f"einsum {spec!r}: {term!r} must be letters and at most one '...', an axis each"
        )
    extra = rank - len(front) - len(back)
    if extra < 0 or (extra and not dots):
        raise ShapeError(f"einsum {spec!r}: {term!r} does not fit an operand of rank {rank}")
    return (*front, *_dots(extra), *back)


def _sizes(spec: str, tensors: Sequence[Tensor], terms: Sequence[Labels]) -> dict[str, int]:
    """The size of each label; 1 gives way to any other."""
    sizes: dict[str, int] = {}
    for tensor, labels in zip(tensors, terms, strict=True):
        for label, size in zip(labels, tensor.shape, strict=True):
            known = sizes.get(label, 1)
            if known != 1 and size not in (1, known):
                raise ShapeError(
                    f"einsum {spec!r}: {label!r} has size {known}, found {size} in an operand of "
                    f"shape {shape_text(tensor.shape)}"
                )
            sizes[label] = known if size == 1 else size
    return sizes


# --- one operand -----------------------------------------------------------------------------


def _prepared(x: Tensor, labels: Labels, sizes: dict[str, int]) -> _Part:
    """Each label once, and none along which the operand is broadcast."""
    kept = [n for n, label in enumerate(labels) if x.shape[n] == sizes[label]]
    if len(kept) < len(labels):
        x = reshape(x, [x.shape[n] for n in kept])
        labels = tuple(labels[n] for n in kept)
    while len(set(labels)) < len(labels):
        twice = next(label for label in labels if labels.count(label) > 1)
        first = labels.index(twice)
        second = labels.index(twice, first + 1)
        x = diagonal(x, axis1=first, axis2=second)  # their diagonal is the last axis
        labels = (*(v for n, v in enumerate(labels) if n not in (first, second)), twice)
    return _Part(x, labels)


def _needed(parts: Sequence[_Part], out: Labels) -> set[str]:
    return {*out, *(label for part in parts for label in part.labels)}


def _summed_alone(part: _Part, others: Sequence[_Part], out: Labels) -> _Part:
    """Without the labels that nothing else has."""
    needed = _needed(others, out)
    axes = tuple(n for n, label in enumerate(part.labels) if label not in needed)
    if not axes:
        return part
    value = apply("sum", part.value, axes=axes, keepdims=False)
    return _Part(value, tuple(v for v in part.labels if v in needed))


def _ordered(part: _Part, labels: Labels) -> _Part:
    return _Part(permute_dims(part.value, [part.labels.index(v) for v in labels]), labels)


def _with_axes(part: _Part, labels: Sequence[str]) -> Tensor:
    """The axes in the order of `labels`; those that the part lacks have size 1.

    These are added first: what a product takes is then a transpose, which costs nothing there.
    """
    missing = [v for v in labels if v not in part.labels]
    value = (
        reshape(part.value, (*part.value.shape, *(1 for _ in missing))) if missing else part.value
    )
    have = [*part.labels, *missing]
    return permute_dims(value, [have.index(v) for v in labels])


# --- two operands ----------------------------------------------------------------------------


def _next_pair(parts: Sequence[_Part], out: Labels, sizes: dict[str, int]) -> tuple[int, int]:
    """The positions of the two that are contracted next."""

    def cost(pair: tuple[int, int]) -> tuple[int, int, tuple[int, int]]:
        i, j = pair
        others = [p for n, p in enumerate(parts) if n not in pair]
        every = {*parts[i].labels, *parts[j].labels}
        left = every & _needed(others, out)
        return prod(sizes[v] for v in every), prod(sizes[v] for v in left), pair

    pairs = [(i, j) for j in range(len(parts)) for i in range(j)]
    return min(pairs, key=cost)


def _product(x: _Part, y: _Part, needed: Collection[str], sizes: dict[str, int]) -> _Part:
    """The sum of products over what both have and nobody needs."""
    summed = [v for v in x.labels if v in y.labels and v not in needed]
    kept = [v for v in (*x.labels, *y.labels) if v not in summed]
    kept = list(dict.fromkeys(kept))
    if not summed:
        value = apply("mul", _with_axes(x, kept), _with_axes(y, kept))
        return _Part(value, tuple(kept))
    larger = max((x, y), key=lambda p: p.value.size)
    order = [v for v in larger.labels if v in summed]
    x, y = _merged(x, order, sizes), _merged(y, order, sizes)
    # The last label of each side alone is its row or column; the others are batch axes, which the
    # other side is broadcast along and a contraction takes as its own.
    row = next((v for v in reversed(x.labels) if v not in (*y.labels, order[0])), "")
    column = next((v for v in reversed(y.labels) if v not in (*x.labels, order[0])), "")
    batch = [v for v in kept if v not in (row, column)]
    left = _with_axes(x, [*batch, row, order[0]])
    right = _with_axes(y, [*batch, order[0], column])
    value = apply("matmul", left, right)
    labels = [*batch, *((row,) if row else ()), *((column,) if column else ())]
    return _Part(reshape(value, [sizes[v] for v in labels]), tuple(labels))


def _merged(part: _Part, run: Sequence[str], sizes: dict[str, int]) -> _Part:
    """Several labels as one axis under the first's name: a view where they stand side by side."""
    if len(run) == 1:
        return part
    at = part.labels.index(run[0])
    if list(part.labels[at : at + len(run)]) != list(run):
        rest = [v for v in part.labels if v not in run]
        part, at = _ordered(part, (*rest, *run)), len(rest)
    labels = (*part.labels[:at], run[0], *part.labels[at + len(run) :])
    whole = prod(sizes[v] for v in run)
    shape = [whole if n == at else sizes[v] for n, v in enumerate(labels)]
    return _Part(reshape(part.value, shape), labels)
